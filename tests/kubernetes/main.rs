//! Kubernetes: sidecars in awkward pods, the webhook against an API server, and what `deploy/` holds.
//!
//! The schemas of Kubernetes come with kubernetes-validate (PyPI), which `tests/run` puts beside the build; what they
//! judge is driven from Python, where they are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod offline;

use std::path::{Path, PathBuf};
use std::process::Command;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes").join(name)
}

/// The Python beside this build that has the schemas.
fn python() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_funicular"));
    let built = program.parent().and_then(Path::parent).unwrap();
    let python = built.join("kubernetes-tools/bin/python");
    assert!(python.exists(), "{} is not there: tests/run makes it", python.display());
    python
}

fn judged(script: &str) {
    let status = Command::new(python()).arg(here(script)).arg(env!("CARGO_BIN_EXE_funicular")).status().unwrap();
    assert!(status.success(), "{script}");
}

#[test]
#[ignore = "needs kubernetes-validate of PyPI"]
fn the_webhook_serves_an_api_server_as_the_manual_says() {
    judged("admission.py");
}

#[test]
#[ignore = "needs kubernetes-validate of PyPI"]
fn every_manifest_is_valid_in_every_version_of_kubernetes() {
    judged("manifests.py");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn pods_run_by_their_patched_specs_and_talk_through_the_pair() {
    judged("pair.py");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn pods_lease_their_slices_by_their_own_tokens() {
    judged("leases.py");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn peak_s_pods_begin_one_cluster_and_grow() {
    judged("statefulset.py");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN, prometheus"]
fn alerts_and_dashboard_ask_for_what_every_role_tells() {
    judged("monitoring.py");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN, bird"]
fn a_look_over_an_installation_finds_each_fault() {
    judged("check.py");
}
