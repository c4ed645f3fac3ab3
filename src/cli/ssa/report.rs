//! Answers of `funicular ssa`, for reading at 80 columns and as JSON.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use serde_json::{Value, json};

use super::given::Subject;
use super::picture::{self, PREFIX, SHARED};
use crate::model::ssa::{self, Expected, Explanation, FieldPart, Missing, PrefixPart, Rule, Verdict, Wrong};

/// What text keeps to.
const COLUMNS: usize = 80;

pub(super) fn print_json(value: &Value) {
    println!("{value:#}");
}

/// An address that was checked against all rules, and explained by the one in use.
pub(super) struct Checked<'s> {
    subject: &'s Subject,
    rule: &'s Rule,
    explanation: Explanation,
    outcome: Result<(), Wrong>,
}

impl<'s> Checked<'s> {
    /// Explained by a rule that it fits, otherwise by the rule in use, otherwise by the first.
    pub(super) fn new(subject: &'s Subject, destination: Ipv6Addr) -> Self {
        let known = subject.known();
        let fits = |rule: &&Rule| rule.check(&subject.space, destination, &known).is_ok();
        let rule = subject.current().into_iter().chain(&subject.rules).find(fits);
        let rule = rule.or(subject.current()).unwrap_or(&subject.rules[0]);
        let explanation = rule.explain(&subject.space, destination, &known);
        let outcome = ssa::check_any(&subject.rules, &subject.space, destination, &known);
        Self { subject, rule, explanation, outcome }
    }

    pub(super) fn is_right(&self) -> bool {
        self.outcome.is_ok()
    }
}

/// The answer of `compute`.
pub(super) fn computed(subject: &Subject, rule: &Rule, address: Ipv6Addr, replica: u8) -> Value {
    json!({
        "address": address,
        "replica": replica,
        "rule": rule.text(),
        "prefix": subject.space.prefix_of(address).map(|prefix| prefix.to_string()),
        "slice": rule.slice_of(&subject.space, address).map(|slice| slice.to_string()),
        "now": subject.now.0,
    })
}

/// The answer of `check`.
pub(super) fn checked_json(checked: &Checked<'_>) -> Value {
    json!({
        "right": checked.is_right(),
        "wrong": checked.outcome.err().map(|Wrong(name)| name),
        "explanation": explained_json(checked.subject, checked.rule, &checked.explanation),
    })
}

/// The answer of `check`: one line when the address is right, else what is wrong and what was expected.
pub(super) fn checked_text(checked: &Checked<'_>) -> String {
    let explanation = &checked.explanation;
    let mut text = String::new();
    match checked.outcome {
        Ok(()) => {
            text.push_str("right\n");
            for (field, missing) in not_checked(explanation) {
                _ = writeln!(text, "  {field} is not checked: {}", lacks(missing));
            }
        }
        Err(Wrong("prefix")) => {
            text.push_str("wrong: prefix\n");
            let found = explanation.prefix.found.map_or("none".into(), |prefix| prefix.to_string());
            _ = writeln!(text, "  found     {found}");
            lines(&mut text, "  expected  ", &expected_prefixes(&explanation.prefix, checked.subject));
            lines(&mut text, "  because   ", &wrapped(&explanation.prefix.origin, COLUMNS - 12));
        }
        Err(Wrong(name)) => {
            _ = writeln!(text, "wrong: {name}");
            for field in explanation.fields.iter().filter(|field| field.verdict == Verdict::Wrong).take(1) {
                _ = writeln!(text, "  field     {}, bits {} of the address", field.text, bits(field));
                _ = writeln!(text, "  found     {}", hex(field, field.value));
                lines(&mut text, "  expected  ", &expected_numbers(field));
                lines(&mut text, "  from      ", &wrapped(&field.origin, COLUMNS - 12));
            }
        }
    }
    text
}

/// The answer of `explain`.
pub(super) fn explained_json(subject: &Subject, rule: &Rule, explanation: &Explanation) -> Value {
    let prefix = &explanation.prefix;
    let expected_prefix =
        |(prefix, replica): &(ipnet::Ipv6Net, Option<u8>)| json!({ "prefix": prefix.to_string(), "replica": replica });
    json!({
        "address": explanation.destination,
        "rule": rule.text(),
        "source": subject.source,
        "now": subject.now.0,
        "epoch": rule.reads_time().then(|| rule.epoch(subject.now)),
        "slice": explanation.slice.map(|slice| slice.to_string()),
        "wrong": explanation.verdict().err().map(|Wrong(name)| name),
        "prefix": {
            "found": prefix.found.map(|prefix| prefix.to_string()),
            "verdict": verdict(prefix.verdict),
            "origin": prefix.origin,
            "expected": prefix.expected.iter().map(expected_prefix).collect::<Vec<_>>(),
        },
        "fields": explanation.fields.iter().map(field_json).collect::<Vec<_>>(),
    })
}

fn field_json(field: &FieldPart) -> Value {
    let expected = |expected: &Expected| json!({ "value": hex(field, expected.value), "replica": expected.replica, "epoch": expected.epoch });
    json!({
        "name": field.name,
        "field": field.text,
        "first_bit": field.bits.start,
        "bits": field.bits.len(),
        "value": hex(field, field.value),
        "verdict": verdict(field.verdict),
        "origin": field.origin,
        "expected": field.expected.iter().map(expected).collect::<Vec<_>>(),
    })
}

/// The answer of `explain`: what went in, the address with its digits marked, and a row for every part.
pub(super) fn explained_text(subject: &Subject, rule: &Rule, explanation: &Explanation) -> String {
    let mut text = format!("address  {}\n", explanation.destination);
    lines(&mut text, "rule     ", &wrapped(rule.text(), COLUMNS - 9));
    if let Some(source) = subject.source {
        _ = writeln!(text, "source   {source}");
    }
    if rule.reads_time() {
        let (now, epoch, step) = (subject.now.0, rule.epoch(subject.now), rule.step());
        _ = writeln!(text, "time     {now}, which is in epoch {epoch} (of {step} s)");
    }
    if let Some(slice) = explanation.slice {
        _ = writeln!(text, "slice    {slice}");
    }
    let ranges = ranges(explanation);
    let [digits, marks] = picture::draw(explanation.destination, &ranges);
    _ = writeln!(text, "\n         {digits}\n         {marks}\n");
    rows(&mut text, subject, explanation);
    if marks.contains(SHARED) {
        _ = writeln!(text, "{SHARED}  a digit that several fields share");
    }
    text
}

fn ranges(explanation: &Explanation) -> Vec<(std::ops::Range<u8>, char)> {
    let prefix = explanation.prefix.found.map(|prefix| (0..prefix.prefix_len(), PREFIX));
    let fields = explanation.fields.iter().enumerate().map(|(at, field)| (field.bits.clone(), picture::mark(at)));
    prefix.into_iter().chain(fields).collect()
}

/// The table: mark, bits, verdict, field, value; under each its origin, and under a wrong one what was expected.
fn rows(text: &mut String, subject: &Subject, explanation: &Explanation) {
    let widest = explanation.fields.iter().map(|field| field.text.len()).max().unwrap_or(0).clamp(6, 24);
    _ = writeln!(text, "   bits     verdict    {:widest$}  value", "field");
    let prefix = &explanation.prefix;
    let (bits_of_prefix, found) = match prefix.found {
        Some(found) if found.prefix_len() > 0 => (format!("0-{}", found.prefix_len() - 1), found.to_string()),
        Some(found) => ("-".into(), found.to_string()),
        None => ("-".into(), "none".into()),
    };
    row(text, PREFIX, &bits_of_prefix, prefix.verdict, &format!("{:widest$}", "prefix"), &found);
    details(text, prefix.verdict, &prefix.origin, &expected_prefixes(prefix, subject));
    for (at, field) in explanation.fields.iter().enumerate() {
        let padded = format!("{:widest$}", field.text);
        row(text, picture::mark(at), &bits(field), field.verdict, &padded, &hex(field, field.value));
        let origin = match fitting(field) {
            Some(fitting) => format!("{}; {fitting}", field.origin),
            None => field.origin.clone(),
        };
        details(text, field.verdict, &origin, &expected_numbers(field));
    }
}

fn row(text: &mut String, mark: char, bits: &str, judged: Verdict, field: &str, value: &str) {
    let row = format!("{mark}  {bits:7}  {:9}  {field}  {value}", shown(judged));
    if row.len() <= COLUMNS {
        _ = writeln!(text, "{row}");
    } else {
        _ = writeln!(text, "{mark}  {bits:7}  {:9}  {}\n{ORIGIN}{value}", shown(judged), field.trim_end());
    }
}

/// The indent under a row.
const ORIGIN: &str = "                       ";

fn details(text: &mut String, judged: Verdict, origin: &str, expected: &[String]) {
    lines(text, ORIGIN, &wrapped(origin, COLUMNS - ORIGIN.len()));
    match judged {
        Verdict::Fits | Verdict::Free => {}
        Verdict::NotChecked(missing) => _ = writeln!(text, "{ORIGIN}not checked: {}", lacks(missing)),
        Verdict::Wrong => lines(text, &format!("{ORIGIN}expected "), expected),
    }
}

/// Which replica or epoch the value that stands there belongs to.
fn fitting(field: &FieldPart) -> Option<String> {
    let fits = |expected: &&Expected| field.verdict == Verdict::Fits && expected.value == field.value;
    let names = field.expected.iter().filter(fits).filter_map(name_of_choice).collect::<Vec<_>>();
    (!names.is_empty() && names.len() <= 4).then(|| names.join(" or "))
}

fn name_of_choice(expected: &Expected) -> Option<String> {
    let replica = expected.replica.map(|replica| format!("replica {replica}"));
    replica.or(expected.epoch.map(|epoch| format!("epoch {epoch}")))
}

/// The most values that text lists.
const LISTED: usize = 8;

fn expected_numbers(field: &FieldPart) -> Vec<String> {
    let one = |expected: &Expected| {
        let value = hex(field, expected.value);
        name_of_choice(expected).map_or(value.clone(), |name| format!("{value} ({name})"))
    };
    match field.expected.as_slice() {
        [] if field.name == "content" => vec!["a content key of one or more hexadecimal digits".into()],
        [] => wrapped(&field.origin, COLUMNS - ORIGIN.len() - "expected ".len()),
        some => listed(some.iter().map(one)),
    }
}

fn expected_prefixes(prefix: &PrefixPart, subject: &Subject) -> Vec<String> {
    if prefix.expected.is_empty() {
        return listed(subject.space.prefixes().iter().map(ToString::to_string));
    }
    listed(prefix.expected.iter().map(|(prefix, replica)| match replica {
        Some(replica) => format!("{prefix} (replica {replica})"),
        None => prefix.to_string(),
    }))
}

fn listed(all: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = all.len().saturating_sub(LISTED);
    let more = (more > 0).then(|| format!("and {more} more"));
    all.take(LISTED).chain(more).collect()
}

/// The first line after `first`, the others under it.
fn lines(text: &mut String, first: &str, lines: &[String]) {
    let mut before = first.to_owned();
    for line in lines {
        _ = writeln!(text, "{before}{line}");
        before = " ".repeat(first.len());
    }
}

/// `text` in lines of at most `width` columns where it can be broken: at a space, or after a comma.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in text.split_inclusive([' ', ',']) {
        let line = lines.last_mut().filter(|line| line.is_empty() || line.len() + piece.trim_end().len() <= width);
        match line {
            Some(line) => line.push_str(piece),
            None => lines.push(piece.into()),
        }
    }
    lines.into_iter().map(|line| line.trim_end().into()).collect()
}

fn not_checked(explanation: &Explanation) -> impl Iterator<Item = (&str, Missing)> {
    let prefix = ("prefix", explanation.prefix.verdict);
    let fields = explanation.fields.iter().map(|field| (field.text.as_str(), field.verdict));
    std::iter::once(prefix).chain(fields).filter_map(|(name, verdict)| match verdict {
        Verdict::NotChecked(missing) => Some((name, missing)),
        Verdict::Fits | Verdict::Free | Verdict::Wrong => None,
    })
}

fn bits(field: &FieldPart) -> String {
    match field.bits.len() {
        1 => field.bits.start.to_string(),
        _ => format!("{}-{}", field.bits.start, field.bits.end - 1),
    }
}

/// A number with as many digits as its field needs.
fn hex(field: &FieldPart, value: u128) -> String {
    format!("0x{value:0digits$x}", digits = field.bits.len().div_ceil(4))
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fits => "fits",
        Verdict::Free => "free",
        Verdict::NotChecked(_) => "unchecked",
        Verdict::Wrong => "wrong",
    }
}

/// The same for an eye that looks for what is wrong.
fn shown(seen: Verdict) -> &'static str {
    match seen {
        Verdict::Wrong => "WRONG",
        Verdict::Fits | Verdict::Free | Verdict::NotChecked(_) => verdict(seen),
    }
}

fn lacks(missing: Missing) -> &'static str {
    match missing {
        Missing::Source => "no --source",
        Missing::ContentKey => "no --content",
        Missing::Secret => "no --secret",
        Missing::Time => "no --now",
    }
}
