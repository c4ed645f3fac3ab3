//! Its start, its life under an operator's eyes, and its end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Output;

use funicular::wire::dns::{Edns, Message, Type};

use crate::bed::{Folder, PATIENCE, Peak, SHOP, command, has_soa, option, query, wait_for, with_edns};

#[test]
fn sighup_serves_the_new_file_and_keeps_the_old_zone_when_it_is_faulty() {
    let mut peak = Peak::serving(SHOP);
    let serial = |peak: &Peak| {
        let rdata = peak.ask("shop.peak.", Type::SOA).answers[0].rdata.clone();
        u32::from_be_bytes(rdata[rdata.len() - 20..][..4].try_into().unwrap())
    };
    assert_eq!(serial(&peak), 7);
    std::fs::write(peak.zone_file(), SHOP.replace(" 7 3600", " 8 3600") + "new A 192.0.2.99\n").unwrap();
    peak.signal("-HUP");
    wait_for(&mut peak.log, "zone loaded again");
    assert_eq!((serial(&peak), peak.ask("new.shop.peak.", Type::A).answers.len()), (8, 1));

    std::fs::write(peak.zone_file(), SHOP.replace(" 7 3600", " 9 3600") + "new A nonsense\n").unwrap();
    peak.signal("-HUP");
    wait_for(&mut peak.log, "the zone stays as it was");
    let line = wait_for(&mut peak.log, "shop.zone:");
    assert!(line.contains("shop.zone:21:7: "), "{line}");
    assert_eq!((serial(&peak), peak.ask("new.shop.peak.", Type::A).answers.len()), (8, 1));
}

#[test]
fn sigterm_ends_it_with_success() {
    for signal in ["-TERM", "-INT"] {
        let mut peak = Peak::serving(SHOP);
        let _open = peak.tcp();
        peak.signal(signal);
        assert!(peak.process.wait().unwrap().success(), "{signal}");
    }
}

fn fails(arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = command().args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

fn zone_argument(name: &str, file: &Path) -> String {
    format!("{name}={}", file.display())
}

#[test]
fn all_faults_of_all_files_are_told_with_file_line_and_column() {
    let folder = Folder::new();
    let text = folder
        .write("text.zone", "@ 60 SOA . . 1 2 3 4 5\n@ 60 NS x.example.\na 60 A 1.2.3\nb 60 MX mail\n$INCLUDE x\n");
    let sense =
        folder.write("sense.zone", "@ 60 NS ns1\nwww 60 CNAME ns1\nwww 60 A 192.0.2.1\nexample.net. 60 A 192.0.2.1\n");
    let whole = folder.write("whole.zone", "@ 60 NS ns1\ncut 60 NS ns.cut\n");
    let missing = folder.0.path().join("missing.zone");
    let zones = [("text", &text), ("sense", &sense), ("whole", &whole), ("missing", &missing)];
    let arguments: Vec<String> =
        zones.iter().flat_map(|(name, file)| ["--zone".to_owned(), zone_argument(name, file)]).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, told) = fails(&[&["--listen", "127.0.0.1:0"][..], &arguments].concat());
    assert_eq!(code, 1);
    let expected = [
        "text.zone:3:8: ",
        "text.zone:4:9: ",
        "text.zone:5:1: $INCLUDE",
        "sense.zone:2:1: www.sense. has a CNAME record",
        "sense.zone:4:1: example.net. is not in the zone sense.",
        "whole.zone: whole. has no SOA record",
        "whole.zone:1:1: whole. names the server ns1.whole.",
        "whole.zone:2:1: cut.whole. is delegated to ns.cut.whole.",
        "missing.zone: cannot be read",
    ];
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{told}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{expected:?} is not in {line:?}");
    }
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let folder = Folder::new();
    let file = folder.write("shop.zone", SHOP);
    let zone = zone_argument("shop.peak", &file);
    let empty = folder.write("empty.yaml", "{}\n");
    let empty = empty.display().to_string();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, code, told) in [
        (vec!["--config", &empty, "--listen", "127.0.0.1:0"], 1, "no zone to serve"),
        (vec!["--zone", "shop.peak"], 2, "expected NAME=FILE"),
        (vec!["--zone", "a..b=x"], 2, "is no domain name"),
        (vec!["--zone", &zone, "--zone", &zone, "--listen", "127.0.0.1:0"], 1, "is given twice"),
        (vec!["--zone", &zone, "--listen", &taken], 1, "another program answers there"),
        (vec!["--zone", &zone, "--listen", "192.0.2.1:0"], 1, "is not this machine's"),
        (vec!["--zone", &zone, "--listen", "nowhere"], 2, "--listen"),
    ] {
        let (ended, said) = fails(&arguments);
        assert!(ended == code && said.contains(told), "{arguments:?}: {ended} {said}");
    }
}

/// A server, its admin port, and its port for metrics.
fn administered() -> (Peak, SocketAddr, SocketAddr) {
    let ports = "admin: { listen: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }";
    let mut seen = String::new();
    let peak = Peak::configured_and(&format!("listen: 127.0.0.1:0\n{ports}\n"), |lines| {
        seen = wait_for(lines, "admin ports are open");
    });
    let port = |name: &str| {
        let (_, rest) = seen.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (peak, port("admin="), port("metrics="))
}

#[test]
fn questions_are_logged_on_request_and_not_before() {
    let (mut peak, admin, _) = administered();
    peak.ask("unlogged.shop.peak.", Type::A);
    let set = |every| http(admin, &format!("POST /query-log?every={every}"));
    assert!(set("often").starts_with("HTTP/1.1 400 "));
    assert!(set("1").starts_with("HTTP/1.1 200 "));
    peak.ask("logged.shop.peak.", Type::A);
    let line = wait_for(&mut peak.log, "name=");
    assert!(line.contains("name=logged.shop.peak. qtype=A rcode=NXDOMAIN"), "{line}");
}

#[test]
fn a_flood_is_limited_and_who_shows_a_cookie_is_not() {
    let peak = Peak::configured("listen: 127.0.0.1:0\nworkers: 1\nrate_limit: { per_second: 5 }\n");
    let cookie = |data: &[u8]| {
        let edns = Edns { options: vec![option(10, data)], ..Edns::default() };
        with_edns("shop.peak.", edns)
    };
    let shown = Message::parse(&peak.udp(&cookie(b"12345678").encode(512)).unwrap()).unwrap();
    let shown = shown.edns.unwrap().options[0].data.clone();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peak.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (count, last) = (100u16, 0xFFFF);
    for id in 0..count {
        let mut plain = query("orders.shop.peak.", Type::AAAA);
        plain.header.id = id;
        socket.send(&plain.encode(512)).unwrap();
    }
    let mut proven = cookie(&shown);
    proven.header.id = last;
    socket.send(&proven.encode(512)).unwrap();
    let (mut whole, mut slipped) = (0, 0);
    loop {
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply).unwrap();
        let reply = Message::parse(&reply[..length]).unwrap();
        match (reply.header.id == last, reply.header.truncated) {
            (true, truncated) => break assert!(!truncated && has_soa(&reply)),
            (false, true) => slipped += 1,
            (false, false) => whole += 1,
        }
    }
    // A second more or less may have begun meanwhile.
    assert!((5..50).contains(&whole) && (20..50).contains(&slipped), "{whole} whole, {slipped} slipped");
}

#[test]
fn servers_with_one_file_of_secrets_take_each_other_s_cookies_and_follow_the_file() {
    let folder = Folder::new();
    let (old, new) = ("00112233445566778899aabbccddeeff\n", "ffeeddccbbaa99887766554433221100\n");
    let file = folder.write("cookies", old);
    let config = format!("listen: 127.0.0.1:0\ncookie_secrets: \"{}\"\n", file.display());
    let mut peaks = [Peak::configured(&config), Peak::configured(&config)];
    let given = |peak: &Peak, shown: &[u8]| {
        let edns = Edns { options: vec![option(10, shown)], ..Edns::default() };
        let reply = peak.udp(&with_edns("shop.peak.", edns).encode(512)).unwrap();
        Message::parse(&reply).unwrap().edns.unwrap().options[0].data.clone()
    };
    // A cookie that is good comes back as it is.
    let cookie = given(&peaks[0], b"12345678");
    assert_eq!(given(&peaks[1], &cookie), cookie);
    std::fs::write(&file, format!("{new}{old}")).unwrap();
    for peak in &mut peaks {
        wait_for(&mut peak.log, "secrets of cookies read again");
    }
    let renewed = given(&peaks[0], &cookie);
    assert!(renewed != cookie && given(&peaks[1], &renewed) == renewed);
}

#[test]
fn what_was_answered_is_counted() {
    let (peak, _, metrics) = administered();
    peak.ask("orders.shop.peak.", Type::AAAA);
    peak.ask("no.shop.peak.", Type::AAAA);
    peak.ask("example.net.", Type(4711));
    peak.over_tcp(&query("shop.peak.", Type::SOA).encode(512)).unwrap();
    let server = format!("server=\"dns://:{}\"", peak.addr.port());
    let (udp, tcp) =
        (format!("{server},zone=\"shop.peak.\",proto=\"udp\""), format!("{server},zone=\"shop.peak.\",proto=\"tcp\""));
    let expected = [
        format!("funicular_dns_requests_total{{{udp},family=\"1\",type=\"AAAA\"}} 2"),
        format!("funicular_dns_requests_total{{{tcp},family=\"1\",type=\"SOA\"}} 1"),
        format!(
            "funicular_dns_requests_total{{{server},zone=\"dropped\",proto=\"udp\",family=\"1\",type=\"other\"}} 1"
        ),
        format!("funicular_dns_responses_total{{{udp},rcode=\"NXDOMAIN\"}} 1"),
        format!("funicular_dns_responses_total{{{server},zone=\"dropped\",proto=\"udp\",rcode=\"REFUSED\"}} 1"),
        format!("funicular_dns_request_size_bytes_count{{{server},proto=\"udp\"}} 3"),
        format!("funicular_dns_response_size_bytes_count{{{server},proto=\"tcp\"}} 1"),
        format!("funicular_dns_request_duration_seconds_count{{{server},proto=\"udp\"}} 3"),
        "funicular_dns_zone_serial{zone=\"shop.peak.\"} 7".to_owned(),
    ];
    // A batch's time is counted once its replies have left, so the last may show a moment after its reply.
    let patient_until = std::time::Instant::now() + PATIENCE;
    loop {
        let text = scraped(metrics);
        let missing: Vec<_> = expected.iter().filter(|line| !text.lines().any(|shown| shown == *line)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < patient_until, "{missing:?} not in\n{text}");
    }
}

fn scraped(addr: SocketAddr) -> String {
    http(addr, "GET /metrics")
}

fn http(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
