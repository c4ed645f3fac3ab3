//! What is wrong with the rules that a zone publishes for its services (SSA.md §1).
//!
//! A rule that cannot be used is no fault of the zone: DNS carries it as it is, and clients leave it out. Its author should
//! know all the same, with its place, before a client wonders.

use std::collections::HashMap;

use crate::model::Name;
use crate::model::zone::{Entry, types};
use crate::wire::dns::ssa_records::{Legacy, Published, Sources, service};

/// The label before a service's name under which its rules stand.
const LABEL: &[u8] = b"\x04_ssa";

/// Everything to be told, each with the index of the entry that it is about, in the order of the entries.
pub(super) fn remarks(entries: &[Entry]) -> Vec<(usize, String)> {
    let is_rule = |entry: &Entry| {
        let label = entry.name.wire().get(..LABEL.len());
        matches!(entry.rtype, types::SVCB | types::TXT) && label.is_some_and(|label| label.eq_ignore_ascii_case(LABEL))
    };
    let rules: Vec<(usize, &Entry)> = entries.iter().enumerate().filter(|(_, entry)| is_rule(entry)).collect();
    let mut spaces: HashMap<Name, Vec<&[u8]>> =
        rules.iter().filter_map(|(_, rule)| rule.name.parent()).map(|service| (service, Vec::new())).collect();
    if !spaces.is_empty() {
        for entry in entries.iter().filter(|entry| entry.rtype == types::APL) {
            if let Some(space) = spaces.get_mut(&entry.name) {
                space.push(&entry.rdata);
            }
        }
    }
    let remark = |(index, rule): (usize, &Entry)| {
        let space = spaces.get(&rule.name.parent()?)?;
        remark(space, rule).map(|remark| (index, format!("{}: {remark}", rule.name)))
    };
    rules.into_iter().filter_map(remark).collect()
}

/// What is wrong with one record, which is judged as if it were its service's only one.
fn remark(space: &[&[u8]], rule: &Entry) -> Option<String> {
    let rdata: &[&[u8]] = &[&rule.rdata];
    let (svcb, txt) = if rule.rtype == types::SVCB { (rdata, &[][..]) } else { (&[][..], rdata) };
    match service(&Sources { apl: space, svcb, txt, local: &[] }) {
        Ok(Published { malformed, .. }) | Err(Legacy::NoUsableRule { malformed }) => {
            Some(format!("clients leave this rule out: {}", malformed.first()?))
        }
        Err(legacy @ (Legacy::NoSpace | Legacy::Apl(_))) => {
            Some(format!("clients have no use for this rule, as for its service {legacy}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dns::zonefile;

    fn told(text: &str) -> Vec<(usize, String)> {
        let records = zonefile::parse(&format!("$TTL 60\n{text}"), &"peak.".parse().unwrap()).unwrap();
        let entry = |record: crate::wire::dns::Record| Entry {
            name: record.name,
            rtype: record.rtype.0,
            ttl: record.ttl,
            rdata: record.rdata,
        };
        remarks(&records.into_iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn rules_that_clients_can_use_are_not_remarked_on() {
        let zone = "_ssa.a SVCB 1 a.peak. key65400=\"v=ssa1 slices=14\"\na APL 2:2001:db8:5:1::/64\n\
                    b APL 2:2001:db8:6:1::/64\n_ssa.b TXT \"v=ssa1\"\ntext TXT \"v=ssa1 nonsense\"\n";
        assert_eq!(told(zone), []);
    }

    #[test]
    fn each_rule_that_they_cannot_use_is_told_where_it_stands() {
        let zone = "a APL 2:2001:db8:5:1::/64\n_ssa.a SVCB 1 a.peak. key65400=\"v=ssa1 slices=14\"\n\
                    _SSA.a SVCB 2 a.peak. key65400=\"v=ssa1 slices=many\"\n_ssa.b TXT \"v=ssa1\"\n_ssa.a TXT \"nonsense\"\n";
        let told = told(zone);
        let places: Vec<usize> = told.iter().map(|(index, _)| *index).collect();
        assert_eq!(places, [2, 3, 4], "{told:?}");
        assert!(told[0].1.contains("many") && told[1].1.contains("no IPv6 space"), "{told:?}");
    }
}
