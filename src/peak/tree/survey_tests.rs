//! The judgement, on made-up answers.

use super::*;
use crate::wire::dns::zonefile;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn records(text: &str) -> Vec<Record> {
    zonefile::parse(text, &name("peak.")).unwrap()
}

/// An answer about `peak.`, as its three sections' text.
fn answer(authoritative: bool, sections: [&str; 3]) -> Message {
    let mut answer = Message::query(1, name("peak."), Type::SOA).response(Rcode::NOERROR);
    answer.header.authoritative = authoritative;
    let [answers, authorities, additionals] = sections.map(records);
    Message { answers, authorities, additionals, ..answer }
}

const SOA: &str = "@ 60 SOA ns admin 7 3600 600 86400 30\n";

fn lame(answer: Message) -> Lameness {
    match standing(&name("peak."), &Ok(answer)) {
        Standing::Lame(why) => why,
        other @ (Standing::Serves { .. } | Standing::Unknown | Standing::NotAsked) => panic!("{other:?}"),
    }
}

#[test]
fn who_answers_the_soa_record_with_authority_serves() {
    let served = standing(&name("PEAK."), &Ok(answer(true, [SOA, "", ""])));
    assert_eq!(served, Standing::Serves { serial: 7 });
}

#[test]
fn everybody_else_is_lame_each_for_a_reason() {
    assert_eq!(lame(answer(false, [SOA, "", ""])), Lameness::NotAuthoritative);
    assert_eq!(lame(answer(true, ["", SOA, ""])), Lameness::NoSoa);
    assert_eq!(lame(answer(false, ["", "@ 60 NS ns\n", ""])), Lameness::Refers);
    let mut refused = answer(false, ["", "", ""]);
    refused.header.rcode = Rcode::REFUSED;
    assert_eq!(lame(refused).reason(), "refused");
    let another = answer(true, ["x 60 SOA ns admin 7 3600 600 86400 30\n", "", ""]);
    assert_eq!(lame(another), Lameness::NoSoa);
    let server = "192.0.2.1:53".parse().unwrap();
    let silent = Err(AskError::Timeout { server, within: std::time::Duration::from_secs(1) });
    assert_eq!(standing(&name("peak."), &silent), Standing::Lame(Lameness::Timeout));
}

fn server(last: u8, standing: Standing) -> Server {
    let addr = SocketAddr::new([192, 0, 2, last].into(), 53);
    Server { name: Some(name(&format!("ns{last}.peak."))), addr: Some(addr), standing }
}

#[test]
fn who_has_an_older_serial_is_behind_also_across_zero() {
    let serves = |last, serial| server(last, Standing::Serves { serial });
    for (older, newer) in [(6, 7), (u32::MAX, 0), (u32::MAX - 5, 3)] {
        for servers in [[serves(1, older), serves(2, newer)], [serves(2, newer), serves(1, older)]] {
            let behind = serves(1, older);
            let expected =
                Fault::Behind { server: behind.name.clone(), addr: behind.addr.unwrap(), serial: older, newest: newer };
            assert_eq!(judge(&servers), [expected]);
        }
    }
    assert_eq!(judge(&[serves(1, 7), serves(2, 7)]), []);
}

#[test]
fn a_lame_server_is_flagged_and_a_zone_that_has_no_other_as_well() {
    let lame = server(2, Standing::Lame(Lameness::Timeout));
    let reasons = |servers: &[Server]| judge(servers).iter().map(Fault::reason).collect::<Vec<_>>();
    assert_eq!(reasons(&[server(1, Standing::Serves { serial: 1 }), lame.clone()]), ["lame-delegation"]);
    assert_eq!(reasons(&[lame]), ["lame-delegation", "nobody-serves"]);
    assert_eq!(reasons(&[server(1, Standing::Serves { serial: 1 }), server(2, Standing::NotAsked)]), [""; 0]);
    let nowhere = Server { addr: None, ..server(3, Standing::Unknown) };
    assert_eq!(reasons(&[server(1, Standing::Serves { serial: 1 }), nowhere]), ["no-address"]);
}

#[test]
fn glue_is_missed_for_servers_inside_the_zone_alone() {
    let ns = records("a 60 NS ns.a\na 60 NS ns2.a\na 60 NS ns.b\na 60 NS ns.example.net.\n");
    let glue = records("ns.a 60 A 192.0.2.1\nns.a 60 AAAA 2001:db8::1\n");
    let cut = Delegation::of(&name("a.peak."), &ns, &glue, true);
    assert_eq!(cut.missing_glue(), [Fault::MissingGlue { server: name("ns2.a.peak.") }]);
    let of_ns = &cut.servers.iter().find(|(server, _)| *server == name("ns.a.peak.")).unwrap().1;
    assert_eq!(*of_ns, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    assert_eq!(Delegation { from_above: false, ..cut }.missing_glue(), []);
}

#[test]
fn what_the_two_sides_of_a_cut_say_differently_is_flagged() {
    let side = |text, from_above| Delegation::of(&name("a.peak."), &records(text), &[], from_above);
    let above = side("a 60 NS ns1.a\na 60 NS ns2.a\n", true);
    let own = side("a 60 NS NS2.a\na 60 NS ns3.a\n", false);
    let expected =
        [Fault::NotInZone { server: name("ns1.a.peak.") }, Fault::NotInDelegation { server: name("ns3.a.peak.") }];
    assert_eq!(differences(&above, &own), expected);
    assert_eq!(differences(&own, &above), []);
}

#[test]
fn a_referral_has_servers_and_neither_answers_nor_authority() {
    let cut = ["", "a 60 NS ns.a\n", ""];
    assert_eq!(referral(&answer(false, cut)), Some(&name("a.peak.")));
    assert_eq!(referral(&answer(true, cut)), None);
    assert_eq!(referral(&answer(false, [SOA, "a 60 NS ns.a\n", ""])), None);
    assert_eq!(referral(&answer(false, ["", SOA, ""])), None);
}
