//! The house's rules, held by reading its sources.
//!
//! Imports point one way, `cli → role → trust → net, ops, config → wire → model`; the pure layers name no clock, randomness,
//! socket, log or environment; `unsafe` and each third-party type stay behind one door; every file says what it is for.
//! A rule that could not fail would be no rule, so each is shown something that breaks it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lexer;
mod manual;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use rules::violations;

/// The top level, exactly; dotfiles besides.
const TOP: [&str; 12] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "benches",
    "config",
    "deploy",
    "examples",
    "src",
    "tests",
];
/// Where builds put their results: not part of the sources.
const IGNORED: &str = "target";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_keeps_the_rules() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches", "examples"].map(|folder| top().join(folder)) {
        if folder.exists() {
            sources(&folder, &mut paths);
        }
    }
    paths.sort();
    assert!(paths.len() > 20, "only {} sources were found", paths.len());
    let mut broken = String::new();
    for path in paths {
        let inside = path.strip_prefix(top()).unwrap().to_str().unwrap();
        for violation in violations(inside, &fs::read_to_string(&path).unwrap()) {
            broken.push_str(&format!("{inside}:{}: {}: {}\n", violation.line, violation.rule, violation.found));
        }
    }
    assert!(broken.is_empty(), "rules broken:\n{broken}");
}

#[test]
fn the_top_level_holds_nothing_else() {
    let names = fs::read_dir(top()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strangers = strangers(names);
    assert_eq!(strangers, [""; 0]);
}

fn strangers(names: impl Iterator<Item = String>) -> Vec<String> {
    names.filter(|name| !name.starts_with('.') && name != IGNORED && !TOP.contains(&name.as_str())).collect()
}

/// The folders of files that the manifest names, and that cargo therefore wants before it builds anything.
fn folders_named_by(manifest: &str) -> Vec<&'static str> {
    let named = |(table, _): &(&str, &str)| manifest.contains(&format!("\n[[{table}]]"));
    [("bench", "benches"), ("example", "examples"), ("test", "tests")]
        .iter()
        .filter(|pair| named(pair))
        .map(|pair| pair.1)
        .collect()
}

#[test]
fn the_image_is_built_with_every_folder_that_the_manifest_names() {
    let read = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let dockerfile = read("Dockerfile");
    let (before, _) = dockerfile.split_once("cargo build").unwrap();
    for folder in folders_named_by(&read("Cargo.toml")) {
        assert!(before.contains(&format!("COPY {folder} ./{folder}\n")), "the first build lacks {folder}");
    }
    assert_eq!(folders_named_by("[package]\n\n[[bench]]\nname = \"ssa\"\n"), ["benches"]);
}

#[test]
fn a_stranger_at_the_top_level_is_seen() {
    let names = ["src", "crates", ".ci", "target"].map(str::to_owned);
    assert_eq!(strangers(names.into_iter()), ["crates"]);
}

/// The rules that `source`, documented and placed at `path`, breaks.
fn broken(path: &str, source: &str) -> Vec<&'static str> {
    violations(path, &format!("//! What it is for.\n{source}")).into_iter().map(|violation| violation.rule).collect()
}

#[test]
fn an_upward_import_is_seen_however_it_is_written() {
    let cases = [
        ("src/model/zone/mod.rs", "use crate::wire::dns::Message;"),
        ("src/model/zone/mod.rs", "fn f() { crate::ops::clock::now(); }"),
        ("src/wire/jwt.rs", "use crate::net::tls;"),
        ("src/wire/jwt.rs", "use crate::{model::Name, ops::clock};"),
        ("src/net/tls.rs", "use crate::sidecar::Args;"),
        ("src/config/peak.rs", "use crate::cli::run;"),
        ("src/sidecar/mod.rs", "use crate::cli::run;"),
        ("src/model/name.rs", "use super::super::wire::dns;"),
        ("src/model/name.rs", "mod tests { use super::super::super::wire::dns; }"),
        ("src/model/mod.rs", "use super::wire::dns;"),
    ];
    for (path, source) in cases {
        assert_eq!(broken(path, source), ["layers"], "{path}: {source}");
    }
}

#[test]
fn a_role_that_imports_a_role_is_seen() {
    for source in ["use crate::peak::Args;", "use crate::{model::Name, peak};", "use super::super::peak;"] {
        assert_eq!(broken("src/sidecar/pick.rs", source), ["layers"], "{source}");
    }
}

#[test]
fn the_middle_layers_do_not_import_each_other() {
    for (path, source) in [
        ("src/net/tls.rs", "use crate::ops::metrics;"),
        ("src/ops/admin/mod.rs", "use crate::config::Faults;"),
        ("src/config/mod.rs", "use crate::net::listen;"),
    ] {
        assert_eq!(broken(path, source), ["layers"], "{path}: {source}");
    }
}

#[test]
fn what_the_pure_layers_must_not_say_is_seen() {
    let said = [
        "use std::time::SystemTime;",
        "use std::time::{Duration, Instant};",
        "fn f() { std::time::Instant::now(); }",
        "fn f() -> u64 { rand::random() }",
        "use tracing::info;",
        "fn f() { tracing::info!(\"x\"); }",
        "fn f() { println!(\"x\"); }",
        "fn f() { warn!(\"x\"); }",
        "fn f() { std::env::var(\"X\"); }",
        "use std::{env, fmt};",
        "use std::fs;",
        "use std::net::TcpStream;",
        "use std::net::{IpAddr, UdpSocket};",
        "use tokio::sync::watch;",
        "use hyper::Request;",
        "use std::thread;",
        "use std::collections::hash_map::RandomState;",
    ];
    for source in said {
        for path in ["src/model/name.rs", "src/wire/dns/mod.rs"] {
            assert!(broken(path, source).contains(&"pure"), "{path}: {source}");
        }
        assert!(!broken("src/sidecar/mod.rs", source).contains(&"pure"), "{source}");
    }
}

#[test]
fn an_unsafe_word_outside_its_one_module_is_seen() {
    let source = "fn f() { unsafe { g() } }";
    for path in ["src/net/tls.rs", "src/sidecar/mod.rs", "tests/sidecar.rs"] {
        assert_eq!(broken(path, source), ["unsafe"], "{path}");
    }
    assert_eq!(broken("src/net/sys/mmsg.rs", source), [""; 0]);
}

#[test]
fn a_third_party_type_outside_its_door_is_seen() {
    let cases = [
        ("hickory_resolver", "src/sidecar/resolve/mod.rs", "src/net/dns_client.rs"),
        ("hickory_proto", "src/wire/dns/mod.rs", "src/net/dns_client/mod.rs"),
        ("rtnetlink", "src/init/mod.rs", "src/net/routes.rs"),
        ("netlink_sys", "src/demo/bed.rs", "src/net/nft/mod.rs"),
        ("prometheus", "src/peak/mod.rs", "src/ops/metrics/mod.rs"),
        ("kube", "src/webhook/serve.rs", "src/net/kubernetes.rs"),
        ("jsonwebtoken", "src/sidecar/mod.rs", "src/wire/jwt/sign.rs"),
        ("schemars", "src/cli/schema.rs", "src/config/section.rs"),
        ("clap", "src/net/tls.rs", "src/cli/check.rs"),
    ];
    for (name, outside, inside) in cases {
        for source in [format!("use {name}::X;"), format!("fn f() {{ {name}::f(); }}"), format!("use {name} as x;")] {
            assert_eq!(broken(outside, &source), ["door"], "{outside}: {source}");
            assert_eq!(broken(inside, &source), [""; 0], "{inside}: {source}");
        }
    }
}

#[test]
fn a_clock_or_environment_read_outside_its_place_is_seen() {
    assert_eq!(broken("src/sidecar/mod.rs", "fn f() { SystemTime::now(); }"), ["clock"]);
    assert_eq!(broken("src/ops/clock.rs", "fn f() { SystemTime::now(); }"), [""; 0]);
    assert_eq!(broken("src/net/tls.rs", "fn f() { std::env::var(\"X\"); }"), ["environment"]);
    assert_eq!(broken("src/config/sources.rs", "fn f() { std::env::vars_os(); }"), [""; 0]);
}

#[test]
fn a_file_that_does_not_say_what_it_is_for_is_seen() {
    let seen = violations("src/net/tls.rs", "// A comment.\nfn f() {}\n");
    assert_eq!(seen.iter().map(|violation| violation.rule).collect::<Vec<_>>(), ["module-doc"]);
}

#[test]
fn what_is_only_talked_about_is_no_violation() {
    let innocent = [
        "/// Unlike `crate::net`, unsafe code or `tokio::spawn`, this is pure: no std::env, no SystemTime::now().\nfn f() {}",
        "const X: &str = \"unsafe crate::wire::dns SystemTime::now() std::fs prometheus::Registry\";",
        "const Y: &str = r#\"use tokio::net::TcpStream; // \"unsafe\" \"#;",
        "/* use crate::sidecar; /* unsafe */ */ fn f() {}",
    ];
    for source in innocent {
        assert_eq!(broken("src/model/name.rs", source), [""; 0], "{source}");
    }
}

#[test]
fn what_is_allowed_is_no_violation() {
    let innocent = [
        ("src/wire/jwt.rs", "use crate::model::{Name, token::Claims};"),
        ("src/model/name.rs", "use super::ssa::Rule; use super::super::model::zone; use std::net::Ipv6Addr;"),
        ("src/model/name.rs", "mod tests { use super::super::token::Claims; use super::*; }"),
        ("src/sidecar/pick.rs", "use crate::{config, model, net, ops, wire};"),
        ("src/cli/check.rs", "use crate::{config, peak, sidecar};"),
        ("src/ops/admin/mod.rs", "use super::metrics::Registry; use crate::model::UnixSeconds;"),
        ("src/wire/dns/mod.rs", "fn f(x: X) { x.env.fs(); x.log; let rand = 1; env!(\"X\"); }"),
        ("src/model/zone/mod.rs", "struct Peak { peak: u8 } fn f(p: Peak) -> u8 { p.peak }"),
    ];
    for (path, source) in innocent {
        assert_eq!(broken(path, source), [""; 0], "{path}: {source}");
    }
}
