//! Why a pod that asks for a sidecar cannot have one; each refusal says what would help.

use serde_json::Value;

use super::containers::OWN_PORTS;
use super::status::Status;
use super::{INIT, SIDECAR, Settings, each_container};

/// Why a pod is refused. One cause, one variant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The opt-in says neither yes nor no.
    #[error("{place} funicular.dev/inject is {value:?}: write \"true\" or \"false\"")]
    LabelInvalid {
        /// Who says it.
        place: &'static str,
        /// What.
        value: String,
    },
    /// An annotation of ours that nobody knows.
    #[error("nothing reads the annotation {key}; there are {known}")]
    AnnotationUnknown {
        /// Its key.
        key: String,
        /// Those that exist, without their prefix.
        known: String,
    },
    /// An annotation whose value is none.
    #[error("annotation {key} is {value:?}: {expected}")]
    AnnotationInvalid {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
        /// What it could be.
        expected: String,
    },
    /// What was sent is no pod.
    #[error("this is no pod: {what}")]
    NotAPod {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The pod has the node's network, whose rules are not ours to change.
    #[error(
        "the pod uses the node's network (hostNetwork: true), where redirect rules would take every program's \
         connections; label it funicular.dev/inject: \"false\""
    )]
    HostNetwork,
    /// A container runs as the sidecar's user, and would be taken for it.
    #[error(
        "container {container} runs as user {uid}, the sidecar's own: its connections would not be redirected; give it \
         another user"
    )]
    SameUser {
        /// The container; empty for the whole pod's setting.
        container: String,
        /// The user.
        uid: u64,
    },
    /// A container listens where the sidecar does.
    #[error("container {container} listens on port {port}, which is the sidecar's; there are {}", own_ports())]
    PortTaken {
        /// The container.
        container: String,
        /// The port.
        port: u64,
    },
    /// Something else has a name of ours.
    #[error("{kind} {name} is not ours, and has a name that we need")]
    NameTaken {
        /// A container or a volume.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The pod runs on Windows.
    #[error("the pod runs on Windows, where there is no sidecar; label it funicular.dev/inject: \"false\"")]
    Windows,
    /// The pod is to end by itself, and a sidecar among its containers would keep it from that.
    #[error(
        "the pod is to end (restartPolicy: {policy}), which it does only beside a native sidecar: Kubernetes 1.29 or \
         later, without config.funicular.dev/native-sidecar: \"false\""
    )]
    JobNeedsNative {
        /// Its restart policy.
        policy: String,
    },
    /// The annotation that says what was injected has been changed.
    #[error("annotation funicular.dev/status is not as it was written ({what}); remove it, and what was injected")]
    StatusMalformed {
        /// What is wrong.
        what: String,
    },
}

impl Refusal {
    /// The stable label of metrics, events and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::LabelInvalid { .. } => "label-invalid",
            Self::AnnotationUnknown { .. } => "annotation-unknown",
            Self::AnnotationInvalid { .. } => "annotation-invalid",
            Self::NotAPod { .. } => "not-a-pod",
            Self::HostNetwork => "host-network",
            Self::SameUser { .. } => "same-user",
            Self::PortTaken { .. } => "port-taken",
            Self::NameTaken { .. } => "name-taken",
            Self::Windows => "windows",
            Self::JobNeedsNative { .. } => "job-needs-native-sidecar",
            Self::StatusMalformed { .. } => "status-malformed",
        }
    }
}

fn own_ports() -> String {
    OWN_PORTS.map(|port| port.to_string()).join(", ")
}

/// Whether the parts that injection touches have the kinds they must have.
pub(super) fn well_formed(pod: &Value) -> Result<(), Refusal> {
    let is = |path: &str, kind: fn(&Value) -> bool, what| match pod.pointer(path) {
        Some(value) if !kind(value) && !value.is_null() => Err(Refusal::NotAPod { what }),
        Some(_) | None => Ok(()),
    };
    if pod["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err(Refusal::NotAPod { what: "it has no containers" });
    }
    is("/metadata", Value::is_object, "its metadata is no object")?;
    is("/metadata/labels", Value::is_object, "its labels are no object")?;
    is("/metadata/annotations", Value::is_object, "its annotations are no object")?;
    is("/spec/initContainers", Value::is_array, "its init containers are no list")?;
    is("/spec/volumes", Value::is_array, "its volumes are no list")?;
    if each_container(pod).any(|(_, container)| !container.is_object()) {
        return Err(Refusal::NotAPod { what: "a container is no object" });
    }
    Ok(())
}

/// Whether a sidecar can work in this pod.
pub(super) fn possible(pod: &Value, known: Option<&Status>, settings: &Settings) -> Result<(), Refusal> {
    let spec = &pod["spec"];
    if spec["hostNetwork"] == true {
        return Err(Refusal::HostNetwork);
    }
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        return Err(Refusal::Windows);
    }
    let policy = spec["restartPolicy"].as_str().unwrap_or("Always");
    if !settings.native && policy != "Always" {
        return Err(Refusal::JobNeedsNative { policy: policy.to_owned() });
    }
    names_are_free(pod, known)?;
    let of_pod = spec["securityContext"]["runAsUser"].as_u64();
    for (_, container) in each_container(pod).filter(|(_, container)| !is_ours(container)) {
        let name = || container["name"].as_str().unwrap_or_default().to_owned();
        let user = container["securityContext"]["runAsUser"].as_u64().or(of_pod);
        if user == Some(settings.uid.into()) {
            return Err(Refusal::SameUser { container: name(), uid: settings.uid.into() });
        }
        let ports = container["ports"].as_array().into_iter().flatten();
        let taken = ports.filter_map(|port| port["containerPort"].as_u64()).find(|port| OWN_PORTS.contains(port));
        if let Some(port) = taken {
            return Err(Refusal::PortTaken { container: name(), port });
        }
    }
    Ok(())
}

fn is_ours(container: &Value) -> bool {
    container["name"] == INIT || container["name"] == SIDECAR
}

/// A name of ours belongs to us when the pod's status lists it.
fn names_are_free(pod: &Value, known: Option<&Status>) -> Result<(), Refusal> {
    let ours = |list: &str, name: &str| known.is_some_and(|status| status.names_in(list).any(|ours| ours == name));
    for (list, container) in each_container(pod).filter(|(_, container)| is_ours(container)) {
        let name = container["name"].as_str().unwrap_or_default();
        if !ours(list, name) {
            return Err(Refusal::NameTaken { kind: "container", name: name.to_owned() });
        }
    }
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let name = volume["name"].as_str().unwrap_or_default();
        if super::containers::VOLUMES.contains(&name) && !ours("/spec/volumes", name) {
            return Err(Refusal::NameTaken { kind: "volume", name: name.to_owned() });
        }
    }
    Ok(())
}

/// What works, but perhaps not as it was meant.
pub(super) fn doubts(pod: &Value) -> Option<String> {
    const OTHERS: [&str; 3] = ["istio-proxy", "linkerd-proxy", "consul-dataplane"];
    let other = each_container(pod)
        .find_map(|(_, container)| container["name"].as_str().filter(|name| OTHERS.contains(name)))?;
    Some(format!("container {other} redirects the pod's connections as well: one of the two will never see them"))
}
