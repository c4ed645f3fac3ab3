//! The injector on awkward pods, by a library of others and by the program, without any API server.

use std::io::Write;
use std::process::{Command, Stdio};

use funicular::model::inject::{self, LABEL, Left, Namespace, Outcome, Settings};
use serde_json::{Map, Value, json};

use super::here;

fn documents(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(here("pods").join(name)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn awkward() -> Vec<Value> {
    [documents("injected.yaml"), documents("newer.yaml")].concat()
}

fn asking() -> Namespace {
    Namespace { labels: Map::from_iter([(LABEL.to_owned(), json!("true"))]), ..Namespace::default() }
}

/// As an API server applies it.
fn patched(pod: &Value, ops: &[inject::Op]) -> Value {
    let ops = Value::Array(ops.iter().map(inject::Op::to_json).collect());
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(ops).unwrap()).unwrap();
    pod
}

fn injected(pod: &Value, settings: &Settings) -> Value {
    match inject::inject(pod, &asking(), settings).unwrap().outcome {
        Outcome::Injected(ops) => patched(pod, &ops),
        Outcome::Left(left) => panic!("{left:?}: {pod}"),
    }
}

/// Null and absent mean the same to Kubernetes.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[test]
fn thirty_awkward_pods_are_injected_once_however_often_and_restored() {
    let pods = awkward();
    assert!(pods.len() > 30, "only {} pods", pods.len());
    let settings = Settings::default();
    for pod in pods {
        let once = injected(&pod, &settings);
        let twice = inject::inject(&once, &asking(), &settings).unwrap().outcome;
        assert_eq!(twice, Outcome::Left(Left::Current), "{pod}");
        let restored = patched(&once, &inject::remove(&once).unwrap());
        assert_eq!(without_nulls(&restored), without_nulls(&pod));
    }
}

#[test]
fn fields_that_nobody_knows_pass_through() {
    let pod = injected(&documents("newer.yaml")[0], &Settings::default());
    assert_eq!(pod["spec"]["fieldOfTheFuture"]["a/b~c"][1]["deep"]["er"], "x");
    assert_eq!(pod["metadata"]["selfDestruct"]["after"], json!([1, 2.5, null]));
    assert_eq!(pod["spec"]["containers"][0]["futureProbe"]["httpGet"]["port"], 1);
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["jitter"], 0.5);
}

#[test]
fn pods_that_cannot_have_a_sidecar_are_refused_by_the_reason_they_are_named_after() {
    for pod in documents("refused.yaml") {
        let refusal = inject::inject(&pod, &asking(), &Settings::default()).unwrap_err();
        assert_eq!(pod["metadata"]["name"], refusal.reason());
    }
}

/// Runs the program on manifests: exit code, standard output, standard error.
fn funicular(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    command.args(arguments).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A workload of each kind around every awkward pod.
fn workloads() -> Vec<Value> {
    let kinds = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"];
    let pods = documents("injected.yaml").into_iter().zip(kinds.iter().cycle());
    pods.map(|(pod, kind)| {
        let metadata = json!({ "name": pod["metadata"]["name"] });
        let template = json!({ "metadata": pod["metadata"], "spec": pod["spec"] });
        let spec = match *kind {
            "Pod" => return pod,
            "CronJob" => json!({ "schedule": "@daily", "jobTemplate": { "spec": { "template": template } } }),
            _ => json!({ "template": template }),
        };
        json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec })
    })
    .collect()
}

#[test]
fn manifests_go_through_yaml_and_back_unharmed() {
    let before = workloads();
    let input: String = before.iter().map(|object| format!("---\n{object}\n")).collect();
    let (code, injected, said) = funicular(&["inject", "-"], &input);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(injected.matches("name: funicular-init").count(), before.len());
    let (code, again, _) = funicular(&["inject", "-"], &injected);
    assert_eq!((code, &again), (Some(0), &injected));
    let (code, restored, _) = funicular(&["uninject", "-"], &injected);
    assert_eq!(code, Some(0));
    let restored: Vec<Value> = serde_saphyr::from_multiple(&restored).unwrap();
    assert_eq!(restored, before);
}

#[test]
fn a_manifest_with_a_pod_that_is_refused_is_not_printed() {
    let input = "kind: Pod\nmetadata: { name: agent }\nspec: { hostNetwork: true, containers: [{ name: a }] }\n";
    let (code, out, said) = funicular(&["inject", "-"], input);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(said.contains("Pod/agent") && said.contains("(host-network)"), "{said}");
}

#[test]
fn why_tells_people_and_machines_what_the_webhook_would_do() {
    let pod = "kind: Pod\nmetadata: { name: web, namespace: shop }\nspec: { containers: [{ name: web }] }\n";
    let (code, out, _) = funicular(&["why", "-"], pod);
    assert!(code == Some(1) && out.contains("not-opted-in") && out.contains(LABEL), "{out}");
    let namespace = "---\nkind: Namespace\nmetadata: { name: shop, labels: { funicular.dev/inject: 'true' } }\n";
    let (code, out, _) = funicular(&["why", "-"], &format!("{pod}{namespace}"));
    assert!(code == Some(0) && out.contains("gets a sidecar: "), "{out}");
    let (code, out, _) = funicular(&["why", "-", "--namespace-injected", "-o", "json"], pod);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told[0]["sidecar"], &told[0]["reason"]), (Some(0), &json!(true), &json!("injected")));
    assert!(told[0]["patch"].as_array().is_some_and(|ops| !ops.is_empty()));
}

#[test]
fn a_mode_in_octal_stays_what_kubernetes_reads() {
    let pod = "kind: Pod\nmetadata: { name: web }\nspec:\n  containers: [{ name: web }]\n  volumes: [{ name: v, secret: { secretName: s, defaultMode: 0400 } }]\n";
    let (_, out, _) = funicular(&["inject", "-", "-o", "json"], pod);
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["items"][0]["spec"]["volumes"][0]["secret"]["defaultMode"], 0o400);
}
