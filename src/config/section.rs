//! Sections: structs whose fields are keys.
//!
//! One declaration serves reading, overriding, the JSON Schema and the reference in the manual, so they cannot disagree.

use std::borrow::Cow;

use serde_json::Value;

use super::fault::{Cause, Fault};
use super::nearest::nearest;
use super::node::{Content, Node};
use super::place::Place;
use super::setting::{KeyDescription, Reader, Setting, Shape};

/// Declares a section of the configuration: a struct whose fields are its keys, in the order they are documented.
///
/// `key: Type` is required unless its type knows what absence means (`Option`, lists, maps, sections);
/// `key: Type = "text"` has that text as its default.
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $key_doc:literal])* $key:ident: $type:ty $(= $default:literal)?, )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $name {
            $( $(#[doc = $key_doc])* pub $key: $type, )*
        }

        impl $crate::config::setting::Setting for $name {
            const SHAPE: $crate::config::setting::Shape = $crate::config::setting::Shape::Compound;
            const REQUIRED: bool = false;
            const EXPECTED: &'static str = "a section";

            fn read(
                node: &$crate::config::node::Node,
                key: &str,
                reader: &mut $crate::config::setting::Reader,
            ) -> Option<Self> {
                let keys = $crate::config::section::Keys::of(node, key, &[$(stringify!($key)),*], reader)?;
                // Every key is read before any is missed, so that all faults are found.
                $( let $key = keys.read::<$type>(
                    stringify!($key), $crate::config::section::first(&[$($default)?]), reader,
                ); )*
                Some(Self { $( $key: $key?, )* })
            }

            fn absent(
                key: &str,
                section: &$crate::config::place::Place,
                reader: &mut $crate::config::setting::Reader,
            ) -> Option<Self> {
                Self::read(&$crate::config::node::Node::map(section.clone()), key, reader)
            }

            fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                generator.subschema_for::<Self>()
            }

            fn describe(
                section: $crate::config::setting::KeyDescription,
                keys: &mut Vec<$crate::config::setting::KeyDescription>,
            ) {
                let path = section.key.clone();
                keys.push($crate::config::setting::KeyDescription { section: true, ..section });
                $( $crate::config::section::describe::<$type>(
                    &path, stringify!($key), concat!($($key_doc, "\n"),*),
                    $crate::config::section::first(&[$($default)?]), keys,
                ); )*
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                #[allow(unused_mut, reason = "a section may consist of optional keys alone")]
                let mut schema = $crate::config::section::Object::new(concat!($($doc, "\n"),*));
                $( schema.key::<$type>(
                    stringify!($key), concat!($($key_doc, "\n"),*),
                    $crate::config::section::first(&[$($default)?]), generator,
                ); )*
                schema.finish()
            }
        }
    };
}

/// Declares a setting that is one of a few words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident, $expected:literal {
            $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal, )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name {
            $( $(#[doc = $word_doc])* $variant, )*
        }

        impl $name {
            /// The word that stands for it in a configuration.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }
        }

        impl $crate::config::setting::Single for $name {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Result<Self, std::borrow::Cow<'static, str>> {
                match text {
                    $( $word => Ok(Self::$variant), )*
                    _ => Err($crate::config::section::no_such_word(text, &[$($word),*])),
                }
            }

            fn show(&self) -> serde_json::Value {
                self.word().into()
            }

            fn schema() -> schemars::Schema {
                schemars::json_schema!({ "enum": [$($word),*] })
            }
        }
    };
}

pub(super) use {choice, section};

/// The default of a key, when it has one.
pub(super) const fn first(defaults: &[&'static str]) -> Option<&'static str> {
    match defaults {
        [default, ..] => Some(default),
        [] => None,
    }
}

/// What to say of a word that is none of `words`.
pub(super) fn no_such_word(text: &str, words: &[&'static str]) -> Cow<'static, str> {
    nearest(text, words.iter().copied()).map_or(Cow::Borrowed(""), |word| format!("did you mean {word}?").into())
}

/// The keys that stand in one section.
pub(super) struct Keys<'n> {
    path: &'n str,
    place: &'n Place,
    entries: &'n [(super::node::Key, Node)],
}

impl<'n> Keys<'n> {
    /// Looks at a section; a key that is none of `known` is a fault, and so is a section that is none (`None`).
    pub(super) fn of(node: &'n Node, path: &'n str, known: &[&'static str], reader: &mut Reader) -> Option<Self> {
        let entries = match &node.content {
            Content::Map(entries) => entries.as_slice(),
            // `dns:` with nothing below it is a section without keys.
            Content::Empty => &[],
            Content::Scalar(_) | Content::List(_) => {
                let cause = Cause::WrongKind { found: node.kind(), expected: "a section" };
                reader.fault(Fault::new(node.place.clone(), path, cause));
                return None;
            }
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let near = nearest(&key.text, known.iter().copied()).map(|near| below(path, near));
            let meant = near.or_else(|| reader.elsewhere(&key.text));
            reader.fault(Fault::new(key.place.clone(), below(path, &key.text), Cause::UnknownKey { meant }));
        }
        Some(Self { path, place: &node.place, entries })
    }

    /// Reads one key; `None` when there was a fault and nothing can stand in.
    pub(super) fn read<T: Setting>(
        &self,
        key: &'static str,
        default: Option<&'static str>,
        reader: &mut Reader,
    ) -> Option<T> {
        let path = below(self.path, key);
        let given = self.entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node);
        let given = given.filter(|node| !matches!(node.content, Content::Empty));
        let assumed = |default, reader: &mut Reader| {
            T::read(&from_text(default, T::SHAPE, &Place::Default, &path, reader)?, &path, reader)
        };
        match (given, default) {
            (Some(node), Some(default)) => T::read(node, &path, reader).or_else(|| assumed(default, reader)),
            (Some(node), None) => T::read(node, &path, reader).or_else(T::stand_in),
            (None, Some(default)) => assumed(default, reader),
            (None, None) => T::absent(&path, self.place, reader).or_else(T::stand_in),
        }
    }
}

/// The node that a default or an override stands for; every part of it has the same place.
pub(super) fn from_text(text: &str, shape: Shape, place: &Place, key: &str, reader: &mut Reader) -> Option<Node> {
    match shape {
        Shape::Single => Some(Node::scalar(place.clone(), text)),
        Shape::Compound => {
            let mut faults = Vec::new();
            let node = Node::parse(text, |_, _| place.clone(), &mut faults);
            let node = node.map_err(|fault| faults.push(*fault)).ok();
            faults.into_iter().for_each(|fault| reader.fault(Fault { key: key.to_owned(), ..fault }));
            node
        }
    }
}

/// The path of `key` in the section at `path`.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Lists one key of a section, and what is below it.
pub(super) fn describe<T: Setting>(
    path: &str,
    key: &'static str,
    meaning: &'static str,
    default: Option<&'static str>,
    keys: &mut Vec<KeyDescription>,
) {
    let description = KeyDescription {
        key: below(path, key),
        meaning: meaning.trim(),
        expected: T::EXPECTED,
        default,
        required: default.is_none() && T::REQUIRED,
        section: false,
        shape: T::SHAPE,
    };
    T::describe(description, keys);
}

/// The JSON Schema of a section, being made.
pub(super) struct Object {
    meaning: &'static str,
    properties: serde_json::Map<String, Value>,
    required: Vec<&'static str>,
}

impl Object {
    pub(super) fn new(meaning: &'static str) -> Self {
        Self { meaning, properties: serde_json::Map::new(), required: Vec::new() }
    }

    pub(super) fn key<T: Setting>(
        &mut self,
        key: &'static str,
        meaning: &'static str,
        default: Option<&'static str>,
        generator: &mut schemars::SchemaGenerator,
    ) {
        if default.is_none() && T::REQUIRED {
            self.required.push(key);
        }
        let default = default.map(|text| serde_saphyr::from_str(text).unwrap_or_else(|_| Value::from(text)));
        let schema = super::setting::annotate(T::schema(generator), &one_line(meaning), default);
        self.properties.insert(key.to_owned(), schema.to_value());
    }

    pub(super) fn finish(self) -> schemars::Schema {
        let mut schema = schemars::json_schema!({
            "type": "object",
            "additionalProperties": false,
            "properties": self.properties,
        });
        if !self.required.is_empty() {
            schema.insert("required".to_owned(), self.required.into());
        }
        super::setting::annotate(schema, &one_line(self.meaning), None)
    }
}

/// A doc comment as running text.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
