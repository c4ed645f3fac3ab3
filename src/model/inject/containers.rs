//! What is put into a pod: two containers and their volumes.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use serde_json::{Map, Value, json};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::draft::Position;
use super::probes::{self, METRICS_PORT, Rewrite};
use super::status::Status;
use super::{INIT, SIDECAR, Settings};
use crate::model::lists;

/// Where the sidecar listens: admin, outbound, inbound, metrics and health, DNS.
pub(super) const OWN_PORTS: [u64; 5] = [15000, 15001, 15006, METRICS_PORT, 15053];
/// Our volumes' names.
pub(super) const VOLUMES: [&str; 4] = [AGENT, CONFIG, IDENTITY, TOKEN];

const AGENT: &str = "funicular-agent";
const CONFIG: &str = "funicular-config";
const IDENTITY: &str = "funicular-identity";
const TOKEN: &str = "funicular-token";
/// Where a node's agent listens for the sidecars of its pods; on the node and in the pod alike.
const AGENT_FOLDER: &str = "/run/funicular";
/// The ConfigMap that Kubernetes puts into every namespace: what vouches for its API server.
const ROOT_AUTHORITY: &str = "kube-root-ca.crt";
/// The program in its image, which has no PATH.
const PROGRAM: &str = "/funicular";
/// How long a token of Kubernetes is good for; the kubelet renews it when four fifths of that are over.
const TOKEN_SECONDS: u64 = 3_600;
/// How long an application waits for the sidecar before Kubernetes gives the start up and tries again.
const START_SECONDS: u64 = 120;
/// Nobody has called for so long: the application has made its last calls.
const IDLE: &str = "3s";
/// What is left of the pod's grace period when the sidecar closes the last connections.
const LAST_WORDS_SECONDS: u64 = 2;
/// The grace period of a pod that names none.
const GRACE_SECONDS: u64 = 30;

const INIT_CONTAINERS: &str = "/spec/initContainers";
const CONTAINERS: &str = "/spec/containers";

/// Everything that is put into one pod.
#[derive(Debug)]
pub(super) struct Rendered {
    /// For each list of the pod, what is put into it.
    pub(super) items: Vec<(&'static str, Vec<Value>)>,
    /// The application's probes that are asked of the sidecar.
    pub(super) probes: Vec<Rewrite>,
    native: bool,
}

/// What `settings` put into `pod`.
pub(super) fn render(pod: &Value, known: Option<&Status>, settings: &Settings) -> Rendered {
    let probes = if settings.rewrite_probes { probes::find(pod, known, settings) } else { Vec::new() };
    let (init, sidecar) = (init(settings), sidecar(pod, &probes, settings));
    let containers = if settings.native {
        vec![(INIT_CONTAINERS, vec![init, sidecar])]
    } else {
        vec![(INIT_CONTAINERS, vec![init]), (CONTAINERS, vec![sidecar])]
    };
    let mut items = containers;
    items.push(("/spec/volumes", volumes(settings)));
    Rendered { items, probes, native: settings.native }
}

impl Rendered {
    /// Where an item of ours goes in a list that lacks it.
    ///
    /// A native sidecar is there for all other init containers. Without it the rules come last, since an init container
    /// that runs between them and the sidecar would have no network; and the sidecar comes first, since Kubernetes starts
    /// containers in their order and waits for each one's `postStart`.
    pub(super) fn position(&self, list: &str, item: &Value) -> Position {
        match list {
            INIT_CONTAINERS if !self.native => Position::Last,
            INIT_CONTAINERS if item["name"] == SIDECAR => Position::After(INIT),
            INIT_CONTAINERS | CONTAINERS => Position::First,
            _ => Position::Last,
        }
    }

    /// The lists and names of all items.
    pub(super) fn names(&self) -> BTreeSet<(&'static str, String)> {
        let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
        self.items.iter().flat_map(|(list, items)| items.iter().map(move |item| (*list, name(item)))).collect()
    }

    /// Tells one template from another. No protection: who writes pods can write this too.
    pub(super) fn digest(&self) -> String {
        let mut hasher = SipHasher24::new();
        for (list, items) in &self.items {
            hasher.write(list.as_bytes());
            items.iter().for_each(|item| hasher.write(item.to_string().as_bytes()));
        }
        format!("{:032x}", hasher.finish128().as_u128())
    }
}

fn init(settings: &Settings) -> Value {
    let mut args = vec!["init".to_owned(), "--uid".to_owned(), settings.uid.to_string()];
    args.extend(["--device".to_owned(), settings.device.clone()]);
    for prefix in &settings.service_prefixes {
        args.extend(["--service-prefix".to_owned(), prefix.to_string()]);
    }
    let skipped = [
        ("--skip-inbound-ports", lists::written(&settings.skip_inbound_ports)),
        ("--skip-outbound-ports", lists::written(&settings.skip_outbound_ports)),
        ("--skip-subnets", settings.skip_subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        ("--skip-uids", lists::written(&settings.skip_uids)),
    ];
    for (flag, list) in skipped.into_iter().filter(|(_, list)| !list.is_empty()) {
        args.extend([flag.to_owned(), list]);
    }
    let mut container = of_our_image(INIT, settings, args);
    // The kernel gives a capability to a program that is not root only by way of its file, which has none.
    container.insert("securityContext".to_owned(), confined(json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }), 0));
    container.into()
}

fn sidecar(pod: &Value, probes: &[Rewrite], settings: &Settings) -> Value {
    let args = ["sidecar", "--config", "/etc/funicular/funicular.yaml"].map(ToOwned::to_owned).to_vec();
    let mut container = of_our_image(SIDECAR, settings, args);
    let mut put = |key: &str, value: Value| drop(container.insert(key.to_owned(), value));
    put("env", env(pod, probes, settings).into());
    put("ports", json!([{ "name": "funicular-mtr", "containerPort": METRICS_PORT, "protocol": "TCP" }]));
    let ready = json!({ "path": "/ready", "port": METRICS_PORT });
    put("readinessProbe", json!({ "httpGet": ready, "periodSeconds": 5 }));
    put("securityContext", confined(json!({ "drop": ["ALL"] }), settings.uid));
    put("volumeMounts", mounts(settings).into());
    let end = format!("{}s", stopping(pod, settings).0);
    if settings.native {
        put("restartPolicy", json!("Always"));
        put("startupProbe", json!({ "httpGet": ready, "periodSeconds": 1, "failureThreshold": START_SECONDS }));
        if settings.leases {
            // It is told to stop when the application is gone; its slices go before that.
            put("lifecycle", json!({ "preStop": hook(&["leave", "--deadline", &end]) }));
        }
    } else {
        let begin = hook(&["wait", "--deadline", &format!("{START_SECONDS}s")]);
        // Everybody is told to stop at once, and applications have last calls.
        let end = hook(&["leave", "--idle", IDLE, "--deadline", &end]);
        put("lifecycle", json!({ "postStart": begin, "preStop": end }));
    }
    container.into()
}

/// A hook: `funicular sidecar` with these words.
fn hook(words: &[&str]) -> Value {
    let command = [&[PROGRAM, "sidecar"], words].concat();
    json!({ "exec": { "command": command } })
}

/// How many seconds a stop may take: until slices are handed over and nobody calls any longer, then until what is open is
/// closed. A native sidecar without slices has nothing to wait for: it is told to stop when nobody is left who could call.
fn stopping(pod: &Value, settings: &Settings) -> (u64, u64) {
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(GRACE_SECONDS);
    let all = settings.drain.map_or(grace.saturating_sub(LAST_WORDS_SECONDS).max(1), |drain| drain.as_secs());
    let calling = if settings.native && !settings.leases { 0 } else { all / 2 };
    (calling, all - calling)
}

fn of_our_image(name: &str, settings: &Settings, args: Vec<String>) -> Map<String, Value> {
    let mut container = Map::new();
    let mut put = |key: &str, value: Value| drop(container.insert(key.to_owned(), value));
    put("name", name.into());
    put("image", settings.image.as_str().into());
    if let Some(policy) = &settings.pull_policy {
        put("imagePullPolicy", policy.as_str().into());
    }
    put("args", args.into());
    put("resources", resources(settings));
    put("terminationMessagePolicy", "FallbackToLogsOnError".into());
    container
}

/// Everything is said, because the pod's own security context would fill what is not.
fn confined(capabilities: Value, uid: u32) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": capabilities,
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": uid,
        "runAsNonRoot": uid != 0,
        "runAsUser": uid,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn resources(settings: &Settings) -> Value {
    let wanted = &settings.resources;
    let mut resources = json!({ "requests": { "cpu": wanted.cpu_request, "memory": wanted.memory_request } });
    for (resource, limit) in [("cpu", &wanted.cpu_limit), ("memory", &wanted.memory_limit)] {
        if let Some(limit) = limit {
            resources["limits"][resource] = limit.as_str().into();
        }
    }
    resources
}

/// Settings that the pod decides and its configuration file, which other pods share, cannot.
fn env(pod: &Value, probes: &[Rewrite], settings: &Settings) -> Vec<Value> {
    let (_, closing) = stopping(pod, settings);
    let mut variables = vec![json!({ "name": "FUNICULAR_DRAIN", "value": format!("{closing}s") })];
    let mut put = |name: &str, value: &str| variables.push(json!({ "name": name, "value": value }));
    if let Some(level) = &settings.log_level {
        put("FUNICULAR_LOG_LEVEL", level);
    }
    if let Some(format) = &settings.log_format {
        put("FUNICULAR_LOG_FORMAT", format);
    }
    if !probes.is_empty() {
        put("FUNICULAR_PROBES", &probes::for_the_sidecar(probes).to_string());
    }
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    if let Some(trust_domain) = &settings.trust_domain {
        // Kubernetes fills in what is not known yet when the pod is made.
        let id = format!("spiffe://{trust_domain}/ns/$(POD_NAMESPACE)/sa/$(POD_ACCOUNT)");
        variables.push(field("POD_NAMESPACE", "metadata.namespace"));
        variables.push(field("POD_ACCOUNT", "spec.serviceAccountName"));
        variables.push(json!({ "name": "FUNICULAR_IDENTITY_ID", "value": id }));
    }
    if settings.leases {
        variables.push(field("FUNICULAR_LEASE_POD", "metadata.name"));
        variables.push(json!({ "name": "FUNICULAR_LEASE_AGENT", "value": format!("{AGENT_FOLDER}/node.sock") }));
    }
    variables
}

fn mounts(settings: &Settings) -> Vec<Value> {
    // A folder, never one file of it: a file that is mounted alone is not renewed (subPath).
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let mut mounts = vec![mount(CONFIG, "/etc/funicular"), mount(TOKEN, "/var/run/secrets/funicular")];
    mounts.extend(settings.identity_secret.as_ref().map(|_| mount(IDENTITY, "/identity")));
    mounts.extend(settings.leases.then(|| mount(AGENT, AGENT_FOLDER)));
    mounts
}

fn volumes(settings: &Settings) -> Vec<Value> {
    let token = json!({
        "serviceAccountToken": { "audience": settings.audience, "expirationSeconds": TOKEN_SECONDS, "path": "token" }
    });
    // So that the keys of the API server, which verify such tokens, can be had from where they are.
    let authority = json!({
        "configMap": {
            "name": ROOT_AUTHORITY,
            "items": [{ "key": "ca.crt", "path": "kubernetes-ca.crt" }],
            "optional": true,
        }
    });
    let mut volumes = vec![
        json!({ "name": CONFIG, "configMap": { "name": settings.config_map } }),
        json!({ "name": TOKEN, "projected": { "sources": [token, authority] } }),
    ];
    let secret = settings.identity_secret.as_ref();
    volumes.extend(secret.map(|secret| json!({ "name": IDENTITY, "secret": { "secretName": secret } })));
    // Not made here: a node without an agent has nothing for the pod, which waits for one.
    let agent = json!({ "name": AGENT, "hostPath": { "path": AGENT_FOLDER, "type": "Directory" } });
    volumes.extend(settings.leases.then_some(agent));
    volumes
}
