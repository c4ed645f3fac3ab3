//! How the demo's findings are shown: text for people, 80 columns wide, or one JSON document for machines.
//!
//! Owns layout and colour alone; what is found stands in [`Step`]. Text appears step by step, as it becomes true; JSON
//! comes at the end. Colour is for a terminal, and only where `NO_COLOR` is unset (no-color.org).

mod layout;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use self::layout::{INDENT, Paint, WIDTH, fill, hang, wrap, wrap_command};

/// One step of the demo: what happens, what was seen, and what must hold.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// A stable name for machines, kebab-case.
    pub id: &'static str,
    /// One line.
    pub title: &'static str,
    /// What happens here and why, in plain words; paragraphs are separated by an empty line.
    pub explanation: String,
    /// What was seen.
    pub evidence: Vec<Evidence>,
    /// What was checked.
    pub claims: Vec<Claim>,
}

/// Something that was seen.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Evidence {
    /// A command that was run in a pod, and what it printed.
    Command {
        /// Where it ran.
        pod: String,
        /// The command line.
        command: String,
        /// Lines of output, perhaps shortened.
        output: Vec<String>,
    },
    /// Lines as they stand.
    Lines {
        /// What they are.
        caption: String,
        /// The lines.
        lines: Vec<String>,
    },
    /// Columns.
    Table {
        /// What it shows.
        caption: String,
        /// One heading per column.
        header: Vec<&'static str>,
        /// Rows of as many cells.
        rows: Vec<Vec<String>>,
    },
    /// Counts as bars.
    Bars {
        /// What is counted.
        caption: String,
        /// Label and count.
        bars: Vec<(String, usize)>,
    },
}

/// Something that was checked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Claim {
    /// What must hold.
    pub claim: String,
    /// Whether it did.
    pub held: bool,
    /// What was seen instead, or as well.
    pub seen: String,
}

impl Claim {
    /// A claim with the observation that decides it.
    pub(super) fn new(claim: impl Into<String>, held: bool, seen: impl Into<String>) -> Self {
        Self { claim: claim.into(), held, seen: seen.into() }
    }
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one document at the end.
    Json,
}

impl Format {
    /// The word that chooses it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A command to look around with.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Hint {
    /// What it shows.
    pub what: &'static str,
    /// The line to paste.
    pub command: String,
}

/// Everything that the demo found, as `-o json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Findings {
    /// Whether every claim held.
    pub held: bool,
    /// How many claims were checked.
    pub checked: usize,
    /// How many of them did not hold.
    pub failed: usize,
    /// Wall time.
    pub seconds: f64,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Commands that look around in what is left running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Hint>,
}

/// Shows steps as they are done.
#[derive(Debug)]
pub(super) struct Stage {
    format: Format,
    paint: Paint,
    /// Bars and marks beyond ASCII are for terminals that say they read UTF-8.
    unicode: bool,
    /// A line that the next output replaces; only on a terminal.
    pending: bool,
    steps: Vec<Step>,
}

impl Stage {
    /// A stage on standard output.
    #[must_use]
    pub(super) fn new(format: Format) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal = std::io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| {
            let value = std::env::var(name).ok()?;
            (!value.is_empty()).then_some(value)
        });
        let unicode = locale.is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        });
        Self { format, paint: Paint(terminal && !dumb && !set("NO_COLOR")), unicode, pending: false, steps: Vec::new() }
    }

    /// Text before the first step; nothing in JSON.
    pub(super) fn prologue(&mut self, text: &str) {
        if self.format == Format::Text {
            emit(&wrap(text, 0));
        }
    }

    /// Says what is being waited for; on a terminal the next output replaces it.
    pub(super) fn doing(&mut self, what: &str) {
        if self.format == Format::Text && self.paint.0 {
            emit(&format!("\r\x1b[2K{}", self.paint.dim(&format!("    {what} ..."))));
            self.pending = true;
        }
    }

    /// Shows a finished step and keeps it for the end.
    pub(super) fn show(&mut self, step: Step) {
        if self.format == Format::Text {
            self.clear();
            emit(&self.text(&step));
        }
        self.steps.push(step);
    }

    /// Ends the performance: the verdict in text, or the whole document in JSON.
    pub(super) fn finish(mut self, took: Duration, commands: Vec<(&'static str, String)>) -> Findings {
        self.clear();
        let claims = || self.steps.iter().flat_map(|step| &step.claims);
        let checked = claims().count();
        let failed = claims().filter(|claim| !claim.held).count();
        let findings = Findings {
            held: failed == 0 && checked > 0,
            checked,
            failed,
            seconds: (took.as_secs_f64() * 10.0).round() / 10.0,
            steps: std::mem::take(&mut self.steps),
            commands: commands.into_iter().map(|(what, command)| Hint { what, command }).collect(),
        };
        match self.format {
            Format::Text => {
                emit(&self.verdict(&findings));
                emit(&self.hints(&findings.commands));
            }
            Format::Json => {
                let text = serde_json::to_string_pretty(&findings)
                    .unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
                emit(&format!("{text}\n"));
            }
        }
        findings
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.pending) {
            emit("\r\x1b[2K");
        }
    }

    fn verdict(&self, findings: &Findings) -> String {
        let took = findings.seconds;
        if findings.held {
            let line = format!("All {} claims hold ({took} s).", findings.checked);
            return format!("\n{}\n", self.paint.good(&line));
        }
        let mut text = format!(
            "\n{}\n",
            self.paint.bad(&format!("{} of {} claims do not hold ({took} s):", findings.failed, findings.checked))
        );
        for step in &findings.steps {
            for claim in step.claims.iter().filter(|claim| !claim.held) {
                text.push_str(&wrap(&format!("{}: {}: {}", step.id, claim.claim, claim.seen), INDENT));
            }
        }
        text
    }

    /// Lines to paste are never wrapped.
    fn hints(&self, hints: &[Hint]) -> String {
        let mut text = String::new();
        if hints.is_empty() {
            return text;
        }
        text.push_str("\nEverything is left running until Ctrl-C. To look around, from another terminal:\n");
        for Hint { what, command } in hints {
            let _ = write!(text, "\n{}  {command}\n", self.paint.dim(&format!("  # {what}\n")));
        }
        text
    }

    fn text(&self, step: &Step) -> String {
        let number = self.steps.len() + 1;
        let mut text = format!("\n{}\n", self.paint.title(&format!("{number:>2}  {}", step.title)));
        text.push_str(&wrap(&step.explanation, INDENT));
        for evidence in &step.evidence {
            text.push('\n');
            self.evidence(&mut text, evidence);
        }
        if !step.claims.is_empty() {
            text.push('\n');
        }
        for claim in &step.claims {
            text.push_str(&self.claim(claim));
        }
        text
    }

    fn claim(&self, claim: &Claim) -> String {
        let mark = match (claim.held, self.unicode) {
            (true, true) => "✓ ",
            (true, false) => "ok  ",
            (false, true) => "✗ ",
            (false, false) => "FAILED  ",
        };
        let words = if claim.held { claim.claim.clone() } else { format!("{}: {}", claim.claim, claim.seen) };
        let (first, rest) = (format!("{:INDENT$}{mark}", ""), " ".repeat(INDENT + mark.chars().count()));
        let mut lines = String::new();
        fill(&mut lines, words.split_whitespace(), &first, &rest, "");
        if claim.held { self.paint.good(&lines) } else { self.paint.bad(&lines) }
    }

    fn evidence(&self, text: &mut String, evidence: &Evidence) {
        match evidence {
            Evidence::Command { pod, command, output } => {
                let line = format!("{pod}$ {command}");
                text.push_str(&self.paint.strong(&wrap_command(&line, INDENT)));
                for line in output {
                    let _ = writeln!(text, "    {line}");
                }
            }
            Evidence::Lines { caption, lines } => {
                self.caption(text, caption);
                for line in lines {
                    text.push_str(&hang(line, INDENT));
                }
            }
            Evidence::Table { caption, header, rows } => {
                self.caption(text, caption);
                self.table(text, header, rows);
            }
            Evidence::Bars { caption, bars } => {
                self.caption(text, caption);
                self.bars(text, bars);
            }
        }
    }

    fn caption(&self, text: &mut String, caption: &str) {
        if !caption.is_empty() {
            text.push_str(&self.paint.dim(&wrap(caption, INDENT)));
        }
    }

    fn table(&self, text: &mut String, header: &[&'static str], rows: &[Vec<String>]) {
        let widths: Vec<usize> = (0..header.len())
            .map(|at| {
                let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
                cells.chain([header[at].len()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (cell, width) in cells.zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            format!("    {}\n", line.trim_end())
        };
        text.push_str(&self.paint.dim(&line(&mut header.iter().copied())));
        for row in rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
    }

    fn bars(&self, text: &mut String, bars: &[(String, usize)]) {
        let label_width = bars.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let most = bars.iter().map(|&(_, count)| count).max().unwrap_or(0).max(1);
        let room = WIDTH - INDENT - label_width - 2 - 6;
        let full = if self.unicode { '█' } else { '#' };
        for (label, count) in bars {
            let bar: String = std::iter::repeat_n(full, count * room / most).collect();
            let _ = writeln!(text, "    {label:<label_width$}  {} {count:>4}", self.paint.accent(&bar));
        }
    }
}

/// Standard output may be gone (`demo | head`): then there is nobody to tell.
fn emit(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(colour: bool, unicode: bool) -> Stage {
        Stage { format: Format::Text, paint: Paint(colour), unicode, pending: false, steps: Vec::new() }
    }

    fn step() -> Step {
        Step {
            id: "spread",
            title: "Two hundred requests find three pods",
            explanation: "word ".repeat(60),
            evidence: vec![
                Evidence::Command {
                    pod: "client".into(),
                    command: format!("curl {}", "--option value ".repeat(12)),
                    output: vec!["s1".into()],
                },
                Evidence::Bars { caption: "requests".into(), bars: vec![("s1".into(), 66), ("s2".into(), 134)] },
                Evidence::Table {
                    caption: String::new(),
                    header: vec!["address", "pod"],
                    rows: vec![vec!["2001:db8:5:1:ffff:ffff:ffff:ffff".into(), "s1".into()]],
                },
            ],
            claims: vec![
                Claim::new("each pod serves its share", true, ""),
                Claim::new("none fails", false, "3 failed"),
            ],
        }
    }

    #[test]
    fn no_line_of_a_step_is_longer_than_80_columns() {
        for unicode in [true, false] {
            for line in stage(false, unicode).text(&step()).lines() {
                assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
            }
        }
    }

    #[test]
    fn escape_sequences_are_for_terminals_alone() {
        assert!(!stage(false, true).text(&step()).contains('\x1b'));
        assert!(stage(true, true).text(&step()).contains('\x1b'));
    }

    #[test]
    fn output_without_utf8_is_ascii() {
        assert!(stage(false, false).text(&step()).is_ascii());
    }

    #[test]
    fn a_claim_that_failed_says_what_was_seen_and_one_that_held_does_not() {
        let text = stage(false, false).text(&step());
        assert!(text.contains("FAILED  none fails: 3 failed"));
        assert!(text.contains("ok  each pod serves its share\n"));
    }

    #[test]
    fn the_longest_bar_fills_the_room_and_the_others_are_in_proportion() {
        let mut text = String::new();
        stage(false, false).bars(&mut text, &[("s1".into(), 50), ("s2".into(), 100)]);
        let lengths: Vec<usize> = text.lines().map(|line| line.matches('#').count()).collect();
        assert_eq!(lengths, [33, 66]);
    }
}
