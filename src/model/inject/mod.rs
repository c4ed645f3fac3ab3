//! Putting the sidecar into a pod: the pod as Kubernetes wrote it goes in, a JSON Patch (RFC 6902) or a refusal comes out.
//!
//! ```text
//! labels of pod and namespace ─ opt_in ─▶ wanted? ─ wishes ─▶ settings of this pod ─ refusal ─▶ possible?
//!                                                                   │
//!                       patch ◀─ draft ◀─ containers, volumes, probes ◀─┘      status: what was done, to undo it
//! ```
//!
//! One function serves the webhook and people's commands, so that what is shown offline is what the cluster does.
//!
//! Invariants: the pod is never read into a type, so a field newer than this program passes through untouched; items
//! of others are neither moved nor changed, except probes, whose originals are kept; injecting twice is injecting once;
//! and [`remove()`] gives back the pod that was injected.
//!
//! Source: RFC 6901 and 6902; Kubernetes' API, version 1.25 and later.

mod containers;
mod draft;
mod opt_in;
mod probes;
mod refusal;
mod remove;
pub mod review;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod wishes;
mod workload;

use serde_json::{Map, Value, json};

pub use draft::{Op, apply};
pub use opt_in::LABEL;
pub use refusal::Refusal;
pub use remove::remove;
pub use settings::{Resources, Settings};
pub use status::STATUS;
pub use wishes::PREFIX;
pub use workload::{Template, templates};

use containers::Rendered;
use draft::Draft;
use opt_in::Opted;
use probes::Rewrite;
use status::Status;

/// The container that sets up the pod's network, then is gone.
pub const INIT: &str = "funicular-init";
/// The sidecar.
pub const SIDECAR: &str = "funicular";
/// The label by which pods with a sidecar are selected.
pub const INJECTED: &str = "funicular.dev/injected";

/// What is known of the namespace that a pod is made in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Namespace {
    /// Its labels, a JSON object.
    pub labels: Map<String, Value>,
    /// Its annotations, a JSON object.
    pub annotations: Map<String, Value>,
}

/// Why a pod is left as it is. No fault of anybody's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// Neither the pod nor its namespace asks for a sidecar.
    NotOptedIn,
    /// The pod, or its namespace, says that it wants none.
    OptedOut,
    /// It brings a sidecar that somebody wrote into its manifest.
    ByHand,
    /// It has been injected, and nothing is to be changed.
    Current,
}

impl Left {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotOptedIn => "not-opted-in",
            Self::OptedOut => "opted-out",
            Self::ByHand => "sidecar-by-hand",
            Self::Current => "already-injected",
        }
    }
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It stays as it is.
    Left(Left),
    /// It is changed so, in this order.
    Injected(Vec<Op>),
}

/// What was decided, and what whoever made the pod should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// What becomes of the pod.
    pub outcome: Outcome,
    /// Advice: something works, but perhaps not as it was meant.
    pub warnings: Vec<String>,
}

/// Decides whether the pod gets a sidecar, and how.
///
/// # Errors
/// The pod asks for a sidecar and cannot have one, or nobody can tell what it asks for.
pub fn inject(pod: &Value, namespace: &Namespace, settings: &Settings) -> Result<Injection, Refusal> {
    let (opted, mut warnings) = opt_in::decide(pod, namespace)?;
    let left = |left, warnings| Ok(Injection { outcome: Outcome::Left(left), warnings });
    match opted {
        Opted::In => {}
        Opted::Out => return left(Left::OptedOut, warnings),
        Opted::Silent => return left(Left::NotOptedIn, warnings),
    }
    refusal::well_formed(pod)?;
    let known = Status::of(pod)?;
    if known.is_none() && has_container(pod, SIDECAR) {
        return left(Left::ByHand, warnings);
    }
    let copied = wishes::of_namespace(pod, namespace);
    let settings = wishes::heeded(settings, pod, &copied)?;
    refusal::possible(pod, known.as_ref(), &settings)?;
    warnings.extend(refusal::doubts(pod));

    let rendered = containers::render(pod, known.as_ref(), &settings);
    let draft = drawn(pod, known, &rendered, &copied);
    let ops = draft.ops();
    let outcome = if ops.is_empty() { Outcome::Left(Left::Current) } else { Outcome::Injected(ops) };
    Ok(Injection { outcome, warnings })
}

/// The pod as it becomes, with every step that leads there.
fn drawn(pod: &Value, known: Option<Status>, rendered: &Rendered, copied: &Map<String, Value>) -> Draft {
    let digest = rendered.digest();
    let fresh = known.as_ref().is_some_and(|status| status.template == digest);
    let mut status = known.unwrap_or_default();
    let mut draft = Draft::new(pod);

    // Probes that were asked of the sidecar and are not any longer.
    let asked = |probe: &(&str, &str, &str, _)| {
        rendered.probes.iter().any(|now| now.container == probe.1 && now.field == probe.2)
    };
    status.originals(pod).filter(|probe| !asked(probe)).for_each(|probe| remove::restore(&mut draft, probe));
    for (list, items) in &rendered.items {
        for item in items {
            draft.ensure_item(list, item, rendered.position(list, item), fresh, &mut status.made);
        }
    }
    let names = rendered.names();
    for list in ["/spec/initContainers", "/spec/containers", "/spec/volumes"] {
        // What an earlier template put here, and this one puts elsewhere or nowhere.
        let ours = status.names_in(list).filter(|name| !names.contains(&(list, (*name).to_owned())));
        for name in ours.map(ToOwned::to_owned).collect::<Vec<_>>() {
            draft.remove_item(list, &name);
        }
    }
    for probe in &rendered.probes {
        if let Some((container, _)) = draft.item(probe.list, &probe.container) {
            draft.set(&format!("{container}/{}", probe.field), probe.rewritten.clone());
        }
    }
    if !fresh {
        status.describe(rendered.names().into_iter(), rendered.probes.iter().map(Rewrite::before), digest);
    }

    let first = pod.pointer("/spec/containers/0/name").filter(|name| *name != SIDECAR);
    let first = first.or_else(|| pod.pointer("/spec/containers/1/name")).cloned().unwrap_or_default();
    for key in ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"] {
        status.claim(&mut draft, "/metadata/annotations", key, &first, false);
    }
    for (key, value) in copied {
        status.claim(&mut draft, "/metadata/annotations", key, value, false);
    }
    status.claim(&mut draft, "/metadata/labels", INJECTED, &json!("true"), true);
    status.write(&mut draft);
    draft
}

fn has_container(pod: &Value, name: &str) -> bool {
    each_container(pod).any(|(_, container)| container["name"] == name)
}

/// Every container of the pod with the list it stands in; ephemeral ones are left out, since none exists when a pod is
/// made.
fn each_container(pod: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    ["/spec/initContainers", "/spec/containers"].into_iter().flat_map(|list| {
        let items = pod.pointer(list).and_then(Value::as_array);
        items.into_iter().flatten().map(move |container| (list, container))
    })
}
