//! Records and messages as text for people and for zone files, in the manner of `dig`.

use std::fmt;

use super::{Edns, Message, Question, Record, rdata};

/// Owner, TTL, class, type and data, a space between them: a line that a zone file may hold.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rtype, class, ttl, rdata } = self;
        write!(f, "{name} {ttl} {class} {rtype} {}", rdata::to_text(*rtype, rdata))
    }
}

/// Name, class and type, a space between them.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.class, self.rtype)
    }
}

/// The records, each on a line, their columns aligned: owner, TTL (to the right), class, type, data.
#[must_use]
pub fn table(records: &[Record]) -> String {
    let width = |cell: fn(&Record) -> String| records.iter().map(|it| cell(it).chars().count()).max().unwrap_or(0);
    let owner = width(|it| it.name.to_string());
    let ttl = width(|it| it.ttl.to_string());
    let class = width(|it| it.class.to_string());
    let rtype = width(|it| it.rtype.to_string());
    let line = |it: &Record| {
        let data = rdata::to_text(it.rtype, &it.rdata);
        let name = it.name.to_string();
        let line = format!("{name:owner$} {:>ttl$} {:class$} {:rtype$} {data}", it.ttl, it.class, it.rtype);
        format!("{}\n", line.trim_end())
    };
    records.iter().map(line).collect()
}

/// The whole message as `dig` shows one: header, EDNS, and each section that is not empty under its name.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.header;
        writeln!(f, ";; opcode: {}, status: {}, id: {}", header.opcode, header.rcode, header.id)?;
        writeln!(f, ";; flags:{}", flags(self))?;
        if let Some(Edns { udp_size, version, dnssec_ok, options }) = &self.edns {
            let dnssec_ok = if *dnssec_ok { " do" } else { "" };
            writeln!(f, ";; EDNS: version: {version}, flags:{dnssec_ok}; udp: {udp_size}, options: {}", options.len())?;
        }
        if !self.questions.is_empty() {
            writeln!(f, "\n;; QUESTION")?;
        }
        for question in &self.questions {
            writeln!(f, ";{question}")?;
        }
        let sections = [("ANSWER", &self.answers), ("AUTHORITY", &self.authorities), ("ADDITIONAL", &self.additionals)];
        for (title, records) in sections.into_iter().filter(|(_, records)| !records.is_empty()) {
            write!(f, "\n;; {title}\n{}", table(records))?;
        }
        Ok(())
    }
}

fn flags(message: &Message) -> String {
    let header = &message.header;
    [
        (header.response, " qr"),
        (header.authoritative, " aa"),
        (header.truncated, " tc"),
        (header.recursion_desired, " rd"),
        (header.recursion_available, " ra"),
        (header.authentic_data, " ad"),
        (header.checking_disabled, " cd"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::wire::dns::{Rcode, Type};

    fn record(owner: &str, rtype: Type, ttl: u32, text: &str) -> Record {
        let rdata = rdata::from_text(rtype, text, &Name::root()).unwrap();
        Record::new(owner.parse().unwrap(), rtype, ttl, rdata)
    }

    #[test]
    fn a_record_prints_as_a_line_of_a_zone_file() {
        let mx = record("Shop.peak", Type::MX, 3600, "10 mail.shop.peak.");
        assert_eq!(mx.to_string(), "Shop.peak. 3600 IN MX 10 mail.shop.peak.");
        let unknown = Record { rdata: Box::from([1, 0xab]), rtype: Type(65280), ..mx };
        assert_eq!(unknown.to_string(), r"Shop.peak. 3600 IN TYPE65280 \# 2 01AB");
    }

    #[test]
    fn a_table_aligns_its_columns_and_leaves_no_space_at_the_end() {
        let records = [
            record("orders.shop.peak", Type::APL, 3600, "2:2001:db8:5:1::/64"),
            record("_ssa.orders.shop.peak", Type::SVCB, 60, "1 orders.shop.peak. port=8080"),
            record("none.shop.peak", Type::APL, 5, ""),
        ];
        let expected = "\
orders.shop.peak.      3600 IN APL  2:2001:db8:5:1::/64
_ssa.orders.shop.peak.   60 IN SVCB 1 orders.shop.peak. port=8080
none.shop.peak.           5 IN APL
";
        assert_eq!(table(&records), expected);
    }

    #[test]
    fn a_message_shows_its_flags_and_sections() {
        let mut message = Message::query(7, "a.peak".parse().unwrap(), Type::A).response(Rcode::NXDOMAIN);
        message.header.authoritative = true;
        message.authorities.push(record("peak", Type::NS, 60, "ns.peak."));
        let expected = "\
;; opcode: QUERY, status: NXDOMAIN, id: 7
;; flags: qr aa
;; EDNS: version: 0, flags:; udp: 1232, options: 0

;; QUESTION
;a.peak. IN A

;; AUTHORITY
peak. 60 IN NS ns.peak.
";
        assert_eq!(message.to_string(), expected);
    }
}
