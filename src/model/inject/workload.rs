//! Where pods stand in what people write: bare, as templates of workloads, in lists of objects.

use serde_json::Value;

/// A pod, or a pod template, in a document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    /// Where it is (RFC 6901); empty for the whole document.
    pub path: String,
    /// The object's kind and name: `Deployment/orders`.
    pub owner: String,
    /// The object's namespace, where it names one.
    pub namespace: Option<String>,
}

/// Where workloads keep their template, tried in this order; kinds that we have never heard of do likewise.
const PLACES: [&str; 3] = ["/spec/template", "/spec/jobTemplate/spec/template", "/template"];

/// Every pod and pod template of a document, those of `kind: List` included.
#[must_use]
pub fn templates(document: &Value) -> Vec<Template> {
    let mut found = Vec::new();
    collect(document, "", &mut found);
    found
}

fn collect(object: &Value, at: &str, found: &mut Vec<Template>) {
    if let Some(items) = object["items"].as_array() {
        items.iter().enumerate().for_each(|(index, item)| collect(item, &format!("{at}/items/{index}"), found));
        return;
    }
    let has_containers = |path: &str| object.pointer(&format!("{path}/spec/containers")).is_some_and(Value::is_array);
    let place = if object["kind"] == "Pod" { Some("") } else { PLACES.into_iter().find(|place| has_containers(place)) };
    let Some(place) = place else { return };
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str()).unwrap_or("?");
    found.push(Template {
        path: format!("{at}{place}"),
        owner: format!("{}/{name}", object["kind"].as_str().unwrap_or("?")),
        namespace: metadata["namespace"].as_str().map(ToOwned::to_owned),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(document: &Value) -> Vec<String> {
        templates(document).into_iter().map(|template| format!("{} {}", template.path, template.owner)).collect()
    }

    #[test]
    fn pods_are_found_wherever_kubernetes_puts_them() {
        let spec = json!({ "containers": [] });
        let of = |kind: &str, body: Value| json!({ "kind": kind, "metadata": { "name": "a" }, "spec": body });
        assert_eq!(paths(&of("Pod", spec.clone())), [" Pod/a"]);
        assert_eq!(paths(&of("Deployment", json!({ "template": { "spec": spec } }))), ["/spec/template Deployment/a"]);
        let cron = of("CronJob", json!({ "jobTemplate": { "spec": { "template": { "spec": spec } } } }));
        assert_eq!(paths(&cron), ["/spec/jobTemplate/spec/template CronJob/a"]);
        let list = json!({ "kind": "List", "items": [of("ConfigMap", json!({})), of("Rollout", json!({ "template": { "spec": spec } }))] });
        assert_eq!(paths(&list), ["/items/1/spec/template Rollout/a"]);
    }

    #[test]
    fn what_holds_no_pod_gives_none() {
        for document in [json!(null), json!([]), json!({ "kind": "Service", "spec": {} }), json!("text")] {
            assert_eq!(paths(&document), [""; 0]);
        }
    }
}
