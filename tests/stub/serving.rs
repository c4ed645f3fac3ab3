//! A stub that serves, and the upstream servers that it asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use funicular::model::Name;
use funicular::net::dns_client::DnsClient;
use funicular::ops::metrics::Registry;
use funicular::sidecar::stub::{Computed, Parts, StandIns, Stub, StubMetrics};
use funicular::wire::dns::{Message, Rcode, Record, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bed::{NameServer, encode, name, resolver};

/// A serving stub, until it is dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) stand_ins: Arc<StandIns>,
    pub(crate) registry: Registry,
    _serving: JoinSet<()>,
}

pub(crate) fn run(main: &[&NameServer], upstream: &[&NameServer]) -> Running {
    run_with(main, upstream, Duration::ZERO)
}

/// The same, with what upstream said given for so long past its time.
pub(crate) fn run_with(main: &[&NameServer], upstream: &[&NameServer], stale: Duration) -> Running {
    run_as(main, upstream, stale, None)
}

pub(crate) fn run_as(
    main: &[&NameServer],
    upstream: &[&NameServer],
    stale: Duration,
    computed: Option<Computed>,
) -> Running {
    run_at("127.0.0.1:0", main, upstream, stale, computed)
}

pub(crate) fn run_at(
    listen: &str,
    main: &[&NameServer],
    upstream: &[&NameServer],
    stale: Duration,
    computed: Option<Computed>,
) -> Running {
    let (resolver, registry) = resolver(main);
    let pools = ("240.0.0.0/4".parse().unwrap(), "fd46:554e:1c00::/64".parse().unwrap());
    let stand_ins = Arc::new(StandIns::new(pools.0, pools.1).unwrap());
    let parts = Parts {
        resolver,
        stand_ins: stand_ins.clone(),
        upstream: upstream.iter().map(|server| server.addr).collect(),
        client: DnsClient::new(None, funicular::ops::entropy::draw),
        stale,
        computed,
        metrics: StubMetrics::new(&registry),
    };
    let stub = Stub::bind(listen.parse().unwrap(), parts).unwrap();
    let addr = stub.local_addr();
    let mut serving = JoinSet::new();
    serving.spawn(stub.serve());
    Running { addr, stand_ins, registry, _serving: serving }
}

impl Running {
    pub(crate) async fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.addr).await.unwrap();
        socket
    }

    /// Octets in, octets out, over UDP.
    pub(crate) async fn exchange(&self, query: &[u8]) -> Vec<u8> {
        let socket = self.socket().await;
        socket.send(query).await.unwrap();
        receive(&socket).await
    }

    pub(crate) async fn ask(&self, host: &str, rtype: Type) -> Message {
        let answer = self.exchange(&question(77, host, rtype).encode(65_535)).await;
        let answer = Message::parse(&answer).unwrap();
        assert!(answer.header.response);
        assert_eq!(answer.header.id, 77);
        answer
    }
}

pub(crate) async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 65_535];
    let length = timeout(Duration::from_secs(10), socket.recv(&mut answer)).await.unwrap().unwrap();
    answer.truncate(length);
    answer
}

pub(crate) fn question(id: u16, host: &str, rtype: Type) -> Message {
    let mut query = Message::query(id, name(host), rtype);
    query.header.recursion_desired = true;
    query.edns = None;
    query
}

/// An upstream server that answers every A question with 192.0.2.1.
pub(crate) async fn upstream() -> NameServer {
    NameServer::scripted("127.0.0.1:0", |asked, transport| Some(encode(&upstream_answer(asked), asked, transport)))
        .await
}

pub(crate) fn upstream_answer(asked: &Message) -> Message {
    let mut answer = asked.response(Rcode::NOERROR);
    answer.header.recursion_available = true;
    answer.answers.push(Record::new(asked.questions[0].name.clone(), Type::A, 5, [192, 0, 2, 1]));
    answer
}

pub(crate) fn address(record: &Record) -> IpAddr {
    match record.rtype {
        Type::A => Ipv4Addr::from(<[u8; 4]>::try_from(&*record.rdata).unwrap()).into(),
        Type::AAAA => Ipv6Addr::from(<[u8; 16]>::try_from(&*record.rdata).unwrap()).into(),
        other => panic!("no address: {other}"),
    }
}

pub(crate) fn orders() -> Name {
    name("orders.shop.peak")
}
