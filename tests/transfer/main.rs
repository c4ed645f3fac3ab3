//! Zones that change and travel: Peak among other people's name servers, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that meets an error ends there")]

mod programs;
mod wire;

use std::net::SocketAddrV4;

use funicular::wire::dns::{Rcode, Type};
use programs::{
    GUEST, KEY, SECRET, SHOP, Server, WRONG_SECRET, address, interface_address, is_installed, knotd, named, peak,
    peak_in, said, tool, transferred, until, update, update_with,
};

/// A zone from a file, that takes signed updates and goes to these secondaries.
fn primary(secondaries: &[SocketAddrV4]) -> String {
    let peers: String = secondaries.iter().map(|peer| format!("{{ address: \"{peer}\", key: {KEY} }}, ")).collect();
    format!(
        "  - name: shop.peak\n    file: shop.zone\n    allow_update: [{{ key: {KEY} }}]\n    \
         allow_transfer: [{{ key: {KEY} }}]\n    secondaries: [{peers}]\n"
    )
}

fn secondary_of(primary: SocketAddrV4) -> String {
    format!(
        "  - name: shop.peak\n    primaries: [{{ address: \"{primary}\", key: {KEY} }}]\n    \
         allow_transfer: [{{ key: {KEY} }}]\n"
    )
}

fn knot_remote(of: SocketAddrV4) -> String {
    let (ip, port) = (of.ip(), of.port());
    format!(
        "remote:\n  - id: peak\n    address: {ip}@{port}\n    key: {KEY}\n\
         acl:\n  - id: peak\n    key: {KEY}\n    action: [notify, transfer, update]\n"
    )
}

fn named_secondary_of(primary: SocketAddrV4, at: SocketAddrV4) -> Server {
    let (ip, port) = (primary.ip(), primary.port());
    let zone = format!(
        "type secondary; file \"secondary.zone\"; primaries {{ {ip} port {port} key \"{KEY}\"; }}; masterfile-format text; \
         allow-transfer {{ key \"{KEY}\"; }};"
    );
    named(at, &zone)
}

fn knot_secondary_of(primary: SocketAddrV4, at: SocketAddrV4) -> Server {
    let zone = "    file: secondary.zone\n    master: peak\n    acl: peak\n";
    knotd(at, &knot_remote(primary), zone)
}

fn add(text: &str) -> String {
    format!("update add note.shop.peak. 60 TXT {text}")
}

#[test]
fn bind_and_knot_follow_updates_made_with_nsupdate_and_knsupdate_by_differences() {
    if !["named", "knotd", "nsupdate", "knsupdate", "dig"].into_iter().all(is_installed) {
        return;
    }
    let (ours, bind, knot) = (address(), interface_address(), address());
    let (bind_server, knot_server) = (named_secondary_of(ours, bind), knot_secondary_of(ours, knot));
    let peak = peak(ours, &primary(&[bind, knot]));
    let secondaries = [&bind_server, &knot_server];
    secondaries.into_iter().for_each(|server| server.until_serial(7));

    for (serial, program) in [(8, "nsupdate"), (9, "knsupdate"), (10, "nsupdate")] {
        let (done, said) = update(program, &peak, Some(SECRET), &add(&format!("by-{serial}")));
        assert!(done, "{program}: {said}");
        assert_eq!(peak.serial(), Some(serial), "answered from before the updater had its reply");
        for server in secondaries {
            server.until_serial(serial);
            assert!(server.txt("note.shop.peak.").contains(&format!("by-{serial}")));
        }
    }
    let (done, said) =
        update("nsupdate", &peak, Some(SECRET), "update delete note.shop.peak.\nupdate delete odd.shop.peak.");
    assert!(done, "{said}");
    for server in secondaries {
        server.until_serial(11);
        assert_eq!(server.ask("note.shop.peak.", Type::TXT).unwrap().header.rcode, Rcode::NXDOMAIN);
    }
    let log = peak.log();
    assert_eq!(log.matches("form=\"axfr\"").count(), 2, "{log}");
    assert!(log.matches("form=\"ixfr\"").count() >= 4, "{log}");
    assert_eq!(transferred(&bind_server), transferred(&peak));
    assert_eq!(transferred(&knot_server), transferred(&peak));
}

#[test]
fn a_transfer_of_ours_is_clean_to_named_checkzone() {
    if !["dig", "named-checkzone"].into_iter().all(is_installed) {
        return;
    }
    let peak = peak(address(), &primary(&[]));
    let records = transferred(&peak);
    let file = peak.folder.join("transferred");
    std::fs::write(&file, records.join("\n") + "\n").unwrap();
    let output = tool("named-checkzone", &["-i", "local", "shop.peak", file.to_str().unwrap()], "");
    let said = said(&output);
    assert!(output.status.success() && said.contains("loaded serial 7") && said.trim_end().ends_with("OK"), "{said}");
    // Every record of the zone file, and none besides: the lines that begin with a name.
    let written = SHOP.lines().filter(|line| !line.is_empty() && !line.starts_with('$')).count();
    assert_eq!(records.len(), written, "{records:#?}");
}

#[test]
fn only_the_right_key_changes_a_zone() {
    if !["nsupdate", "knsupdate"].into_iter().all(is_installed) {
        return;
    }
    let peak = peak(address(), &primary(&[]));
    for program in ["nsupdate", "knsupdate"] {
        for (secret, refusal) in [(None, "REFUSED"), (Some(WRONG_SECRET), "BADSIG")] {
            let (done, said) = update(program, &peak, secret, &add("refused"));
            let told = said.contains(refusal) || said.contains("bad") || said.contains("NOTAUTH");
            assert!(!done && told, "{program} with {secret:?}: {said}");
        }
    }
    assert_eq!((peak.serial(), peak.txt("note.shop.peak.")), (Some(7), vec![]));
    assert!(update("nsupdate", &peak, Some(SECRET), &add("accepted")).0);
    assert_eq!((peak.serial(), peak.txt("note.shop.peak.")), (Some(8), vec!["accepted".to_owned()]));
}

#[test]
fn nsupdate_and_knsupdate_sign_with_hmac_sha512_as_well() {
    if !["nsupdate", "knsupdate"].into_iter().all(is_installed) {
        return;
    }
    let own = tempfile::tempdir().unwrap();
    for (file, text) in [("shop.zone", SHOP), ("key", SECRET), ("guest", SECRET)] {
        std::fs::write(own.path().join(file), text).unwrap();
    }
    let zone = format!("  - name: shop.peak\n    file: shop.zone\n    allow_update: [{{ key: {GUEST} }}]\n");
    let peak = peak_in(address(), &zone, own.path().to_owned(), None);
    for (algorithm, done) in [("hmac-sha512", true), ("hmac-sha256", false)] {
        for program in ["nsupdate", "knsupdate"] {
            let key = Some(format!("{algorithm}:{GUEST}:{SECRET}"));
            let (said_done, said) = update_with(program, &peak, key, &add(&format!("{program}-{algorithm}")));
            assert_eq!(said_done, done, "{program} with {algorithm}: {said}");
        }
    }
    let mut texts = peak.txt("note.shop.peak.");
    texts.sort();
    assert_eq!(texts, ["knsupdate-hmac-sha512", "nsupdate-hmac-sha512"]);
}

#[test]
fn an_update_whose_prerequisite_does_not_hold_changes_nothing() {
    if !["nsupdate", "knsupdate"].into_iter().all(is_installed) {
        return;
    }
    let peak = peak(address(), &primary(&[]));
    for (prerequisite, code) in [
        ("prereq yxdomain nobody.shop.peak.", "NXDOMAIN"),
        ("prereq nxdomain orders.shop.peak.", "YXDOMAIN"),
        ("prereq yxrrset mail.shop.peak. TXT", "NXRRSET"),
        ("prereq nxrrset mail.shop.peak. A", "YXRRSET"),
        ("prereq yxrrset mail.shop.peak. A 192.0.2.99", "NXRRSET"),
    ] {
        for program in ["nsupdate", "knsupdate"] {
            let lines = format!("{prerequisite}\n{}\nupdate delete mail.shop.peak.", add("no"));
            let (_, said) = update(program, &peak, Some(SECRET), &lines);
            assert!(said.contains(code), "{program}, {prerequisite}: {said}");
        }
    }
    assert_eq!((peak.serial(), peak.txt("note.shop.peak.")), (Some(7), vec![]));
    let holds = "prereq yxrrset mail.shop.peak. A 192.0.2.25\nprereq nxdomain note.shop.peak.";
    let (done, said) = update("nsupdate", &peak, Some(SECRET), &format!("{holds}\n{}", add("yes")));
    assert!(done, "{said}");
    assert_eq!((peak.serial(), peak.txt("note.shop.peak.")), (Some(8), vec!["yes".to_owned()]));
}

#[test]
fn peak_follows_bind_by_notices_and_differences() {
    if !["named", "nsupdate", "dig"].into_iter().all(is_installed) {
        return;
    }
    let (ours, bind) = (address(), interface_address());
    let (ip, port) = (ours.ip(), ours.port());
    let zone = format!(
        "type primary; file \"shop.zone\"; allow-update {{ key \"{KEY}\"; }}; allow-transfer {{ key \"{KEY}\"; }}; \
         notify explicit; also-notify {{ {ip} port {port} key \"{KEY}\"; }}; "
    );
    let primary = named(bind, &zone);
    primary.until_serial(7);
    let peak = peak(ours, &secondary_of(bind));
    peak.until_serial(7);
    for serial in 8..11 {
        let (done, said) = update("nsupdate", &primary, Some(SECRET), &add(&format!("by-{serial}")));
        assert!(done, "{said}");
        peak.until_serial(serial);
    }
    assert_eq!(transferred(&peak), transferred(&primary));
    assert_came_by_differences(&peak);
}

/// The zone came whole once, and then by differences.
fn assert_came_by_differences(peak: &Server) {
    let log = peak.log();
    let came = |form: &str| log.lines().filter(|line| line.contains("zone transferred") && line.contains(form)).count();
    assert_eq!((came("axfr"), came("ixfr")), (1, 3), "{log}");
}

#[test]
fn peak_follows_knot_by_notices_and_differences() {
    if !["knotd", "knsupdate", "dig"].into_iter().all(is_installed) {
        return;
    }
    let (ours, knot) = (address(), address());
    let zone = "    file: primary.zone\n    notify: peak\n    acl: peak\n    zonefile-sync: -1\n    journal-content: changes\n";
    let primary = knotd(knot, &knot_remote(ours), zone);
    primary.until_serial(7);
    let peak = peak(ours, &secondary_of(knot));
    peak.until_serial(7);
    for serial in 8..11 {
        let (done, said) = update("knsupdate", &primary, Some(SECRET), &add(&format!("by-{serial}")));
        assert!(done, "{said}");
        peak.until_serial(serial);
    }
    assert_eq!(transferred(&peak), transferred(&primary));
    assert_came_by_differences(&peak);
}

#[test]
fn a_chain_of_peaks_passes_changes_on() {
    let (first, second, third) = (address(), address(), address());
    let middle = format!("{}    secondaries: [{{ address: \"{third}\", key: {KEY} }}]\n", secondary_of(first));
    let (last, middle) = (peak(third, &secondary_of(second)), peak(second, &middle));
    // Nothing is known before the first transfer, and that is what it says.
    assert_eq!(last.ask("shop.peak.", Type::SOA).unwrap().header.rcode, Rcode::SERVFAIL);
    let top = peak(first, &primary(&[second]));
    [&middle, &last].into_iter().for_each(|server| server.until_serial(7));
    let reply = top.exchange(&wire::signed_update(&[wire::txt("note.shop.peak.", "chain")])).unwrap();
    assert_eq!(reply.header.rcode, Rcode::NOERROR);
    [&top, &middle, &last].into_iter().for_each(|server| server.until_serial(8));
    assert_eq!(last.txt("note.shop.peak."), ["chain"]);
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_failure() {
    let at = address();
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("shop.zone"), SHOP).unwrap();
    std::fs::write(own.path().join("key"), SECRET).unwrap();
    let start = || peak_in(at, &primary(&[]), own.path().to_owned(), None);
    for round in 0..3 {
        let mut peak = start();
        for number in 0..4 {
            let text = format!("{round}-{number}");
            let reply = peak.exchange(&wire::signed_update(&[wire::txt("note.shop.peak.", &text)])).unwrap();
            assert_eq!(reply.header.rcode, Rcode::NOERROR);
        }
        peak.kill();
    }
    let peak = start();
    assert_eq!((peak.serial(), peak.txt("note.shop.peak.").len()), (Some(19), 12));
    // A zone file that is newer than what updates made of it wins.
    drop(peak);
    std::fs::write(own.path().join("shop.zone"), SHOP.replace("admin 7", "admin 100")).unwrap();
    let peak = start();
    assert_eq!((peak.serial(), peak.txt("note.shop.peak.").len()), (Some(100), 0));
}

#[test]
fn a_secondary_answers_from_what_it_has_while_its_primary_is_away() {
    let (first, second) = (address(), address());
    let own = tempfile::tempdir().unwrap();
    std::fs::write(own.path().join("key"), SECRET).unwrap();
    let start = || peak_in(second, &secondary_of(first), own.path().to_owned(), None);
    {
        let _top = peak(first, &primary(&[second]));
        start().until_serial(7);
    }
    let secondary = start();
    assert_eq!(secondary.serial(), Some(7));
}

#[test]
fn a_secondary_fails_when_nobody_has_vouched_for_its_zone_for_too_long() {
    let (first, second) = (address(), address());
    let own = tempfile::tempdir().unwrap();
    // Refresh 1 s, retry 1 s, expire 2 s.
    std::fs::write(own.path().join("shop.zone"), SHOP.replace("7 1 1 3600", "7 1 1 2")).unwrap();
    std::fs::write(own.path().join("key"), SECRET).unwrap();
    let start = || peak_in(first, &primary(&[second]), own.path().to_owned(), None);
    let top = start();
    let secondary = peak(second, &secondary_of(first));
    secondary.until_serial(7);
    drop(top);
    let code = || secondary.ask("www.shop.peak.", Type::CNAME).map(|reply| reply.header.rcode);
    until("the zone expires", code, |code| *code == Some(Rcode::SERVFAIL));
    let _top = start();
    secondary.until_serial(7);
}

#[test]
fn a_signed_question_has_a_signed_answer_that_dig_and_kdig_accept() {
    if !["dig", "kdig"].into_iter().all(is_installed) {
        return;
    }
    let peak = peak(address(), &primary(&[]));
    let (at, port) = peak.at();
    for program in ["dig", "kdig"] {
        for extra in ["+notcp", "+tcp"] {
            for (secret, good) in [(SECRET, true), (WRONG_SECRET, false)] {
                let key = format!("hmac-sha256:{KEY}:{secret}");
                let output = tool(program, &["-p", &port, &at, "-y", &key, extra, "orders.shop.peak", "AAAA"], "");
                let said = said(&output);
                assert_eq!(said.contains("2001:db8:5:1::1"), good, "{program} {extra}: {said}");
                let complaint = ["verify failure", "BADSIG", "invalid signature", "bad signature"];
                assert_eq!(complaint.iter().any(|text| said.contains(text)), !good, "{program} {extra}: {said}");
            }
        }
    }
}

#[test]
fn who_may_not_have_a_zone_does_not_get_it() {
    if !is_installed("dig") {
        return;
    }
    let peak = peak(address(), &primary(&[]));
    let (at, port) = peak.at();
    for question in ["AXFR", "IXFR=6"] {
        let output = tool("dig", &["-p", &port, &at, "shop.peak", question, "+tcp"], "");
        assert!(said(&output).contains("Transfer failed") || said(&output).contains("REFUSED"), "{}", said(&output));
    }
    until("the refusals are logged", || peak.log().matches("transfer refused").count(), |count| *count >= 2);
}
