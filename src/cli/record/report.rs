//! Answers of the API as text for reading.

use std::fmt::Write as _;

use crate::wire::api::{Changed, Outcome, RecordSet, Records, ZoneList};

/// One line for each zone.
pub(super) fn outcome(outcome: &Outcome) -> String {
    if outcome.zones.is_empty() {
        return "done\n".to_owned();
    }
    let line = |Changed { zone, serial, changed }: &Changed| match (outcome.dry_run, changed) {
        (false, true) => format!("{zone} changed, serial {serial}\n"),
        (false, false) => format!("{zone} is so already, serial {serial}\n"),
        (true, true) => format!("{zone} would change\n"),
        (true, false) => format!("{zone} is so already, nothing would change\n"),
    };
    outcome.zones.iter().map(line).collect()
}

/// The records as a zone file has them, in columns.
pub(super) fn records(records: &Records) -> String {
    let width = |text: fn(&RecordSet) -> usize| records.sets.iter().map(text).max().unwrap_or(0);
    let (names, types) = (width(|set| set.name.len()), width(|set| set.rtype.len()));
    let ttls = width(|set| set.ttl.to_string().len());
    let mut text = String::new();
    for RecordSet { name, rtype, ttl, data } in &records.sets {
        for data in data {
            let _ = writeln!(text, "{name:names$}  {ttl:>ttls$}  {rtype:types$}  {data}");
        }
    }
    text
}

/// One line for each zone.
pub(super) fn zones(list: &ZoneList) -> String {
    let names = list.zones.iter().map(|zone| zone.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for zone in &list.zones {
        let held = zone.reads.as_deref().unwrap_or("not replicated");
        let _ = writeln!(text, "{:names$}  serial {:<10}  {:>8} names  {held}", zone.name, zone.serial, zone.names);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::ZoneInfo;

    #[test]
    fn an_outcome_says_what_changed_and_what_would() {
        let zone = |changed| Changed { zone: "shop.peak.".to_owned(), serial: 8, changed };
        let said = |changed, dry_run| outcome(&Outcome { zones: vec![zone(changed)], dry_run });
        assert_eq!(said(true, false), "shop.peak. changed, serial 8\n");
        assert_eq!(said(false, false), "shop.peak. is so already, serial 8\n");
        assert_eq!(said(true, true), "shop.peak. would change\n");
        assert_eq!(outcome(&Outcome { zones: vec![], dry_run: false }), "done\n");
    }

    #[test]
    fn records_and_zones_stand_in_columns() {
        let set = |name: &str, rtype: &str, ttl| RecordSet {
            name: name.to_owned(),
            rtype: rtype.to_owned(),
            ttl,
            data: vec!["x".to_owned()],
        };
        let sets = vec![set("a.", "A", 5), set("long.", "AAAA", 300)];
        let text = records(&Records { zone: "a.".to_owned(), serial: 1, sets });
        assert_eq!(text, "a.       5  A     x\nlong.  300  AAAA  x\n");
        let zone = ZoneInfo { name: "a.".to_owned(), serial: 7, names: 3, replicated: false, reads: None };
        assert_eq!(zones(&ZoneList { zones: vec![zone] }), "a.  serial 7                  3 names  not replicated\n");
    }
}
