//! What was injected, written on the pod itself: enough to recognise it, to renew it and to undo it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::draft::{Draft, escaped};
use super::{Refusal, each_container};

/// The annotation that holds it, as JSON.
pub const STATUS: &str = "funicular.dev/status";

/// The lists that hold items of ours.
const LISTS: [&str; 3] = ["/spec/initContainers", "/spec/containers", "/spec/volumes"];
const ANNOTATIONS: &str = "/metadata/annotations";
/// Parents that injection makes where they are missing.
const PARENTS: [&str; 6] =
    ["/metadata", ANNOTATIONS, "/metadata/labels", "/spec/initContainers", "/spec/containers", "/spec/volumes"];

/// How a probe was asked: the list and the name of its container, its member there, and the way of asking.
pub(super) type Asked<'s> = (&'static str, &'s str, &'s str, &'s Map<String, Value>);

/// What is known of a pod's injection.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Status {
    /// The version of the program that injected.
    version: String,
    /// What was injected, told apart by a hash.
    pub(super) template: String,
    /// Names of our items, by list.
    items: BTreeMap<String, Vec<String>>,
    /// Parents that were not there before.
    pub(super) made: BTreeSet<String>,
    /// Labels and annotations as they were, null for those that were not.
    before: BTreeMap<String, Value>,
    /// How probes were asked, by container and member.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    probes: BTreeMap<String, BTreeMap<String, Map<String, Value>>>,
}

impl Status {
    /// The status of a pod that has one.
    pub(super) fn of(pod: &Value) -> Result<Option<Self>, Refusal> {
        let malformed = |what: String| Refusal::StatusMalformed { what };
        let Some(written) = pod["metadata"]["annotations"].get(STATUS) else { return Ok(None) };
        let text = written.as_str().ok_or_else(|| malformed("it is no text".to_owned()))?;
        let status: Self = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let strange = status.items.keys().find(|list| !LISTS.contains(&list.as_str()));
        let strange = strange.or_else(|| status.made.iter().find(|path| !PARENTS.contains(&path.as_str())));
        let outside =
            |path: &&String| !path.starts_with("/metadata/annotations/") && !path.starts_with("/metadata/labels/");
        match strange.or_else(|| status.before.keys().find(outside)) {
            Some(path) => Err(malformed(format!("{path} is nothing that we touch"))),
            None => Ok(Some(status)),
        }
    }

    /// The names of our items in a list.
    pub(super) fn names_in(&self, list: &str) -> impl Iterator<Item = &str> {
        self.items.get(list).into_iter().flatten().map(String::as_str)
    }

    /// How the member of a container was asked before it was asked of the sidecar.
    pub(super) fn original(&self, container: &str, field: &str) -> Option<&Map<String, Value>> {
        self.probes.get(container)?.get(field)
    }

    /// Every probe of a pod that was asked otherwise, as a pointer, with its original.
    pub(super) fn originals<'s>(&'s self, pod: &'s Value) -> impl Iterator<Item = Asked<'s>> {
        let containers = each_container(pod).filter_map(|(list, container)| Some((list, container["name"].as_str()?)));
        containers.flat_map(|(list, name)| {
            let fields = self.probes.get(name).into_iter().flatten();
            fields.map(move |(field, original)| (list, name, field.as_str(), original))
        })
    }

    /// Notes what is injected now: items by the lists they are in, and probes that are asked otherwise by their container
    /// and its member.
    pub(super) fn describe<'r>(
        &mut self,
        items: impl Iterator<Item = (&'static str, String)>,
        probes: impl Iterator<Item = (&'r str, &'r str, &'r Map<String, Value>)>,
        template: String,
    ) {
        env!("CARGO_PKG_VERSION").clone_into(&mut self.version);
        self.template = template;
        self.items.clear();
        for (list, name) in items {
            self.items.entry(list.to_owned()).or_default().push(name);
        }
        self.probes.clear();
        for (container, field, original) in probes {
            let of_container = self.probes.entry(container.to_owned()).or_default();
            of_container.insert(field.to_owned(), original.clone());
        }
    }

    /// Sets a label or an annotation, and remembers what was there; what others have set stays, unless it is
    /// `ours_alone`.
    pub(super) fn claim(&mut self, draft: &mut Draft, parent: &str, key: &str, value: &Value, ours_alone: bool) {
        let path = format!("{parent}/{}", escaped(key));
        let there = draft.document().pointer(&path).cloned();
        if there.as_ref() == Some(value) || (there.is_some() && !ours_alone) {
            return;
        }
        draft.ensure_object(parent, &mut self.made);
        self.before.entry(path.clone()).or_insert(there.unwrap_or(Value::Null));
        draft.set(&path, value.clone());
    }

    /// Puts back every label and annotation.
    pub(super) fn give_back(&self, draft: &mut Draft) {
        for (path, before) in &self.before {
            match before {
                Value::Null => draft.remove(path),
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                    draft.set(path, before.clone());
                }
            }
        }
        draft.remove(&Self::path());
    }

    /// Writes the status on the pod, after everything else.
    pub(super) fn write(mut self, draft: &mut Draft) {
        draft.ensure_object(ANNOTATIONS, &mut self.made);
        // A struct of texts has no form that JSON lacks.
        let text = serde_json::to_string(&self).unwrap_or_default();
        draft.set(&Self::path(), text.into());
    }

    fn path() -> String {
        format!("{ANNOTATIONS}/{}", escaped(STATUS))
    }
}
