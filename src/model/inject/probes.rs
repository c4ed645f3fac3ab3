//! The kubelet's probes of the application.
//!
//! The kubelet proves nothing, so what it asks of the application's own ports would be refused like any caller without
//! a token; and letting a port through for it would let everybody through. So it asks the sidecar, on the port of
//! metrics and health, and the sidecar asks the application within the pod: exactly the declared question, nothing else.
//! The originals stand in the pod's status.

use serde_json::{Map, Value, json};

use super::status::Status;
use super::{INIT, SIDECAR, Settings, each_container};

/// Metrics, health, and the application's probes.
pub(super) const METRICS_PORT: u64 = 15020;

/// Where the kubelet asks: the member of a container, and its part of the path.
const ASKED: [(&str, &str); 5] = [
    ("startupProbe", "startup"),
    ("readinessProbe", "readiness"),
    ("livenessProbe", "liveness"),
    ("lifecycle/postStart", "post-start"),
    ("lifecycle/preStop", "pre-stop"),
];
/// Ways of asking over the network.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// How long Kubernetes waits for an answer when the probe does not say.
const TIMEOUT_SECONDS: u64 = 1;
/// How long a hook's request may take: the admin port gives no answer longer.
const HOOK_SECONDS: u64 = 10;

/// One probe or hook that is asked of the sidecar instead.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rewrite {
    /// The list that its container stands in.
    pub(super) list: &'static str,
    pub(super) container: String,
    /// The member of the container, as a pointer without its first `/`.
    pub(super) field: &'static str,
    word: &'static str,
    /// How it was asked: an object with one of [`HANDLERS`].
    pub(super) original: Map<String, Value>,
    /// The whole probe as it becomes.
    pub(super) rewritten: Value,
    /// What the sidecar asks.
    question: Value,
}

impl Rewrite {
    /// Its container, its member there, and how it was asked.
    pub(super) fn before(&self) -> (&str, &str, &Map<String, Value>) {
        (&self.container, self.field, &self.original)
    }
}

/// Every probe of the pod that goes to a port behind the sidecar.
pub(super) fn find(pod: &Value, known: Option<&Status>, settings: &Settings) -> Vec<Rewrite> {
    let others = each_container(pod).filter(|(_, container)| container["name"] != INIT && container["name"] != SIDECAR);
    let asked = others.flat_map(|(list, container)| ASKED.map(|(field, word)| (list, container, field, word)));
    asked.filter_map(|(list, container, field, word)| rewrite(list, container, field, word, known, settings)).collect()
}

fn rewrite(
    list: &'static str,
    container: &Value,
    field: &'static str,
    word: &'static str,
    known: Option<&Status>,
    settings: &Settings,
) -> Option<Rewrite> {
    let probe = container.pointer(&format!("/{field}"))?.as_object()?;
    let name = container["name"].as_str()?;
    let path = path(name, word);
    let of_sidecar = json!({ "path": path, "port": METRICS_PORT, "scheme": "HTTP" });
    let is_ours = probe.get("httpGet").is_some_and(|get| get["path"] == path && get["port"] == METRICS_PORT);
    let original = if is_ours { known?.original(name, field)?.clone() } else { handler(probe)? };
    let question = question(&original, probe, field, container, settings)?;
    let mut rewritten = probe.clone();
    if !is_ours {
        HANDLERS.iter().for_each(|handler| drop(rewritten.remove(*handler)));
        rewritten.insert("httpGet".to_owned(), of_sidecar);
    }
    Some(Rewrite { list, container: name.to_owned(), field, word, original, rewritten: rewritten.into(), question })
}

fn path(container: &str, word: &str) -> String {
    format!("/probe/{container}/{word}")
}

/// The part of a probe that says how to ask.
fn handler(probe: &Map<String, Value>) -> Option<Map<String, Value>> {
    let handler = probe.iter().find(|(key, value)| HANDLERS.contains(&key.as_str()) && value.is_object())?;
    Some(Map::from_iter([(handler.0.clone(), handler.1.clone())]))
}

/// What the sidecar has to ask; nothing when the probe does not come by it.
fn question(
    original: &Map<String, Value>,
    probe: &Map<String, Value>,
    field: &str,
    container: &Value,
    settings: &Settings,
) -> Option<Value> {
    let (kind, asked) = original.iter().next()?;
    // A probe of another host is none of the pod's own.
    if asked["host"].as_str().is_some_and(|host| !host.is_empty()) {
        return None;
    }
    let port = number(&asked["port"], container)?;
    if settings.skip_inbound_ports.iter().any(|ports| ports.contains(&port)) {
        return None;
    }
    let is_hook = field.starts_with("lifecycle");
    let timeout = probe.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(TIMEOUT_SECONDS);
    let timeout = format!("{}s", if is_hook { HOOK_SECONDS } else { timeout.clamp(1, HOOK_SECONDS) });
    Some(match kind.as_str() {
        "httpGet" => {
            let kind = if asked["scheme"] == "HTTPS" { "https" } else { "http" };
            let path = asked["path"].as_str().unwrap_or("/");
            json!({ "kind": kind, "port": port, "path": path, "headers": headers(asked), "timeout": timeout })
        }
        "grpc" => {
            let service = asked["service"].as_str().unwrap_or_default();
            json!({ "kind": "grpc", "port": port, "service": service, "timeout": timeout })
        }
        // Kubernetes ignores a hook that only connects.
        "tcpSocket" if !is_hook => json!({ "kind": "tcp", "port": port, "timeout": timeout }),
        _ => return None,
    })
}

/// A port by its number, or by its name among the container's.
fn number(port: &Value, container: &Value) -> Option<u16> {
    let number = port.as_u64().or_else(|| port.as_str()?.parse().ok()).or_else(|| {
        let ports = container["ports"].as_array()?;
        ports.iter().find(|named| named["name"] == *port)?["containerPort"].as_u64()
    })?;
    u16::try_from(number).ok()
}

fn headers(asked: &Value) -> Map<String, Value> {
    let headers = asked["httpHeaders"].as_array().into_iter().flatten();
    headers.filter_map(|header| Some((header["name"].as_str()?.to_owned(), header["value"].clone()))).collect()
}

/// All questions by their paths: the sidecar's `probes`.
pub(super) fn for_the_sidecar(probes: &[Rewrite]) -> Value {
    let entry = |probe: &Rewrite| (format!("{}/{}", probe.container, probe.word), probe.question.clone());
    Value::Object(probes.iter().map(entry).collect())
}

/// The probe as it was: how it is asked is put back, all else stays.
pub(super) fn restored(probe: &Value, original: &Map<String, Value>) -> Option<Value> {
    let mut restored = probe.as_object()?.clone();
    restored.remove("httpGet");
    restored.extend(original.clone());
    Some(restored.into())
}
