//! The stub, as an application sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use funicular::net::dns_client::{DnsClient, Transport};
use funicular::sidecar::secrets::Secrets;
use funicular::sidecar::stub::Computed;
use funicular::wire::dns::{Class, Edns, EdnsOption, Header, Message, Opcode, Question, Rcode, Record, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bed::{NameServer, SOA, counted, encode, main_and_cluster, name, pass, read_framed, records, write_framed};
use crate::serving::{address, orders, question, receive, run, run_as, run_at, upstream, upstream_answer};

#[tokio::test]
async fn a_service_gets_a_stand_in_of_either_family_that_leads_back_to_its_name() {
    let (main, _cluster) = main_and_cluster().await;
    let stub = run(&[&main], &[]);
    for (rtype, pool) in [(Type::A, "240.0.0.0/4"), (Type::AAAA, "fd46:554e:1c00::/64")] {
        let answer = stub.ask("Orders.Shop.peak", rtype).await;
        assert_eq!(answer.header.rcode, Rcode::NOERROR);
        assert!(answer.header.recursion_available && answer.header.recursion_desired);
        assert!(!answer.header.authoritative);
        let [record] = answer.answers.as_slice() else { panic!("{answer:?}") };
        assert_eq!(record.name.to_string(), "Orders.Shop.peak.", "the spelling is the question's");
        assert!((1..=60).contains(&record.ttl), "{}", record.ttl);
        let pool: ipnet::IpNet = pool.parse().unwrap();
        assert!(pool.contains(&address(record)), "{rtype}");
        assert_eq!(stub.stand_ins.name_of(address(record)), Some(name("orders.shop.peak")));
    }
    assert_eq!(counted(&stub.registry, "funicular_stub_stand_ins"), 1);
}

#[tokio::test]
async fn records_that_would_lead_past_the_sidecar_are_kept_back_and_others_are_not() {
    let text = format!(
        "{SOA}a 60 APL 2:2001:db8:a::/64\n_ssa.a 60 TXT \"v=ssa1\"\na 60 AAAA 2001:db8:a::1\n\
         a 60 HTTPS 1 . ipv6hint=2001:db8:a::1\na 60 MX 10 mail.peak.\na 60 TXT \"hello\"\n"
    );
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let stub = run(&[&main], &[]);
    for rtype in [Type::HTTPS, Type::SVCB] {
        let answer = stub.ask("a.peak", rtype).await;
        assert_eq!((answer.header.rcode, answer.answers.len()), (Rcode::NOERROR, 0), "{rtype}");
    }
    assert_eq!(stub.ask("a.peak", Type::SVCB).await.authorities[0].rtype, Type::SOA);
    let any = stub.ask("a.peak", Type::ANY).await;
    assert!(any.answers.iter().all(|record| stub.stand_ins.is_stand_in(address(record))));
    for rtype in [Type::MX, Type::TXT, Type::APL] {
        let answer = stub.ask("a.peak", rtype).await;
        let published: Vec<_> = records("peak", &text).into_iter().filter(|record| record.rtype == rtype).collect();
        let expected: Vec<_> = published.iter().filter(|record| record.name == name("a.peak")).collect();
        assert_eq!(
            answer.answers.iter().map(|record| &record.rdata).collect::<Vec<_>>(),
            expected.iter().map(|record| &record.rdata).collect::<Vec<_>>(),
            "{rtype}"
        );
    }
}

#[tokio::test]
async fn a_legacy_name_below_peak_gets_what_peak_says() {
    let (main, _cluster) = main_and_cluster().await;
    let stub = run(&[&main], &[]);
    let answer = stub.ask("legacy.shop.peak", Type::A).await;
    assert_eq!(address(&answer.answers[0]).to_string(), "192.0.2.7");
    assert!((119..=120).contains(&answer.answers[0].ttl));
    assert!(answer.header.recursion_available);
    assert_eq!(stub.ask("legacy.shop.peak", Type::MX).await.answers.len(), 1);
    assert_eq!(stub.stand_ins.in_use(), 0);
}

#[tokio::test]
async fn nodata_and_nxdomain_come_with_the_soa_that_says_how_long_they_hold() {
    let (main, _cluster) = main_and_cluster().await;
    let stub = run(&[&main], &[]);
    for (host, rtype, rcode) in [
        ("legacy.shop.peak", Type::TXT, Rcode::NOERROR),
        ("nobody.shop.peak", Type::A, Rcode::NXDOMAIN),
        ("nobody.shop.peak", Type::MX, Rcode::NXDOMAIN),
    ] {
        let answer = stub.ask(host, rtype).await;
        assert_eq!(answer.header.rcode, rcode, "{host} {rtype}");
        assert!(answer.answers.is_empty());
        let [soa] = answer.authorities.as_slice() else { panic!("{answer:?}") };
        assert_eq!((soa.rtype, &soa.name), (Type::SOA, &name("shop.peak")));
        assert!((29..=30).contains(&soa.ttl), "{}", soa.ttl);
    }
}

#[tokio::test]
async fn the_labels_of_a_service_have_stand_ins_of_their_own_for_every_type_alike() {
    let text = format!(
        "{SOA}files 60 APL 2:2001:db8:1::/64\n_ssa.files 60 TXT \"v=ssa1 layout=content-hash:14 content=label\"\n"
    );
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let stub = run(&[&main], &[]);
    let one = address(&stub.ask("photo1.files.peak", Type::A).await.answers[0]);
    let two = address(&stub.ask("photo2.files.peak", Type::A).await.answers[0]);
    assert_ne!(one, two);
    assert_eq!(stub.stand_ins.name_of(one), Some(name("photo1.files.peak")));
    assert_eq!(stub.ask("photo1.files.peak", Type::MX).await.header.rcode, Rcode::NOERROR);
}

#[tokio::test]
async fn an_alias_out_of_peak_is_followed_upstream() {
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &format!("{SOA}www 60 CNAME www.example.\n")).await;
    let upstream = upstream().await;
    let stub = run(&[&main], &[&upstream]);
    let answer = stub.ask("www.peak", Type::A).await;
    assert_eq!(answer.answers.iter().map(|record| record.rtype).collect::<Vec<_>>(), [Type::CNAME, Type::A]);
    assert_eq!(answer.answers[1].name, name("www.example"));
}

#[tokio::test]
async fn a_stand_in_s_reverse_name_leads_to_its_name() {
    let (main, _cluster) = main_and_cluster().await;
    let upstream = upstream().await;
    let stub = run(&[&main], &[&upstream]);
    stub.ask("orders.shop.peak", Type::A).await;
    let (ipv4, ipv6) = stub.stand_ins.assign(&name("orders.shop.peak")).unwrap();
    let [a, b, c, d] = ipv4.octets();
    let nibbles: Vec<String> =
        ipv6.octets().iter().rev().flat_map(|it| [it & 15, it >> 4]).map(|it| format!("{it:x}")).collect();
    for reverse in [format!("{d}.{c}.{b}.{a}.in-addr.arpa"), format!("{}.ip6.arpa", nibbles.join("."))] {
        let answer = stub.ask(&reverse, Type::PTR).await;
        assert_eq!(&*answer.answers[0].rdata, name("orders.shop.peak").wire(), "{reverse}");
    }
    assert_eq!(stub.ask("1.1.0.240.in-addr.arpa", Type::PTR).await.header.rcode, Rcode::NXDOMAIN);
    assert_eq!(upstream.questions(), 0);
    stub.ask("1.2.0.192.in-addr.arpa", Type::PTR).await;
    assert_eq!(upstream.questions(), 1);
}

#[tokio::test]
async fn anything_else_passes_through_octet_for_octet_but_the_id() {
    let (main, _cluster) = main_and_cluster().await;
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let odd_answer = {
        let mut answer = Message::query(0, name("WWW.example"), Type(65_280)).response(Rcode::NXDOMAIN);
        answer.header.authentic_data = true;
        answer.answers.push(Record { class: Class::CH, ..Record::new(name("x"), Type(65_281), 3, [1, 2, 3]) });
        answer.encode(65_535)
    };
    let upstream = {
        let (seen, odd_answer) = (seen.clone(), odd_answer.clone());
        NameServer::scripted("127.0.0.1:0", move |asked, _| {
            seen.lock().push(asked.encode(65_535));
            let mut answer = odd_answer.clone();
            answer[..2].copy_from_slice(&asked.header.id.to_be_bytes());
            Some(answer)
        })
        .await
    };
    let stub = run(&[&main], &[&upstream]);
    let mut query = question(4711, "WWW.example", Type(65_280));
    query.header.checking_disabled = true;
    let options = vec![EdnsOption { code: 10, data: Box::from([7; 8]) }];
    query.edns = Some(Edns { udp_size: 4000, dnssec_ok: true, options, ..Edns::default() });
    let query = query.encode(65_535);
    let answer = stub.exchange(&query).await;
    assert_eq!(answer[..2], 4711_u16.to_be_bytes());
    assert_eq!(answer[2..], odd_answer[2..]);
    assert_eq!(seen.lock()[0][2..], query[2..]);
}

#[tokio::test]
async fn many_questions_from_one_socket_are_in_flight_at_once_and_none_holds_up_another() {
    let (main, _cluster) = main_and_cluster().await;
    let upstream = NameServer::scripted("127.0.0.1:0", |asked, transport| {
        let slow = asked.questions[0].name == name("slow.example");
        (!slow).then(|| encode(&upstream_answer(asked), asked, transport))
    })
    .await;
    let stub = run(&[&main], &[&upstream]);
    let socket = stub.socket().await;
    socket.send(&question(0, "slow.example", Type::A).encode(512)).await.unwrap();
    for id in 1..=200 {
        let host = if id % 2 == 0 { "orders.shop.peak".to_owned() } else { format!("n{id}.example") };
        socket.send(&question(id, &host, Type::A).encode(512)).await.unwrap();
    }
    let mut ids = Vec::new();
    for _ in 0..200 {
        let answer = Message::parse(&receive(&socket).await).unwrap();
        assert_eq!(answer.answers.len(), 1);
        ids.push(answer.header.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_malformed_question_gets_formerr_and_a_reply_gets_nothing() {
    let (main, _cluster) = main_and_cluster().await;
    let upstream = upstream().await;
    let stub = run(&[&main], &[&upstream]);
    let good = question(9, "www.example", Type::A);
    let two = Message { questions: [good.questions.clone(), good.questions.clone()].concat(), ..good.clone() };
    let none = Message { questions: Vec::new(), ..good.clone() };
    let octets = good.encode(512);
    for (what, query) in [
        ("two questions", two.encode(512)),
        ("no question", none.encode(512)),
        ("cut short", octets[..octets.len() - 1].to_vec()),
        ("something behind", [&octets[..], &[0]].concat()),
        ("a pointer to itself", [&octets[..12], &[0xc0, 12, 0, 1, 0, 1]].concat()),
        ("a header alone that promises more", octets[..12].to_vec()),
    ] {
        let header = Header::parse(&stub.exchange(&query).await).unwrap();
        assert_eq!((header.id, header.rcode, header.response), (9, Rcode::FORMERR, true), "{what}");
    }
    let socket = stub.socket().await;
    socket.send(&good.response(Rcode::NOERROR).encode(512)).await.unwrap();
    socket.send(&octets[..11]).await.unwrap();
    socket.send(&[]).await.unwrap();
    socket.send(&question(10, "www.example", Type::A).encode(512)).await.unwrap();
    assert_eq!(Header::parse(&receive(&socket).await).unwrap().id, 10, "only the question is answered");
    assert_eq!(counted(&stub.registry, "funicular_stub_dropped_total{reason=\"reply\"}"), 1);
    assert_eq!(counted(&stub.registry, "funicular_stub_dropped_total{reason=\"too-short\"}"), 2);
}

#[tokio::test]
async fn below_peak_other_operations_transfers_and_edns_versions_are_refused_properly() {
    let (main, cluster) = main_and_cluster().await;
    let stub = run(&[&main], &[]);
    let with = |change: fn(&mut Message)| {
        let mut query = question(5, "orders.shop.peak", Type::A);
        change(&mut query);
        query.encode(512)
    };
    for (what, query, rcode) in [
        ("notify", with(|query| query.header.opcode = Opcode::NOTIFY), Rcode::NOTIMP),
        ("update", with(|query| query.header.opcode = Opcode::UPDATE), Rcode::NOTIMP),
        ("transfer", with(|query| query.questions[0].rtype = Type::AXFR), Rcode::REFUSED),
        ("meta type", with(|query| query.questions[0].rtype = Type::MAILB), Rcode::NOTIMP),
        ("version", with(|query| query.edns = Some(Edns { version: 1, ..Edns::default() })), Rcode::BADVERS),
    ] {
        let answer = Message::parse(&stub.exchange(&query).await).unwrap();
        assert_eq!(answer.header.rcode, rcode, "{what}");
    }
    assert_eq!(cluster.questions(), 0);
}

#[tokio::test]
async fn an_answer_is_cut_to_what_the_application_takes_and_whole_over_tcp() {
    let mut text = SOA.to_owned();
    for n in 0..60 {
        text += &format!("many 60 A 192.0.2.{n}\n");
    }
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let stub = run(&[&main], &[]);
    let plain = stub.exchange(&question(1, "many.peak", Type::A).encode(512)).await;
    assert!(plain.len() <= 512);
    assert!(Header::parse(&plain).unwrap().truncated);
    let mut large = question(1, "many.peak", Type::A);
    large.edns = Some(Edns { udp_size: 1232, ..Edns::default() });
    let answer = Message::parse(&stub.exchange(&large.encode(512)).await).unwrap();
    assert_eq!((answer.header.truncated, answer.answers.len()), (false, 60));
    assert!(answer.edns.is_some());
    let mut stream = TcpStream::connect(stub.addr).await.unwrap();
    write_framed(&mut stream, &question(1, "many.peak", Type::A).encode(512)).await;
    let whole = Message::parse(&read_framed(&mut stream).await.unwrap()).unwrap();
    assert_eq!((whole.header.truncated, whole.answers.len()), (false, 60));
}

#[tokio::test]
async fn a_connection_carries_many_questions_and_goes_to_upstream_as_a_connection() {
    let (main, _cluster) = main_and_cluster().await;
    let upstream = upstream().await;
    let stub = run(&[&main], &[&upstream]);
    let mut stream = TcpStream::connect(stub.addr).await.unwrap();
    for id in 0..20 {
        let host = if id % 2 == 0 { "orders.shop.peak".to_owned() } else { format!("n{id}.example") };
        write_framed(&mut stream, &question(id, &host, Type::A).encode(512)).await;
    }
    stream.shutdown().await.unwrap();
    let mut ids = Vec::new();
    while let Some(answer) = read_framed(&mut stream).await {
        ids.push(Header::parse(&answer).unwrap().id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..20).collect::<Vec<_>>(), "who closed its side still gets every answer");
    assert_eq!(upstream.questions_over_tcp(), 10);
    assert_eq!(upstream.questions(), 10);
}

#[tokio::test]
async fn an_unspecified_address_means_both_loopback_addresses_on_one_port() {
    let (main, _cluster) = main_and_cluster().await;
    let stub = run_at("[::]:0", &[&main], &[], Duration::ZERO, None);
    let client = DnsClient::new(None, funicular::ops::entropy::draw);
    let asked = Question { name: name("orders.shop.peak"), rtype: Type::A, class: Class::IN };
    let query = Message { questions: vec![asked], ..Message::default() }.encode(512);
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let server = SocketAddr::new(ip, stub.addr.port());
            let answer = client.exchange(transport, server, &query, Duration::from_secs(5)).await.unwrap();
            assert_eq!(Message::parse(&answer).unwrap().answers.len(), 1, "{ip} {transport:?}");
        }
    }
}

#[tokio::test]
async fn more_questions_than_there_is_room_for_get_servfail_at_once_and_peak_s_names_work_again_after() {
    let (main, _cluster) = main_and_cluster().await;
    let silent = NameServer::scripted("127.0.0.1:0", |_, _| None).await;
    let stub = run(&[&main], &[&silent]);
    let socket = stub.socket().await;
    let start = Instant::now();
    let mut refused = 0;
    for id in 0..600 {
        socket.send(&question(id, "www.example", Type::A).encode(512)).await.unwrap();
        let mut answer = [0; 512];
        // Lets the stub work; what cannot be answered yet stays unanswered.
        if let Ok(length) = timeout(Duration::from_millis(1), socket.recv(&mut answer)).await {
            let header = Header::parse(&answer[..length.unwrap()]).unwrap();
            assert_eq!(header.rcode, Rcode::SERVFAIL);
            refused += 1;
        }
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(refused >= 300, "{refused}");
    let metric = "funicular_stub_failures_total{reason=\"too-many-questions\"}";
    assert!(counted(&stub.registry, metric) >= 300);
    pass(5).await;
    while timeout(Duration::from_millis(300), socket.recv(&mut [0; 512])).await.is_ok() {}
    assert_eq!(stub.ask("orders.shop.peak", Type::A).await.answers.len(), 1);
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let (main, _cluster) = main_and_cluster().await;
    let stub = run(&[&main], &[]);
    let mut idle = TcpStream::connect(stub.addr).await.unwrap();
    let mut slow = TcpStream::connect(stub.addr).await.unwrap();
    slow.write_all(&[0, 40, 1]).await.unwrap();
    let mut busy = TcpStream::connect(stub.addr).await.unwrap();
    write_framed(&mut busy, &question(1, "orders.shop.peak", Type::A).encode(512)).await;
    assert!(read_framed(&mut busy).await.is_some());
    pass(11).await;
    assert!(read_framed(&mut idle).await.is_none());
    assert!(read_framed(&mut slow).await.is_none());
}

#[tokio::test]
async fn where_addresses_are_computed_each_question_has_one_of_the_service_that_fits_its_rule() {
    let text = format!(
        "{SOA}local 300 APL 2:::1/128\n_ssa.local 300 TXT \"v=ssa1\"\n\
        wide 300 APL 2:2001:db8:7::/64\n_ssa.wide 300 TXT \"v=ssa1 layout=random:64\"\n"
    );
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let computed = Computed::new(Arc::new(arc_swap::ArcSwap::from_pointee(Secrets::default())), None);
    let stub = run_as(&[&main], &[], Duration::ZERO, Some(computed));
    let answer = stub.ask("Local.peak", Type::AAAA).await;
    let [record] = &answer.answers[..] else { panic!("{answer:?}") };
    assert_eq!((record.name.to_string(), address(record)), ("Local.peak.".to_owned(), Ipv6Addr::LOCALHOST.into()));
    assert!((1..=5).contains(&record.ttl), "{}", record.ttl);
    for rtype in [Type::A, Type::HTTPS, Type::SVCB] {
        let none = stub.ask("local.peak", rtype).await;
        assert_eq!((none.header.rcode, none.answers.len()), (Rcode::NOERROR, 0), "{rtype}");
        assert_eq!(none.authorities[0].rtype, Type::SOA, "{rtype}");
    }
    // Whether anything leads to the documentation's addresses is the machine's business.
    let wide = stub.ask("wide.peak", Type::AAAA).await;
    let space: ipnet::Ipv6Net = "2001:db8:7::/64".parse().unwrap();
    let is_inside = |record: &Record| matches!(address(record), IpAddr::V6(addr) if space.contains(&addr));
    assert!(wide.answers.iter().all(is_inside));
    let no_route = counted(&stub.registry, "funicular_stub_failures_total{reason=\"no-route\"}");
    assert_eq!(no_route, u64::from(wide.answers.is_empty()));
    assert_eq!(stub.stand_ins.in_use(), 0);
}

/// An independent reader of what we write.
#[tokio::test]
async fn hickory_s_resolver_gets_along_with_the_stub() {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;

    let (main, _cluster) = main_and_cluster().await;
    let upstream = upstream().await;
    let stub = run(&[&main], &[&upstream]);
    let mut server = NameServerConfig::udp_and_tcp(stub.addr.ip());
    server.connections.iter_mut().for_each(|connection: &mut ConnectionConfig| connection.port = stub.addr.port());
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let hickory =
        hickory_resolver::Resolver::builder_with_config(config, TokioRuntimeProvider::default()).build().unwrap();
    let service: Vec<IpAddr> = hickory.lookup_ip("orders.shop.peak.").await.unwrap().iter().collect();
    assert!(!service.is_empty());
    let leads_back = |addr: &IpAddr| stub.stand_ins.name_of(*addr) == Some(orders());
    assert!(service.iter().all(leads_back), "{service:?}");
    let legacy: Vec<IpAddr> = hickory
        .ipv4_lookup("legacy.shop.peak.")
        .await
        .unwrap()
        .answers()
        .iter()
        .filter_map(|it| it.data.ip_addr())
        .collect();
    assert_eq!(legacy, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert!(hickory.lookup_ip("nobody.shop.peak.").await.unwrap_err().is_nx_domain());
}
