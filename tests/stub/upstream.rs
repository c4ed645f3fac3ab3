//! Upstream servers that fail or are gone, and what they said last.

use std::time::{Duration, Instant};

use funicular::wire::dns::{Edns, Message, Rcode, Type};
use tokio::task::JoinSet;

use crate::bed::{NameServer, counted, encode, main_and_cluster, pass, records};
use crate::serving::{Running, question, receive, run, run_with, upstream, upstream_answer};

/// A C library gives a server up after so long.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_upstream_that_is_silent_or_failing_is_passed_over() {
    let (main, _cluster) = main_and_cluster().await;
    let silent = NameServer::scripted("127.0.0.1:0", |_, _| None).await;
    let failing = NameServer::scripted("127.0.0.1:0", |asked, transport| {
        Some(encode(&asked.response(Rcode::SERVFAIL), asked, transport))
    })
    .await;
    let good = upstream().await;
    let stub = run(&[&main], &[&silent, &failing, &good]);
    let start = Instant::now();
    assert_eq!(stub.ask("www.example", Type::A).await.header.rcode, Rcode::NOERROR);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(counted(&stub.registry, "funicular_stub_failovers_total") >= 2);
}

#[tokio::test]
async fn a_failure_that_all_upstreams_agree_on_is_passed_on() {
    let (main, _cluster) = main_and_cluster().await;
    let refusing = NameServer::scripted("127.0.0.1:0", |asked, transport| {
        Some(encode(&asked.response(Rcode::REFUSED), asked, transport))
    })
    .await;
    let stub = run(&[&main], &[&refusing]);
    assert_eq!(stub.ask("www.example", Type::A).await.header.rcode, Rcode::REFUSED);
}

#[tokio::test]
async fn without_upstream_or_peak_the_answer_is_servfail_and_soon() {
    let (main, cluster) = main_and_cluster().await;
    let gone = upstream().await;
    let stub = run(&[&main], &[&gone]);
    drop(gone);
    drop((main, cluster));
    tokio::task::yield_now().await;
    let start = Instant::now();
    assert_eq!(stub.ask("www.example", Type::A).await.header.rcode, Rcode::SERVFAIL);
    assert_eq!(stub.ask("orders.shop.peak", Type::AAAA).await.header.rcode, Rcode::SERVFAIL);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let metric = "funicular_stub_failures_total{reason=\"name-servers-unreachable\"}";
    assert_eq!(counted(&stub.registry, metric), 1);
}

#[tokio::test]
async fn without_any_upstream_configured_peak_s_names_still_work() {
    let (main, _cluster) = main_and_cluster().await;
    let stub = run(&[&main], &[]);
    assert_eq!(stub.ask("www.example", Type::A).await.header.rcode, Rcode::SERVFAIL);
    assert_eq!(stub.ask("orders.shop.peak", Type::A).await.answers.len(), 1);
}

/// Upstream servers that say these to everybody, asked by a stub that gives what was said for so long past its time.
async fn told(stale: Duration, tell: impl Fn(&Message) -> Message + Send + Sync + 'static) -> (Running, NameServer) {
    let (main, _cluster) = main_and_cluster().await;
    let upstream =
        NameServer::scripted("127.0.0.1:0", move |asked, transport| Some(encode(&tell(asked), asked, transport))).await;
    (run_with(&[&main], &[&upstream], stale), upstream)
}

#[tokio::test]
async fn what_upstream_said_is_given_again_while_it_holds_under_the_asker_s_id_and_in_its_spelling() {
    let (stub, upstream) = told(Duration::ZERO, upstream_answer).await;
    let ttl = |answer: &Message| answer.answers[0].ttl;
    assert_eq!(ttl(&stub.ask("www.example", Type::A).await), 5);
    pass(3).await;
    let again = stub.ask("WWW.Example", Type::A).await;
    assert_eq!((again.questions[0].name.to_string(), ttl(&again)), ("WWW.Example.".to_owned(), 2));
    assert_eq!((upstream.questions(), counted(&stub.registry, "funicular_stub_kept_total")), (1, 1));
    pass(3).await;
    assert_eq!(ttl(&stub.ask("www.example", Type::A).await), 5);
    assert_eq!(upstream.questions(), 2);
}

#[tokio::test]
async fn who_asks_another_way_is_answered_for_itself() {
    let (stub, upstream) = told(Duration::ZERO, upstream_answer).await;
    let plain = question(77, "www.example", Type::A);
    let mut checking_disabled = plain.clone();
    checking_disabled.header.checking_disabled = true;
    let with = |dnssec_ok| Message { edns: Some(Edns { dnssec_ok, ..Edns::default() }), ..plain.clone() };
    let ways = [plain.clone(), checking_disabled, with(false), with(true)];
    for (number, way) in ways.iter().chain(&ways).enumerate() {
        stub.exchange(&way.encode(512)).await;
        assert_eq!(upstream.questions(), (number + 1).min(ways.len()));
    }
}

#[tokio::test]
async fn search_domains_cost_one_question_each_however_often_they_are_tried() {
    let (stub, upstream) = told(Duration::ZERO, |asked| {
        let mut denied = asked.response(Rcode::NXDOMAIN);
        // The SOA record's own TTL is longer than what it says of names that are not there.
        denied.authorities = records("example", "@ 3600 SOA ns.example. admin.example. 1 3600 600 86400 30\n");
        denied
    })
    .await;
    let search = ["db.shop.svc.example", "db.svc.example", "db.example"];
    let mut burst = JoinSet::new();
    for id in 0..50_u16 {
        for host in search {
            let (socket, query) = (stub.socket().await, question(id, host, Type::AAAA).encode(512));
            burst.spawn(async move {
                socket.send(&query).await.unwrap();
                Message::parse(&receive(&socket).await).unwrap().header.rcode
            });
        }
    }
    while let Some(rcode) = burst.join_next().await {
        assert_eq!(rcode.unwrap(), Rcode::NXDOMAIN);
    }
    assert_eq!(upstream.questions(), search.len());
    pass(29).await;
    assert_eq!(stub.ask(search[0], Type::AAAA).await.authorities[0].ttl, 1);
    pass(2).await;
    stub.ask(search[0], Type::AAAA).await;
    assert_eq!(upstream.questions(), search.len() + 1);
}

#[tokio::test]
async fn what_was_said_last_goes_on_for_the_stated_time_while_upstream_is_gone() {
    let (stub, upstream) = told(Duration::from_secs(600), upstream_answer).await;
    stub.ask("www.example", Type::A).await;
    upstream.rescript(|asked, transport| Some(encode(&asked.response(Rcode::SERVFAIL), asked, transport)));
    pass(6).await;
    let failing = stub.ask("www.example", Type::A).await;
    assert_eq!((failing.header.rcode, failing.answers[0].ttl), (Rcode::NOERROR, 5));
    drop(upstream);
    tokio::task::yield_now().await;
    pass(590).await;
    assert_eq!(stub.ask("www.example", Type::A).await.answers.len(), 1);
    assert_eq!(counted(&stub.registry, "funicular_stub_stale_total"), 2);
    pass(20).await;
    assert_eq!(stub.ask("www.example", Type::A).await.header.rcode, Rcode::SERVFAIL);
}
