//! What services publish, source by source.

use super::*;
use crate::model::Name;
use crate::wire::dns::{Type, rdata};

const SPACE: &str = "2:2001:db8:5:1::/64";

/// The records of a service as text.
#[derive(Default)]
struct Zone<'a> {
    apl: &'a [&'a str],
    svcb: &'a [&'a str],
    txt: &'a [&'a str],
    local: &'a [&'a str],
}

impl Zone<'_> {
    fn service(&self) -> Result<Published, Legacy> {
        let wire = |rtype, texts: &[&str]| -> Vec<Box<[u8]>> {
            texts.iter().map(|text| rdata::from_text(rtype, text, &Name::root()).unwrap()).collect()
        };
        let (apl, svcb, txt) = (wire(Type::APL, self.apl), wire(Type::SVCB, self.svcb), wire(Type::TXT, self.txt));
        service(&Sources { apl: &slices(&apl), svcb: &slices(&svcb), txt: &slices(&txt), local: self.local })
    }

    fn published(&self) -> Published {
        self.service().unwrap()
    }
}

fn slices(records: &[Box<[u8]>]) -> Vec<&[u8]> {
    records.iter().map(AsRef::as_ref).collect()
}

fn texts(published: &Published) -> Vec<&str> {
    published.rules.iter().map(Rule::text).collect()
}

#[test]
fn the_example_of_the_specification_is_read_as_it_is_meant() {
    let rule = "v=ssa1 layout=source-hash:14/64,random:50 slices=14";
    let svcb = format!("1 orders.shop.peak. port=8080 key65400=\"{rule}\"");
    let published = Zone { apl: &[SPACE], svcb: &[&svcb], txt: &["\"v=ssa1 gen=7\""], local: &[] }.published();
    assert_eq!(published.space.prefixes(), ["2001:db8:5:1::/64".parse().unwrap()]);
    assert_eq!((texts(&published), published.port), (vec![rule], Some(8080)));
    assert_eq!(published.malformed, []);
}

#[test]
fn the_first_source_with_a_rule_counts_and_the_others_are_not_read() {
    let all =
        Zone { apl: &[SPACE], svcb: &["1 . key65400=v=ssa1"], txt: &["\"v=ssa1 gen=2\""], local: &["v=ssa1 gen=3"] };
    let without_rule: &[_] = &["1 . port=80"];
    let cases = [
        (Zone { ..all }, "v=ssa1"),
        (Zone { svcb: &[], ..all }, "v=ssa1 gen=2"),
        (Zone { svcb: &[], txt: &[], ..all }, "v=ssa1 gen=3"),
        (Zone { svcb: &[], txt: &[], local: &[], ..all }, "v=ssa1"),
        (Zone { svcb: without_rule, ..all }, "v=ssa1 gen=2"),
        (Zone { svcb: without_rule, txt: &[], ..all }, "v=ssa1 gen=3"),
    ];
    for (zone, rule) in cases {
        assert_eq!(texts(&zone.published()), [rule]);
    }
}

#[test]
fn several_rules_are_all_kept_and_malformed_ones_left_out() {
    let svcb: &[_] = &[
        "1 . key65400=\"v=ssa1 gen=1\"",
        "1 . key65400=v=ssa2",
        "2 . key65400=\"v=ssa1 gen=2\"",
        "1 . key65400=\\255",
    ];
    let published = Zone { apl: &[SPACE], svcb, ..Zone::default() }.published();
    assert_eq!(texts(&published), ["v=ssa1 gen=1", "v=ssa1 gen=2"]);
    assert_eq!(published.malformed.len(), 2);
}

#[test]
fn a_source_whose_rules_are_all_malformed_is_still_the_first() {
    let legacy =
        Zone { apl: &[SPACE], svcb: &["1 . key65400=v=ssa2"], txt: &["v=ssa1"], local: &[] }.service().unwrap_err();
    assert_eq!(legacy.reason(), "no-usable-rule");
    let legacy = Zone { apl: &[SPACE], txt: &["v=spf1"], local: &["v=ssa1"], ..Zone::default() }.service().unwrap_err();
    assert_eq!(legacy.reason(), "no-usable-rule");
}

#[test]
fn the_strings_of_a_text_record_are_joined_without_a_separator() {
    let published = Zone { apl: &[SPACE], txt: &["\"v=ss\" \"a1 gen\" \"=2\""], ..Zone::default() }.published();
    assert_eq!(texts(&published), ["v=ssa1 gen=2"]);
}

#[test]
fn a_malformed_binding_makes_the_set_absent_and_is_reported() {
    let apl = rdata::from_text(Type::APL, SPACE, &Name::root()).unwrap();
    let good = rdata::from_text(Type::SVCB, "1 . port=80 key65400=\"v=ssa1 gen=1\"", &Name::root()).unwrap();
    let txt = rdata::from_text(Type::TXT, "\"v=ssa1 gen=2\"", &Name::root()).unwrap();
    let published =
        service(&Sources { apl: &[&apl], svcb: &[&good, &good[..good.len() - 1]], txt: &[&txt], local: &[] }).unwrap();
    assert_eq!((texts(&published), published.port), (vec!["v=ssa1 gen=2"], None));
    assert_eq!(published.malformed.len(), 1);
}

#[test]
fn aliases_and_records_with_unknown_mandatory_keys_carry_nothing() {
    let svcb: &[_] = &[
        "0 elsewhere. port=1 key65400=\"v=ssa1 gen=1\"",
        "1 . mandatory=key7 key7=x port=2 key65400=\"v=ssa1 gen=2\"",
        "9 . mandatory=port,key65400 port=3 key65400=\"v=ssa1 gen=3\"",
    ];
    let published = Zone { apl: &[SPACE], svcb, ..Zone::default() }.published();
    assert_eq!((texts(&published), published.port), (vec!["v=ssa1 gen=3"], Some(3)));
}

#[test]
fn the_port_is_that_of_the_best_record_with_a_usable_rule() {
    let rule = |generation: u32| format!("key65400=\"v=ssa1 gen={generation}\"");
    let cases = [
        (vec!["1 . port=80".to_owned(), format!("2 . port=81 {}", rule(0))], Some(81)),
        (vec!["1 . port=80 key65400=v=ssa2".to_owned(), format!("2 . port=81 {}", rule(0))], Some(81)),
        (vec![format!("2 . port=80 {}", rule(9)), format!("1 . port=81 {}", rule(0))], Some(81)),
        (vec![format!("1 . port=80 {}", rule(1)), format!("1 . port=81 {}", rule(2))], Some(81)),
        (vec![format!("1 . {}", rule(0)), format!("2 . port=81 {}", rule(0))], None),
        (vec!["2 . port=80".to_owned(), "1 . port=81".to_owned()], Some(81)),
    ];
    for (svcb, port) in cases {
        let svcb: Vec<&str> = svcb.iter().map(String::as_str).collect();
        let published = Zone { apl: &[SPACE], svcb: &svcb, ..Zone::default() }.published();
        assert_eq!(published.port, port, "{svcb:?}");
        let reversed: Vec<&str> = svcb.into_iter().rev().collect();
        assert_eq!(
            Zone { apl: &[SPACE], svcb: &reversed, ..Zone::default() }.published().port,
            port,
            "order says nothing"
        );
    }
}

#[test]
fn all_lists_count_together_and_one_malformed_refuses_them_all() {
    let published =
        Zone { apl: &["2:2001:db8:1::/48 1:10.0.0.0/8", "2:2001:db8:2::/48"], ..Zone::default() }.published();
    assert_eq!(published.space.prefixes().len(), 2);
    let good = rdata::from_text(Type::APL, SPACE, &Name::root()).unwrap();
    let bad = [0, 2, 64, 1, 0];
    let legacy = service(&Sources { apl: &[&good, &bad], ..Sources::default() }).unwrap_err();
    assert_eq!(legacy.reason(), "apl-trailing-zero");
}

#[test]
fn a_name_without_a_positive_ipv6_item_is_a_legacy_name() {
    for apl in [&[][..], &[""], &["1:10.0.0.0/8"], &["!2:2001:db8::/32"]] {
        assert_eq!(Zone { apl, ..Zone::default() }.service(), Err(Legacy::NoSpace));
    }
}

#[test]
fn a_rule_too_wide_for_the_space_is_malformed() {
    let zone = Zone {
        apl: &["2:2001:db8::/120"],
        txt: &["\"v=ssa1 layout=random:9\"", "\"v=ssa1 layout=random:8\""],
        ..Zone::default()
    };
    assert_eq!(texts(&zone.published()), ["v=ssa1 layout=random:8"]);
}
