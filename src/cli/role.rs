//! Which roles have a configuration, and how people's commands reach it without knowing its type.

use std::path::Path;

use clap::ValueEnum;
use serde_json::Value;

use crate::config::node_agent::NodeAgent;
use crate::config::peak::Peak;
use crate::config::sidecar::Sidecar;
use crate::config::webhook::Webhook;
use crate::config::{self, Fault, Faults, Loaded, Sources};

/// A role with a configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Role {
    /// The node agent.
    Node,
    /// The control plane.
    Peak,
    /// The per-pod proxy.
    Sidecar,
    /// The admission webhook.
    Webhook,
}

/// What a checked configuration has to say, whatever the role.
pub(super) struct Checked {
    pub(super) settings: Value,
    pub(super) remarks: Vec<Fault>,
    pub(super) unread_variables: Vec<String>,
}

impl Role {
    const ALL: &[Self] = &[Self::Node, Self::Peak, Self::Sidecar, Self::Webhook];

    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Node => <NodeAgent as config::Role>::COMMAND,
            Self::Peak => <Peak as config::Role>::COMMAND,
            Self::Sidecar => <Sidecar as config::Role>::COMMAND,
            Self::Webhook => <Webhook as config::Role>::COMMAND,
        }
    }

    /// The role whose configuration `path` is: by its name (`sidecar.yaml`, `my-sidecar.yml`), else the one that knows
    /// most of its outermost keys.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let stem = path.file_stem()?.to_string_lossy().into_owned();
        let named = |role: &&Self| stem.split(['-', '_', '.']).any(|word| word == role.command());
        Self::ALL.iter().find(named).copied().or_else(|| Self::of_keys(&config::outermost_keys(path)))
    }

    fn of_keys(keys: &[String]) -> Option<Self> {
        let known = |role: &Self| {
            let known = role.keys();
            keys.iter().filter(|key| known.contains(key)).count()
        };
        let (role, count) = Self::ALL.iter().map(|role| (*role, known(role))).max_by_key(|(_, count)| *count)?;
        (count > 0).then_some(role)
    }

    /// The outermost keys.
    fn keys(self) -> Vec<String> {
        let keys = match self {
            Self::Node => config::describe::<NodeAgent>(),
            Self::Peak => config::describe::<Peak>(),
            Self::Sidecar => config::describe::<Sidecar>(),
            Self::Webhook => config::describe::<Webhook>(),
        };
        keys.into_iter().map(|key| key.key).filter(|key| !key.contains(['.', '['])).collect()
    }

    pub(super) fn check(self, sources: &Sources) -> Result<Checked, Faults> {
        match self {
            Self::Node => config::read::<NodeAgent>(sources).map(checked),
            Self::Peak => config::read::<Peak>(sources).map(checked),
            Self::Sidecar => config::read::<Sidecar>(sources).map(checked),
            Self::Webhook => config::read::<Webhook>(sources).map(checked),
        }
    }

    pub(super) fn schema(self) -> Value {
        match self {
            Self::Node => config::schema::<NodeAgent>(),
            Self::Peak => config::schema::<Peak>(),
            Self::Sidecar => config::schema::<Sidecar>(),
            Self::Webhook => config::schema::<Webhook>(),
        }
    }

    pub(super) fn reference(self) -> String {
        match self {
            Self::Node => config::reference::<NodeAgent>(),
            Self::Peak => config::reference::<Peak>(),
            Self::Sidecar => config::reference::<Sidecar>(),
            Self::Webhook => config::reference::<Webhook>(),
        }
    }
}

fn checked<R>(loaded: Loaded<R>) -> Checked {
    Checked {
        settings: loaded.effective(),
        remarks: loaded.remarks().to_vec(),
        unread_variables: loaded.unread_variables().to_vec(),
    }
}
