//! An address taken apart for people: every field with its bits, where they come from, and what was expected.
//!
//! The verdicts are those of [`Rule::check`], made by the same [`Examination`]; only where that one stops at the
//! first thing wrong, this goes on and says the rest as well.

use std::net::Ipv6Addr;
use std::ops::Range;

use ipnet::Ipv6Net;

use super::check::{Examination, Verdict};
use super::keyed_hash;
use super::layout::{Decider, Field, Kind};
use super::{Known, Rule, Space, Wrong, hex_key};

/// A destination taken apart.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The address that is explained.
    pub destination: Ipv6Addr,
    /// Its prefix.
    pub prefix: PrefixPart,
    /// The slice it lies in; none outside the space.
    pub slice: Option<Ipv6Net>,
    /// The fields in layout order, then what is left of the host part; none outside the space.
    pub fields: Vec<FieldPart>,
}

/// The prefix of a destination.
#[derive(Clone, Debug)]
pub struct PrefixPart {
    /// The prefix of the space around the destination, even where a negated item cuts the destination out.
    pub found: Option<Ipv6Net>,
    /// Whether the rule picks it.
    pub verdict: Verdict,
    /// What picks it, in words.
    pub origin: String,
    /// The prefixes that would have been right, each with its replica where that matters. Empty when any is.
    pub expected: Vec<(Ipv6Net, Option<u8>)>,
}

/// One field of a destination.
#[derive(Clone, Debug)]
pub struct FieldPart {
    /// The field's name, as [`Wrong`] gives it.
    pub name: &'static str,
    /// The field as a rule writes it.
    pub text: String,
    /// Its bits of the address, counted from the most significant one.
    pub bits: Range<u8>,
    /// The number that stands there.
    pub value: u128,
    /// Whether that is right.
    pub verdict: Verdict,
    /// Where the number comes from, in words.
    pub origin: String,
    /// The numbers that are right by what fitted before. Empty when any is, when the inputs to tell are lacking, and
    /// for `work`.
    pub expected: Vec<Expected>,
}

/// A number that would be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expected {
    /// The number.
    pub value: u128,
    /// The replica it is for, where it matters.
    pub replica: Option<u8>,
    /// The epoch it is for, where it matters.
    pub epoch: Option<u64>,
}

impl Explanation {
    /// What [`Rule::check`] says about the same destination.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verdict(&self) -> Result<(), Wrong> {
        let prefix = (self.prefix.verdict, "prefix");
        let fields = self.fields.iter().map(|field| (field.verdict, field.name));
        let wrong = std::iter::once(prefix).chain(fields).find(|(verdict, _)| *verdict == Verdict::Wrong);
        wrong.map_or(Ok(()), |(_, name)| Err(Wrong(name)))
    }
}

impl Rule {
    /// Takes a destination apart by this rule.
    #[must_use]
    pub fn explain(&self, space: &Space, destination: Ipv6Addr, known: &Known<'_>) -> Explanation {
        let Some(mut examination) = Examination::begin(self, space, destination, known) else {
            return Explanation { destination, prefix: outside(space, destination), slice: None, fields: Vec::new() };
        };
        let prefix = prefix_part(&mut examination);
        let length = examination.block().length;
        let mut fields: Vec<FieldPart> =
            self.layout.fields().iter().map(|field| field_part(&mut examination, field, length)).collect();
        fields.extend(rest(&examination, length));
        Explanation { destination, prefix, slice: self.slice_of(space, destination), fields }
    }
}

fn outside(space: &Space, destination: Ipv6Addr) -> PrefixPart {
    let found = space.prefix_around(destination.to_bits()).map(|at| space.prefixes()[at]);
    let origin = if found.is_some() {
        "a negated APL item cuts this address out of the space"
    } else {
        "no prefix of the space holds this address"
    };
    PrefixPart { found, verdict: Verdict::Wrong, origin: origin.into(), expected: Vec::new() }
}

fn prefix_part(examination: &mut Examination<'_>) -> PrefixPart {
    let (rule, space, before) = (examination.rule, examination.space, *examination);
    let verdict = examination.judge_prefix();
    let count = space.prefixes().len();
    let decider = if count == 1 { None } else { rule.layout.decider() };
    let origin = match decider {
        None if count == 1 => "the only prefix of the space".into(),
        None => format!("one of {count} prefixes, at random"),
        Some(Decider::Source { source_bits }) => {
            format!("the best of {count} by H(salt, prefix, first {source_bits} bits of the source)")
        }
        Some(Decider::Content) => format!("the best of {count} by H(salt, prefix, replica, content key)"),
    };
    let chosen = |source, content: &[u8], replica| {
        let block = rule.choose_prefix(space, source, content, replica)?;
        space.prefix_around(block.first).map(|at| space.prefixes()[at])
    };
    let known = examination.known;
    let expected = match (decider, known.source, known.content) {
        (Some(Decider::Source { .. }), Some(source), _) => {
            chosen(source.to_bits(), &[], 0).map(|prefix| (prefix, None)).into_iter().collect()
        }
        (Some(Decider::Content), _, Some(key)) => {
            before.replicas().iter().filter_map(|replica| Some((chosen(0, key, replica)?, Some(replica)))).collect()
        }
        (None | Some(Decider::Source { .. } | Decider::Content), _, _) => Vec::new(),
    };
    if verdict == Verdict::Wrong {
        *examination = before;
    }
    PrefixPart { found: Some(space.prefixes()[examination.prefix]), verdict, origin, expected }
}

fn field_part(examination: &mut Examination<'_>, field: &Field, length: u8) -> FieldPart {
    let before = *examination;
    let verdict = examination.judge(field);
    if verdict == Verdict::Wrong {
        // What is wrong narrows nothing, so that the fields after it are judged by themselves.
        *examination = before;
    }
    let first = length.saturating_add(field.offset);
    FieldPart {
        name: field.name(),
        text: field.to_string(),
        bits: first..first.saturating_add(field.width),
        value: field.number_in(before.host),
        verdict,
        origin: origin(before.rule, field),
        expected: expected(&before, field),
    }
}

/// The bits that no field fills.
fn rest(examination: &Examination<'_>, length: u8) -> Option<FieldPart> {
    let filled = examination.rule.layout.width();
    let width = (128 - length).checked_sub(filled).filter(|&width| width > 0)?;
    let field = Field::at(Kind::Random, filled, width);
    Some(FieldPart {
        name: field.name(),
        text: field.to_string(),
        bits: length + filled..128,
        value: field.number_in(examination.host),
        verdict: Verdict::Free,
        origin: "drawn at random, as no field fills these bits".into(),
        expected: Vec::new(),
    })
}

fn origin(rule: &Rule, field: &Field) -> String {
    match field.kind {
        Kind::Random => "drawn at random".into(),
        Kind::Fixed { .. } => "the number in the rule".into(),
        Kind::Source { first } => format!("bits {first} to {} of the source", first + (field.width - 1)),
        Kind::SourceHash { source_bits } => format!("H(salt, first {source_bits} bits of the source)"),
        Kind::Content => "the content key's hexadecimal digits, from the left".into(),
        Kind::ContentHash => "H(salt, replica, content key)".into(),
        Kind::Hop => {
            format!("H(secret {:?}, epoch, first 64 bits of the source)", rule.secret_id().unwrap_or_default())
        }
        Kind::Work { zero_bits } => {
            format!("a number for which H(salt, source, destination, epoch) begins with {zero_bits} zeros")
        }
    }
}

fn expected(examination: &Examination<'_>, field: &Field) -> Vec<Expected> {
    let (rule, known) = (examination.rule, examination.known);
    let source = known.source.map(Ipv6Addr::to_bits);
    let one = |value: Option<u128>| match value {
        None => Vec::new(),
        Some(value) => vec![Expected { value: number(field, value), replica: None, epoch: None }],
    };
    match field.kind {
        Kind::Random | Kind::Work { .. } => Vec::new(),
        Kind::Fixed { number } => vec![Expected { value: number, replica: None, epoch: None }],
        Kind::Source { first } => one(source.map(|source| source << first)),
        Kind::SourceHash { source_bits } => {
            one(source.map(|source| keyed_hash::source(&rule.salt, source, source_bits)))
        }
        Kind::Content => one(known.content.and_then(hex_key::first_bits)),
        Kind::ContentHash => known.content.map_or_else(Vec::new, |key| {
            let value = |replica| number(field, keyed_hash::content(&rule.salt, replica, key));
            let one = |replica| Expected { value: value(replica), replica: Some(replica), epoch: None };
            examination.replicas().iter().map(one).collect()
        }),
        Kind::Hop => match (source, known.secret, known.now) {
            (Some(source), Some(secret), Some(now)) => {
                let epochs = examination.epochs(now);
                let value = |epoch| number(field, keyed_hash::hop(secret, epoch, source));
                epochs.iter().map(|epoch| Expected { value: value(epoch), replica: None, epoch: Some(epoch) }).collect()
            }
            _ => Vec::new(),
        },
    }
}

/// The first bits of `value` as the field's number.
fn number(field: &Field, value: u128) -> u128 {
    field.number_in(field.place(value))
}
