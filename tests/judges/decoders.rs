//! Other people's resolvers and libraries: each reads every record that we serve.

use std::collections::BTreeMap;

use super::bed::{APEX, Peak, judged, text, zone_file};
use funicular::wire::dns::{Type, zonefile};

/// Every set of the zone: owner, type, and how many records; those below a cut left out, which are others'.
fn sets() -> Vec<(String, String, usize)> {
    let file = std::fs::read_to_string(zone_file()).unwrap();
    let records = zonefile::parse(&file, &APEX.parse().unwrap()).unwrap();
    let cuts = ["cluster.every.peak.", "sibling.every.peak."].map(|cut| cut.parse().unwrap());
    let mut sets = BTreeMap::new();
    for record in &records {
        if !cuts.iter().any(|cut| record.name.is_at_or_below(cut)) {
            // By its number, every program knows a type.
            let rtype = format!("TYPE{}", record.rtype.0);
            *sets.entry((record.name.to_string(), rtype)).or_insert(0) += 1;
        }
    }
    let sets: Vec<_> = sets.into_iter().map(|((name, rtype), count)| (name, rtype, count)).collect();
    let types: std::collections::BTreeSet<_> = sets.iter().map(|(_, rtype, _)| rtype.clone()).collect();
    for rtype in [Type::A, Type::AAAA, Type::CNAME, Type::MX, Type::NS, Type::PTR, Type::SOA, Type::SRV, Type::TXT] {
        assert!(types.contains(&format!("TYPE{}", rtype.0)), "{rtype} is not in the zone");
    }
    for rtype in [Type::APL, Type::SVCB, Type::HTTPS, Type(65280)] {
        assert!(types.contains(&format!("TYPE{}", rtype.0)), "{rtype} is not in the zone");
    }
    sets
}

/// Lines that are records.
fn record_lines(output: &str) -> usize {
    output.lines().filter(|line| !line.is_empty() && !line.starts_with(';')).count()
}

/// Asks for every set with one call of a program that takes a list of questions.
fn all_at_once(program: &str, transport: &str) {
    let peak = Peak::serving_every_type();
    let port = peak.addr.port().to_string();
    let sets = sets();
    let mut arguments = vec!["@127.0.0.1", "-p", &port];
    let flags = [transport, "+norec", "+noall", "+answer", "+bufsize=4096"];
    arguments.extend(flags);
    for (at, (name, rtype, _)) in sets.iter().enumerate() {
        if at > 0 && program == "dig" {
            arguments.extend(["@127.0.0.1", "-p", &port]);
            arguments.extend(flags);
        }
        arguments.extend([name.as_str(), "-t", rtype]);
    }
    let Some(output) = judged(program, &arguments) else { return };
    let said = text(&output);
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected: usize = sets.iter().map(|(_, _, count)| count).sum();
    assert_eq!(record_lines(&said), expected, "{program} {transport}:\n{said}\n{complaints}");
    // Coming again over TCP is as it should be.
    let said: String = said.lines().filter(|line| !line.contains("retrying over TCP")).collect();
    let complaints: String = complaints.lines().filter(|line| !line.contains("retrying over TCP")).collect();
    let complains =
        |text: &str| ["WARNING", "malformed", "BAD", "timed out", "mismatch"].iter().any(|word| text.contains(word));
    assert!(!complains(&said) && !complains(&complaints), "{program} {transport}:\n{said}\n{complaints}");
}

#[test]
fn kdig_reads_every_record_over_udp_and_tcp() {
    all_at_once("kdig", "+noignore");
    all_at_once("kdig", "+tcp");
}

#[test]
fn dig_reads_every_record_over_udp_and_tcp() {
    all_at_once("dig", "+noignore");
    all_at_once("dig", "+tcp");
}

#[test]
fn drill_reads_every_record() {
    let peak = Peak::serving_every_type();
    let port = peak.addr.port().to_string();
    for (name, rtype, count) in sets() {
        let Some(output) = judged("drill", &["-a", "-b", "4096", "-p", &port, "@127.0.0.1", &name, &rtype]) else {
            return;
        };
        let said = text(&output);
        let answers = said.split(";; ANSWER SECTION:").nth(1).and_then(|rest| rest.split(";; AUTHORITY").next());
        assert!(output.status.success() && answers.map_or(0, record_lines) == count, "{name} {rtype}:\n{said}");
    }
}

#[test]
fn delv_believes_the_answers() {
    let peak = Peak::serving_every_type();
    let port = peak.addr.port().to_string();
    for (name, rtype, count) in sets() {
        let arguments = ["@127.0.0.1", "-p", &port, "+noroot", "-i", &name, "-t", &rtype];
        let Some(output) = judged("delv", &arguments) else { return };
        let said = text(&output);
        let failed = said.contains("failed") || String::from_utf8_lossy(&output.stderr).contains("failed");
        assert!(!failed && record_lines(&said) == count, "{name} {rtype}:\n{said}");
    }
}

#[test]
fn dnspython_gets_the_zone_as_it_reads_the_file() {
    let peak = Peak::serving_every_type();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/every_record.py");
    let (port, file) = (peak.addr.port().to_string(), zone_file());
    // The interpreter that Debian's package is for, not whichever comes first.
    let arguments = [script, &port, APEX, file.to_str().unwrap()];
    let Some(output) = judged("/usr/bin/python3", &arguments) else { return };
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    if complaints.contains("No module named 'dns'") {
        println!("not judged by dnspython, which is not installed");
        return;
    }
    assert!(output.status.success(), "{}\n{complaints}", text(&output));
}
