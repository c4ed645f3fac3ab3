//! Which answers count, by octets and over loopback.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;

use super::*;
use crate::model::Name;
use crate::wire::dns::{Class, Rcode, Type};

/// Ids in a known order.
fn draw() -> u128 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed).into()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query() -> Message {
    Message::query(7, name("orders.shop.peak"), Type::A)
}

fn asked() -> Asked {
    Asked::new(&query().encode(512), 99).unwrap()
}

fn answered_by(change: impl FnOnce(&mut Message)) -> bool {
    let mut answer = query().response(Rcode::NOERROR);
    answer.header.id = 99;
    change(&mut answer);
    asked().is_answered_by(&answer.encode(512))
}

#[test]
fn an_answer_has_the_id_that_was_sent_the_response_bit_and_the_same_question() {
    assert!(answered_by(|_| ()));
    assert!(answered_by(|answer| answer.questions[0].name = name("ORDERS.shop.PEAK")));
    assert!(!answered_by(|answer| answer.header.id = 7));
    assert!(!answered_by(|answer| answer.header.response = false));
    assert!(!answered_by(|answer| answer.header.opcode = crate::wire::dns::Opcode::NOTIFY));
    assert!(!answered_by(|answer| answer.questions[0].name = name("orders.bank.peak")));
    assert!(!answered_by(|answer| answer.questions[0].rtype = Type::AAAA));
    assert!(!answered_by(|answer| answer.questions[0].class = Class::CH));
    assert!(!answered_by(|answer| answer.questions.push(answer.questions[0].clone())));
}

#[test]
fn only_an_error_may_leave_the_question_out() {
    let bare = |rcode| {
        move |answer: &mut Message| {
            answer.questions.clear();
            answer.edns = None;
            answer.header.rcode = rcode;
        }
    };
    assert!(answered_by(bare(Rcode::FORMERR)));
    assert!(!answered_by(bare(Rcode::NOERROR)));
    assert!(!asked().is_answered_by(&[0; 11]));
}

#[test]
fn a_message_without_exactly_one_readable_question_is_not_sent() {
    let octets = query().encode(512);
    assert!(end_of_question(&octets).is_some());
    let question_end = 12 + name("orders.shop.peak").wire().len() + 4;
    assert_eq!(end_of_question(&octets), Some(question_end));
    for length in 0..question_end {
        assert_eq!(end_of_question(&octets[..length]), None, "{length}");
    }
    let mut compressed = octets.clone();
    compressed[12] = 0xc0;
    assert_eq!(end_of_question(&compressed), None);
}

#[tokio::test]
async fn a_forged_answer_is_ignored_and_the_right_one_after_it_is_taken() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    let serving = async {
        let mut datagram = [0; 512];
        let (length, from) = server.recv_from(&mut datagram).await.unwrap();
        let asked = Message::parse(&datagram[..length]).unwrap();
        let mut forged = asked.response(Rcode::NXDOMAIN);
        forged.header.id ^= 0x8000;
        // From another port, with the right id.
        let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        elsewhere.send_to(&asked.response(Rcode::REFUSED).encode(512), from).await.unwrap();
        server.send_to(&forged.encode(512), from).await.unwrap();
        server.send_to(&asked.response(Rcode::NOERROR).encode(512), from).await.unwrap();
    };
    let client = DnsClient::new(None, draw);
    let question = query().questions.remove(0);
    let (answer, ()) = tokio::join!(client.ask(addr, &question, Duration::from_secs(5)), serving);
    assert_eq!(answer.unwrap().header.rcode, Rcode::NOERROR);
}

#[tokio::test]
async fn silence_ends_at_the_time_allowed() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let client = DnsClient::new(None, draw);
    let within = Duration::from_millis(20);
    let error = client.ask(addr, &query().questions.remove(0), within).await.unwrap_err();
    assert!(matches!(error, AskError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("20 ms"), "{error}");
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_known_at_once() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = DnsClient::new(None, draw);
    for transport in [Transport::Udp, Transport::Tcp] {
        let error = client.exchange(transport, gone, &query().encode(512), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.reason(), "io", "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_inside_an_answer_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await.unwrap();
        stream.write_all(&[0, 50, 1, 2, 3]).await.unwrap();
    };
    let client = DnsClient::new(None, draw);
    let query = query().encode(512);
    let (answer, ()) = tokio::join!(client.exchange(Transport::Tcp, addr, &query, Duration::from_secs(5)), serving);
    assert_eq!(answer.unwrap_err().reason(), "io");
}

#[tokio::test]
async fn what_is_no_question_is_not_sent() {
    let client = DnsClient::new(None, draw);
    let server = ([127, 0, 0, 1], 9).into();
    let error = client.exchange(Transport::Udp, server, &[0; 12], Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.reason(), "no-question");
}
