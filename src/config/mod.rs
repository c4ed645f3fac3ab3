//! Configuration: one YAML file per role, read into checked types once, in one place.
//!
//! ```text
//! default ◀ file ◀ environment ◀ flags      each wins over those before it
//!    └──── node: texts that know their places ────┐
//!                          section, setting: typed values, every fault noted
//!                                                 └── role: do they fit together?
//! ```
//!
//! A key is declared once, by `section!`: its type, its meaning and its default serve reading, overriding,
//! the JSON Schema ([`schema()`]) and the manual's reference ([`reference()`]). Unknown keys are refused, all faults are
//! reported together, and every setting in effect knows where it comes from. Nothing here opens the files that settings
//! name: [`Sources::look_at_files`] only looks whether they could be.

pub mod api;
pub mod common;
mod fault;
mod files;
mod nearest;
mod node;
pub mod node_agent;
pub mod peak;
mod place;
mod reference;
mod section;
pub mod setting;
pub mod sidecar;
pub mod slices;
mod sources;
pub mod values;
pub mod webhook;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

pub use fault::{Cause, Fault, Faults};
pub use node::Node;
pub use place::Place;
pub use reference::reference;
pub use sources::{NoAssignment, Sources, assignment, variable};

use setting::{Effective, Found, KeyDescription, Reader, Setting};

/// The configuration of a role: its outermost section.
pub trait Role: Setting + schemars::JsonSchema {
    /// The role's command: `sidecar` in `funicular sidecar`.
    const COMMAND: &'static str;

    /// Looks whether the settings fit together. A setting that is wrong by itself has its default here, and rules that
    /// involve it are not reported.
    fn check(&self, check: &mut Check<'_>);
}

/// Notes what does not fit together.
#[derive(Debug)]
pub struct Check<'r>(&'r mut Reader);

impl Check<'_> {
    /// The settings at `keys` break a rule, which says what would hold; the first of them is where it is reported.
    pub fn fault(&mut self, keys: &[&str], rule: impl Into<std::borrow::Cow<'static, str>>) {
        if !self.0.is_faulty(keys) {
            let place = self.0.place(keys[0]);
            self.0.fault(Fault::new(place, keys[0], Cause::Rule { rule: rule.into() }));
        }
    }

    /// The setting at `key` works, but perhaps not as it was meant.
    pub fn remark(&mut self, key: &str, rule: impl Into<std::borrow::Cow<'static, str>>) {
        let place = self.0.place(key);
        self.0.remark(Fault::new(place, key, Cause::Rule { rule: rule.into() }));
    }
}

/// A configuration that has been read and checked.
#[derive(Clone, Debug)]
pub struct Loaded<R> {
    /// The settings.
    pub value: R,
    settings: BTreeMap<String, Effective>,
    unread: Vec<String>,
    remarks: Vec<Fault>,
    files: Vec<setting::NamedFile>,
}

impl<R> Loaded<R> {
    /// What works, but perhaps not as it was meant.
    #[must_use]
    pub fn remarks(&self) -> &[Fault] {
        &self.remarks
    }

    /// Each setting in effect, by its key's path, and who set it. No secret stands among them: secrets are in files,
    /// and a setting holds the file's name.
    #[must_use]
    pub fn effective(&self) -> Value {
        let shown = |setting: &Effective| json!({ "value": setting.value, "from": setting.from.to_string() });
        self.settings
            .iter()
            .map(|(key, setting)| (key.clone(), shown(setting)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Who set the setting at `key`; of a section, the first of its settings that somebody set.
    #[must_use]
    pub fn origin(&self, key: &str) -> Place {
        setting::origin(&self.settings, key)
    }

    /// The files that its settings name, in the order of their keys.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Variables of the environment that look as if they were meant for this program, and that nothing reads.
    #[must_use]
    pub fn unread_variables(&self) -> &[String] {
        &self.unread
    }
}

/// Reads the role's file and what this process's environment puts over it.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn load<R: Role>(path: &Path) -> Result<Loaded<R>, Faults> {
    read(&Sources::of_process().file(path))
}

/// Reads a configuration from its sources.
///
/// # Errors
/// Everything that is wrong, by place.
pub fn read<R: Role>(sources: &Sources) -> Result<Loaded<R>, Faults> {
    let keys = describe::<R>();
    let mut reader = Reader::new(sources.base(), &keys);
    let read = match sources.node(&keys, &mut reader) {
        Ok((root, unread)) => R::read(&root, "", &mut reader).map(|value| (value, unread)),
        Err(fault) => {
            reader.fault(*fault);
            None
        }
    };
    if let Some((value, _)) = &read {
        value.check(&mut Check(&mut reader));
    }
    let Found { mut faults, remarks, settings, files } = reader.finish();
    if sources.looks_at_files {
        faults.extend(files.iter().filter_map(files::fault));
    }
    match (Faults::of(faults), read) {
        (None, Some((value, unread))) => Ok(Loaded { value, settings, unread, remarks, files }),
        (Some(faults), _) => Err(faults),
        (None, None) => unreachable!("nothing is missing unless a fault was noted"),
    }
}

/// All keys of a role, in the order of their declaration.
#[must_use]
pub fn describe<R: Role>() -> Vec<KeyDescription> {
    let root = KeyDescription {
        key: String::new(),
        meaning: "",
        expected: R::EXPECTED,
        default: None,
        required: false,
        section: true,
        shape: R::SHAPE,
    };
    let mut keys = Vec::new();
    R::describe(root, &mut keys);
    keys.retain(|key| !key.key.is_empty());
    keys
}

/// The outermost keys of a file, whatever they mean; none when it cannot be read.
#[must_use]
pub fn outermost_keys(path: &Path) -> Vec<String> {
    sources::outermost_keys(path)
}

/// The JSON Schema (2020-12) of a role's file.
#[must_use]
pub fn schema<R: Role>() -> Value {
    let generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<R>();
    schema.insert("title".to_owned(), format!("funicular {}", R::COMMAND).into());
    schema.to_value()
}
