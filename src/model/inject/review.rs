//! The API server's question and the answer to it: AdmissionReview of `admission.k8s.io/v1`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Op, Refusal};

/// What is asked about one pod.
#[derive(Clone, Debug)]
pub struct Review<'r> {
    /// What the answer must repeat.
    pub uid: &'r str,
    /// The namespace that the pod is made in; the pod's own metadata may not say it yet.
    pub namespace: &'r str,
    /// Whether nothing may come of it.
    pub dry_run: bool,
    /// Whether a pod is being made; nothing else is ever changed.
    pub creates_pod: bool,
    /// The pod.
    pub pod: &'r Value,
}

/// Why a question cannot be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReviewFault {
    /// Not the version that we know.
    #[error("this is no AdmissionReview of admission.k8s.io/v1")]
    Version,
    /// A member is missing or of another kind.
    #[error("the review has no {0}")]
    Missing(&'static str),
}

impl ReviewFault {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Version => "review-version",
            Self::Missing(_) => "review-incomplete",
        }
    }
}

/// An object that events are told of.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subject {
    /// Its group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl<'r> Review<'r> {
    /// Reads a question.
    ///
    /// # Errors
    /// What is missing of it.
    pub fn read(document: &'r Value) -> Result<Self, ReviewFault> {
        if document["apiVersion"] != "admission.k8s.io/v1" || document["kind"] != "AdmissionReview" {
            return Err(ReviewFault::Version);
        }
        let request = &document["request"];
        let uid = request["uid"].as_str().ok_or(ReviewFault::Missing("request.uid"))?;
        let pod = request.get("object").filter(|pod| pod.is_object()).ok_or(ReviewFault::Missing("request.object"))?;
        let of_core = request["kind"]["group"].as_str().is_none_or(str::is_empty);
        let is_pod =
            of_core && request["kind"]["kind"] == "Pod" && request["subResource"].as_str().is_none_or(str::is_empty);
        Ok(Self {
            uid,
            namespace: request["namespace"].as_str().unwrap_or_default(),
            dry_run: request["dryRun"] == true,
            creates_pod: is_pod && request["operation"] == "CREATE",
            pod,
        })
    }

    /// Whoever made the pod; nobody for one that a person made, which has no uid yet either.
    #[must_use]
    pub fn owner(&self) -> Option<Subject> {
        let owners = self.pod["metadata"]["ownerReferences"].as_array()?;
        let owner = owners.iter().find(|owner| owner["controller"] == true)?;
        let text = |member: &str| owner[member].as_str().map(ToOwned::to_owned);
        Some(Subject { api_version: text("apiVersion")?, kind: text("kind")?, name: text("name")?, uid: text("uid")? })
    }
}

/// The pod is let through, changed by `ops`.
#[must_use]
pub fn allowed(uid: &str, ops: &[Op], warnings: &[String]) -> Value {
    let mut response = json!({ "uid": uid, "allowed": true });
    if !ops.is_empty() {
        let patch = Value::Array(ops.iter().map(Op::to_json).collect()).to_string();
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(patch).into();
    }
    if !warnings.is_empty() {
        response["warnings"] = warnings.into();
    }
    answer(response)
}

/// The pod is refused; whoever makes it reads why.
#[must_use]
pub fn denied(uid: &str, refusal: &Refusal) -> Value {
    let message = format!("funicular: {refusal} ({})", refusal.reason());
    answer(json!({
        "uid": uid, "allowed": false,
        "status": { "code": 403, "reason": "Forbidden", "message": message },
    }))
}

fn answer(response: Value) -> Value {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}
