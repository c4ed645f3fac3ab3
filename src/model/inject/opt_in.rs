//! Who wants a sidecar: the pod's word wins over its namespace's.

use serde_json::{Map, Value};

use super::{Namespace, Refusal};

/// The label on a namespace or a pod: `"true"` or `"false"`.
pub const LABEL: &str = "funicular.dev/inject";

/// What was said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opted {
    In,
    Out,
    /// Nobody said anything.
    Silent,
}

/// What the pod or its namespace says, and warnings about how it is said.
///
/// # Errors
/// A value that is neither `"true"` nor `"false"`: whoever wrote it meant something, and a guess would be wrong for half.
pub(super) fn decide(pod: &Value, namespace: &Namespace) -> Result<(Opted, Vec<String>), Refusal> {
    let empty = Map::new();
    let of_pod = |field: &str| pod["metadata"][field].as_object().unwrap_or(&empty);
    let said = [
        ("the pod's label", of_pod("labels"), false),
        ("the pod's annotation", of_pod("annotations"), true),
        ("the namespace's label", &namespace.labels, false),
        ("the namespace's annotation", &namespace.annotations, true),
    ];
    for (place, words, annotation) in said {
        let Some(word) = words.get(LABEL) else { continue };
        let opted = match word.as_str() {
            Some("true") => Opted::In,
            Some("false") => Opted::Out,
            Some(_) | None => {
                let value = word.as_str().map_or_else(|| word.to_string(), ToOwned::to_owned);
                return Err(Refusal::LabelInvalid { place, value });
            }
        };
        let warning = format!("{place} {LABEL} should be a label: the API server selects by labels alone");
        return Ok((opted, if annotation { vec![warning] } else { Vec::new() }));
    }
    Ok((Opted::Silent, Vec::new()))
}
