//! What checks find, and how it is told.

use serde_json::{Value, json};

/// What became of one check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// As it should be.
    Right,
    /// It works, but somebody should know.
    Doubtful,
    /// It does not work, or soon will not.
    Wrong,
    /// It could not be looked at from here.
    Skipped,
}

/// One check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Finding {
    /// Stable, for programs.
    check: &'static str,
    state: State,
    /// What was seen.
    seen: String,
    /// What helps, where something does.
    hint: Option<String>,
}

impl Finding {
    pub(super) fn right(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, state: State::Right, seen: seen.into(), hint: None }
    }

    pub(super) fn doubtful(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, state: State::Doubtful, seen: seen.into(), hint: Some(hint.into()) }
    }

    pub(super) fn wrong(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, state: State::Wrong, seen: seen.into(), hint: Some(hint.into()) }
    }

    pub(super) fn skipped(check: &'static str, seen: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, state: State::Skipped, seen: seen.into(), hint: Some(hint.into()) }
    }

    /// Right when it holds; else wrong, with what helps.
    pub(super) fn holds(check: &'static str, holds: bool, seen: impl Into<String>, hint: &str) -> Self {
        if holds { Self::right(check, seen) } else { Self::wrong(check, seen, hint) }
    }
}

/// The checks of one kind.
pub(super) struct Category {
    pub(super) name: &'static str,
    pub(super) findings: Vec<Finding>,
}

/// Whether nothing is wrong.
pub(super) fn is_well(categories: &[Category]) -> bool {
    categories.iter().flat_map(|category| &category.findings).all(|finding| finding.state != State::Wrong)
}

pub(super) fn text(categories: &[Category]) -> String {
    let mut text = String::new();
    for category in categories {
        text.push_str(&format!("{}\n", category.name));
        for Finding { check, state, seen, hint } in &category.findings {
            let word = match state {
                State::Right => "ok",
                State::Doubtful => "note",
                State::Wrong => "WRONG",
                State::Skipped => "-",
            };
            text.push_str(&format!("  {word:<6} {check:<22} {seen}\n"));
            hint.iter().for_each(|hint| text.push_str(&format!("{:32}{hint}\n", "")));
        }
    }
    let count = |state: State| {
        let all = categories.iter().flat_map(|category| &category.findings);
        all.filter(|finding| finding.state == state).count()
    };
    let (right, doubtful, wrong, skipped) =
        (count(State::Right), count(State::Doubtful), count(State::Wrong), count(State::Skipped));
    text.push_str(&format!("\n{right} right, {doubtful} to note, {wrong} wrong, {skipped} not looked at\n"));
    text
}

pub(super) fn to_json(categories: &[Category]) -> Value {
    let told = |category: &'static str, Finding { check, state, seen, hint }: &Finding| {
        let state = match state {
            State::Right => "right",
            State::Doubtful => "doubtful",
            State::Wrong => "wrong",
            State::Skipped => "skipped",
        };
        json!({ "category": category, "check": check, "state": state, "seen": seen, "hint": hint })
    };
    let all = categories.iter().flat_map(|category| category.findings.iter().map(|it| told(category.name, it)));
    json!({ "well": is_well(categories), "checks": all.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_makes_the_whole_unwell_and_what_is_doubtful_or_skipped_does_not() {
        let of = |finding: Finding| [Category { name: "c", findings: vec![finding] }];
        assert!(is_well(&of(Finding::right("a", "seen"))) && is_well(&of(Finding::skipped("a", "seen", "how"))));
        assert!(is_well(&of(Finding::doubtful("a", "seen", "how"))));
        let unwell = of(Finding::holds("a", false, "seen", "how"));
        assert!(!is_well(&unwell));
        assert_eq!(to_json(&unwell)["checks"][0]["hint"], "how");
        assert!(
            text(&unwell).contains("WRONG") && text(&unwell).contains("0 right, 0 to note, 1 wrong, 0 not looked at")
        );
    }
}
