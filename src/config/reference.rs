//! The manual's reference of a role's settings, made from their declaration.

use std::fmt::Write;

use super::section::one_line;
use super::setting::KeyDescription;
use super::{Role, describe};

/// A section and its keys.
struct Part {
    path: String,
    meaning: String,
    keys: String,
}

/// Markdown: a heading per section, and a list of its keys with what they hold, their defaults and their meaning.
#[must_use]
pub fn reference<R: Role>() -> String {
    let mut parts: Vec<Part> = Vec::new();
    for key in describe::<R>() {
        let meaning = one_line(key.meaning);
        if key.section {
            parts.push(Part { path: key.key, meaning, keys: String::new() });
            continue;
        }
        let (section, name) = key.key.rsplit_once('.').unwrap_or(("", &key.key));
        let at = parts.iter().position(|part| part.path == section).unwrap_or_else(|| {
            parts.push(Part { path: section.to_owned(), meaning: String::new(), keys: String::new() });
            parts.len() - 1
        });
        // Writing to a `String` cannot fail.
        let _ = writeln!(parts[at].keys, "- `{name}` ({}; {}): {meaning}", bare(key.expected), presence(&key));
    }
    // The outermost keys come first, wherever they were declared.
    parts.sort_by_key(|part| !part.path.is_empty());
    let written = parts.iter().filter(|part| !part.keys.is_empty()).map(written);
    written.collect::<Vec<_>>().join("\n")
}

fn written(part: &Part) -> String {
    let heading = if part.path.is_empty() { "Outermost".to_owned() } else { format!("`{}`", part.path) };
    let meaning = if part.meaning.is_empty() { String::new() } else { format!("{}\n\n", part.meaning) };
    format!("### {heading}\n\n{meaning}{}", part.keys)
}

/// Text that Markdown would take for a link or for HTML, `[::]:53` or `<id>`, as it stands.
fn bare(text: &str) -> String {
    text.replace('[', r"\[").replace('<', r"\<")
}

fn presence(key: &KeyDescription) -> String {
    match (key.default, key.required) {
        (Some(default), _) => format!("default `{default}`"),
        (None, true) => "required".to_owned(),
        (None, false) => "optional".to_owned(),
    }
}
