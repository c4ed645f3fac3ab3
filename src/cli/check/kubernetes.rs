//! The cluster, and what runs in it.

use serde_json::{Map, Value};

use super::findings::Finding;
use super::kernel;
use crate::model::UnixSeconds;
use crate::model::inject::{LABEL, STATUS};
use crate::net::kubernetes::{Cluster, KubernetesError};
use crate::ops::clock;
use crate::wire::moment;

/// The oldest minor version whose schemas the manifests fit, and the one that knows native sidecars.
const OLDEST: u32 = 25;
const NATIVE_SINCE: u32 = 29;
/// Tokens are forgiven so much; from half of it on somebody should know.
const LEEWAY: u64 = 10;
/// Pods in one answer: more are a matter of the survey's metric.
const PAGE: u32 = 5_000;

/// A check that the API server did not answer.
pub(super) fn unlooked(check: &'static str, error: &KubernetesError) -> Finding {
    Finding::skipped(check, error.to_string(), "look again as somebody who may")
}

/// Whether it is reached, and what it is like.
pub(super) async fn look(cluster: &Cluster) -> (bool, Vec<Finding>) {
    let minor = match cluster.minor_version().await {
        Ok(minor) => minor,
        Err(error) => {
            let hint = "say how: --kubeconfig FILE, or KUBECONFIG";
            return (false, vec![Finding::wrong("api-reachable", error.to_string(), hint)]);
        }
    };
    let mut findings = vec![Finding::right("api-reachable", "the API server answers"), version(minor)];
    findings.push(match cluster.time().await {
        Ok(Some(time)) => skew("clock-skew", "the API server", time, clock::now()),
        Ok(None) => Finding::skipped("clock-skew", "the API server does not say what time it is", "compare by hand"),
        Err(error) => unlooked("clock-skew", &error),
    });
    findings.push(nodes(cluster).await);
    findings.push(node_clocks(cluster).await);
    (true, findings)
}

fn version(minor: u32) -> Finding {
    let seen = format!("Kubernetes 1.{minor}");
    match minor {
        NATIVE_SINCE.. => Finding::right("version-supported", seen),
        OLDEST.. => Finding::doubtful(
            "version-supported",
            seen,
            "before 1.29 sidecars are ordinary containers, and Jobs have none",
        ),
        _ => Finding::wrong("version-supported", seen, "1.25 is the oldest that the manifests are for"),
    }
}

fn skew(check: &'static str, whose: &str, theirs: UnixSeconds, ours: UnixSeconds) -> Finding {
    let by = theirs.0.abs_diff(ours.0);
    let seen = format!("{whose} is {by} s {}", if theirs.0 < ours.0 { "behind" } else { "ahead" });
    let hint = "tokens would be refused as expired or not yet good: let a time service (NTP) set all clocks";
    match by {
        0..=1 => Finding::right(check, format!("{whose} agrees")),
        _ if by < LEEWAY / 2 => Finding::right(check, seen),
        _ if by < LEEWAY => Finding::doubtful(check, seen, hint),
        _ => Finding::wrong(check, seen, hint),
    }
}

/// Whether every node's kernel has what is needed.
async fn nodes(cluster: &Cluster) -> Finding {
    const CHECK: &str = "node-kernels";
    let nodes = match cluster.get("/api/v1/nodes").await {
        Ok(nodes) => nodes.unwrap_or_default(),
        Err(error) => return unlooked(CHECK, &error),
    };
    let items = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let linux = items.iter().filter(|node| node["status"]["nodeInfo"]["operatingSystem"] != "windows");
    let releases: Vec<(&str, &str)> = linux
        .map(|node| {
            let text = |value: &'static str| node.pointer(value).and_then(Value::as_str).unwrap_or_default();
            (text("/metadata/name"), text("/status/nodeInfo/kernelVersion"))
        })
        .collect();
    match releases.iter().find(|(_, release)| !kernel::is_new_enough(release)) {
        None => Finding::right(CHECK, format!("{} nodes with Linux 5.2 or later", releases.len())),
        Some((node, release)) => {
            Finding::wrong(CHECK, format!("{node} has Linux {release}"), "Linux 5.2 or later is needed on every node")
        }
    }
}

/// Whether the nodes' clocks agree: a kubelet writes into its lease every ten seconds what time it has.
async fn node_clocks(cluster: &Cluster) -> Finding {
    const CHECK: &str = "node-clocks";
    let leases = match cluster.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases").await {
        Ok(leases) => leases.unwrap_or_default(),
        Err(error) => return unlooked(CHECK, &error),
    };
    let now = clock::now();
    let ahead = leases["items"].as_array().into_iter().flatten().filter_map(|lease| {
        let renewed = moment::rfc3339(lease["spec"]["renewTime"].as_str()?)?;
        Some((lease["metadata"]["name"].as_str()?, renewed.0.saturating_sub(now.0)))
    });
    match ahead.max_by_key(|(_, by)| *by) {
        Some((node, by)) if by > 1 => skew(CHECK, &format!("node {node}"), UnixSeconds(now.0 + by), now),
        Some(_) | None => Finding::right(CHECK, "no node is ahead"),
    }
}

/// What runs of the control plane, in which versions, and which pods lack their sidecar.
pub(super) async fn workloads(cluster: &Cluster, namespace: &str) -> Vec<Finding> {
    vec![
        running(cluster, namespace, "statefulsets", "funicular-peak", "peak-running").await,
        running(cluster, namespace, "daemonsets", "funicular-node", "agents-running").await,
        versions(cluster, namespace).await,
        sidecars(cluster).await,
    ]
}

/// Whether a workload has as many pods ready as it should.
pub(super) async fn running(
    cluster: &Cluster,
    namespace: &str,
    kind: &str,
    name: &str,
    check: &'static str,
) -> Finding {
    let object = match cluster.get(&format!("/apis/apps/v1/namespaces/{namespace}/{kind}/{name}")).await {
        Ok(Some(object)) => object,
        Ok(None) => {
            return Finding::wrong(
                check,
                format!("there is no {name}"),
                "install it: kubectl apply -k deploy/overlays/…",
            );
        }
        Err(error) => return unlooked(check, &error),
    };
    let (wanted, ready) = pods(&object);
    let hint = format!("kubectl -n {namespace} describe {kind}/{name} says what is in the way");
    Finding::holds(check, ready >= wanted && wanted > 0, format!("{ready} of {wanted} pods are ready"), &hint)
}

/// How many pods a workload should have ready, and has.
fn pods(object: &Value) -> (u64, u64) {
    let status = |key: &str| object["status"][key].as_u64();
    let wanted = status("desiredNumberScheduled").or_else(|| object["spec"]["replicas"].as_u64());
    (wanted.unwrap_or(1), status("numberReady").or_else(|| status("readyReplicas")).unwrap_or(0))
}

/// Whether everything is of this program's version.
async fn versions(cluster: &Cluster, namespace: &str) -> Finding {
    const CHECK: &str = "versions";
    let ours = env!("CARGO_PKG_VERSION");
    let mut others = Vec::new();
    for (kind, name) in [("deployments", "webhook"), ("statefulsets", "peak"), ("daemonsets", "node")] {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/{kind}/funicular-{name}");
        let object = match cluster.get(&path).await {
            Ok(object) => object.unwrap_or_default(),
            Err(error) => return unlooked(CHECK, &error),
        };
        let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        let of_ours = containers.into_iter().flatten().find(|container| container["name"] == name);
        let image = of_ours.and_then(|container| container["image"].as_str());
        // A digest alone tells no version.
        let tag = image.and_then(|image| image.split('@').next()?.rsplit_once(':')).map(|(_, tag)| tag);
        others.extend(
            tag.filter(|tag| !tag.contains('/') && tag.trim_start_matches('v') != ours)
                .map(|tag| format!("{name} {tag}")),
        );
    }
    if others.is_empty() {
        return Finding::right(CHECK, format!("all {ours}"));
    }
    let hint = "versions next to each other work together; use the `funicular check` of the newest";
    Finding::doubtful(CHECK, format!("this is {ours}, and there are: {}", others.join(", ")), hint)
}

/// Whether every pod that asks for a sidecar has one, of this version.
async fn sidecars(cluster: &Cluster) -> Finding {
    const CHECK: &str = "sidecars";
    let namespaces = match cluster.list_metadata("/api/v1/namespaces").await {
        Ok(namespaces) => namespaces,
        Err(error) => return unlooked(CHECK, &error),
    };
    let pods = match cluster.list_metadata(&format!("/api/v1/pods?limit={PAGE}")).await {
        Ok(pods) => pods,
        Err(error) => return unlooked(CHECK, &error),
    };
    let items = |list: &Value| list["items"].as_array().cloned().unwrap_or_default();
    let asking: Vec<String> = items(&namespaces)
        .iter()
        .filter(|namespace| namespace["metadata"]["labels"][LABEL] == "true")
        .filter_map(|namespace| Some(namespace["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    judge(&items(&pods), &asking)
}

fn judge(pods: &[Value], asking: &[String]) -> Finding {
    let none = Map::new();
    let (mut with, mut without, mut other) = (0_u32, Vec::new(), 0_u32);
    for pod in pods.iter().map(|pod| &pod["metadata"]) {
        let labels = pod["labels"].as_object().unwrap_or(&none);
        let namespace = pod["namespace"].as_str().unwrap_or_default();
        if labels.get("funicular.dev/injected").is_some_and(|word| word == "true") {
            with += 1;
            let status = pod["annotations"][STATUS].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let version = status.and_then(|status| Some(status["version"].as_str()?.to_owned()));
            other += u32::from(version.is_some_and(|version| version != env!("CARGO_PKG_VERSION")));
            continue;
        }
        let asks = labels.get(LABEL).map_or_else(|| asking.iter().any(|name| name == namespace), |word| word == "true");
        if asks && !pod["deletionTimestamp"].is_string() {
            without.push(format!("{namespace}/{}", pod["name"].as_str().unwrap_or_default()));
        }
    }
    if let Some(first) = without.first() {
        let seen = format!("{} pods have none, such as {first}", without.len());
        return Finding::wrong(
            "sidecars",
            seen,
            "restart their workloads: they were made before a sidecar was asked for",
        );
    }
    if other > 0 {
        let hint = "restart their workloads to bring them to this version";
        return Finding::doubtful("sidecars", format!("{other} of {with} are of another version"), hint);
    }
    Finding::right("sidecars", format!("{with} pods have theirs"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clocks_that_differ_by_less_than_half_of_the_leeway_are_right() {
        let judged = |theirs: u64| skew("c", "s", UnixSeconds(theirs), UnixSeconds(1_000));
        assert_eq!(judged(1_001), Finding::right("c", "s agrees"));
        assert_eq!(judged(996), Finding::right("c", "s is 4 s behind"));
        let hint = "tokens would be refused as expired or not yet good: let a time service (NTP) set all clocks";
        assert_eq!(judged(1_005), Finding::doubtful("c", "s is 5 s ahead", hint));
        assert_eq!(judged(990), Finding::wrong("c", "s is 10 s behind", hint));
    }

    #[test]
    fn pods_are_counted_for_every_kind_of_workload() {
        assert_eq!(pods(&json!({ "spec": { "replicas": 3 }, "status": { "readyReplicas": 2 } })), (3, 2));
        assert_eq!(pods(&json!({ "status": { "desiredNumberScheduled": 4, "numberReady": 4 } })), (4, 4));
        assert_eq!(pods(&json!({ "spec": { "replicas": 1 }, "status": {} })), (1, 0));
    }

    #[test]
    fn a_pod_that_asks_for_a_sidecar_and_has_none_is_wrong() {
        let pod = |labels: Value| json!({ "metadata": { "namespace": "shop", "name": "web", "labels": labels } });
        let judged = |pods: &[Value], asking: &[&str]| {
            judge(pods, &asking.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(judged(&[pod(json!({}))], &[]), Finding::right("sidecars", "0 pods have theirs"));
        assert_eq!(
            judged(&[pod(json!({ LABEL: "false" }))], &["shop"]),
            Finding::right("sidecars", "0 pods have theirs")
        );
        assert_eq!(
            judged(&[pod(json!({ "funicular.dev/injected": "true" }))], &["shop"]),
            Finding::right("sidecars", "1 pods have theirs")
        );
        for (labels, asking) in [(json!({}), vec!["shop"]), (json!({ LABEL: "true" }), vec![])] {
            assert_ne!(judged(&[pod(labels)], &asking), Finding::right("sidecars", "0 pods have theirs"));
        }
    }
}
