//! Where settings come from: a file, the environment, flags; the later win.
//!
//! A variable's name is the key's path in capitals with underscores: `FUNICULAR_OUTBOUND_CONNECT_DEADLINE`. Lists and
//! maps are written as in YAML: `FUNICULAR_DNS_UPSTREAM='[192.0.2.1, 192.0.2.2]'`. An empty variable is not set. Those
//! that match no key are not refused: Kubernetes puts variables of every service of a namespace into its pods, and a
//! service may be called `funicular-peak`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{Cause, Fault};
use super::files;
use super::nearest::nearest;
use super::node::{Content, Node};
use super::place::Place;
use super::section::from_text;
use super::setting::{KeyDescription, Reader};

const PREFIX: &str = "FUNICULAR_";

/// The sources of one role's settings. Reading them again gives what they hold then.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    presets: Vec<(&'static str, String)>,
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: Vec<Given>,
    pub(super) looks_at_files: bool,
}

/// A setting given by a flag.
#[derive(Clone, Debug)]
struct Given {
    key: String,
    text: String,
    flag: Arc<str>,
}

/// The variable that overrides the setting at `key`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "_"))
}

/// Not `key=value`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected KEY=VALUE, such as log.level=debug")]
pub struct NoAssignment;

/// Reads `key=value`, the form in which a flag can set any key.
///
/// # Errors
/// When there is no `=`, or nothing before it.
pub fn assignment(text: &str) -> Result<(String, String), NoAssignment> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or(NoAssignment)?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Sources {
    /// No source: defaults alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This process's environment.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            // A variable that is no text cannot be one of ours.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new().environment(std::env::vars_os().filter_map(text))
    }

    /// Takes these in the place of defaults: keys and what they are worth where no other source says.
    #[must_use]
    pub fn presets(mut self, presets: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.presets.extend(presets);
        self
    }

    /// Reads this file as well.
    #[must_use]
    pub fn file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// Reads these variables as well, as far as their names begin with `FUNICULAR_`.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let ours = |(name, value): &(String, String)| name.starts_with(PREFIX) && !value.is_empty();
        self.environment.extend(variables.into_iter().filter(ours));
        self.environment.sort();
        self
    }

    /// The flag `flag` gives the setting at `key` this text.
    #[must_use]
    pub fn flag(mut self, flag: &str, key: &str, text: impl Into<String>) -> Self {
        self.flags.push(Given { key: key.to_owned(), text: text.into(), flag: flag.into() });
        self
    }

    /// Looks as well whether the files that settings name can be read by this process; each that cannot is a fault.
    #[must_use]
    pub fn look_at_files(mut self) -> Self {
        self.looks_at_files = true;
        self
    }

    /// The folder to which names of files in the configuration's file are relative.
    pub(super) fn base(&self) -> &Path {
        self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// The tree of all that is given, and the names of variables that nothing reads.
    ///
    /// # Errors
    /// The file's, when it cannot be read or is no YAML.
    pub(super) fn node(&self, keys: &[KeyDescription], reader: &mut Reader) -> Result<(Node, Vec<String>), Box<Fault>> {
        let mut root = self.file_node(reader)?;
        let mut unread = Vec::new();
        for (preset, text) in &self.presets {
            if let Some(key) = keys.iter().find(|key| key.key == *preset) {
                set(&mut root, key, text, &Place::Default, reader);
            }
        }
        for (name, text) in &self.environment {
            match keys.iter().find(|key| is_settable(key) && variable(&key.key) == *name) {
                Some(key) => set(&mut root, key, text, &Place::Environment(name.as_str().into()), reader),
                None => unread.push(name.clone()),
            }
        }
        for Given { key, text, flag } in &self.flags {
            let place = Place::Flag(Arc::clone(flag));
            match keys.iter().find(|known| is_settable(known) && known.key == *key) {
                Some(key) => set(&mut root, key, text, &place, reader),
                None => {
                    let settable = keys.iter().filter(|key| is_settable(key)).map(|key| key.key.as_str());
                    let meant = nearest(key, settable).map(str::to_owned);
                    reader.fault(Fault::new(place, key, Cause::UnknownKey { meant }));
                }
            }
        }
        Ok((root, unread))
    }

    fn file_node(&self, reader: &mut Reader) -> Result<Node, Box<Fault>> {
        let Some(path) = &self.file else { return Ok(Node::map(Place::Default)) };
        let text = files::text(path)?;
        let path: Arc<Path> = path.as_path().into();
        let mut faults = Vec::new();
        let node =
            Node::parse(&text, |line, column| Place::File { path: Arc::clone(&path), line, column }, &mut faults);
        faults.into_iter().for_each(|fault| reader.fault(fault));
        let mut node = node?;
        if matches!(node.content, Content::Empty) {
            node.content = Content::Map(Vec::new());
        }
        Ok(node)
    }
}

/// The outermost keys of a file; none when it cannot be read or is no section.
pub(super) fn outermost_keys(path: &Path) -> Vec<String> {
    let text = files::text(path).unwrap_or_default();
    let root = Node::parse(&text, |_, _| Place::Default, &mut Vec::new());
    match root.map(|root| root.content) {
        Ok(Content::Map(entries)) => entries.into_iter().map(|(key, _)| key.text).collect(),
        Ok(Content::Empty | Content::Scalar(_) | Content::List(_)) | Err(_) => Vec::new(),
    }
}

/// Sections are set key by key, and elements of lists and maps only as a whole.
fn is_settable(key: &KeyDescription) -> bool {
    !key.section && !key.key.contains(['[', '<'])
}

fn set(root: &mut Node, key: &KeyDescription, text: &str, place: &Place, reader: &mut Reader) {
    if let Some(node) = from_text(text, key.shape, place, &key.key, reader) {
        root.overlay(&key.key, node);
    }
}
