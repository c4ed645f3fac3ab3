//! Tokens in `header` mode: each request is judged by its own, on a connection that goes on.

use funicular::model::UnixSeconds;
use funicular::ops::clock;
use funicular::sidecar::inbound::Policy;

use crate::bed::*;
use crate::http::{HEADER, OK, caller, get, head, hear, say};

/// How long past its end a token is still accepted, in seconds: clocks differ.
const LEEWAY: u64 = 10;

#[tokio::test]
async fn a_token_that_expires_while_a_conversation_goes_on_ends_no_connection_and_the_next_token_is_taken() {
    let authority = Authority::new();
    let fresh = authority.token();
    let mut short = claims();
    short.expires = UnixSeconds(clock::now().0 + 2 - LEEWAY);
    let short = authority.key.sign(&short).unwrap();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.directory = Table::of([service(&["2001:db8:5:1::/64"], &[HEADER], None)]);
    let inbound = bed.start().await;
    let mut caller = caller(&authority, &inbound, "http/1.1").await;
    say(&mut caller, &get("/", &short)).await;
    let mut server = application.accept().await;
    tokio::spawn(async move {
        loop {
            head(&mut server).await;
            say(&mut server, OK).await;
        }
    });
    let mut answer = head(&mut caller).await;
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    within(async {
        while answer.starts_with("http/1.1 200 ") {
            hear(&mut caller, "ok").await;
            say(&mut caller, &get("/", &short)).await;
            answer = head(&mut caller).await;
        }
    })
    .await;
    assert!(answer.starts_with("http/1.1 403 "), "{answer}");
    hear(&mut caller, "funicular: the caller does not prove who it is\n").await;
    inbound.refused("inbound", "token-expired", 1).await;

    say(&mut caller, &get("/", &fresh)).await;
    assert!(head(&mut caller).await.starts_with("http/1.1 200 "));
}

#[tokio::test]
async fn a_caller_that_does_not_prove_who_it_is_is_refused_and_its_next_request_is_not() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.directory = Table::of([service(&["2001:db8:5:1::/64"], &[HEADER], None)]);
    let inbound = bed.start().await;
    let mut caller = caller(&authority, &inbound, "http/1.1").await;
    let field = |value: &str| format!("Peak-Authorization: {value}\r\n");
    let rows = [
        (String::new(), "token-missing"),
        (field("Bearer a.b.c"), "token-malformed"),
        (field(&token), "token-field-malformed"),
        (field(&format!("Basic {token}")), "token-field-malformed"),
        (field(&format!("Bearer {token}")).repeat(2), "token-field-malformed"),
        (field("Bearer"), "token-field-malformed"),
    ];
    let mut seen = std::collections::HashMap::new();
    for (fields, reason) in rows {
        say(&mut caller, &format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        let answer = head(&mut caller).await;
        assert!(answer.starts_with("http/1.1 403 ") && answer.contains("peak-refusal: token-refused"), "{answer}");
        hear(&mut caller, "funicular: the caller does not prove who it is\n").await;
        let times = seen.entry(reason).or_insert(0);
        *times += 1;
        inbound.refused("inbound", reason, *times).await;
    }
    assert!(application.is_untouched());

    say(&mut caller, &get("/", &token)).await;
    let mut server = application.accept().await;
    assert!(head(&mut server).await.starts_with("get / "));
}

#[tokio::test]
async fn a_permissive_half_passes_requests_without_a_token_and_none_with_a_bad_one() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.directory = Table::of([service(&["2001:db8:5:1::/64"], &[HEADER], None)]);
    bed.inbound.policy = Policy::Permissive;
    let inbound = bed.start().await;
    let mut caller = caller(&authority, &inbound, "http/1.1").await;

    say(&mut caller, &get("/", "a.b.c")).await;
    assert!(head(&mut caller).await.starts_with("http/1.1 403 "));
    hear(&mut caller, "funicular: the caller does not prove who it is\n").await;
    say(&mut caller, "GET / HTTP/1.1\r\nHost: x\r\nPeak-Caller: forged\r\n\r\n").await;
    assert!(!head(&mut application.accept().await).await.contains("forged"));
    inbound.says("funicular_tolerated_total{reason=\"token-missing\"} 1").await;
}
