//! How values are read: one trait for whatever a key can hold, and one for single values, which most keys hold.
//!
//! Reading never stops at a fault: it notes the fault and goes on, so that all faults are found at once. A value with
//! a fault is `None`; its section takes the default in its stead, so that the rest can still be checked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::fault::{Cause, Fault};
use super::node::{Content, Node};
use super::place::Place;

/// How a value is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// One text.
    Single,
    /// A list, a map or a section: YAML, in an override too.
    Compound,
}

/// A value that a key can hold.
pub trait Setting: Sized {
    /// How it is written.
    const SHAPE: Shape;
    /// Whether a key without a default must be given.
    const REQUIRED: bool = true;
    /// What it is, with an example, for people.
    const EXPECTED: &'static str;

    /// Reads the value; a fault is noted and gives `None`.
    fn read(node: &Node, key: &str, reader: &mut Reader) -> Option<Self>;

    /// The value of a key that is not given and has no default; `section` is where it could have been given.
    fn absent(key: &str, section: &Place, reader: &mut Reader) -> Option<Self> {
        reader.fault(Fault::new(section.clone(), key, Cause::Missing { expected: Self::EXPECTED }));
        None
    }

    /// What stands in for a value with a fault and without a default while the other settings are checked; a section
    /// of which nothing can stand in is not checked.
    fn stand_in() -> Option<Self> {
        None
    }

    /// Its JSON Schema.
    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// Lists the keys below `key`, itself first, into `keys`.
    fn describe(key: KeyDescription, keys: &mut Vec<KeyDescription>) {
        keys.push(key);
    }
}

/// What is known of a key before any value is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyDescription {
    /// Its path; `[]` stands for any place in a list, `<id>` for any key of a map.
    pub key: String,
    /// What it means.
    pub meaning: &'static str,
    /// What it holds.
    pub expected: &'static str,
    /// Its default, as it would be written.
    pub default: Option<&'static str>,
    /// Whether its section is refused without it.
    pub required: bool,
    /// Whether it is a section, whose keys follow.
    pub section: bool,
    /// How it is written.
    pub shape: Shape,
}

/// What reading has brought to light besides the values.
#[derive(Debug)]
pub struct Reader {
    base: PathBuf,
    keys: Vec<String>,
    found: Found,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) faults: Vec<Fault>,
    pub(super) remarks: Vec<Fault>,
    pub(super) settings: BTreeMap<String, Effective>,
    pub(super) files: Vec<NamedFile>,
}

/// A setting in effect, and where it comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Effective {
    /// The value; null when there is none.
    pub value: Value,
    /// Who set it.
    pub from: Place,
}

/// A file that a setting names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedFile {
    /// The key's path.
    pub key: String,
    /// Where it was named.
    pub place: Place,
    /// The file.
    pub path: PathBuf,
}

impl Reader {
    /// `base` is the folder to which names of files in the configuration's file are relative, `keys` are all there are.
    pub(super) fn new(base: &Path, keys: &[KeyDescription]) -> Self {
        let keys = keys.iter().map(|key| key.key.clone()).collect();
        Self { base: base.to_owned(), keys, found: Found::default() }
    }

    /// The path of the only key of this name, for one that stands in the wrong section.
    pub(super) fn elsewhere(&self, name: &str) -> Option<String> {
        let mut same = self.keys.iter().filter(|key| key.rsplit('.').next() == Some(name));
        same.next().filter(|_| same.next().is_none()).cloned()
    }

    /// Notes a fault.
    pub(super) fn fault(&mut self, fault: Fault) {
        self.found.faults.push(fault);
    }

    /// Notes that `node` cannot be read as what it must be.
    pub(super) fn refuse(&mut self, node: &Node, key: &str, expected: &'static str, detail: Cow<'static, str>) {
        let fault = match &node.content {
            Content::Scalar(text) => {
                Fault::new(node.place.clone(), key, Cause::Value { expected, detail }).with_value(text)
            }
            Content::Empty | Content::List(_) | Content::Map(_) => {
                Fault::new(node.place.clone(), key, Cause::WrongKind { found: node.kind(), expected })
            }
        };
        self.fault(fault);
    }

    /// Notes a value in effect.
    pub(super) fn effective(&mut self, key: &str, value: Value, from: &Place) {
        self.found.settings.insert(key.to_owned(), Effective { value, from: from.clone() });
    }

    /// Who set the setting at `key`.
    pub(super) fn place(&self, key: &str) -> Place {
        origin(&self.found.settings, key)
    }

    /// Notes what works, but perhaps not as it was meant.
    pub(super) fn remark(&mut self, remark: Fault) {
        self.found.remarks.push(remark);
    }

    pub(super) fn finish(self) -> Found {
        self.found
    }

    /// Whether there is a fault at one of these keys or below, a misspelling of the key included.
    pub(super) fn is_faulty(&self, keys: &[&str]) -> bool {
        let concerns = |fault: &Fault, key: &str| match &fault.cause {
            Cause::UnknownKey { meant: Some(meant) } => is_at_or_below(meant, key),
            Cause::UnknownKey { meant: None }
            | Cause::Unreadable { .. }
            | Cause::Syntax { .. }
            | Cause::Unused { .. }
            | Cause::Twice { .. }
            | Cause::Missing { .. }
            | Cause::WrongKind { .. }
            | Cause::Value { .. }
            | Cause::Rule { .. } => is_at_or_below(&fault.key, key),
        };
        self.found.faults.iter().any(|fault| keys.iter().any(|key| concerns(fault, key)))
    }
}

/// Who set the setting at `key`; of a section or list, the first of its settings that somebody set.
pub(super) fn origin(settings: &BTreeMap<String, Effective>, key: &str) -> Place {
    let places = settings.iter().filter(|(other, _)| is_at_or_below(other, key)).map(|(_, effective)| &effective.from);
    places.min().cloned().unwrap_or(Place::Default)
}

fn is_at_or_below(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A value that is written as one text.
pub trait Single: Sized {
    /// What it is, with an example: "a span of time such as 5s or 1m30s".
    const EXPECTED: &'static str;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the text, when more can be said than that it is not [`Single::EXPECTED`]; else nothing.
    fn parse(text: &str) -> Result<Self, Cow<'static, str>>;

    /// The value as it would be written.
    fn show(&self) -> Value;

    /// Its JSON Schema without a description.
    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl<T: Single> Setting for T {
    const SHAPE: Shape = Shape::Single;
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(node: &Node, key: &str, reader: &mut Reader) -> Option<Self> {
        let outcome = match &node.content {
            Content::Scalar(text) => T::parse(text),
            Content::Empty | Content::List(_) | Content::Map(_) => Err(Cow::Borrowed("")),
        };
        match outcome {
            Ok(value) => {
                reader.effective(key, value.show(), &node.place);
                Some(value)
            }
            Err(detail) => {
                reader.refuse(node, key, T::EXPECTED, detail);
                None
            }
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

impl Setting for PathBuf {
    const SHAPE: Shape = Shape::Single;
    const EXPECTED: &'static str = "the name of a file";

    fn read(node: &Node, key: &str, reader: &mut Reader) -> Option<Self> {
        let Content::Scalar(text) = &node.content else {
            reader.refuse(node, key, Self::EXPECTED, Cow::Borrowed(""));
            return None;
        };
        // What is taken for a path is shown and logged as one: a key pasted in its place must not be.
        if text.is_empty() || text.contains(['\n', '\0']) || super::fault::looks_secret(text) {
            reader.refuse(node, key, Self::EXPECTED, Cow::Borrowed("put the contents into a file and name that here"));
            return None;
        }
        let path = match node.place {
            Place::File { .. } => reader.base.join(text),
            Place::Environment(_) | Place::Flag(_) | Place::Default => Self::from(text),
        };
        reader.effective(key, json!(path), &node.place);
        reader.found.files.push(NamedFile { key: key.to_owned(), place: node.place.clone(), path: path.clone() });
        Some(path)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

impl<T: Setting> Setting for Option<T> {
    const SHAPE: Shape = T::SHAPE;
    const REQUIRED: bool = false;
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(node: &Node, key: &str, reader: &mut Reader) -> Option<Self> {
        T::read(node, key, reader).map(Some)
    }

    fn absent(key: &str, _: &Place, reader: &mut Reader) -> Option<Self> {
        reader.effective(key, Value::Null, &Place::Default);
        Some(None)
    }

    fn stand_in() -> Option<Self> {
        Some(None)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        T::schema(generator)
    }

    fn describe(key: KeyDescription, keys: &mut Vec<KeyDescription>) {
        T::describe(key, keys);
    }
}

impl<T: Setting> Setting for Vec<T> {
    const SHAPE: Shape = Shape::Compound;
    const REQUIRED: bool = false;
    const EXPECTED: &'static str = "a list";

    fn read(node: &Node, key: &str, reader: &mut Reader) -> Option<Self> {
        let Content::List(items) = &node.content else {
            reader.refuse(node, key, Self::EXPECTED, Cow::Borrowed(""));
            return None;
        };
        if items.is_empty() {
            reader.effective(key, json!([]), &node.place);
        }
        let read: Vec<Option<T>> =
            items.iter().enumerate().map(|(at, item)| T::read(item, &format!("{key}[{at}]"), reader)).collect();
        read.into_iter().collect()
    }

    fn absent(key: &str, _: &Place, reader: &mut Reader) -> Option<Self> {
        reader.effective(key, json!([]), &Place::Default);
        Some(Self::new())
    }

    fn stand_in() -> Option<Self> {
        Some(Self::new())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let items = T::schema(generator);
        json_schema!({ "type": "array", "items": items })
    }

    fn describe(key: KeyDescription, keys: &mut Vec<KeyDescription>) {
        describe_elements::<T>("[]", key, keys);
    }
}

impl<K: Single + Ord, T: Setting> Setting for BTreeMap<K, T> {
    const SHAPE: Shape = Shape::Compound;
    const REQUIRED: bool = false;
    const EXPECTED: &'static str = "a section of your own keys";

    fn read(node: &Node, key: &str, reader: &mut Reader) -> Option<Self> {
        let Content::Map(entries) = &node.content else {
            reader.refuse(node, key, Self::EXPECTED, Cow::Borrowed(""));
            return None;
        };
        if entries.is_empty() {
            reader.effective(key, json!({}), &node.place);
        }
        let mut whole = Some(Self::new());
        for (name, value) in entries {
            let name_read = match K::parse(&name.text) {
                Ok(name) => Some(name),
                Err(detail) => {
                    let cause = Cause::Value { expected: K::EXPECTED, detail };
                    reader.fault(Fault::new(name.place.clone(), key, cause).with_value(&name.text));
                    None
                }
            };
            let value_read = T::read(value, &format!("{key}.{}", name.text), reader);
            match (name_read, value_read, &mut whole) {
                (Some(name), Some(value), Some(map)) => {
                    map.insert(name, value);
                }
                (Some(_), Some(_), None) | (None, _, _) | (_, None, _) => whole = None,
            }
        }
        whole
    }

    fn absent(key: &str, _: &Place, reader: &mut Reader) -> Option<Self> {
        reader.effective(key, json!({}), &Place::Default);
        Some(Self::new())
    }

    fn stand_in() -> Option<Self> {
        Some(Self::new())
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let values = T::schema(generator);
        json_schema!({ "type": "object", "additionalProperties": values })
    }

    fn describe(key: KeyDescription, keys: &mut Vec<KeyDescription>) {
        describe_elements::<T>(".<id>", key, keys);
    }
}

/// The key itself, and then the keys of each element if that is a section.
fn describe_elements<T: Setting>(suffix: &str, key: KeyDescription, keys: &mut Vec<KeyDescription>) {
    let element = KeyDescription { key: format!("{}{suffix}", key.key), expected: T::EXPECTED, ..key.clone() };
    keys.push(key);
    let mut below = Vec::new();
    T::describe(element, &mut below);
    keys.extend(below.into_iter().skip(1));
}

/// Adds what it means and what is assumed to a key's schema.
pub(super) fn annotate(mut schema: Schema, meaning: &str, default: Option<Value>) -> Schema {
    let object: &mut Map<String, Value> = schema.ensure_object();
    object.insert("description".to_owned(), meaning.into());
    if let Some(default) = default {
        object.insert("default".to_owned(), default);
    }
    schema
}
