//! Which pods should have a sidecar and have none: made before their namespace asked for sidecars, or while nobody
//! asked the webhook.
//!
//! Only metadata is read, and only of pods without the label of those that have a sidecar.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::events::{Events, What};
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use crate::model::inject::review::Subject;
use crate::model::inject::{LABEL, Namespace};
use crate::net::kubernetes::{Cluster, KubernetesError};

/// Pods in one page.
const PAGE: u32 = 500;
/// Names that one line of the log carries.
const NAMED: usize = 5;

/// Looks over all pods for ever, once in `every`.
pub(super) async fn look(
    cluster: Cluster,
    namespaces: Arc<Namespaces>,
    events: Events,
    metrics: Metrics,
    every: Duration,
) {
    loop {
        match missing(&cluster, &namespaces).await {
            Ok(missing) => {
                metrics.missing.set(i64::try_from(missing.len()).unwrap_or(i64::MAX));
                if !missing.is_empty() {
                    let names: Vec<String> = missing.iter().take(NAMED).map(Pod::named).collect();
                    tracing::warn!(
                        pods = missing.len(),
                        some = names.join(", "),
                        "pods should have a sidecar and have none: restart their workloads"
                    );
                }
                missing.into_iter().for_each(|pod| events.tell(pod.event()));
            }
            Err(error) => tracing::warn!(reason = error.reason(), "pods not looked over: {error}"),
        }
        tokio::time::sleep(every).await;
    }
}

/// A pod without its sidecar.
struct Pod {
    namespace: String,
    subject: Subject,
}

impl Pod {
    fn named(&self) -> String {
        format!("{}/{}", self.namespace, self.subject.name)
    }

    fn event(self) -> What {
        let message = "it should have a sidecar and has none: it was made before that was asked for, or while the \
                       webhook was not; restart its workload";
        What {
            namespace: self.namespace,
            owner: self.subject,
            warns: true,
            word: "SidecarMissing",
            message: message.to_owned(),
        }
    }
}

async fn missing(cluster: &Cluster, namespaces: &Namespaces) -> Result<Vec<Pod>, KubernetesError> {
    let known = namespaces.all();
    let mut missing = Vec::new();
    let mut at = String::new();
    loop {
        let selector = "funicular.dev%2Finjected%21%3Dtrue";
        let page = cluster.list_metadata(&format!("/api/v1/pods?labelSelector={selector}&limit={PAGE}{at}")).await?;
        for item in page["items"].as_array().into_iter().flatten() {
            missing.extend(pod(&item["metadata"], |name| known.get(name)));
        }
        match page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
            Some(token) => at = format!("&continue={token}"),
            None => return Ok(missing),
        }
    }
}

/// The pod of this metadata, when it or its namespace asks for a sidecar.
fn pod<'n>(metadata: &Value, namespace: impl Fn(&str) -> Option<&'n Namespace>) -> Option<Pod> {
    let text = |key: &str| metadata[key].as_str().map(ToOwned::to_owned);
    let name = text("namespace")?;
    let asks =
        |labels: Option<&Map<String, Value>>| labels.and_then(|labels| labels.get(LABEL)).map(|word| word == "true");
    let own = asks(metadata["labels"].as_object());
    let of_namespace = || asks(namespace(&name).map(|namespace| &namespace.labels));
    if !own.or_else(of_namespace).unwrap_or(false) || metadata["deletionTimestamp"].is_string() {
        return None;
    }
    let subject =
        Subject { api_version: "v1".to_owned(), kind: "Pod".to_owned(), name: text("name")?, uid: text("uid")? };
    Some(Pod { namespace: name, subject })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_missed_when_it_or_its_namespace_asks_and_its_own_word_wins() {
        let asking = Namespace { labels: Map::from_iter([(LABEL.to_owned(), json!("true"))]), ..Namespace::default() };
        let silent = Namespace::default();
        let missed = |own: Value, namespace: &Namespace| {
            let metadata = json!({ "name": "p", "namespace": "n", "uid": "u", "labels": own });
            pod(&metadata, |_| Some(namespace)).is_some()
        };
        assert!(missed(json!({}), &asking));
        assert!(missed(json!({ LABEL: "true" }), &silent));
        assert!(!missed(json!({ LABEL: "false" }), &asking));
        assert!(!missed(json!({}), &silent));
        let going = json!({ "name": "p", "namespace": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert!(pod(&going, |_| Some(&asking)).is_none());
    }
}
