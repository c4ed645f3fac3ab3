//! What may be believed, as tables of answers.

use super::*;
use crate::wire::dns::zonefile;

const SOA: &str = "shop.peak. 300 SOA ns.peak. hostmaster.peak. 1 3600 600 86400 30\n";
const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn records(text: &str) -> Vec<Record> {
    zonefile::parse(text, &Name::root()).unwrap()
}

/// What a server of `shop.peak` says about `orders.shop.peak`, in the three sections.
fn answer(rcode: Rcode, authoritative: bool, sections: [&str; 3]) -> Message {
    let mut message = Message::query(1, name("orders.shop.peak"), Type::A).response(rcode);
    message.header.authoritative = authoritative;
    [message.answers, message.authorities, message.additionals] = sections.map(records);
    message
}

fn judged(message: &Message) -> Result<Verdict, Unusable> {
    judge(message, &name("shop.peak"), &name("orders.shop.peak"), Type::A)
}

#[test]
fn the_records_asked_for_are_taken_and_no_others_with_the_shortest_ttl() {
    let sections = [
        "orders.shop.peak. 60 A 192.0.2.1\nORDERS.shop.peak. 50 A 192.0.2.2\nother.shop.peak. 1 A 192.0.2.3\n\
         orders.shop.peak. 2 AAAA 2001:db8::1\n",
        "",
        "",
    ];
    let Ok(Verdict::Records { records, ttl }) = judged(&answer(Rcode::NOERROR, true, sections)) else { panic!() };
    assert_eq!(records.len(), 2);
    assert_eq!(ttl, 50 * SECOND);
}

#[test]
fn an_answer_without_authority_is_lame() {
    for sections in [
        ["orders.shop.peak. 60 A 192.0.2.1\n", "", ""],
        ["orders.shop.peak. 60 CNAME a.peak.\n", "", ""],
        ["", SOA, ""],
    ] {
        assert_eq!(judged(&answer(Rcode::NOERROR, false, sections)), Err(Unusable::Lame), "{sections:?}");
    }
    assert_eq!(judged(&answer(Rcode::NXDOMAIN, false, ["", SOA, ""])), Err(Unusable::Lame));
}

#[test]
fn an_alias_is_followed_alone_even_where_its_end_came_along() {
    let sections = ["orders.shop.peak. 60 CNAME a.shop.peak.\na.shop.peak. 60 A 192.0.2.1\n", "", ""];
    let Ok(Verdict::Alias { target, ttl, .. }) = judged(&answer(Rcode::NOERROR, true, sections)) else { panic!() };
    assert_eq!((target, ttl), (name("a.shop.peak"), 60 * SECOND));
    let twice = ["orders.shop.peak. 60 CNAME a.peak.\norders.shop.peak. 60 CNAME b.peak.\n", "", ""];
    assert_eq!(judged(&answer(Rcode::NOERROR, true, twice)), Err(Unusable::Broken));
}

#[test]
fn a_negative_answer_holds_for_the_lesser_of_the_soa_s_ttl_and_its_minimum() {
    for (ttl, minimum, expected) in
        [(300, 30, 30), (20, 30, 20), (300, 0, 0), (1 << 31, 30, 0), (99_999, 99_999, 10_800)]
    {
        let soa = format!("shop.peak. {ttl} SOA ns.peak. hostmaster.peak. 1 3600 600 86400 {minimum}\n");
        let message = answer(Rcode::NOERROR, true, ["", "", ""]);
        let authorities = vec![Record { ttl, ..records(&soa.replacen(&ttl.to_string(), "1", 1)).remove(0) }];
        let Ok(Verdict::NoData { ttl: held, .. }) = judged(&Message { authorities, ..message }) else { panic!() };
        assert_eq!(held, expected * SECOND, "{ttl} {minimum}");
    }
}

#[test]
fn an_soa_of_another_zone_is_not_believed() {
    for foreign in ["peak.", "bank.peak.", "a.orders.shop.peak.", "x.shop.peak."] {
        let soa = SOA.replacen("shop.peak.", foreign, 1);
        let verdict = judged(&answer(Rcode::NXDOMAIN, true, ["", &soa, ""]));
        assert_eq!(verdict, Ok(Verdict::NoName { soa: None, ttl: Duration::ZERO }), "{foreign}");
    }
}

#[test]
fn a_referral_leads_strictly_down_and_towards_the_name() {
    for (owner, followed) in [
        ("orders.shop.peak.", true),
        ("shop.peak.", false),
        ("peak.", false),
        (".", false),
        ("bank.peak.", false),
        ("other.shop.peak.", false),
        ("a.orders.shop.peak.", false),
    ] {
        let ns = format!("{owner} 60 NS ns.{}\n", owner.trim_start_matches('.'));
        let verdict = judged(&answer(Rcode::NOERROR, false, ["", &ns, ""]));
        assert_eq!(matches!(verdict, Ok(Verdict::Referral(_))), followed, "{owner}: {verdict:?}");
    }
}

#[test]
fn glue_is_believed_at_or_below_the_zone_that_refers_and_nowhere_else() {
    let ns = "orders.shop.peak. 60 NS ns.orders.shop.peak.\norders.shop.peak. 50 NS ns.bank.peak.\n\
              orders.shop.peak. 70 NS ns.shop.peak.\n";
    let glue = "ns.orders.shop.peak. 9 A 192.0.2.1\nns.bank.peak. 9 A 192.0.2.2\nns.shop.peak. 9 AAAA 2001:db8::3\n\
                unasked.shop.peak. 9 A 192.0.2.4\n";
    let verdict = judged(&answer(Rcode::NOERROR, false, ["", ns, glue]));
    let Ok(Verdict::Referral(delegation)) = verdict else { panic!("{verdict:?}") };
    let glue: Vec<_> = delegation.servers.iter().map(|server| server.glue.clone()).collect();
    assert_eq!(glue, [vec!["192.0.2.1".parse().unwrap()], vec![], vec!["2001:db8::3".parse::<IpAddr>().unwrap()]]);
    assert_eq!((delegation.glue_refused, delegation.ttl), (1, 50 * SECOND));
}

#[test]
fn a_referral_is_read_up_to_sixteen_servers() {
    let ns: String = (0..40).map(|n| format!("orders.shop.peak. 60 NS ns{n}.shop.peak.\n")).collect();
    let verdict = judged(&answer(Rcode::NOERROR, false, ["", &ns, ""]));
    let Ok(Verdict::Referral(delegation)) = verdict else { panic!("{verdict:?}") };
    assert_eq!(delegation.servers.len(), MOST_NAME_SERVERS);
}

#[test]
fn other_response_codes_say_nothing_about_the_name() {
    for (rcode, reason) in [(Rcode::SERVFAIL, "servfail"), (Rcode::REFUSED, "refused"), (Rcode::FORMERR, "other-rcode")]
    {
        let refused = judged(&answer(rcode, true, ["orders.shop.peak. 60 A 192.0.2.1\n", "", ""])).unwrap_err();
        assert_eq!(refused.reason(), reason);
    }
}

#[test]
fn an_address_record_of_the_wrong_length_is_no_address() {
    let short = Record::new(name("ns.peak"), Type::A, 60, [192, 0, 2]);
    assert_eq!(address(&short), None);
    let right = Record::new(name("ns.peak"), Type::A, 60, [192, 0, 2, 1]);
    assert_eq!(address(&right), Some(IpAddr::from([192, 0, 2, 1])));
}
