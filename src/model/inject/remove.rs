//! Taking the sidecar out again: everything that injection put there goes, and nothing else.

use serde_json::Value;

use super::draft::{Draft, Op};
use super::probes;
use super::refusal::{self, Refusal};
use super::status::{Asked, Status};

/// How a pod becomes what it was; nothing for one that was not injected.
///
/// # Errors
/// The pod's status is not as it was written, so that nobody knows what was there before.
pub fn remove(pod: &Value) -> Result<Vec<Op>, Refusal> {
    let Some(status) = Status::of(pod)? else { return Ok(Vec::new()) };
    refusal::well_formed(pod)?;
    let mut draft = Draft::new(pod);
    status.originals(pod).for_each(|probe| restore(&mut draft, probe));
    for list in ["/spec/initContainers", "/spec/containers", "/spec/volumes"] {
        status.names_in(list).for_each(|name| draft.remove_item(list, name));
    }
    status.give_back(&mut draft);
    draft.clear(&status.made);
    Ok(draft.ops())
}

/// Lets a probe ask the application again, as it did.
pub(super) fn restore(draft: &mut Draft, (list, container, field, original): Asked<'_>) {
    let restored = draft.item(list, container).and_then(|(path, item)| {
        let restored = probes::restored(item.pointer(&format!("/{field}"))?, original)?;
        Some((format!("{path}/{field}"), restored))
    });
    if let Some((path, restored)) = restored {
        draft.set(&path, restored);
    }
}
