//! `funicular ssa plan` as an operator meets it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::process::Command;

use serde_json::Value;

const PREFIX: &str = "2001:db8:5:1::/64";

/// Exit code, standard output, standard error.
fn plan(arguments: &[&str]) -> (i32, String, String) {
    let program = env!("CARGO_BIN_EXE_funicular");
    let output = Command::new(program).args(["ssa", "plan", "--prefix"]).args(arguments).output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str]) -> Value {
    let (code, answer, error) = plan(&[arguments, &["-o", "json"]].concat());
    assert_eq!((code, error.as_str()), (0, ""));
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn the_table_keeps_to_80_columns_and_says_how_many_slices_are_enough() {
    let (code, answer, _) = plan(&[PREFIX, "--instances", "10..1000"]);
    assert_eq!(code, 0);
    assert!(answer.lines().all(|line| line.chars().count() <= 80), "{answer}");
    assert!(answer.contains("slices=14 is enough: at most 5.8 % at any number of pods from 10 to 1000."), "{answer}");
}

#[test]
fn a_new_service_of_16384_slices_has_6_routes_a_pod_at_10_pods_and_one_or_two_at_1000() {
    let answer = json(&[PREFIX, "--instances", "10..1000", "--slices", "14"]);
    let sizes = answer["sizes"].as_array().unwrap();
    let (ten, thousand) = (sizes.first().unwrap(), sizes.last().unwrap());
    assert_eq!(ten["slices_per_instance"], serde_json::json!({ "fewest": 1_638, "most": 1_639 }));
    assert_eq!((&ten["instances"], &ten["routes"]["average"]), (&10.into(), &6.4.into()));
    assert_eq!((&thousand["instances"], &thousand["routes"]["average"]), (&1_000.into(), &1.38.into()));
    assert_eq!(thousand["one_more_instance"], serde_json::json!({ "slices_moved": 16, "moves": 16 }));
    assert_eq!(answer["recommended"], serde_json::json!({ "slice_bits": 14, "worst_imbalance_percent": 5.8 }));
}

#[test]
fn where_no_number_of_slices_is_enough_it_says_so() {
    let answer = json(&["2001:db8::/124", "--instances", "1000"]);
    assert_eq!(answer["recommended"], Value::Null);
    assert_eq!(answer["sizes"].as_array().unwrap().len(), 1);
}

#[test]
fn the_plot_is_an_svg_with_one_line_for_each_number_of_slices_in_each_panel() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.svg");
    let (code, _, error) = plan(&[PREFIX, "--instances", "3..50", "--plot", file.to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (0, ""));
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<polyline").count(), 10);
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn a_plot_of_one_size_has_no_division_by_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.svg");
    plan(&[PREFIX, "--instances", "1", "--slices", "0", "--plot", file.to_str().unwrap()]);
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn a_plot_that_cannot_be_written_is_a_failure_that_names_the_file() {
    let (code, _, error) = plan(&[PREFIX, "--instances", "3", "--slices", "4", "--plot", "/nowhere/plan.svg"]);
    assert_eq!(code, 1);
    assert!(error.contains("/nowhere/plan.svg"), "{error}");
}

#[test]
fn wrong_flags_are_named_with_what_was_expected() {
    for (arguments, flag) in [
        (vec!["2001:db8::1/64", "--instances", "3"], "--prefix"),
        (vec!["10.0.0.0/8", "--instances", "3"], "--prefix"),
        (vec![PREFIX, "--instances", "9..3"], "--instances"),
        (vec![PREFIX, "--instances", "0"], "--instances"),
        (vec![PREFIX, "--instances", "3", "--slices", "25"], "--slices"),
        (vec!["2001:db8::/120", "--instances", "3", "--slices", "9"], "--slices"),
    ] {
        let (code, answer, error) = plan(&arguments);
        assert_eq!((code, answer.as_str()), (2, ""), "{arguments:?}");
        assert!(error.contains(flag) && error.contains("expected"), "{error}");
    }
}
