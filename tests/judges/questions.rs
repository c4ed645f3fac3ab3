//! Every question of RFC 8906 §8, and those that RFC 1034, 1035, 2181, 2308, 4343, 4592, 6891, 7766, 7873, 8020 and 8482
//! raise, over UDP and TCP.

use std::io::Write;
use std::net::TcpStream;

use super::bed::{PATIENCE, Peak};
use super::octets::{
    ID, Reply, asked, asked_with, framed, header, name, opt, over_tcp, over_udp, over_udp_if_any, question,
    question_in, read_framed,
};

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const APL: u16 = 42;
const DS: u16 = 43;
const DNSKEY: u16 = 48;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
const AXFR: u16 = 252;
const ANY: u16 = 255;

const NOERROR: u16 = 0;
const FORMERR: u16 = 1;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

const COOKIE: u16 = 10;
/// A kilobyte: what does not fit the least size.
const BIG: usize = 40;
const HUGE: usize = 60;

/// What is asked, the octets, and what the reply must be like; no judge: silence.
type Probe = (&'static str, Vec<u8>, Option<fn(&Reply) -> bool>);

fn has_soa(reply: &Reply) -> bool {
    reply.rcode() == NOERROR && reply.aa() && reply.answers(SOA) == 1
}

fn nodata(reply: &Reply) -> bool {
    reply.rcode() == NOERROR && reply.aa() && reply.negative()
}

fn bare(reply: &Reply, rcode: u16) -> bool {
    reply.rcode() == rcode && reply.sections.iter().all(Vec::is_empty)
}

fn soa(flags: u16) -> Vec<u8> {
    asked("every.peak", SOA, flags)
}

/// RFC 8906 §8.1.
fn without_edns() -> Vec<Probe> {
    vec![
        ("the SOA record", soa(0), Some(|reply| has_soa(reply) && reply.opt.is_none())),
        ("a type nobody knows", asked("every.peak", 1000, 0), Some(nodata)),
        ("CD", soa(0x0010), Some(has_soa)),
        ("AD", soa(0x0020), Some(|reply| has_soa(reply) && !reply.flag(5))),
        ("the reserved bit", soa(0x0040), Some(|reply| has_soa(reply) && !reply.flag(6))),
        ("RD", soa(0x0100), Some(|reply| has_soa(reply) && reply.flag(8) && !reply.flag(7))),
        ("AA, TC and RA in a question", soa(0x0680), Some(|reply| has_soa(reply) && !reply.tc() && !reply.flag(7))),
        (
            "operation 15, a header alone",
            header(0x7800, [0; 4]),
            Some(|reply| bare(reply, NOTIMP) && reply.opcode() == 15),
        ),
        ("operation 15, with a question", soa(0x7800), Some(|reply| bare(reply, NOTIMP) && reply.opcode() == 15)),
        ("inverse queries, obsolete", soa(0x0800), Some(|reply| bare(reply, NOTIMP))),
        ("server status", soa(0x1000), Some(|reply| bare(reply, NOTIMP))),
        ("a notice, where nobody may send any", soa(0x2000), Some(|reply| bare(reply, NOTIMP))),
        ("an update, where nobody may make any", soa(0x2800), Some(|reply| bare(reply, NOTIMP))),
    ]
}

/// RFC 8906 §8.2.
fn with_edns() -> Vec<Probe> {
    let ask = |opt: Vec<u8>| asked_with("every.peak", SOA, &opt);
    let unknown: &[(u16, &[u8])] = &[(100, b"")];
    let defined: &[(u16, &[u8])] = &[(3, b""), (COOKIE, b"12345678"), (9, b""), (8, &[0, 1, 0, 0]), (12, &[0; 16])];
    vec![
        (
            "EDNS",
            ask(opt(1232, 0, 0, &[])),
            Some(|reply| has_soa(reply) && reply.edns_version() == Some(0) && reply.edns_flags() == 0),
        ),
        ("EDNS 1", ask(opt(1232, 1, 0, &[])), Some(|reply| bare(reply, BADVERS) && reply.edns_version() == Some(0))),
        (
            "an option nobody knows",
            ask(opt(1232, 0, 0, unknown)),
            Some(|reply| has_soa(reply) && reply.edns_version() == Some(0) && reply.options().is_empty()),
        ),
        (
            "a flag nobody knows",
            ask(opt(1232, 0, 0x0040, &[])),
            Some(|reply| has_soa(reply) && reply.edns_version() == Some(0) && reply.edns_flags() == 0),
        ),
        (
            "EDNS 1 and a flag nobody knows",
            ask(opt(1232, 1, 0x0040, &[])),
            Some(|reply| bare(reply, BADVERS) && reply.edns_flags() & 0x0040 == 0),
        ),
        (
            "EDNS 1 and an option nobody knows",
            ask(opt(1232, 1, 0, unknown)),
            Some(|reply| bare(reply, BADVERS) && reply.options().is_empty()),
        ),
        ("DO", ask(opt(1232, 0, 0x8000, &[])), Some(|reply| has_soa(reply) && reply.edns_flags() == 0x8000)),
        (
            "EDNS 1 and DO",
            ask(opt(1232, 1, 0x8000, &[])),
            Some(|reply| bare(reply, BADVERS) && reply.edns_version() == Some(0)),
        ),
        (
            "keys that are not there, with DO and 512 octets",
            asked_with("every.peak", DNSKEY, &opt(512, 0, 0x8000, &[])),
            Some(|reply| nodata(reply) && reply.octets.len() <= 512),
        ),
        (
            "five options that are defined",
            ask(opt(4096, 0, 0, defined)),
            Some(|reply| has_soa(reply) && reply.options().iter().any(|(code, _)| *code == COOKIE)),
        ),
        (
            "a cookie, which is not merely echoed",
            ask(opt(1232, 0, 0, &[(COOKIE, b"12345678")])),
            Some(|reply| {
                has_soa(reply)
                    && matches!(&reply.options()[..], [(COOKIE, data)] if data.len() == 24 && data.starts_with(b"12345678"))
            }),
        ),
        ("a cookie of seven octets", ask(opt(1232, 0, 0, &[(COOKIE, &[0; 7])])), Some(|reply| bare(reply, FORMERR))),
        ("a cookie of nine octets", ask(opt(1232, 0, 0, &[(COOKIE, &[0; 9])])), Some(|reply| bare(reply, FORMERR))),
        ("a cookie of 41 octets", ask(opt(1232, 0, 0, &[(COOKIE, &[0; 41])])), Some(|reply| bare(reply, FORMERR))),
        (
            "a size below the least",
            asked_with("huge.every.peak", AAAA, &opt(100, 0, 0, &[])),
            Some(|reply| reply.octets.len() <= 512 || reply.answers(AAAA) == HUGE),
        ),
        (
            "two OPT records",
            [header(0, [1, 0, 0, 2]), question("every.peak", SOA), opt(1232, 0, 0, &[]), opt(1232, 0, 0, &[])].concat(),
            Some(|reply| bare(reply, FORMERR)),
        ),
        (
            "an OPT record with an owner",
            [&header(0, [1, 0, 0, 1])[..], &question("every.peak", SOA), b"\x01a", &opt(1232, 0, 0, &[])].concat(),
            Some(|reply| bare(reply, FORMERR)),
        ),
        (
            "an OPT record in the answer section",
            [header(0, [1, 1, 0, 0]), question("every.peak", SOA), opt(1232, 0, 0, &[])].concat(),
            Some(|reply| bare(reply, FORMERR)),
        ),
    ]
}

/// What no question should look like.
fn malformed() -> Vec<Probe> {
    let twice = [header(0, [2, 0, 0, 0]), question("every.peak", SOA), question("every.peak", SOA)].concat();
    let pointer = |to: u8| [&header(0, [1, 0, 0, 0])[..], &[0xc0, to, 0, 6, 0, 1]].concat();
    let long = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
    vec![
        ("a reply", soa(0x8000), None),
        ("a reply that is an error", soa(0x8001), None),
        ("a reply to another operation", soa(0xf800), None),
        ("a reply that is broken", [soa(0x8000), vec![0; 7]].concat(), None),
        ("eleven octets", soa(0)[..11].to_vec(), None),
        ("a header that announces a question", header(0, [1, 0, 0, 0]), Some(|reply| bare(reply, FORMERR))),
        ("a header that announces nothing", header(0, [0; 4]), Some(|reply| bare(reply, FORMERR))),
        ("half a question", soa(0)[..20].to_vec(), Some(|reply| bare(reply, FORMERR))),
        ("two questions", twice, Some(|reply| bare(reply, FORMERR))),
        ("a name that points at itself", pointer(12), Some(|reply| bare(reply, FORMERR))),
        ("a name that points behind itself", pointer(14), Some(|reply| bare(reply, FORMERR))),
        ("a name of more than 255 octets", asked(&long, A, 0), Some(|reply| bare(reply, FORMERR))),
        (
            "a label of a kind that is reserved",
            [&header(0, [1, 0, 0, 0])[..], b"\x41a\0\0\x01\0\x01"].concat(),
            Some(|reply| bare(reply, FORMERR)),
        ),
        ("octets behind the end", [soa(0), vec![0]].concat(), Some(|reply| bare(reply, FORMERR))),
        (
            "records that are announced and missing",
            [header(0, [1, 0, 0, 9]), question("every.peak", SOA)].concat(),
            Some(|reply| bare(reply, FORMERR)),
        ),
    ]
}

/// What a zone says, and what it does not.
fn answers() -> Vec<Probe> {
    let mixed = [header(0, [1, 0, 0, 0]), question("oRdErS.EvErY.pEaK", APL)].concat();
    vec![
        ("addresses", asked("every.peak", A, 0), Some(|reply| reply.answers(A) == 1 && reply.aa())),
        ("no addresses of this family", asked("noapl.every.peak", A, 0), Some(nodata)),
        (
            "a name that is not there: a wildcard stands for it, without the type",
            asked("nope.every.peak", A, 0),
            Some(|reply| nodata(reply) && reply.sections[1][0].ttl == 900),
        ),
        (
            "a name that nothing stands for, and how long that is true (RFC 2308 §5)",
            asked("no.deep.every.peak", A, 0),
            Some(|reply| reply.rcode() == NXDOMAIN && reply.negative() && reply.sections[1][0].ttl == 900),
        ),
        ("an empty non-terminal (RFC 8020)", asked("b.c.deep.every.peak", A, 0), Some(nodata)),
        ("another empty non-terminal", asked("_tcp.every.peak", SRV, 0), Some(nodata)),
        (
            "any case, kept (RFC 4343)",
            mixed,
            Some(|reply| reply.answers(APL) == 1 && reply.question.starts_with(b"\x06oRdErS\x05EvErY\x04pEaK")),
        ),
        (
            "an alias of an alias",
            asked("www.every.peak", AAAA, 0),
            Some(|reply| reply.answers(CNAME) == 2 && reply.answers(AAAA) == 3),
        ),
        (
            "the alias itself",
            asked("www.every.peak", CNAME, 0),
            Some(|reply| reply.answers(CNAME) == 1 && reply.sections[0].len() == 1),
        ),
        (
            "an alias to elsewhere",
            asked("away.every.peak", A, 0),
            Some(|reply| reply.rcode() == NOERROR && reply.aa() && reply.sections[0].len() == 1),
        ),
        (
            "below a wildcard (RFC 4592)",
            asked("x.y.wild.every.peak", A, 0),
            Some(|reply| reply.answers(A) == 1 && reply.aa()),
        ),
        ("a name beside a wildcard shades it", asked("is.wild.every.peak", A, 0), Some(nodata)),
        (
            "below the name that shades it",
            asked("x.is.wild.every.peak", A, 0),
            Some(|reply| reply.rcode() == NXDOMAIN && reply.negative()),
        ),
        ("the wildcard itself", asked("*.wild.every.peak", A, 0), Some(|reply| reply.answers(A) == 1)),
        (
            "a wildcard that is an alias",
            asked("x.walias.every.peak", AAAA, 0),
            Some(|reply| reply.answers(CNAME) == 1 && reply.answers(AAAA) == 3),
        ),
        ("MX with the addresses of its targets", asked("every.peak", MX, 0), Some(|reply| reply.answers(MX) == 2)),
        ("NS", asked("every.peak", NS, 0), Some(|reply| reply.answers(NS) == 2 && reply.sections[2].len() == 4)),
        ("PTR", asked("80.ptr.every.peak", PTR, 0), Some(|reply| reply.answers(PTR) == 1)),
        ("SRV", asked("_http._tcp.every.peak", SRV, 0), Some(|reply| reply.answers(SRV) == 2)),
        ("TXT of three strings, one empty", asked("text.every.peak", TXT, 0), Some(|reply| reply.answers(TXT) == 1)),
        (
            "APL of five items (RFC 3123)",
            asked("apl.every.peak", APL, 0),
            Some(|reply| {
                reply.data(APL)
                    == [b"\0\x01\x18\x03\xc0\0\x02\0\x01\x19\x84\xc0\0\x02\x80\0\x02\x20\x04\x20\x01\x0d\xb8\0\x02\0\0\0\x01\0\0"]
            }),
        ),
        ("APL of no item", asked("noapl.every.peak", APL, 0), Some(|reply| reply.data(APL) == [b""])),
        (
            "an address space brings its rules (SVCB) along",
            asked("orders.every.peak", APL, 0),
            Some(|reply| reply.sections[2].iter().any(|record| record.rtype == SVCB)),
        ),
        (
            "SVCB with its target's addresses (RFC 9460 §4.2)",
            asked("param.every.peak", SVCB, 0),
            Some(|reply| reply.answers(SVCB) == 1 && reply.sections[2].len() == 3),
        ),
        ("HTTPS", asked("web.every.peak", HTTPS, 0), Some(|reply| reply.answers(HTTPS) == 1)),
        (
            "a type nobody knows, with data",
            asked("odd.every.peak", 65280, 0),
            Some(|reply| reply.data(65280) == [[1, 2, 3]]),
        ),
        ("a type nobody knows, without data", asked("odd.every.peak", 731, 0), Some(|reply| reply.data(731) == [b""])),
        (
            "ANY: one set (RFC 8482)",
            asked("every.peak", ANY, 0),
            Some(|reply| {
                let first = reply.sections[0][0].rtype;
                reply.aa() && reply.sections[0].iter().all(|record| record.rtype == first)
            }),
        ),
        (
            "below a cut: a referral with glue",
            asked("x.cluster.every.peak", A, 0),
            Some(|reply| {
                !reply.aa()
                    && reply.sections[0].is_empty()
                    && reply.sections[1].len() == 3
                    && reply.sections[1].iter().all(|record| record.rtype == NS)
                    && reply.sections[2].len() == 3
            }),
        ),
        ("NS at a cut is no data of this zone", asked("cluster.every.peak", NS, 0), Some(|reply| !reply.aa())),
        ("DS at a cut is (RFC 4035 §3.1.4.1)", asked("cluster.every.peak", DS, 0), Some(nodata)),
        ("another zone", asked("example.net", A, 0), Some(|reply| bare(reply, REFUSED))),
        ("the zone above", asked("peak", SOA, 0), Some(|reply| bare(reply, REFUSED))),
        ("the root", asked(".", NS, 0), Some(|reply| bare(reply, REFUSED))),
        (
            "class CH",
            [header(0, [1, 0, 0, 0]), question_in("version.bind", TXT, 3)].concat(),
            Some(|reply| bare(reply, REFUSED)),
        ),
        (
            "class ANY",
            [header(0, [1, 0, 0, 0]), question_in("every.peak", SOA, 255)].concat(),
            Some(|reply| bare(reply, REFUSED)),
        ),
        ("a transfer by a stranger", asked("every.peak", AXFR, 0), Some(|reply| bare(reply, REFUSED))),
        ("mailboxes, obsolete", asked("every.peak", 253, 0), Some(|reply| bare(reply, NOTIMP))),
    ]
}

#[test]
fn every_question_is_answered_right_over_udp_and_tcp() {
    let peak = Peak::serving_every_type();
    let mut wrong = Vec::new();
    let probes = [without_edns(), with_edns(), malformed(), answers()].concat();
    for (what, request, judge) in &probes {
        let over_udp = if judge.is_some() { over_udp } else { over_udp_if_any };
        let replies = [("UDP", over_udp(peak.addr, request)), ("TCP", over_tcp(peak.addr, request))];
        for (transport, reply) in replies {
            let reply = reply.as_deref().map(Reply::read);
            let right = match (&reply, judge) {
                (Some(reply), Some(judge)) => is_its_reply(reply, request) && judge(reply),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !right {
                wrong.push(format!("{what} over {transport}: {reply:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), 2 * probes.len(), wrong.join("\n"));
}

/// What holds of every reply: whose it is, what it never claims, and its size.
fn is_its_reply(reply: &Reply, request: &[u8]) -> bool {
    let asks_with_opt = request.get(10..12) != Some(&[0, 0]);
    reply.id() == ID
        && reply.flag(15)
        && reply.opcode() == request[2] >> 3 & 0x0f
        && [4, 5, 6, 7].into_iter().all(|bit| !reply.flag(bit) || bit == 4)
        && (reply.opt.is_none() || asks_with_opt)
}

#[test]
fn what_fits_is_sent_whole_and_what_does_not_is_cut_and_whole_over_tcp() {
    let peak = Peak::serving_every_type();
    let ask = |of: &str, size: Option<u16>| {
        let request = size.map_or_else(|| asked(of, AAAA, 0), |size| asked_with(of, AAAA, &opt(size, 0, 0, &[])));
        Reply::read(&over_udp(peak.addr, &request).unwrap())
    };
    for size in [None, Some(0), Some(512), Some(1_000)] {
        let reply = ask("big.every.peak", size);
        let room = usize::from(size.unwrap_or(512).max(512));
        assert!(reply.tc() && reply.octets.len() <= room, "{size:?}: {} octets", reply.octets.len());
    }
    for size in [1_232, 4_096, 65_535] {
        let (big, huge) = (ask("big.every.peak", Some(size)), ask("huge.every.peak", Some(size)));
        assert!(!big.tc() && big.answers(AAAA) == BIG, "{size}");
        assert!(huge.tc() && huge.octets.len() <= 1_232, "{size}");
    }
    let whole = Reply::read(&over_tcp(peak.addr, &asked("huge.every.peak", AAAA, 0)).unwrap());
    assert!(!whole.tc() && whole.answers(AAAA) == HUGE);
}

#[test]
fn answers_are_rotated_and_stay_the_same_set() {
    let peak = Peak::serving_every_type();
    let request = asked("orders.every.peak", AAAA, 0);
    let replies: Vec<Reply> = (0..60).map(|_| Reply::read(&over_udp(peak.addr, &request).unwrap())).collect();
    let first = |reply: &Reply| reply.sections[0][0].data.clone();
    let mut firsts: Vec<Vec<u8>> = replies.iter().map(first).collect();
    firsts.sort();
    firsts.dedup();
    assert_eq!(firsts.len(), 3);
    assert!(replies.iter().all(|reply| reply.data(AAAA) == replies[0].data(AAAA)));
}

#[test]
fn a_pipeline_in_pieces_of_seven_octets_is_answered_whole() {
    let peak = Peak::serving_every_type();
    let mut stream = TcpStream::connect(peak.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = |id: u16| {
        let mut request = asked("big.every.peak", AAAA, 0);
        request[..2].copy_from_slice(&id.to_be_bytes());
        framed(&request)
    };
    let octets: Vec<u8> = (0..20).flat_map(request).collect();
    octets.chunks(7).for_each(|piece| stream.write_all(piece).unwrap());
    let mut ids: Vec<u16> = (0..20).map(|_| Reply::read(&read_framed(&mut stream).unwrap()).id()).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..20));
}

#[test]
fn the_judge_reads_what_it_should() {
    assert_eq!(name("a.bc."), b"\x01a\x02bc\0");
    assert_eq!(name("."), b"\0");
    assert_eq!(asked("a", 1, 0x0100), b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01");
}
