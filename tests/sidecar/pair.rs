//! Two halves with nothing between them: what an application sees of the application at the other end.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bed::*;

/// The modes by which a token travels.
const TOKEN_MODES: [&str; 2] = ["tunnel", "pp2"];
/// Those, and none.
const MODES: [&str; 3] = ["tunnel", "pp2", "none"];

/// An outbound half that reaches an inbound half that reaches an application.
struct Pair {
    _authority: Authority,
    outbound: Running,
    inbound: Running,
    application: Application,
}

impl Pair {
    async fn start(token_mode: &str) -> Self {
        let authority = Authority::new();
        let application = Application::start().await;
        // Loopback has one IPv6 address, so that is the whole space.
        let rule = format!("v=ssa1 token={token_mode} gen=2");
        let mut bed = InboundBed::new(&authority, application.port);
        bed.inbound.original = going_to("[::1]:80".parse::<SocketAddr>().unwrap());
        bed.inbound.directory = Table::of([service(&["::1/128"], &[&rule], None)]);
        let inbound = bed.start().await;
        let port = Some(inbound.address.port());
        let outbound = OutboundBed::new(&authority, Table::of([service(&["::1/128"], &[&rule], port)])).start().await;
        Self { _authority: authority, outbound, inbound, application }
    }
}

#[tokio::test]
async fn an_application_talks_to_another_through_both_halves() {
    for mode in MODES {
        let mut pair = Pair::start(mode).await;
        let mut client = pair.outbound.connect().await;
        client.write_all(b"question").await.unwrap();
        let mut server = pair.application.accept().await;
        let mut question = [0; 8];
        within(server.read_exact(&mut question)).await.unwrap();
        assert_eq!(&question, b"question");
        hears(&mut server, &mut client, "answer").await;
        drop((client, server));
        pair.outbound.says(&format!("funicular_connections_total{{direction=\"outbound\",mode=\"{mode}\"}} 1")).await;
        pair.inbound.says(&format!("funicular_connections_total{{direction=\"inbound\",mode=\"{mode}\"}} 1")).await;
        pair.outbound.says("funicular_transferred_bytes_total{direction=\"outbound\",way=\"received\"} 6").await;
        pair.inbound.says("funicular_connections_open{direction=\"inbound\"} 0").await;
    }
}

#[tokio::test]
async fn a_server_may_speak_first() {
    for token_mode in MODES {
        let mut pair = Pair::start(token_mode).await;
        let mut client = pair.outbound.connect().await;
        let mut server = pair.application.accept().await;
        hears(&mut server, &mut client, "220 mail.example ESMTP").await;
        hears(&mut client, &mut server, "HELO").await;
    }
}

#[tokio::test]
async fn an_end_of_one_direction_is_passed_on_while_the_other_goes_on() {
    for mode in MODES {
        let mut pair = Pair::start(mode).await;
        let mut client = pair.outbound.connect().await;
        client.write_all(b"all of it").await.unwrap();
        client.shutdown().await.unwrap();
        let mut server = pair.application.accept().await;
        let mut heard = Vec::new();
        within(server.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"all of it");
        hears(&mut server, &mut client, "now mine").await;
        drop(server);
        assert_eq!(within(client.read(&mut [0; 8])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_reset_at_either_end_arrives_as_a_reset_at_the_other() {
    for mode in MODES {
        let mut pair = Pair::start(mode).await;
        let client = pair.outbound.connect().await;
        let mut server = pair.application.accept().await;
        client.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(within(server.read_u8()).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let mut client = pair.outbound.connect().await;
        let server = pair.application.accept().await;
        server.set_zero_linger().unwrap();
        drop(server);
        assert_eq!(within(client.read_u8()).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_megabyte_each_way_arrives_unchanged() {
    for mode in MODES {
        let mut pair = Pair::start(mode).await;
        let client = pair.outbound.connect().await;
        let server = pair.application.accept().await;
        let sent: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        let exchange = async |tcp: tokio::net::TcpStream| {
            let (mut read, mut write) = tcp.into_split();
            let writing = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let (read, ()) = tokio::join!(read.read_to_end(&mut heard), writing);
            read.unwrap();
            assert!(heard == sent);
        };
        within(async { tokio::join!(exchange(client), exchange(server)) }).await;
    }
}

#[tokio::test]
async fn a_second_connection_of_a_caller_costs_no_signature() {
    for mode in TOKEN_MODES {
        let mut pair = Pair::start(mode).await;
        for _ in 0..3 {
            let _client = pair.outbound.connect().await;
            pair.application.accept().await;
        }
        pair.outbound.says("funicular_tokens_signed_total 1").await;
        pair.inbound.says("funicular_token_verdicts_total{how=\"checked\"} 1").await;
        pair.inbound.says("funicular_token_verdicts_total{how=\"cached\"} 2").await;
    }
}

#[tokio::test]
async fn without_a_token_the_address_rule_alone_lets_in() {
    let mut pair = Pair::start("none").await;
    let mut client = pair.outbound.connect().await;
    let mut server = pair.application.accept().await;
    hears(&mut client, &mut server, "plain").await;
    drop((client, server));
    pair.inbound.says("funicular_connections_total{direction=\"inbound\",mode=\"none\"} 1").await;
}

#[tokio::test]
async fn an_application_that_is_down_is_a_failure_for_the_caller_and_named_in_the_metrics() {
    for mode in TOKEN_MODES {
        let Pair { _authority, outbound, inbound, application } = Pair::start(mode).await;
        drop(application);
        // The application's task ends with the next connection that it cannot hand over.
        let first = outbound.connect().await;
        ends(first).await;
        ends_by_reset(outbound.connect().await).await;
        inbound.refused("inbound", "application-unreachable", 1).await;
    }
}

/// The connection ends, one way or the other.
async fn ends(mut stream: tokio::net::TcpStream) {
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
}
