//! The manual's reference of a role's settings, made from their declaration.

use std::fmt::Write;

use super::section::one_line;
use super::setting::KeyDescription;
use super::{Role, describe};

/// Markdown: a heading per section, a list of its keys with what they hold, their defaults and their meaning.
#[must_use]
pub fn reference<R: Role>() -> String {
    let mut text = String::new();
    for key in describe::<R>() {
        // Writing to a `String` cannot fail.
        let _ = if key.section {
            writeln!(text, "\n### `{}`\n\n{}\n", key.key, one_line(key.meaning))
        } else {
            writeln!(text, "- `{}`: {}; {}. {}", key.key, key.expected, presence(&key), one_line(key.meaning))
        };
    }
    text.trim_start().to_owned()
}

fn presence(key: &KeyDescription) -> String {
    match (key.default, key.required) {
        (Some(default), _) => format!("default `{default}`"),
        (None, true) => "required".to_owned(),
        (None, false) => "none unless given".to_owned(),
    }
}
