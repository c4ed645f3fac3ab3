//! Programs that look a zone and its servers over and say what is wrong: nothing.

use std::net::Ipv4Addr;
use std::process::Command;

use funicular::net::namespace::NetNs;

use super::bed::{APEX, Peak, judged, text, zone_file};

/// What Zonemaster says about every zone in a laboratory, by tag: addresses for documentation have no owner and no
/// reverse zone, and a zone without signatures has no keys.
const OF_THE_LABORATORY: [&str; 4] =
    ["NAMESERVER_IP_PRIVATE_NETWORK", "NO_RESPONSE_PTR_QUERY", "NEITHER_DNSKEY_NOR_DS", "NOT_SIGNED"];

/// The servers of the zone, as its file has them.
const SERVERS: [(&str, &str); 4] = [
    ("ns1.every.peak", "192.0.2.53"),
    ("ns1.every.peak", "2001:db8:53::1"),
    ("ns2.every.peak", "198.51.100.53"),
    ("ns2.every.peak", "2001:db8:5353::1"),
];

/// A namespace that has the servers' addresses, and nothing else.
fn laboratory() -> NetNs {
    let pod = NetNs::create().unwrap();
    let ip = |arguments: &[&str]| {
        let mut command = Command::new("ip");
        command.args(arguments);
        assert!(pod.spawn(&mut command, &[]).unwrap().wait().unwrap().success(), "ip {arguments:?}");
    };
    ip(&["link", "set", "lo", "up"]);
    for (_, addr) in SERVERS {
        if addr.parse::<Ipv4Addr>().is_ok() {
            ip(&["addr", "add", &format!("{addr}/32"), "dev", "lo"]);
        } else {
            ip(&["addr", "add", &format!("{addr}/128"), "dev", "lo", "nodad"]);
        }
    }
    pod
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn zonemaster_finds_nothing_worth_a_notice() {
    let pod = laboratory();
    let _peak = Peak::serving_every_type_in(&pod, "[::]:53");
    let mut command = Command::new("zonemaster-cli");
    command.args(["--level", "NOTICE", "--raw", "--no-progress", "--no-time"]);
    for (name, addr) in SERVERS {
        command.args(["--ns", &format!("{name}/{addr}")]);
    }
    command.arg(APEX.trim_end_matches('.')).stdout(std::process::Stdio::piped());
    let output = match pod.spawn(&mut command, &[]) {
        Ok(judge) => judge.wait_with_output().unwrap(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("not judged by zonemaster-cli, which is not installed");
            return;
        }
        Err(error) => panic!("zonemaster-cli: {error}"),
    };
    let said = text(&output);
    let is_finding = |line: &&str| {
        ["NOTICE", "WARNING", "ERROR", "CRITICAL"].iter().any(|level| line.contains(level))
            && !line.split_whitespace().any(|word| OF_THE_LABORATORY.contains(&word))
    };
    let findings: Vec<&str> = said.lines().filter(is_finding).collect();
    assert!(output.status.success() && findings.is_empty(), "{}\nof\n{said}", findings.join("\n"));
    // It did look: that the zone is not signed is always worth a notice.
    assert!(OF_THE_LABORATORY.iter().any(|tag| said.contains(tag)), "{said}");
}

#[test]
fn dnsviz_finds_nothing_to_warn_of() {
    let peak = Peak::serving_every_type();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("probed.json");
    let file = file.to_str().unwrap();
    let server = format!("{APEX}+:ns1.{APEX}=127.0.0.1:{}", peak.addr.port());
    let Some(probed) = judged("dnsviz", &["probe", "-4", "-A", "-x", &server, "-o", file, APEX]) else { return };
    assert!(probed.status.success(), "{}", String::from_utf8_lossy(&probed.stderr));
    let grok = |level| text(&judged("dnsviz", &["grok", "-l", level, "-r", file]).unwrap());
    let warnings = grok("warning");
    assert!(warnings.trim().is_empty() || warnings.trim() == "{}", "{warnings}");
    // It did look: what it saw is told at a lower level.
    assert!(grok("info").contains("NOERROR"), "dnsviz saw no answer");
}

#[test]
fn named_checkzone_reads_the_file_as_we_do() {
    let file = zone_file();
    let checked = judged("named-checkzone", &["-i", "local", APEX, file.to_str().unwrap()]);
    let Some(output) = checked else { return };
    let said = text(&output);
    assert!(output.status.success() && said.lines().count() <= 2, "{said}");
}

#[test]
fn a_transfer_of_ours_compiles_to_what_the_file_compiles_to() {
    let peak = Peak::giving_every_type_away();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (transferred, ours, theirs) = (path("transferred"), path("ours"), path("theirs"));
    let port = peak.addr.port().to_string();
    let asked = ["@127.0.0.1", "-p", &port, APEX, "AXFR", "+noall", "+answer", "+onesoa"];
    let Some(output) = judged("dig", &asked) else { return };
    std::fs::write(&transferred, &output.stdout).unwrap();
    let Some(checked) = judged("named-checkzone", &["-i", "local", APEX, &transferred]) else { return };
    assert!(checked.status.success() && text(&checked).lines().count() <= 2, "{}", text(&checked));
    for (from, to) in [(transferred.as_str(), &ours), (zone_file().to_str().unwrap(), &theirs)] {
        let compiled = judged("named-compilezone", &["-i", "local", "-s", "full", "-o", to, APEX, from]).unwrap();
        assert!(compiled.status.success(), "{}", text(&compiled));
    }
    // The order within a set is nobody's.
    let lines = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_ascii_lowercase).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(lines(&ours), lines(&theirs));
    if let Some(read) = judged("ldns-read-zone", &["-c", &transferred]) {
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}
