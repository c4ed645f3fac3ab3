//! The manifests in `deploy/` hold what the program they start will read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use funicular::config::sidecar::Sidecar;
use funicular::config::{self, Sources};
use funicular::model::Name;
use funicular::wire::dns::zonefile;
use serde_json::Value;

/// The objects of every manifest in a folder, in order of files.
fn objects(folder: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .flat_map(|file| serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap())
        .collect()
}

/// The files that the configuration maps carry.
fn data<'a>(objects: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a str> {
    objects.iter().filter(|object| object["kind"] == "ConfigMap").filter_map(move |map| map["data"][name].as_str())
}

/// The arguments of every container that runs our image.
fn our_arguments(objects: &[Value]) -> Vec<Vec<String>> {
    let pods = objects.iter().filter_map(|object| object.pointer("/spec/template/spec"));
    let containers = pods.flat_map(|pod| ["initContainers", "containers"].map(|kind| &pod[kind]));
    let ours = containers
        .filter_map(Value::as_array)
        .flatten()
        .filter(|container| container["image"].as_str().is_some_and(|image| image.starts_with("funicular:")));
    ours.map(|container| {
        container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    })
    .collect()
}

#[test]
fn every_configuration_in_a_manifest_is_one() {
    let objects = objects("by-hand");
    let configurations: Vec<&str> = data(&objects, "funicular.yaml").collect();
    assert_eq!(configurations.len(), 1);
    let folder = tempfile::tempdir().unwrap();
    for text in configurations {
        let file = folder.path().join("funicular.yaml");
        std::fs::write(&file, text).unwrap();
        config::read::<Sidecar>(&Sources::new().file(&file)).unwrap();
    }
}

#[test]
fn every_zone_in_a_manifest_is_one() {
    let objects = objects("by-hand");
    let zones: Vec<&str> = data(&objects, "shop.peak.zone").collect();
    assert_eq!(zones.len(), 1);
    let origin: Name = "shop.peak".parse().unwrap();
    for text in zones {
        assert!(!zonefile::parse(text, &origin).unwrap().is_empty());
    }
}

#[test]
fn every_container_of_ours_is_started_with_flags_that_exist() {
    let started = our_arguments(&objects("by-hand"));
    let roles: Vec<&str> = started.iter().map(|words| words[0].as_str()).collect();
    assert_eq!(roles, ["init", "sidecar", "peak"]);
    for words in &started {
        let line = std::iter::once("funicular").chain(words.iter().map(String::as_str));
        funicular::cli::command().try_get_matches_from(line).unwrap();
    }
}
