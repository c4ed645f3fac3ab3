//! Configuration from files, environment and flags: what is read, what is refused, and how both are told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use funicular::config::sidecar::{Policy, Sidecar};
use funicular::config::{self, Faults, Loaded, Sources};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// A file of its own for one test, removed with its folder.
fn read(text: &str) -> Result<Loaded<Sidecar>, Faults> {
    read_with(text, &[])
}

fn read_with(text: &str, environment: &[(&str, &str)]) -> Result<Loaded<Sidecar>, Faults> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidecar.yaml");
    std::fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    config::read(&Sources::new().file(&path).environment(environment))
}

/// Each fault without its folder: `4:11 outbound.listen bad-value`.
fn told(faults: &Faults) -> Vec<String> {
    let place = |fault: &config::Fault| match &fault.place {
        config::Place::File { line, column, .. } => format!("{line}:{column}"),
        other => other.to_string(),
    };
    faults.iter().map(|fault| format!("{} {} {}", place(fault), fault.key, fault.cause.reason())).collect()
}

#[test]
fn the_sidecar_s_sample_is_read_as_it_stands() {
    let loaded = config::read::<Sidecar>(&Sources::new().file(&sample("sidecar.yaml"))).unwrap();
    let sidecar = &loaded.value;
    assert_eq!(sidecar.identity.as_ref().unwrap().id.namespace(), "default");
    assert_eq!(sidecar.inbound.services[0].ports[&80], 8080);
    assert_eq!(sidecar.inbound.policy, Policy::Strict);
    assert_eq!(loaded.remarks(), []);
}

#[test]
fn the_sample_s_commented_defaults_are_the_defaults() {
    let text = std::fs::read_to_string(sample("sidecar.yaml")).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            let setting = bare.strip_prefix("# ").filter(|rest| is_setting(rest));
            setting.map_or_else(|| line.to_owned(), |rest| format!("{}{rest}", &line[..line.len() - bare.len()])) + "\n"
        })
        .collect();
    let mut written = read(&uncommented).unwrap().value;
    // These two have no default, only an example.
    assert_eq!(written.outbound.mark.take(), Some(0x0046_554e));
    assert!(written.outbound.secrets.remove("summit").is_some());
    assert_eq!(written, read(&text).unwrap().value);
}

/// `key: value` or `key:`, and not a sentence.
fn is_setting(text: &str) -> bool {
    let key = text.trim_start().split(':').next().unwrap_or("");
    text.contains(':')
        && !key.is_empty()
        && key.bytes().all(|octet| octet.is_ascii_lowercase() || b"_46".contains(&octet))
}

#[test]
fn a_file_with_five_faults_reports_five_each_with_its_place() {
    let text = "\
identity:
  id: spiffe://shop.example/web
  issuer: https://issuer.example
  signing_key: key.pem
  ca: ca.pem
outbound:
  listn: '[::]:1'
  listen: localhost
  connect_deadline: 5
";
    let faults = read(text).unwrap_err();
    let expected = [
        "2:3 identity.key_id missing",
        "2:7 identity.id bad-value",
        "7:3 outbound.listn unknown-key",
        "8:11 outbound.listen bad-value",
        "9:21 outbound.connect_deadline bad-value",
    ];
    assert_eq!(told(&faults), expected, "{faults}");
    for said in ["did you mean outbound.listen?", "\"localhost\"", "5s or 5ms?", "spiffe://<trust domain>"] {
        assert!(faults.to_string().contains(said), "{said} in\n{faults}");
    }
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let loaded = read("").unwrap();
    assert_eq!(loaded.value.drain, Duration::from_secs(30));
    assert_eq!(loaded.value.outbound.listen.to_string(), "[::]:15001");
    assert_eq!(loaded.value.identity, None);
    assert_eq!(loaded.origin("drain"), config::Place::Default);
}
