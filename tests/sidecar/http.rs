//! `header` mode: requests of an application arrive at another as they were made, with nothing of ours in them, and what is
//! refused is refused by name.

use std::net::SocketAddr;
use std::time::Duration;

use funicular::net::tls::ClientStream;
use funicular::sidecar::inbound::Policy;
use funicular::sidecar::inbound::admit::Told;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bed::*;

pub(crate) const HEADER: &str = "v=ssa1 token=header gen=2";

/// An outbound half that reaches an inbound half that reaches an application, by HTTP.
pub(crate) struct Pair {
    _authority: Authority,
    pub(crate) outbound: Running,
    pub(crate) inbound: Running,
    pub(crate) application: Application,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut InboundBed)) -> Self {
        let authority = Authority::new();
        let application = Application::start().await;
        let mut bed = InboundBed::new(&authority, application.port);
        bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
        bed.inbound.directory = Table::of([service(&["::1/128"], &[HEADER], None)]);
        change(&mut bed);
        let inbound = bed.start().await;
        let port = Some(inbound.address.port());
        let directory = Table::of([service(&["::1/128"], &[HEADER], port)]);
        let outbound = OutboundBed::new(&authority, directory).start().await;
        Self { _authority: authority, outbound, inbound, application }
    }
}

/// A message by hand: its head, and the octets behind it that have come along.
pub(crate) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut octets = Vec::new();
    while !octets.ends_with(b"\r\n\r\n") {
        octets.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(octets).unwrap().to_ascii_lowercase()
}

pub(crate) async fn say(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

pub(crate) async fn hear(stream: &mut (impl AsyncRead + Unpin), text: &str) {
    let mut heard = vec![0; text.len()];
    within(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

/// A caller by hand: TLS with the inbound half, for this protocol.
pub(crate) async fn caller(authority: &Authority, to: &Running, protocol: &'static str) -> ClientStream {
    authority.client().connect(to.connect().await, &name(SERVICE), protocol).await.unwrap()
}

/// A request with a token, by hand.
pub(crate) fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {SERVICE}\r\nPeak-Authorization: Bearer {token}\r\n\r\n")
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_arrives_as_it_was_made_and_its_answer_as_well() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    let made = "POST /a%2Fb/../c?q=1&q HTTP/1.1\r\nHost: orders.shop.peak:80\r\nAuthorization: Basic eDp5\r\n\
                traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nX-Twice: 1\r\nX-Twice: 2\r\n\
                Content-Length: 5\r\n\r\n12345";
    say(&mut client, made).await;
    let mut server = pair.application.accept().await;
    let came = head(&mut server).await;
    let expected = [
        "post /a%2fb/../c?q=1&q http/1.1\r\n",
        "\r\nhost: orders.shop.peak:80\r\n",
        "\r\nauthorization: basic edp5\r\n",
        "\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "\r\nx-twice: 1\r\nx-twice: 2\r\n",
        "\r\ncontent-length: 5\r\n",
    ];
    for line in expected {
        assert!(came.contains(line), "{line} in {came}");
    }
    assert!(!came.contains("peak-authorization") && !came.contains("date:"), "{came}");
    hear(&mut server, "12345").await;

    say(&mut server, "HTTP/1.1 418 Short\r\nX-Answer: yes\r\nContent-Length: 3\r\n\r\npot").await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 418 ") && answer.contains("\r\nx-answer: yes\r\n"), "{answer}");
    assert!(!answer.contains("date:"), "{answer}");
    hear(&mut client, "pot").await;

    // The application's connections stay, and so does the one between.
    say(&mut client, "GET /again HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head(&mut server).await.starts_with("get /again "));
    say(&mut server, OK).await;
    assert!(head(&mut client).await.starts_with("http/1.1 200"));
    hear(&mut client, "ok").await;
    drop(client);
    let labels = "answer=\"4xx\",direction=\"outbound\",service=\"orders.shop.peak\"";
    pair.outbound.says(&format!("funicular_requests_total{{{labels}}} 1")).await;
    pair.inbound.says("funicular_token_verdicts_total{how=\"checked\"} 1").await;
    pair.outbound.says("funicular_tokens_signed_total 1").await;
    pair.outbound.says("funicular_transferred_bytes_total{direction=\"outbound\",way=\"sent\"} 5").await;
}

#[tokio::test]
async fn fields_of_ours_never_reach_the_application_whoever_wrote_them() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    let forged = "GET / HTTP/1.1\r\nHost: x\r\nPeak-Authorization: Bearer a.b.c\r\nPeak-Caller: spiffe://a/ns/b/sa/root\r\n\
                  Peak_Caller: spiffe://a/ns/b/sa/root\r\nWorkload-Identity-Token: a.b.c\r\n\
                  Workload-Proof-Token: a.b.c\r\nConnection: peak-authorization, x-hop\r\nX-Hop: 1\r\n\r\n";
    say(&mut client, forged).await;
    let mut server = pair.application.accept().await;
    let came = head(&mut server).await;
    assert_eq!(came, "get / http/1.1\r\nhost: x\r\n\r\n");
}

#[tokio::test]
async fn the_application_is_told_who_calls_only_where_that_is_asked_for() {
    let told = |bed: &mut InboundBed| bed.inbound.services[0].told = Told { caller: true, forwarded: true };
    let mut pair = Pair::with(told).await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=192.0.2.1\r\nPeak-Caller: forged\r\n\r\n").await;
    let came = head(&mut pair.application.accept().await).await;
    assert!(came.contains(&format!("\r\npeak-caller: {WEB}\r\n")) && !came.contains("forged"), "{came}");
    assert!(came.contains("\r\nforwarded: for=192.0.2.1\r\nforwarded: for=\"[::1]\";proto=https\r\n"), "{came}");
}

#[tokio::test]
async fn chunks_and_trailers_go_both_ways() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    say(
        &mut client,
        "POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    say(&mut client, "3\r\nabc\r\n").await;
    let mut server = pair.application.accept().await;
    let came = head(&mut server).await;
    assert!(came.contains("transfer-encoding: chunked") && came.contains("te: trailers"), "{came}");
    hear(&mut server, "3\r\nabc\r\n").await;
    say(&mut client, "0\r\nX-Sum: 1\r\nPeak-Caller: forged\r\n\r\n").await;
    hear(&mut server, "0\r\nx-sum: 1\r\n\r\n").await;

    say(&mut server, "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
    head(&mut client).await;
    hear(&mut client, "2\r\nok\r\n").await;
    say(&mut server, "0\r\nX-Sum: 2\r\n\r\n").await;
    hear(&mut client, "0\r\nx-sum: 2\r\n\r\n").await;
}

#[tokio::test]
async fn content_waits_until_the_application_says_that_it_wants_it() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    let request = "PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    say(&mut client, request).await;
    let mut server = pair.application.accept().await;
    assert!(head(&mut server).await.contains("expect: 100-continue"));
    say(&mut server, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(head(&mut client).await.starts_with("http/1.1 100 "));
    say(&mut client, "hi").await;
    hear(&mut server, "hi").await;
    say(&mut server, OK).await;
    assert!(head(&mut client).await.starts_with("http/1.1 200 "));

    // Who does not want it says so at once, and the client has sent nothing.
    let mut other = pair.outbound.connect().await;
    say(&mut other, request).await;
    let mut server = pair.application.accept().await;
    head(&mut server).await;
    say(&mut server, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").await;
    assert!(head(&mut other).await.starts_with("http/1.1 417 "));
}

#[tokio::test]
async fn an_application_that_does_not_read_holds_up_the_one_that_writes() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, &format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40)).await;
    let mut server = pair.application.accept().await;
    head(&mut server).await;
    let (piece, mut written) = (vec![0; 1 << 16], 0);
    while let Ok(octets) = tokio::time::timeout(Duration::from_millis(500), client.write(&piece)).await {
        written += octets.unwrap();
        assert!(written < 64 << 20, "somebody gathers what nobody reads");
    }
    // It goes on where it stopped.
    let mut taken = vec![0; written];
    within(server.read_exact(&mut taken)).await.unwrap();
    assert!(within(client.write(&piece)).await.unwrap() > 0);
}

#[tokio::test]
async fn a_websocket_is_carried_once_the_application_agrees_and_only_then() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    let asking = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Key: x\r\n\r\n";
    say(&mut client, asking).await;
    let mut server = pair.application.accept().await;
    let came = head(&mut server).await;
    assert!(came.contains("connection: upgrade") && came.contains("upgrade: websocket"), "{came}");
    assert!(came.contains("sec-websocket-key: x"), "{came}");
    say(&mut server, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst words").await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: websocket"), "{answer}");
    hear(&mut client, "first words").await;
    hears(&mut client, &mut server, "not http at all").await;
    hears(&mut server, &mut client, "nor this").await;
    // An end of one direction is passed on while the other goes on.
    client.shutdown().await.unwrap();
    assert_eq!(within(server.read(&mut [0])).await.unwrap(), 0);
    hears(&mut server, &mut client, "last words").await;
    drop(server);
    assert_eq!(within(client.read(&mut [0])).await.unwrap(), 0);
    pair.outbound.says("funicular_connections_open{direction=\"outbound\"} 0").await;

    let mut client = pair.outbound.connect().await;
    say(&mut client, asking).await;
    let mut server = pair.application.accept().await;
    head(&mut server).await;
    say(&mut server, OK).await;
    assert!(head(&mut client).await.starts_with("http/1.1 200 "));
    hear(&mut client, "ok").await;
    say(&mut client, "GET /more HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let more =
        async { if let Ok(true) = served(&mut server).await { server } else { pair.application.accept().await } };
    assert!(head(&mut within(more).await).await.starts_with("get /more "));
}

/// Whether more comes on a connection to the application, rather than its end.
async fn served(server: &mut TcpStream) -> std::io::Result<bool> {
    server.peek(&mut [0]).await.map(|octets| octets > 0)
}

#[tokio::test]
async fn an_upgrade_to_http_2_is_not_passed_on() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    let asking = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                  HTTP2-Settings: AAMAAABk\r\n\r\n";
    say(&mut client, asking).await;
    assert_eq!(head(&mut pair.application.accept().await).await, "get / http/1.1\r\nhost: x\r\n\r\n");
}

#[tokio::test]
async fn connect_becomes_a_way_for_octets() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n").await;
    let mut server = pair.application.accept().await;
    assert!(head(&mut server).await.starts_with("connect db.example:5432 http/1.1\r\n"));
    say(&mut server, "HTTP/1.1 200 OK\r\n\r\n").await;
    assert!(head(&mut client).await.starts_with("http/1.1 200 "));
    hears(&mut client, &mut server, "octets").await;
    hears(&mut server, &mut client, "and octets").await;
}

#[tokio::test]
async fn a_field_that_is_too_long_is_refused_by_its_name_and_the_connection_goes_on() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    let long = "x".repeat(32 * 1024 - "x-long".len() + 1);
    say(&mut client, &format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n")).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 431 ") && answer.contains("peak-refusal: header-too-large"), "{answer}");
    hear(&mut client, "funicular: the field x-long makes the head longer than 32768 octets\n").await;
    pair.outbound.refused("outbound", "header-too-large", 1).await;

    say(&mut client, &format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", &long[1..])).await;
    assert!(head(&mut pair.application.accept().await).await.contains("x-long: xxxx"));
}

#[tokio::test]
async fn what_the_sidecars_answer_themselves_has_a_status_a_reason_and_a_line() {
    let nobody = tokio::net::TcpListener::bind("[::1]:0").await.unwrap().local_addr().unwrap().port();
    let pair = Pair::with(|bed| bed.inbound.services[0].ports = [(80, nobody)].into()).await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 503 "), "{answer}");
    assert!(answer.contains("peak-refusal: application-unreachable\r\n"), "{answer}");
    hear(&mut client, "funicular: the application is not there\n").await;
    pair.inbound.refused("inbound", "application-unreachable", 1).await;
    // It is said to the application as its own answer would be: nothing of the caller's side went wrong.
    let labels = "answer=\"5xx\",direction=\"outbound\",service=\"orders.shop.peak\"";
    pair.outbound.says(&format!("funicular_requests_total{{{labels}}} 1")).await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_is_slow_is_answered_for_at_once() {
    let authority = Authority::new();
    for (port, status, reason) in [(1, "502", "server-refused"), (0, "504", "server-timed-out")] {
        // One that accepts and says nothing, where the port is 0.
        let silent = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
        let port = if port == 0 { silent.local_addr().unwrap().port() } else { port };
        let mut bed = OutboundBed::new(&authority, Table::of([service(&["::1/128"], &[HEADER], Some(port))]));
        bed.outbound.limits.connect_deadline = Duration::from_millis(300);
        let outbound = bed.start().await;
        let mut client = outbound.connect().await;
        say(&mut client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = head(&mut client).await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("peak-refusal: {reason}\r\n")), "{answer}");
        outbound.refused("outbound", reason, 1).await;
    }
}

/// An inbound half of a service whose rule computes the address from the path, at the address of `/right`.
async fn content_addressed(authority: &Authority, application: &Application) -> Running {
    const RULE: &str = "v=ssa1 layout=content-hash:64 content=path token=header";
    let own = service(&["2001:db8:5:1::/64"], &[RULE], None);
    let inputs = funicular::model::ssa::Inputs {
        source: "::1".parse().unwrap(),
        content: b"/right",
        secret: None,
        now: funicular::ops::clock::now(),
    };
    let address = own.rules[0].compute(&own.space, &inputs, 0, &mut || 0).unwrap();
    let mut bed = InboundBed::new(authority, application.port);
    bed.inbound.original = going_to(SocketAddr::from((address, 80)));
    bed.inbound.directory = Table::of([own]);
    bed.start().await
}

#[tokio::test]
async fn a_request_at_an_address_that_its_key_does_not_lead_to_is_misdirected() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = content_addressed(&authority, &application).await;
    let mut caller = caller(&authority, &inbound, "http/1.1").await;

    say(&mut caller, &get("/wrong", &token)).await;
    let answer = head(&mut caller).await;
    assert!(answer.starts_with("http/1.1 421 ") && answer.contains("peak-refusal: address-wrong"), "{answer}");
    hear(&mut caller, "funicular: the address is not one of this service for this request\n").await;
    inbound.refused("inbound", "address-wrong", 1).await;
    assert!(application.is_untouched());

    say(&mut caller, &get("/right?query=no-matter", &token)).await;
    let mut server = application.accept().await;
    assert!(head(&mut server).await.starts_with("get /right?"));
}

/// A server by hand: each connection of a caller, behind TLS.
pub(crate) struct ByHandServer {
    listener: tokio::net::TcpListener,
    tls: funicular::net::tls::ServerTls,
}

impl ByHandServer {
    pub(crate) async fn start(authority: &Authority) -> (Self, OutboundBed) {
        let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
        let port = Some(listener.local_addr().unwrap().port());
        let bed = OutboundBed::new(authority, Table::of([service(&["::1/128"], &[HEADER], port)]));
        (Self { listener, tls: authority.server(SERVICE) }, bed)
    }

    pub(crate) async fn accept(&self) -> funicular::net::tls::ServerStream {
        use funicular::net::tls::{First, first_octets};
        let First::Tls(hello) = first_octets(within(self.listener.accept()).await.unwrap().0).await.unwrap() else {
            panic!("no TLS");
        };
        self.tls.accept(hello, "http/1.1").await.unwrap()
    }
}

#[tokio::test]
async fn a_misdirected_request_is_computed_anew_once_and_an_applications_own_421_is_passed_on() {
    let authority = Authority::new();
    let (server, bed) = ByHandServer::start(&authority).await;
    let outbound = bed.start().await;
    let mut client = outbound.connect().await;
    say(&mut client, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let misdirected = "HTTP/1.1 421 Misdirected\r\nPeak-Refusal: address-wrong\r\nContent-Length: 0\r\n\r\n";
    let mut first = server.accept().await;
    assert!(head(&mut first).await.contains("peak-authorization: bearer eyj"));
    say(&mut first, misdirected).await;
    let mut second = server.accept().await;
    assert!(head(&mut second).await.starts_with("get /x "));
    say(&mut second, misdirected).await;
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 421 ") && answer.contains("peak-refusal: address-wrong"), "{answer}");
    outbound.says("funicular_requests_repeated_total 1").await;

    say(&mut client, "GET /y HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head(&mut second).await.starts_with("get /y "));
    say(&mut second, "HTTP/1.1 421 Own\r\nContent-Length: 0\r\n\r\n").await;
    assert!(head(&mut client).await.starts_with("http/1.1 421 "));
}

#[tokio::test]
async fn a_request_that_saw_no_octet_of_an_answer_is_repeated_only_if_that_does_no_harm() {
    let authority = Authority::new();
    let (server, bed) = ByHandServer::start(&authority).await;
    let outbound = bed.start().await;
    let mut client = outbound.connect().await;
    say(&mut client, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut first = server.accept().await;
    head(&mut first).await;
    drop(first);
    let mut second = server.accept().await;
    assert!(head(&mut second).await.starts_with("get /1 "));
    say(&mut second, OK).await;
    assert!(head(&mut client).await.starts_with("http/1.1 200 "));
    hear(&mut client, "ok").await;
    drop(client);
    outbound.says("funicular_http_connections_idle 1").await;

    let posts = ["POST /2 HTTP/1.1\r\nHost: x\r\n\r\n", "PUT /3 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"];
    for request in posts {
        let mut client = outbound.connect().await;
        say(&mut client, request).await;
        // The connection that is there is taken first.
        head(&mut second).await;
        drop(second);
        let answer = head(&mut client).await;
        assert!(answer.starts_with("http/1.1 502 ") && answer.contains("peak-refusal: server-lost"), "{answer}");
        let mut other = outbound.connect().await;
        say(&mut other, "GET /next HTTP/1.1\r\nHost: x\r\n\r\n").await;
        second = server.accept().await;
        assert!(head(&mut second).await.starts_with("get /next "), "nothing was repeated in between");
        say(&mut second, OK).await;
        head(&mut other).await;
        hear(&mut other, "ok").await;
        drop(other);
        outbound.says("funicular_http_connections_idle 1").await;
    }
}

#[tokio::test]
async fn a_server_that_goes_in_the_middle_of_an_answer_is_seen_to_do_so() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut server = pair.application.accept().await;
    head(&mut server).await;
    say(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    head(&mut client).await;
    hear(&mut client, "half").await;
    drop(server);
    let mut rest = Vec::new();
    let _ = within(client.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"", "the answer is not made longer, and its connection ends");
}

#[tokio::test]
async fn an_application_that_gives_up_is_not_answered_for_any_longer() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut server = pair.application.accept().await;
    head(&mut server).await;
    drop(client);
    assert_eq!(within(server.read(&mut [0])).await.unwrap_or(0), 0);
    pair.inbound.says("funicular_requests_open{direction=\"inbound\",service=\"orders.shop.peak\"} 0").await;
}

#[tokio::test]
async fn http_behind_tls_is_the_applications_own_where_no_rule_says_otherwise() {
    let authority = Authority::new();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.policy = Policy::Permissive;
    let inbound = bed.start().await;
    let tls = authority.client();
    let connecting = tokio::spawn({
        let tcp = inbound.connect().await;
        async move { tls.connect(tcp, &name(SERVICE), "h2").await.is_ok() }
    });
    let mut server = application.accept().await;
    assert_eq!(within(server.read_u8()).await.unwrap(), 22, "the ClientHello is the application's");
    drop(server);
    assert!(!connecting.await.unwrap());
    inbound.says("funicular_tolerated_total{reason=\"foreign-tls\"} 1").await;
}

#[tokio::test]
async fn who_is_slow_with_a_head_is_closed_and_who_is_slow_with_content_is_not() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let mut bed = InboundBed::new(&authority, application.port);
    bed.inbound.directory = Table::of([service(&["2001:db8:5:1::/64"], &[HEADER], None)]);
    bed.inbound.handshake_timeout = Duration::from_millis(400);
    let inbound = bed.start().await;
    for protocol in ["http/1.1", "h2"] {
        let mut silent = caller(&authority, &inbound, protocol).await;
        let mut heard = Vec::new();
        let _ = within(silent.read_to_end(&mut heard)).await;
        let mut dribbling = caller(&authority, &inbound, protocol).await;
        say(&mut dribbling, if protocol == "h2" { "PRI * HTTP" } else { "GET / HTTP/1.1\r\nHost: x\r\nX-" }).await;
        let _ = within(dribbling.read_to_end(&mut heard)).await;
    }
    // A second head has no more time than the first.
    let mut patient = caller(&authority, &inbound, "http/1.1").await;
    say(&mut patient, &get("/", &token)).await;
    let mut server = application.accept().await;
    head(&mut server).await;
    say(&mut server, OK).await;
    head(&mut patient).await;
    hear(&mut patient, "ok").await;
    say(&mut patient, "GET /2 HTTP/1.1\r\n").await;
    assert_eq!(within(patient.read_to_end(&mut Vec::new())).await.unwrap_or(0), 0);

    let mut slow = caller(&authority, &inbound, "http/1.1").await;
    let put = get("/", &token).replace("GET", "PUT").replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nh");
    say(&mut slow, &put).await;
    let mut server = application.accept().await;
    head(&mut server).await;
    hear(&mut server, "h").await;
    // One who begins a head now has run out of time for it before anything more is said.
    let mut dribbling = caller(&authority, &inbound, "http/1.1").await;
    say(&mut dribbling, "GET / HTTP/1.1\r\nX-").await;
    let _ = within(dribbling.read_to_end(&mut Vec::new())).await;
    say(&mut slow, "i").await;
    hear(&mut server, "i").await;
}

#[tokio::test]
async fn a_drain_lets_a_request_finish_and_then_ends_its_connection() {
    let mut pair = Pair::start().await;
    let mut client = pair.outbound.connect().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut server = pair.application.accept().await;
    head(&mut server).await;
    let Pair { inbound, .. } = &pair;
    let draining = inbound.drain.drain(Duration::from_secs(30));
    let finishing = async {
        tokio::task::yield_now().await;
        say(&mut server, OK).await;
        head(&mut client).await;
        hear(&mut client, "ok").await;
    };
    let (drained, ()) = within(async { tokio::join!(draining, finishing) }).await;
    assert_eq!(drained, funicular::ops::drain::Drained::Finished);
}

#[tokio::test]
async fn connections_to_servers_are_shared_one_after_another_and_those_to_the_application_never() {
    let mut pair = Pair::start().await;
    for round in 0..3 {
        let mut client = pair.outbound.connect().await;
        say(&mut client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        if round == 0 {
            let mut server = pair.application.accept().await;
            tokio::spawn(async move {
                loop {
                    head(&mut server).await;
                    say(&mut server, OK).await;
                }
            });
        }
        head(&mut client).await;
        hear(&mut client, "ok").await;
        drop(client);
        pair.outbound.says("funicular_http_connections_idle 1").await;
    }
    // One connection of the sidecar has its own to the application; another caller's would have another.
    pair.inbound.says("funicular_connections_total{direction=\"inbound\",mode=\"header\"} 1").await;
    assert!(pair.application.is_untouched());
}
