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

/// A source up to its tests, which may name metrics that nobody registers.
fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
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

#[test]
fn names_are_found_where_they_stand_whole() {
    let source = "x(\"funicular_a_total\", \"funicular_b\"); \"funicular_c{x}\" funicular_d";
    assert_eq!(names(source, '"'), BTreeSet::from(["funicular_a_total".to_owned(), "funicular_b".to_owned()]));
    assert_eq!(without_tests("a #[cfg(test)] b"), "a ");
}
