//! A set of records in JSON, and from a zone.

use serde::{Deserialize, Serialize};

use crate::model::Name;
use crate::model::zone::{Node, Zone};
use crate::wire::dns::{Type, rdata};

/// The records of one name and type.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSet {
    /// The owner, absolute.
    pub name: String,
    /// The type's mnemonic, or `TYPEn`.
    #[serde(rename = "type")]
    pub rtype: String,
    /// The time to live in seconds.
    pub ttl: u32,
    /// The data of each record, in presentation form, in no meaningful order.
    pub data: Vec<String>,
}

impl RecordSet {
    /// The sets of one node of the zone.
    fn of_node(zone: &Zone, node: &Node, wanted: Option<Type>) -> Vec<Self> {
        let mut sets: Vec<_> = node.sets().filter(|set| wanted.is_none_or(|it| it.0 == set.rtype())).collect();
        sets.sort_by_key(|set| set.rtype());
        let told = |set: &crate::model::zone::Rrset| {
            let rtype = Type(set.rtype());
            Self {
                name: node.name().to_string(),
                rtype: rtype.to_string(),
                ttl: set.ttl(),
                data: set.rdatas(zone.apex()).map(|data| rdata::to_text(rtype, &data)).collect(),
            }
        };
        sets.into_iter().map(told).collect()
    }

    /// The zone's sets in the order of names and types, of one name or type alone where that is asked for.
    #[must_use]
    pub fn of_zone(zone: &Zone, name: Option<&Name>, rtype: Option<Type>) -> Vec<Self> {
        let mut nodes: Vec<&Node> = match name {
            Some(name) => zone.node(name).into_iter().collect(),
            None => zone.nodes().collect(),
        };
        nodes.sort_by_cached_key(|node| order(&node.name()));
        nodes.into_iter().flat_map(|node| Self::of_node(zone, node, rtype)).collect()
    }

    /// The set as lines of a zone file, absolute throughout.
    #[must_use]
    pub fn lines(&self) -> String {
        let Self { name, rtype, ttl, data } = self;
        data.iter().map(|data| format!("{name} {ttl} IN {rtype} {data}\n")).collect()
    }
}

/// Where a name stands in the canonical order (RFC 4034 §6.1): by its labels, the rightmost first.
fn order(name: &Name) -> Vec<Box<[u8]>> {
    let mut labels: Vec<Box<[u8]>> = name.to_lowercase().labels().map(Into::into).collect();
    labels.reverse();
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::zone::{Entry, Seed};
    use crate::wire::dns::zonefile;

    fn zone() -> Zone {
        let apex: Name = "shop.peak.".parse().unwrap();
        let text = "$TTL 60\n@ SOA ns1 admin 7 3600 600 86400 30\n@ NS ns1\nns1 A 192.0.2.1\nb.a TXT \"x y\"\n\
                    a AAAA 2001:db8::1\na AAAA 2001:db8::2\na TXT z\n*.a TYPE65280 \\# 1 ff\n";
        let entry = |record: crate::wire::dns::Record| Entry {
            name: record.name,
            rtype: record.rtype.0,
            ttl: record.ttl,
            rdata: record.rdata,
        };
        let entries: Vec<Entry> = zonefile::parse(text, &apex).unwrap().into_iter().map(entry).collect();
        Zone::load(&apex, Seed(1), &entries).unwrap().zone
    }

    #[test]
    fn sets_stand_in_the_order_of_names_and_types_and_read_back_as_a_zone_file() {
        let sets = RecordSet::of_zone(&zone(), None, None);
        let told: Vec<String> = sets.iter().map(|set| format!("{} {}", set.name, set.rtype)).collect();
        let expected = [
            "shop.peak. NS",
            "shop.peak. SOA",
            "a.shop.peak. TXT",
            "a.shop.peak. AAAA",
            "*.a.shop.peak. TYPE65280",
            "b.a.shop.peak. TXT",
            "ns1.shop.peak. A",
        ];
        assert_eq!(told, expected);
        let lines: String = sets.iter().map(RecordSet::lines).collect();
        assert_eq!(zonefile::parse(&lines, &Name::root()).unwrap().len(), 8);
    }

    #[test]
    fn one_name_or_one_type_can_be_asked_for() {
        let zone = zone();
        let name: Name = "A.shop.peak.".parse().unwrap();
        assert_eq!(RecordSet::of_zone(&zone, Some(&name), None).len(), 2);
        let [set] = &RecordSet::of_zone(&zone, Some(&name), Some(Type::AAAA))[..] else { panic!("not one set") };
        assert_eq!((set.ttl, set.data.len()), (60, 2));
        assert_eq!(RecordSet::of_zone(&zone, None, Some(Type::MX)), []);
    }
}
