//! Configuration from files, environment and flags: what is read, what is refused, and how both are told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use funicular::config::node_agent::NodeAgent;
use funicular::config::peak::Peak;
use funicular::config::sidecar::{Policy, Sidecar};
use funicular::config::webhook::Webhook;
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
        other @ (config::Place::Environment(_) | config::Place::Flag(_) | config::Place::Default) => other.to_string(),
    };
    faults.iter().map(|fault| format!("{} {} {}", place(fault), fault.key, fault.cause.reason())).collect()
}

#[test]
fn the_sidecar_s_sample_is_read_as_it_stands() {
    let loaded = config::read::<Sidecar>(&Sources::new().file(&sample("sidecar.yaml"))).unwrap();
    let sidecar = &loaded.value;
    assert_eq!(sidecar.identity.as_ref().unwrap().id.as_ref().unwrap().namespace(), "default");
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
    // These have no default, only an example.
    assert!(written.lease.take().is_some());
    assert!(written.outbound.explicit.take().is_some());
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
fn a_key_in_the_wrong_section_is_shown_the_right_one() {
    let faults = read("connect_deadline: 5s\ndns: { zones: [], listen_on: x }\n").unwrap_err();
    let said: Vec<String> = faults.iter().map(|fault| fault.cause.to_string()).collect();
    let expected = [
        "unknown key: did you mean outbound.connect_deadline?",
        "unknown key: did you mean dns.peak.zones?",
        "unknown key",
    ];
    assert_eq!(said, expected, "{faults}");
}

#[test]
fn a_file_with_five_faults_reports_five_each_with_its_place() {
    let text = "\
identity:
  id: spiffe://shop.example/web
  issuer: https://issuer.example
  signing_key: key.pem
  key_id: web-1
outbound:
  listn: '[::]:1'
  listen: localhost
  connect_deadline: 5
";
    let faults = read(text).unwrap_err();
    let expected = [
        "2:3 identity.ca missing",
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

#[test]
fn what_does_not_fit_together_is_reported_beside_what_is_wrong_by_itself() {
    let text = "\
inbound:
  services:
    - name: orders.shop.peak
  policy: strikt
outbound:
  attempt_timeout: 9s
";
    let faults = read(text).unwrap_err();
    let expected = [
        "3:13 inbound.services does-not-fit",
        "4:11 inbound.policy bad-value",
        "6:20 outbound.attempt_timeout does-not-fit",
    ];
    assert_eq!(told(&faults), expected, "{faults}");
}

#[test]
fn one_mistake_is_not_reported_twice() {
    // Services need `tls` and `trust`; here both are given, but each has a fault of its own.
    let text = "\
inbound:
  services: [{ name: orders.shop.peak }]
tsl: { certificate: a, key: b }
trust: [{ issuer: i, jwks: j, algorithms: [HS256] }]
";
    let faults = read(text).unwrap_err();
    assert_eq!(told(&faults), ["3:1 tsl unknown-key", "4:44 trust[0].algorithms[0] bad-value"], "{faults}");
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.yaml");
    std::fs::write(&path, "drain: 1s\nlog: { level: warn, format: json }\n").unwrap();
    let environment = [("FUNICULAR_DRAIN", "2s"), ("FUNICULAR_LOG_LEVEL", "debug"), ("FUNICULAR_LOG_FORMAT", "")];
    let sources = Sources::new()
        .file(&path)
        .environment(environment.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .flag("--drain", "drain", "3s");
    let loaded = config::read::<Sidecar>(&sources).unwrap();
    assert_eq!(loaded.value.drain, Duration::from_secs(3));
    assert_eq!(loaded.origin("drain").to_string(), "flag --drain");
    assert_eq!(loaded.origin("log.level").to_string(), "environment FUNICULAR_LOG_LEVEL");
    assert_eq!(loaded.origin("log.format").to_string(), format!("{}:2:29", path.display()));
    assert_eq!(loaded.origin("admin.listen").to_string(), "default");
}

#[test]
fn a_list_is_overridden_as_a_whole() {
    let environment = [("FUNICULAR_DNS_UPSTREAM", "[192.0.2.1, '2001:db8::53']")];
    let loaded = read_with("dns: { upstream: [192.0.2.9] }", &environment).unwrap();
    let servers: Vec<String> = loaded.value.dns.upstream.iter().map(|server| server.0.to_string()).collect();
    assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::53]:53"]);
}

#[test]
fn a_wrong_override_is_a_fault_that_names_its_source() {
    let environment = [("FUNICULAR_DRAIN", "soon"), ("FUNICULAR_DNS_UPSTREAM", "[nowhere")];
    let faults = read_with("", &environment).unwrap_err();
    let expected =
        ["environment FUNICULAR_DNS_UPSTREAM dns.upstream syntax", "environment FUNICULAR_DRAIN drain bad-value"];
    assert_eq!(told(&faults), expected, "{faults}");

    let faults = config::read::<Sidecar>(&Sources::new().flag("--set", "outbound.lisen", "[::]:1")).unwrap_err();
    assert_eq!(faults.to_string(), "flag --set: outbound.lisen: unknown key: did you mean outbound.listen?");
}

#[test]
fn variables_of_others_are_listed_and_not_refused() {
    let environment = [("FUNICULAR_PEAK_PORT", "tcp://10.0.0.1:53"), ("PATH", "/bin")];
    let loaded = read_with("", &environment).unwrap();
    assert_eq!(loaded.unread_variables(), ["FUNICULAR_PEAK_PORT"]);
}

#[test]
fn no_two_settings_share_a_variable() {
    let keys = config::describe::<Sidecar>();
    let mut variables: Vec<String> = keys.iter().map(|key| config::variable(&key.key)).collect();
    let count = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), count);
}

#[test]
fn a_text_that_is_no_yaml_is_refused_at_its_place() {
    let faults = read("identity:\n  id: [spiffe\ntls: }\n").unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(matches!(&faults.iter().next().unwrap().place, config::Place::File { line: 2..=3, .. }), "{faults}");
}

#[test]
fn a_section_must_be_a_section_and_a_value_a_value() {
    let faults = read("dns: 53\nlog: [info]\ndrain: { s: 30 }\ntrust: none\n").unwrap_err();
    let expected = ["1:6 dns wrong-kind", "2:6 log wrong-kind", "3:8 drain wrong-kind", "4:8 trust bad-value"];
    assert_eq!(told(&faults), expected, "{faults}");
}

#[test]
fn callers_not_given_are_all_and_an_empty_list_is_nobody() {
    let service = |callers: &str| {
        let text = format!(
            "tls: {{ certificate: c, key: k }}\ntrust: [{{ issuer: i, jwks: j }}]\n\
             inbound: {{ services: [{{ name: orders.shop.peak{callers} }}] }}\n"
        );
        read(&text).unwrap().value.inbound.services.remove(0).callers
    };
    assert_eq!(service(""), None);
    assert_eq!(service(", callers: []").unwrap(), []);
    assert_eq!(service(", callers: ['spiffe://a/ns/*/sa/b']").unwrap().len(), 1);
}

#[test]
fn a_key_in_place_of_its_file_s_name_is_refused_and_not_repeated() {
    let key = "-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIHKcVJ\\n-----END PRIVATE KEY-----";
    let secret = "00112233445566778899aabbccddeeff";
    let text = format!(
        "identity: {{ id: spiffe://a/ns/b/sa/c, issuer: i, key_id: k, ca: f, signing_key: \"{key}\" }}\n\
         outbound: {{ secrets: {{ summit: \"{secret}\" }} }}\n"
    );
    let faults = read(&text).unwrap_err();
    assert_eq!(faults.len(), 2, "{faults}");
    assert!(!faults.to_string().contains("MC4C") && !faults.to_string().contains("8899"), "{faults}");
}

#[test]
fn files_that_cannot_be_read_are_told_with_who_can_act() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidecar.yaml");
    std::fs::write(folder.path().join("there.pem"), "").unwrap();
    let text = "tls: { certificate: there.pem, key: missing.pem }\n\
                trust: [{ issuer: i, jwks: . }]\n";
    std::fs::write(&path, text).unwrap();
    let sources = Sources::new().file(&path);
    let loaded = config::read::<Sidecar>(&sources).unwrap();
    assert_eq!(loaded.value.tls.as_ref().unwrap().key, folder.path().join("missing.pem"));
    let faults = config::read::<Sidecar>(&sources.look_at_files()).unwrap_err();
    assert_eq!(told(&faults), ["1:37 tls.key unreadable", "2:28 trust[0].jwks unreadable"], "{faults}");
    assert!(faults.to_string().contains("whoever mounts the pod's files"), "{faults}");
}

#[test]
fn a_configuration_that_is_not_there_is_a_fault_of_its_own() {
    let missing = Path::new("/nonexistent/sidecar.yaml");
    let faults = config::read::<Sidecar>(&Sources::new().file(missing)).unwrap_err();
    assert!(faults.to_string().starts_with("/nonexistent/sidecar.yaml: cannot be read: "), "{faults}");
}

#[test]
fn what_is_no_configuration_at_all_is_refused_whole() {
    let long = "# ".to_owned() + &"x".repeat(1 << 20);
    let faults = read(&long).unwrap_err();
    assert!(faults.to_string().contains("1 MiB"), "{faults}");
}

#[test]
fn the_settings_in_effect_are_shown_with_where_they_come_from() {
    let loaded = read("drain: 90s\ntls: { certificate: c, key: k }\n").unwrap();
    let effective = loaded.effective();
    assert_eq!(effective["drain"]["value"], "1m30s");
    assert!(effective["drain"]["from"].as_str().unwrap().ends_with(":1:8"));
    assert_eq!(effective["identity"], serde_json::json!({ "value": null, "from": "default" }));
    assert!(effective["tls.certificate"]["value"].as_str().unwrap().ends_with("/c"));
}

#[test]
fn the_schema_knows_the_keys_that_the_reader_knows() {
    let schema = config::schema::<Sidecar>();
    let mut missing = Vec::new();
    for key in config::describe::<Sidecar>() {
        let steps = key.key.replace("[]", ".[]").replace(".<id>", ".[]");
        if !steps.split('.').try_fold(&schema, |at, step| descend(&schema, at, step)).is_some_and(|at| at.is_object()) {
            missing.push(key.key);
        }
    }
    assert_eq!(missing, [""; 0]);
    assert_eq!(schema["properties"]["drain"]["default"], "30s");
    assert_eq!(schema["$defs"]["Identity"]["additionalProperties"], false);
    let required = schema["$defs"]["Identity"]["required"].as_array().unwrap();
    assert!(required.contains(&"ca".into()) && !required.contains(&"token_life".into()));
}

/// The schema of one key below `at`; `[]` is any element.
fn descend<'s>(root: &'s serde_json::Value, at: &'s serde_json::Value, step: &str) -> Option<&'s serde_json::Value> {
    let at = match at.get("$ref").and_then(|reference| reference.as_str()) {
        Some(reference) => root.pointer(reference.strip_prefix('#')?)?,
        None => at,
    };
    match step {
        "[]" => at.get("items").or_else(|| at.get("additionalProperties")),
        _ => at.get("properties")?.get(step),
    }
}

#[test]
fn the_manual_s_reference_is_the_declaration_s() {
    let chapter = include_str!("../src/manual/configuration.md");
    for (role, reference) in [
        ("node", config::reference::<NodeAgent>()),
        ("peak", config::reference::<Peak>()),
        ("sidecar", config::reference::<Sidecar>()),
        ("webhook", config::reference::<Webhook>()),
    ] {
        assert!(chapter.contains(&reference), "replace it in the manual by: funicular schema {role} --as markdown");
    }
}

#[test]
fn peak_s_sample_is_read_as_it_stands() {
    let loaded = config::read::<Peak>(&Sources::new().file(&sample("peak.yaml"))).unwrap();
    assert_eq!(loaded.value.zones[0].name.to_string(), "shop.peak.");
}

#[test]
fn the_node_s_sample_is_read_as_it_stands() {
    let loaded = config::read::<NodeAgent>(&Sources::new().file(&sample("node.yaml"))).unwrap();
    assert_eq!(loaded.value.address.to_string(), "2001:db8:10::1");
    assert_eq!(loaded.remarks().len(), 0, "{:?}", loaded.remarks());
}

#[test]
fn a_node_s_routes_go_by_bgp_or_by_a_mesh_that_is_described() {
    let sources = |routes: &str| Sources::new().file(&sample("node.yaml")).flag("--set", "routes", routes);
    assert!(config::read::<NodeAgent>(&sources("bgp")).is_ok());
    let faults = config::read::<NodeAgent>(&sources("mesh")).unwrap_err();
    assert!(faults.to_string().contains("needs the section mesh"), "{faults}");
}

#[test]
fn the_webhook_s_sample_is_read_as_it_stands_and_shows_the_defaults() {
    let loaded = config::read::<Webhook>(&Sources::new().file(&sample("webhook.yaml"))).unwrap();
    assert_eq!(loaded.value, config::read::<Webhook>(&Sources::new()).unwrap().value);
}

#[test]
fn every_sample_is_known_to_these_tests() {
    let mut names: Vec<String> =
        std::fs::read_dir(sample("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["node.yaml", "peak.yaml", "sidecar.yaml", "webhook.yaml"]);
}

proptest::proptest! {
    /// Whatever stands in a file, reading it ends with a configuration or with faults that can be told.
    #[test]
    fn no_text_is_too_strange_to_be_refused(text in "[ -~\\n\\t{}\\[\\]:,&*!|>'\"%@`#-]{0,200}|\\PC{0,60}") {
        if let Err(faults) = read(&text) {
            proptest::prop_assert!(!faults.to_string().is_empty());
        }
    }

    /// The same for what is nearly right.
    #[test]
    fn no_slip_in_the_sample_is_too_strange(at in 0_usize..4_000, put in "[ -~\\n]{0,3}", cut in 0_usize..4) {
        let sample = std::fs::read_to_string(sample("sidecar.yaml")).unwrap();
        let chars: Vec<char> = sample.chars().collect();
        let at = at.min(chars.len());
        let rest = chars.get(at + cut..).unwrap_or_default();
        let text: String = chars[..at].iter().copied().chain(put.chars()).chain(rest.iter().copied()).collect();
        if let Err(faults) = read(&text) {
            proptest::prop_assert!(!faults.to_string().is_empty());
        }
    }
}

/// Runs the program with nothing in its environment.
fn funicular(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_funicular")).args(arguments).env_clear().output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_tells_the_role_by_the_file_s_name_or_keys_and_exits_with_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    let file = path.to_str().unwrap();
    for name in ["sidecar", "peak"] {
        let original = sample(&format!("{name}.yaml"));
        std::fs::copy(&original, &path).unwrap();
        for file in [original.to_str().unwrap(), file] {
            let (code, out, _) = funicular(&["check", "--no-files", file]);
            assert_eq!((code, out), (Some(0), format!("{file}: right for funicular {name}\n")));
        }
        // The files that the sample names are not on this machine.
        assert_eq!(funicular(&["check", file]).0, Some(1));
    }
    std::fs::write(&path, "colour: blue\n").unwrap();
    let (code, _, error) = funicular(&["check", file]);
    assert!(code == Some(1) && error.contains("--role"), "{error}");
    let (code, out, _) = funicular(&["check", file, "--role", "peak"]);
    assert!(code == Some(1) && out.starts_with(&format!("{file}:1:1: colour: unknown key\n")), "{out}");
    assert_eq!(funicular(&["check", "--show"]).0, Some(2));
}

#[test]
fn check_tells_machines_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidecar.yaml");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "drain: 5\nlog: { levl: info }\n").unwrap();
    let (code, out, _) = funicular(&["check", file, "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["right"]), (Some(1), &false.into()));
    let faults = told["faults"].as_array().unwrap();
    let seen: Vec<_> = faults.iter().map(|fault| (&fault["reason"], &fault["place"]["line"])).collect();
    assert_eq!(seen, [(&"bad-value".into(), &1.into()), (&"unknown-key".into(), &2.into())]);

    let (code, out, _) = funicular(&["check", file, "-o", "json", "--set", "drain=5s", "--set", "log=x"]);
    assert_eq!(code, Some(1), "{out}");
    std::fs::write(&path, "").unwrap();
    let (code, out, _) = funicular(&["check", file, "-o", "json", "--set", "drain=5s"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(told["settings"]["drain"], serde_json::json!({ "value": "5s", "from": "flag --set" }));
}

#[test]
fn schema_and_completion_print_what_they_promise() {
    for role in ["sidecar", "peak"] {
        let (code, out, _) = funicular(&["schema", role]);
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &schema["title"]), (Some(0), &format!("funicular {role}").into()));
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = funicular(&["completion", shell]);
        assert!(code == Some(0) && out.contains("funicular") && out.contains("schema"), "{shell}");
    }
}
