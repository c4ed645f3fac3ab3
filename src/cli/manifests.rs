//! Manifests as people keep them: one or more objects in YAML or JSON, read from a file or from standard input.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::config::webhook::Webhook;
use crate::config::{self, Sources};
use crate::model::inject::{self, LABEL, Namespace, Settings};

/// All objects of a file; `-` is standard input.
///
/// # Errors
/// What cannot be read, or is no YAML.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<Value>> {
    let name = file.display();
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| name.to_string())?;
    }
    // As kubectl reads it: a mode such as 0755 is octal.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let objects: Vec<Value> =
        serde_saphyr::from_multiple_with_options(&text, options).with_context(|| format!("{name} is no YAML"))?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

/// The objects as YAML, each after a line of dashes.
///
/// # Errors
/// When the library cannot write a value.
pub(super) fn written(objects: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// What sidecars get: of the webhook's configuration, where there is one.
///
/// # Errors
/// What is wrong with the configuration.
pub(super) fn settings(file: Option<&Path>) -> anyhow::Result<Settings> {
    let sources = file.map_or_else(Sources::new, |file| Sources::new().file(file));
    Ok(config::read::<Webhook>(&sources)?.value.sidecar.settings(true))
}

/// What is known of the namespace `name`: the object among `objects`, else that it asks for sidecars when `assumed`.
pub(super) fn namespace(objects: &[Value], name: Option<&str>, assumed: bool) -> Namespace {
    let named = |object: &&Value| object["kind"] == "Namespace" && object["metadata"]["name"].as_str() == name;
    let part = |object: &Value, part: &str| object["metadata"][part].as_object().cloned().unwrap_or_default();
    let mut namespace = objects.iter().find(named).map_or_else(Namespace::default, |object| Namespace {
        labels: part(object, "labels"),
        annotations: part(object, "annotations"),
    });
    if assumed && !namespace.labels.contains_key(LABEL) {
        namespace.labels.extend(Map::from_iter([(LABEL.to_owned(), "true".into())]));
    }
    namespace
}

/// The template at `path` as a pod, with the namespace that its owner is in.
pub(super) fn pod<'o>(object: &'o Value, template: &inject::Template) -> &'o Value {
    object.pointer(&template.path).unwrap_or(&Value::Null)
}
