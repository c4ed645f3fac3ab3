//! Name servers of our own on loopback: what they say is set by a zone file or by the test, what they are asked is noted.

use std::net::SocketAddr;
use std::sync::Arc;

use funicular::model::Name;
use funicular::net::dns_client::{DnsClient, Transport};
use funicular::ops::metrics::Registry;
use funicular::sidecar::resolve::{ResolveMetrics, Resolver, Settings};
use funicular::wire::dns::{Message, Question, Rcode, Record, Type, zonefile};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// What a server does with a question.
type Script = dyn Fn(&Message, Transport) -> Option<Vec<u8>> + Send + Sync;

/// A name server, until it is dropped.
pub(crate) struct NameServer {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    script: Mutex<Arc<Script>>,
    asked: Mutex<Vec<(Question, Transport)>>,
}

/// Sockets of both kinds on one port; a free port of one kind may be taken in the other.
async fn both_on_one_port(at: &str) -> (TcpListener, UdpSocket) {
    for _ in 0..100 {
        let tcp = TcpListener::bind(at).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (tcp, udp);
        }
    }
    panic!("no port at {at} is free for both TCP and UDP");
}

impl NameServer {
    /// A server at `at` that says what `script` says; nothing for none.
    pub(crate) async fn scripted(
        at: &str,
        script: impl Fn(&Message, Transport) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (tcp, udp) = both_on_one_port(at).await;
        let addr = tcp.local_addr().unwrap();
        let state = Arc::new(State { script: Mutex::new(Arc::new(script)), asked: Mutex::default() });
        let mut serving = JoinSet::new();
        serving.spawn(datagrams(state.clone(), udp));
        serving.spawn(connections(state.clone(), tcp));
        Self { addr, state, _serving: serving }
    }

    /// An authoritative server for a zone, given as a zone file.
    pub(crate) async fn of_zone(at: &str, origin: &str, text: &str) -> Self {
        Self::scripted(at, zone(origin, text)).await
    }

    /// Says from now on what `script` says.
    pub(crate) fn rescript(&self, script: impl Fn(&Message, Transport) -> Option<Vec<u8>> + Send + Sync + 'static) {
        *self.state.script.lock() = Arc::new(script);
    }

    /// Hears and says nothing from now on.
    pub(crate) fn fall_silent(&self) {
        self.rescript(|_, _| None);
    }

    /// How many questions it was asked so far.
    pub(crate) fn questions(&self) -> usize {
        self.state.asked.lock().len()
    }

    /// How often it was asked this.
    pub(crate) fn times_asked(&self, text: &str, rtype: Type) -> usize {
        let is_it = |question: &Question| question.name == name(text) && question.rtype == rtype;
        self.state.asked.lock().iter().filter(|(question, _)| is_it(question)).count()
    }

    /// What it was asked over TCP.
    pub(crate) fn questions_over_tcp(&self) -> usize {
        self.state.asked.lock().iter().filter(|(_, transport)| *transport == Transport::Tcp).count()
    }
}

impl State {
    fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let message = Message::parse(query).unwrap();
        self.asked.lock().push((message.questions[0].clone(), transport));
        let script = self.script.lock().clone();
        script(&message, transport)
    }
}

async fn datagrams(state: Arc<State>, socket: UdpSocket) {
    let mut datagram = vec![0; 65_535];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else { continue };
        if let Some(answer) = state.answer(&datagram[..length], Transport::Udp) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn connections(state: Arc<State>, listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        tokio::spawn(async move {
            while let Some(query) = read_framed(&mut stream).await {
                if let Some(answer) = state.answer(&query, Transport::Tcp) {
                    write_framed(&mut stream, &answer).await;
                }
            }
        });
    }
}

pub(crate) async fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) {
    let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await.unwrap();
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The records in a zone file, or in a part of one.
pub(crate) fn records(origin: &str, text: &str) -> Vec<Record> {
    zonefile::parse(text, &name(origin)).unwrap()
}

/// Answers as an authoritative server does, as far as these tests need it.
pub(crate) fn zone(
    origin: &str,
    text: &str,
) -> impl Fn(&Message, Transport) -> Option<Vec<u8>> + Send + Sync + 'static {
    let (apex, records) = (name(origin), records(origin, text));
    move |asked, transport| Some(encode(&authoritative(asked, &apex, &records), asked, transport))
}

/// In as many octets as who asks takes.
pub(crate) fn encode(answer: &Message, asked: &Message, transport: Transport) -> Vec<u8> {
    let datagram = asked.edns.as_ref().map_or(512, |edns| usize::from(edns.udp_size));
    answer.encode(if transport == Transport::Tcp { 65_535 } else { datagram })
}

pub(crate) fn authoritative(asked: &Message, apex: &Name, records: &[Record]) -> Message {
    let question = &asked.questions[0];
    if !question.name.is_at_or_below(apex) {
        return asked.response(Rcode::REFUSED);
    }
    let mut answer = asked.response(Rcode::NOERROR);
    let of = |owner: &Name, rtype: Type| -> Vec<Record> {
        records.iter().filter(|record| record.name == *owner && record.rtype == rtype).cloned().collect()
    };
    let cut = records
        .iter()
        .find(|record| record.rtype == Type::NS && record.name != *apex && question.name.is_at_or_below(&record.name));
    if let Some(cut) = cut {
        answer.authorities = of(&cut.name, Type::NS);
        for ns in &answer.authorities {
            let server = Name::from_wire(&ns.rdata).unwrap();
            answer.additionals.extend(of(&server, Type::A));
            answer.additionals.extend(of(&server, Type::AAAA));
        }
        return answer;
    }
    answer.header.authoritative = true;
    answer.answers = of(&question.name, question.rtype);
    if answer.answers.is_empty() {
        answer.answers = of(&question.name, Type::CNAME);
    }
    if answer.answers.is_empty() {
        answer.authorities = of(apex, Type::SOA);
        if !records.iter().any(|record| record.name.is_at_or_below(&question.name)) {
            answer.header.rcode = Rcode::NXDOMAIN;
        }
    }
    answer
}

/// A resolver for the zone `peak` whose main servers are these; and its counters.
pub(crate) fn resolver(main: &[&NameServer]) -> (Resolver, Registry) {
    resolver_with_stale(main, std::time::Duration::ZERO)
}

/// The same, with services used for so long past their TTL.
pub(crate) fn resolver_with_stale(main: &[&NameServer], stale: std::time::Duration) -> (Resolver, Registry) {
    let registry = Registry::new();
    let settings = Settings {
        zones: vec![name("peak")],
        servers: main.iter().map(|server| server.addr).collect(),
        delegated_port: main[0].addr.port(),
        stale,
    };
    let client = DnsClient::new(None, funicular::ops::entropy::draw);
    (Resolver::new(settings, client, ResolveMetrics::new(&registry)), registry)
}

/// The value of a metric in the registry's text, without labels or with them as they are written there.
pub(crate) fn counted(registry: &Registry, metric: &str) -> u64 {
    let text = registry.text();
    let line = text.lines().find(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

/// Lets `seconds` pass for all timers at once; sockets go on as before.
pub(crate) async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

pub(crate) const SOA: &str = "@ 300 SOA ns.peak. hostmaster.peak. 1 3600 600 86400 30\n";

/// The main zone: everything below `shop.peak` is the business of a cluster at 127.0.0.2.
pub(crate) fn main_zone() -> String {
    format!(
        "{SOA}@ 3600 NS ns.peak.\nns 3600 A 127.0.0.1\n\
         shop 600 NS ns1.shop.peak.\nns1.shop 600 A 127.0.0.2\n"
    )
}

/// The cluster's zone, with one service.
pub(crate) fn shop_zone() -> String {
    format!(
        "{SOA}@ 3600 NS ns1.shop.peak.\nns1 600 A 127.0.0.2\n\
         orders 3600 AAAA 2001:db8:5:1::1\n\
         orders 3600 APL 2:2001:db8:5:1::/64\n\
         _ssa.orders 60 SVCB 1 orders.shop.peak. port=8080 key65400=\"v=ssa1 layout=source-hash:14/64,random:50 slices=14\"\n\
         legacy 120 A 192.0.2.7\nlegacy 120 AAAA 2001:db8::7\nlegacy 120 MX 10 mail.shop.peak.\n"
    )
}

/// A main server that delegates, and a cluster's server at the same port of another address.
pub(crate) async fn main_and_cluster() -> (NameServer, NameServer) {
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &main_zone()).await;
    let cluster = NameServer::of_zone(&format!("127.0.0.2:{}", main.addr.port()), "shop.peak", &shop_zone()).await;
    (main, cluster)
}
