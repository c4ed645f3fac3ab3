//! `funicular ssa vectors`: runs test vectors made by an independent implementation (SSA.md §5).
//!
//! Every compute, check, malformed and well-formed entry is one assertion.

use std::net::Ipv6Addr;
use std::path::Path;
use std::process::ExitCode;

use ipnet::Ipv6Net;
use serde::Deserialize;
use serde_json::json;

use super::given::{UsageError, octets};
use super::report::print_json;
use crate::model::UnixSeconds;
use crate::model::ssa::{AplItem, ComputeError, Inputs, Known, Rule, Secret, Space, Wrong};
use crate::ops::output::Format;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    malformed: Vec<Listed>,
    wellformed: Vec<Listed>,
}

#[derive(Deserialize)]
struct Case {
    rule: String,
    apl: Vec<String>,
    source: Ipv6Addr,
    content_hex: Hex,
    replica: u8,
    now: u64,
    secret_hex: Option<Hex>,
    compute: Compute,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Compute {
    Word(Word),
    Address { prefix: Ipv6Net, mask: Ipv6Addr, value: Ipv6Addr },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    RandomPrefix,
    Fails,
}

#[derive(Deserialize)]
struct Check {
    destination: Ipv6Addr,
    source: Option<Ipv6Addr>,
    now: Option<u64>,
    content_hex: Option<Hex>,
    secret_hex: Option<Hex>,
    wrong: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    rule: String,
    apl: Vec<String>,
}

/// Octets written as hexadecimal digits.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Hex(Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        octets(&text).map(Self).ok_or("expected two hexadecimal digits for each octet")
    }
}

impl Hex {
    fn secret(&self) -> Option<Secret> {
        self.0.as_slice().try_into().ok().map(Secret::new)
    }
}

/// The assertions so far.
#[derive(Default)]
struct Tally {
    passed: usize,
    failures: Vec<String>,
}

impl Tally {
    fn count(&mut self, place: impl Fn() -> String, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(difference) => self.failures.push(format!("{}: {difference}", place())),
        }
    }
}

/// Runs the file and prints the outcome.
///
/// # Errors
/// When the file cannot be read or is no file of vectors.
pub(super) fn run(file: &Path, format: Format) -> Result<ExitCode, UsageError> {
    let unusable = |cause: String| UsageError::value("FILE", &file.to_string_lossy(), cause);
    let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let vectors = serde_json::from_str(&text).map_err(|error| unusable(format!("expected test vectors, {error}")))?;
    let tally = tally(&vectors);
    let (passed, failed) = (tally.passed, tally.failures.len());
    match format {
        Format::Text => {
            for failure in &tally.failures {
                println!("FAILED {failure}");
            }
            println!("{passed} passed, {failed} failed");
        }
        Format::Json => print_json(&json!({ "passed": passed, "failed": failed, "failures": tally.failures })),
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tally(vectors: &Vectors) -> Tally {
    let mut tally = Tally::default();
    for (at, case) in vectors.cases.iter().enumerate() {
        case_tally(&mut tally, at, case);
    }
    for (at, listed) in vectors.malformed.iter().enumerate() {
        let outcome = match rule_of(&listed.rule, &listed.apl) {
            Err(Unreadable::Rule(_)) => Ok(()),
            Err(Unreadable::Space(cause)) => Err(cause),
            Ok(_) => Err(format!("expected the rule to be refused: {:?}", listed.rule)),
        };
        tally.count(|| format!("malformed[{at}]"), outcome);
    }
    for (at, listed) in vectors.wellformed.iter().enumerate() {
        let outcome = rule_of(&listed.rule, &listed.apl).map(|_| ()).map_err(Unreadable::into_text);
        tally.count(|| format!("wellformed[{at}]"), outcome);
    }
    tally
}

fn case_tally(tally: &mut Tally, at: usize, case: &Case) {
    let (space, rule) = match rule_of(&case.rule, &case.apl) {
        Ok(read) => read,
        Err(unreadable) => {
            let cause = unreadable.into_text();
            for _ in 0..=case.checks.len() {
                tally.count(|| format!("cases[{at}]"), Err(cause.clone()));
            }
            return;
        }
    };
    tally.count(|| format!("cases[{at}].compute"), computes(case, &space, &rule));
    for (number, check) in case.checks.iter().enumerate() {
        let secret = check.secret_hex.as_ref().and_then(Hex::secret);
        let known = Known {
            source: check.source,
            content: check.content_hex.as_ref().map(|hex| hex.0.as_slice()),
            secret: secret.as_ref(),
            now: check.now.map(UnixSeconds),
        };
        let found = rule.check(&space, check.destination, &known).err().map(|Wrong(name)| name);
        let outcome = if found == check.wrong.as_deref() {
            Ok(())
        } else {
            Err(format!("expected {}, found {}", word(check.wrong.as_deref()), word(found)))
        };
        tally.count(|| format!("cases[{at}].checks[{number}]"), outcome);
    }
}

fn word(wrong: Option<&str>) -> &str {
    wrong.unwrap_or("right")
}

/// How many times each address is computed, each time from other random bits.
const ROUNDS: u64 = 4;

/// Whether the rule computes what the case says, and its own check accepts that.
fn computes(case: &Case, space: &Space, rule: &Rule) -> Result<(), String> {
    let secret = case.secret_hex.as_ref().and_then(Hex::secret);
    let now = UnixSeconds(case.now);
    let inputs = Inputs { source: case.source, content: &case.content_hex.0, secret: secret.as_ref(), now };
    let known = Known {
        source: Some(case.source),
        content: Some(&case.content_hex.0),
        secret: secret.as_ref(),
        now: Some(now),
    };
    for round in 0..ROUNDS {
        let mut draw = repeatable_draws(round);
        let computed = rule.compute(space, &inputs, case.replica, &mut draw);
        compare(&case.compute, space, &computed)?;
        if let Ok(address) = computed {
            rule.check(space, address, &known)
                .map_err(|wrong| format!("computed {address}, whose {wrong} is wrong"))?;
        }
    }
    Ok(())
}

fn compare(expected: &Compute, space: &Space, found: &Result<Ipv6Addr, ComputeError>) -> Result<(), String> {
    match (expected, found) {
        (Compute::Word(Word::RandomPrefix), Ok(_) | Err(ComputeError::NoDraw)) => Ok(()),
        (Compute::Word(Word::Fails), Err(_)) => Ok(()),
        (Compute::Word(Word::Fails), Ok(address)) => Err(format!("expected no address, found {address}")),
        (Compute::Word(Word::RandomPrefix) | Compute::Address { .. }, Err(error)) => {
            Err(format!("expected an address, found: {error}"))
        }
        (Compute::Address { prefix, mask, value }, Ok(address)) => {
            let found = Ipv6Addr::from_bits(address.to_bits() & mask.to_bits());
            if found != *value {
                return Err(format!("expected {value} under {mask}, found {found}"));
            }
            match space.prefix_of(*address) {
                Some(found) if found == *prefix => Ok(()),
                Some(found) => Err(format!("expected the prefix {prefix}, found {found}")),
                None => Err(format!("computed {address}, which is not in the space")),
            }
        }
    }
}

/// SplitMix64: random enough to exercise a rule, and the same on every run.
fn repeatable_draws(seed: u64) -> impl FnMut() -> u128 {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    move || u128::from(next()) << 64 | u128::from(next())
}

/// Which of a vector's two texts could not be read.
enum Unreadable {
    Space(String),
    Rule(String),
}

impl Unreadable {
    fn into_text(self) -> String {
        match self {
            Self::Space(cause) => format!("expected a space: {cause}"),
            Self::Rule(cause) => format!("expected a rule: {cause}"),
        }
    }
}

fn rule_of(rule: &str, apl: &[String]) -> Result<(Space, Rule), Unreadable> {
    let space = AplItem::list(&apl.join(" ")).and_then(|items| Space::new(&items));
    let space = space.map_err(|error| Unreadable::Space(error.to_string()))?;
    let rule = Rule::parse(rule, &space).map_err(|error| Unreadable::Rule(error.to_string()))?;
    Ok((space, rule))
}
