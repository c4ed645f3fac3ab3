//! The examples do what they say.

use funicular::model::Name;
use funicular::wire::dns::ssa_records::{self, Sources};
use funicular::wire::dns::{Type, zonefile};

#[path = "../../examples/address.rs"]
mod address;

#[test]
fn the_example_in_code_computes_an_address_that_is_right_for_its_caller_alone() {
    address::main().unwrap();
    let text = address::answer("2001:db8:1::10".parse().unwrap()).unwrap();
    assert!(text.starts_with("2001:db8:5:1:"), "{text}");
    assert!(text.ends_with("is right for 2001:db8:1::10, wrong: source-hash for ::1"), "{text}");
}

#[test]
fn the_example_zone_publishes_a_service_with_its_rule_and_port() {
    let origin: Name = "shop.peak.".parse().unwrap();
    let records = zonefile::parse(include_str!("../../examples/shop.peak.zone"), &origin).unwrap();
    let rdata = |name: &str, rtype: Type| -> Vec<&[u8]> {
        let name: Name = name.parse().unwrap();
        let found = records.iter().filter(|record| record.name == name && record.rtype == rtype);
        found.map(|record| &record.rdata[..]).collect()
    };
    let (apl, svcb) = (rdata("orders.shop.peak.", Type::APL), rdata("_ssa.orders.shop.peak.", Type::SVCB));

    let published = ssa_records::service(&Sources { apl: &apl, svcb: &svcb, ..Sources::default() }).unwrap();

    assert_eq!(published.port, Some(8080));
    assert_eq!(published.rules.len(), 1);
    assert_eq!(published.malformed, []);
}
