//! Who may do what: before an installation whoever installs, afterwards the webhook's account. The API server is asked, and
//! nothing is tried.

use serde_json::{Value, json};

use super::findings::Finding;
use crate::net::kubernetes::{Cluster, KubernetesError};

const GROUP: &str = "/apis/authorization.k8s.io/v1";

/// A verb on a resource: group, resource, name, and whether it lies in our namespace.
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    name: &'static str,
    ours: bool,
}

const fn right(
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    name: &'static str,
    ours: bool,
) -> Right {
    Right { verb, group, resource, name, ours }
}

/// What installing makes.
const INSTALLING: [Right; 14] = [
    right("create", "", "namespaces", "", false),
    right("create", "", "configmaps", "", true),
    right("create", "", "serviceaccounts", "", true),
    right("create", "", "services", "", true),
    right("create", "apps", "daemonsets", "", true),
    right("create", "apps", "deployments", "", true),
    right("create", "apps", "statefulsets", "", true),
    right("create", "networking.k8s.io", "networkpolicies", "", true),
    right("create", "policy", "poddisruptionbudgets", "", true),
    right("create", "scheduling.k8s.io", "priorityclasses", "", false),
    right("create", "rbac.authorization.k8s.io", "clusterroles", "", false),
    right("create", "rbac.authorization.k8s.io", "clusterrolebindings", "", false),
    right("create", "rbac.authorization.k8s.io", "roles", "", true),
    right("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "", false),
];

const CERTIFICATE: &str = "funicular-webhook-certificate";
const PEAK_CERTIFICATE: &str = "funicular-peak-cluster";
const CONFIGURATIONS: (&str, &str) = ("admissionregistration.k8s.io", "mutatingwebhookconfigurations");

/// What the webhook does; deploy/base/webhook-rbac.yaml gives it.
const WEBHOOK: [Right; 12] = [
    right("list", "", "namespaces", "", false),
    right("watch", "", "namespaces", "", false),
    right("get", "", "namespaces", "", false),
    right("list", "", "pods", "", false),
    right("create", "", "events", "", false),
    right("get", CONFIGURATIONS.0, CONFIGURATIONS.1, "funicular-webhook", false),
    right("patch", CONFIGURATIONS.0, CONFIGURATIONS.1, "funicular-webhook", false),
    right("create", "", "secrets", "", true),
    right("get", "", "secrets", CERTIFICATE, true),
    right("update", "", "secrets", CERTIFICATE, true),
    right("get", "", "secrets", PEAK_CERTIFICATE, true),
    right("update", "", "secrets", PEAK_CERTIFICATE, true),
];

/// Whether we may install.
pub(super) async fn before(cluster: &Cluster, namespace: &str) -> Vec<Finding> {
    let hint = "somebody with cluster-admin has to install, or grant that";
    vec![ask(cluster, "may-install", "you", None, &INSTALLING, namespace, hint).await]
}

/// Whether the webhook may do what it does.
pub(super) async fn after(cluster: &Cluster, namespace: &str) -> Vec<Finding> {
    let account = format!("system:serviceaccount:{namespace}:funicular-webhook");
    let hint = "apply deploy/base/webhook-rbac.yaml again";
    vec![ask(cluster, "webhook-may", "the webhook", Some(&account), &WEBHOOK, namespace, hint).await]
}

async fn ask(
    cluster: &Cluster,
    check: &'static str,
    who: &str,
    account: Option<&str>,
    rights: &[Right],
    namespace: &str,
    hint: &str,
) -> Finding {
    let mut missing = Vec::new();
    for right in rights {
        match is_allowed(cluster, account, right, namespace).await {
            Ok(true) => {}
            Ok(false) => missing.push(format!("{} {}", right.verb, right.resource)),
            Err(error) => {
                let hint = "whoever asks for others' rights needs to create subjectaccessreviews";
                return Finding::skipped(check, error.to_string(), hint);
            }
        }
    }
    match missing.as_slice() {
        [] => Finding::right(check, format!("{who} may do all {} things that are needed", rights.len())),
        missing => Finding::wrong(check, format!("{who} may not {}", missing.join(", ")), hint),
    }
}

async fn is_allowed(
    cluster: &Cluster,
    account: Option<&str>,
    right: &Right,
    namespace: &str,
) -> Result<bool, KubernetesError> {
    let Right { verb, group, resource, name, ours } = right;
    let mut attributes = json!({ "verb": verb, "group": group, "resource": resource });
    if *ours {
        attributes["namespace"] = namespace.into();
    }
    if !name.is_empty() {
        attributes["name"] = (*name).into();
    }
    let (kind, path) = match account {
        None => ("SelfSubjectAccessReview", format!("{GROUP}/selfsubjectaccessreviews")),
        Some(_) => ("SubjectAccessReview", format!("{GROUP}/subjectaccessreviews")),
    };
    let mut review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": { "resourceAttributes": attributes },
    });
    if let Some(account) = account {
        review["spec"]["user"] = account.into();
        // What every account of a service belongs to.
        review["spec"]["groups"] = json!(["system:serviceaccounts", "system:authenticated"]);
    }
    let told = cluster.create(&path, &review).await?;
    Ok(told["status"]["allowed"] == Value::Bool(true))
}
