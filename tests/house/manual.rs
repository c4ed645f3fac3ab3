//! The manual and the program name the same metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the manual lists metrics.
const CHAPTER: &str = "src/manual/observability.md";

/// Names of metrics that stand in `text` after `quote`: `"` in a source, a backtick in the manual.
fn names(text: &str, quote: char) -> BTreeSet<String> {
    let start = format!("{quote}funicular_");
    let mut found = BTreeSet::new();
    let mut rest = text;
    while let Some(at) = rest.find(&start) {
        rest = &rest[at + quote.len_utf8()..];
        let end =
            rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')).unwrap_or(rest.len());
        if rest[end..].starts_with(quote) {
            found.insert(rest[..end].to_owned());
        }
    }
    found
}

/// A source up to its tests, which may name what is nowhere else. Tests in a file of their own are only declared, wherever.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn registered(top: &Path, sources: &[PathBuf]) -> BTreeSet<String> {
    let is_tests = |path: &Path| path.file_name().is_some_and(|name| name == "tests.rs");
    let of_program = |path: &&PathBuf| path.starts_with(top.join("src")) && !is_tests(path);
    let named = |path: &PathBuf| names(without_tests(&fs::read_to_string(path).unwrap()), '"');
    sources.iter().filter(of_program).flat_map(named).collect()
}

#[test]
fn the_manual_lists_the_metrics_that_are_registered_and_no_others() {
    let mut sources = Vec::new();
    super::sources(&super::top().join("src"), &mut sources);
    let registered = registered(super::top(), &sources);
    let documented = names(&fs::read_to_string(super::top().join(CHAPTER)).unwrap(), '`');
    let undocumented: Vec<_> = registered.difference(&documented).collect();
    let unregistered: Vec<_> = documented.difference(&registered).collect();
    assert!(registered.len() > 3, "only {registered:?} were found");
    assert!(
        undocumented.is_empty() && unregistered.is_empty(),
        "{CHAPTER} lacks {undocumented:?}, and has {unregistered:?}"
    );
}

/// The labels in the tables of metrics: the third of four columns.
fn documented_labels(chapter: &str) -> BTreeSet<String> {
    let rows = chapter.lines().filter(|line| line.starts_with("| `funicular_"));
    let labels = rows.filter_map(|row| row.split('|').nth(3));
    labels
        .flat_map(|cell| cell.split(','))
        .map(|label| label.trim().replace('`', ""))
        .filter(|l| !l.is_empty())
        .collect()
}

/// Whether a source declares the label: as a type of labels (`enum Way: "way" {`), or in a list of names.
fn declares(source: &str, label: &str) -> bool {
    let source = without_tests(source);
    [format!(": \"{label}\" {{"), format!("&[\"{label}\""), format!(", \"{label}\""), format!("= \"{label}\";")]
        .iter()
        .any(|form| source.contains(form))
}

#[test]
fn the_manual_names_no_label_that_no_metric_has() {
    let mut sources = Vec::new();
    super::sources(&super::top().join("src"), &mut sources);
    let texts: Vec<String> = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let labels = documented_labels(&fs::read_to_string(super::top().join(CHAPTER)).unwrap());
    assert!(labels.contains("direction") && labels.len() > 5, "only {labels:?} were found");
    let strange: Vec<_> = labels.iter().filter(|label| !texts.iter().any(|text| declares(text, label))).collect();
    assert!(strange.is_empty(), "{CHAPTER} names {strange:?}");
    assert!(!declares("labels! { enum How: \"how\" { } }", "verdict"));
}

/// Where the manual says what to do about refusals.
const REFUSALS: &str = "src/manual/operations.md";

/// Words of several parts between backticks in the first column of tables; `hello-…` stands for many and is passed over.
fn documented_reasons(chapter: &str) -> BTreeSet<&str> {
    let cells = chapter.lines().filter(|line| line.starts_with("| `")).filter_map(|row| row.split('|').nth(1));
    let reasons = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    reasons
        .filter(|reason| reason.contains('-') && reason.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .collect()
}

#[test]
fn the_manual_explains_no_refusal_that_cannot_happen() {
    let mut sources = Vec::new();
    super::sources(&super::top().join("src"), &mut sources);
    let texts: Vec<String> = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let chapter = fs::read_to_string(super::top().join(REFUSALS)).unwrap();
    let reasons = documented_reasons(&chapter);
    let happens = |reason: &str| texts.iter().any(|text| without_tests(text).contains(&format!("\"{reason}\"")));
    assert!(reasons.contains("token-expired") && reasons.len() > 20, "only {reasons:?} were found");
    let strange: Vec<_> = reasons.into_iter().filter(|reason| !happens(reason)).collect();
    assert!(strange.is_empty(), "{REFUSALS} names {strange:?}");
    assert!(documented_reasons("| `a-b`, `c-…` | `d-e` |").iter().eq(&["a-b"]));
}

#[test]
fn names_are_found_where_they_stand_whole() {
    let source = "x(\"funicular_a_total\", \"funicular_b\"); \"funicular_c{x}\" funicular_d";
    assert_eq!(names(source, '"'), BTreeSet::from(["funicular_a_total".to_owned(), "funicular_b".to_owned()]));
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb"), "a\n");
    assert_eq!(without_tests("#[cfg(test)]\nmod tests;\na"), "#[cfg(test)]\nmod tests;\na");
}
