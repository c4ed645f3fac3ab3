//! A pod being changed step by step, each step noted as an operation of JSON Patch (RFC 6902).
//!
//! Every step is performed on a copy as soon as it is noted, so that a later one sees the places that an earlier one
//! has shifted, and no operation meets a parent that is not there.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// One operation of a JSON Patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Puts a value: before what stands at that place of a list, or in the stead of a member of an object.
    Add {
        /// Where (RFC 6901).
        path: String,
        /// What.
        value: Value,
    },
    /// Puts a value in the stead of one that is there.
    Replace {
        /// Where (RFC 6901).
        path: String,
        /// What.
        value: Value,
    },
    /// Takes a value away.
    Remove {
        /// Where (RFC 6901).
        path: String,
    },
}

impl Op {
    /// The operation as it travels.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Add { path, value } => json!({ "op": "add", "path": path, "value": value }),
            Self::Replace { path, value } => json!({ "op": "replace", "path": path, "value": value }),
            Self::Remove { path } => json!({ "op": "remove", "path": path }),
        }
    }

    fn perform(&self, document: &mut Value) {
        let (path, value) = match self {
            Self::Add { path, value } | Self::Replace { path, value } => (path, Some(value)),
            Self::Remove { path } => (path, None),
        };
        let Some((parent, last)) = path.rsplit_once('/') else { return };
        let inserts = matches!(self, Self::Add { .. });
        match document.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                let key = unescaped(last);
                match value {
                    Some(value) => drop(members.insert(key, value.clone())),
                    None => drop(members.remove(&key)),
                }
            }
            Some(Value::Array(items)) => {
                let at = last.parse().unwrap_or(items.len());
                match value {
                    Some(value) if inserts && at <= items.len() => items.insert(at, value.clone()),
                    Some(value) if at < items.len() => items[at] = value.clone(),
                    None if at < items.len() => drop(items.remove(at)),
                    Some(_) | None => {}
                }
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {}
        }
    }
}

/// The document after all operations, which must have been made for it.
#[must_use]
pub fn apply(document: &Value, ops: &[Op]) -> Value {
    let mut changed = document.clone();
    ops.iter().for_each(|op| op.perform(&mut changed));
    changed
}

/// A member's name as part of a pointer: `~` before `/`, or the second would be taken for the first (RFC 6901 §3).
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The reverse, in the reverse order.
fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// Whether there is nothing at a place; Kubernetes takes null for that.
fn is_absent(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

/// A document, and how it came to be.
#[derive(Debug)]
pub(super) struct Draft {
    document: Value,
    ops: Vec<Op>,
}

impl Draft {
    pub(super) fn new(document: &Value) -> Self {
        Self { document: document.clone(), ops: Vec::new() }
    }

    pub(super) fn ops(self) -> Vec<Op> {
        self.ops
    }

    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    fn perform(&mut self, op: Op) {
        op.perform(&mut self.document);
        self.ops.push(op);
    }

    /// Gives a value to a member whose parent is there; nothing is noted when it has that value.
    pub(super) fn set(&mut self, path: &str, value: Value) {
        match self.document.pointer(path) {
            Some(there) if *there == value => {}
            Some(_) => self.perform(Op::Replace { path: path.to_owned(), value }),
            None => self.perform(Op::Add { path: path.to_owned(), value }),
        }
    }

    /// Takes a member away, if it is there.
    pub(super) fn remove(&mut self, path: &str) {
        if self.document.pointer(path).is_some() {
            self.perform(Op::Remove { path: path.to_owned() });
        }
    }

    /// Makes sure that there is an object at `path`, and its parents; notes those that had to be made.
    pub(super) fn ensure_object(&mut self, path: &str, made: &mut BTreeSet<String>) {
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            self.ensure_object(parent, made);
        }
        self.ensure(path, Value::Object(Map::new()), made);
    }

    fn ensure(&mut self, path: &str, empty: Value, made: &mut BTreeSet<String>) {
        if is_absent(self.document.pointer(path)) {
            self.perform(Op::Add { path: path.to_owned(), value: empty });
            made.insert(path.to_owned());
        }
    }

    /// Makes sure that the list at `path` holds `item`: one of its name stays where it is, and what it is when
    /// `as_it_is`; else it is put at `position`.
    pub(super) fn ensure_item(
        &mut self,
        path: &str,
        item: &Value,
        position: Position,
        as_it_is: bool,
        made: &mut BTreeSet<String>,
    ) {
        self.ensure(path, json!([]), made);
        let there = self.index_of(path, item["name"].as_str().unwrap_or_default());
        match there {
            Some(_) if as_it_is => {}
            Some(at) => self.set(&format!("{path}/{at}"), item.clone()),
            None => {
                let length = self.document.pointer(path).and_then(Value::as_array).map_or(0, Vec::len);
                let at = match position {
                    Position::First => "0".to_owned(),
                    Position::After(name) => self.index_of(path, name).map_or(length, |at| at + 1).to_string(),
                    Position::Last => "-".to_owned(),
                };
                self.perform(Op::Add { path: format!("{path}/{at}"), value: item.clone() });
            }
        }
    }

    /// The item of this name, and where it is.
    pub(super) fn item(&self, path: &str, name: &str) -> Option<(String, &Value)> {
        let at = self.index_of(path, name)?;
        let path = format!("{path}/{at}");
        let item = self.document.pointer(&path)?;
        Some((path, item))
    }

    /// Takes the item of this name out of a list, if it is there.
    pub(super) fn remove_item(&mut self, path: &str, name: &str) {
        if let Some(at) = self.index_of(path, name) {
            self.perform(Op::Remove { path: format!("{path}/{at}") });
        }
    }

    /// Takes away what was made and has become empty again, children before their parents.
    pub(super) fn clear(&mut self, made: &BTreeSet<String>) {
        for path in made.iter().rev() {
            let empty = match self.document.pointer(path) {
                Some(Value::Array(items)) => items.is_empty(),
                Some(Value::Object(members)) => members.is_empty(),
                Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => false,
            };
            if empty {
                self.remove(path);
            }
        }
    }

    fn index_of(&self, path: &str, name: &str) -> Option<usize> {
        self.document.pointer(path)?.as_array()?.iter().position(|item| item["name"] == name)
    }
}

/// Where a new item goes in a list of others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Position {
    /// Before all others.
    First,
    /// Behind the one of this name.
    After(&'static str),
    /// After all others.
    Last,
}
