//! The rule's text (the grammar of SSA.md §2). Anything that the grammar does not allow is refused, never guessed at.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::keyed_hash::Salt;
use super::layout::{Kind, Layout};
use super::{ContentSource, MalformedRule, Rule, Space, TokenMode, UnixSeconds};

/// Reads a rule for a space.
pub(super) fn rule(text: &str, space: &Space) -> Result<Rule, MalformedRule> {
    let mut words = text.split(' ');
    let version = words.next().unwrap_or_default();
    if version != "v=ssa1" {
        return Err(malformed(version, "expected the rule to begin with v=ssa1"));
    }
    let mut rule = with_defaults(text);
    let mut names = BTreeSet::from(["v"]);
    for word in words {
        let (name, value) = parameter(word, text)?;
        if !names.insert(name) {
            return Err(malformed(word, "expected each parameter once"));
        }
        set(&mut rule, name, value)?;
    }
    if rule.needs_secret() && rule.secret_id.is_none() {
        return Err(malformed("hop", "expected secret=ID beside a hop field"));
    }
    let host_bits = space.prefixes().iter().map(|prefix| 128 - prefix.prefix_len()).min().unwrap_or(0);
    if rule.layout.width() > host_bits {
        return Err(malformed("layout", "expected a layout no wider than the host part of the longest prefix"));
    }
    Ok(rule)
}

/// The rule that has no parameters.
fn with_defaults(text: &str) -> Rule {
    Rule {
        text: text.into(),
        // `random:64` cut to the host part says what no field at all says: every bit is random.
        layout: Layout::default(),
        salt: Salt([0; 16]),
        secret_id: None,
        step: 30,
        skew: 1,
        content: ContentSource::Path,
        replicas: 1,
        slice_bits: 14,
        token: TokenMode::Tunnel,
        generation: 0,
        from: UnixSeconds(0),
    }
}

/// Takes `name=value` apart.
fn parameter<'t>(word: &'t str, text: &str) -> Result<(&'t str, &'t str), MalformedRule> {
    if word.is_empty() {
        return Err(malformed(text, "expected single spaces, between parameters only,"));
    }
    let Some((name, value)) = word.split_once('=') else {
        return Err(malformed(word, "expected name=value"));
    };
    if name.is_empty() || !name.bytes().all(|octet| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Err(malformed(word, "expected a name of a-z, 0-9 and - before ="));
    }
    if value.is_empty() || !value.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(malformed(word, "expected a value of visible ASCII after ="));
    }
    Ok((name, value))
}

/// Takes one parameter over into the rule; unknown ones are ignored.
fn set(rule: &mut Rule, name: &str, value: &str) -> Result<(), MalformedRule> {
    match name {
        "layout" => rule.layout = layout(value)?,
        "salt" => rule.salt = Salt(hex32(value).ok_or_else(|| malformed(value, "expected 32 hexadecimal digits"))?),
        "secret" => rule.secret_id = Some(value.into()),
        "step" => rule.step = within(value, 1..=u32::MAX, "expected step=1 to 4294967295")?,
        "skew" => rule.skew = within(value, 0..=16, "expected skew=0 to 16")?,
        "content" => rule.content = content_source(value)?,
        "replicas" => rule.replicas = within(value, 1..=256, "expected replicas=1 to 256")?,
        "slices" => rule.slice_bits = within(value, 0..=128, "expected slices=0 to 128")?,
        "token" => rule.token = token_mode(value)?,
        "gen" => rule.generation = within(value, 0..=u32::MAX, "expected gen=0 to 4294967295")?,
        "from" => rule.from = UnixSeconds(within(value, 0..=LATEST, "expected from=0 to 9223372036854775807")?),
        _ => {}
    }
    Ok(())
}

/// The latest `from`: 2⁶³−1.
const LATEST: u64 = i64::MAX as u64;

fn layout(text: &str) -> Result<Layout, MalformedRule> {
    let fields = text.split(',').map(field).collect::<Result<Vec<_>, _>>()?;
    if fields.iter().filter(|(kind, _)| matches!(kind, Kind::Work { .. })).count() > 1 {
        return Err(malformed(text, "expected at most one work field"));
    }
    Layout::new(fields).ok_or_else(|| malformed(text, "expected a layout of at most 128 bits"))
}

/// Reads one field: what fills it, and its width in bits.
fn field(text: &str) -> Result<(Kind, u8), MalformedRule> {
    let (name, arguments) = text.split_once(':').ok_or_else(|| malformed(text, "expected field:arguments"))?;
    let read = match name {
        "random" => width(arguments, 128).map(|width| (Kind::Random, width)),
        "fixed" => fixed(arguments),
        "source" => source(arguments),
        "source-hash" => {
            two(arguments, 64, 1..=128).map(|(width, source_bits)| (Kind::SourceHash { source_bits }, width))
        }
        "content" => width(arguments, 128).map(|width| (Kind::Content, width)),
        "content-hash" => width(arguments, 64).map(|width| (Kind::ContentHash, width)),
        "hop" => width(arguments, 64).map(|width| (Kind::Hop, width)),
        "work" => two(arguments, 128, 0..=64).map(|(width, zero_bits)| (Kind::Work { zero_bits }, width)),
        _ => return Err(malformed(text, "expected a field that SSA version 1 knows")),
    };
    let expected = match name {
        "random" | "content" => "expected N, 1 to 128 bits, after the field's name",
        "content-hash" | "hop" => "expected N, 1 to 64 bits, after the field's name",
        "fixed" => "expected fixed:N/HEX, N 1 to 128, HEX 1 to 32 digits of a number that fits in N bits",
        "source" => "expected source:A-B with A less than B and B at most 128",
        "source-hash" => "expected source-hash:N/P with N 1 to 64 and P 1 to 128",
        _ => "expected work:N/D with N 1 to 128 and D 0 to 64",
    };
    read.ok_or_else(|| malformed(text, expected))
}

fn width(text: &str, most: u8) -> Option<u8> {
    number(text, 1..=most)
}

/// `N/M`, N from 1 to `most`.
fn two(text: &str, most: u8, second: RangeInclusive<u8>) -> Option<(u8, u8)> {
    let (first, rest) = text.split_once('/')?;
    Some((width(first, most)?, number(rest, second)?))
}

fn fixed(text: &str) -> Option<(Kind, u8)> {
    let (first, hex) = text.split_once('/')?;
    let width = width(first, 128)?;
    let digits = (1..=32).contains(&hex.len()) && hex.bytes().all(|octet| octet.is_ascii_hexdigit());
    let number = digits.then(|| u128::from_str_radix(hex, 16).ok()).flatten()?;
    (number.checked_shr(width.into()).unwrap_or(0) == 0).then_some((Kind::Fixed { number }, width))
}

fn source(text: &str) -> Option<(Kind, u8)> {
    let (first, end) = text.split_once('-')?;
    let (first, end) = (number(first, 0..=127)?, number(end, 1..=128)?);
    (first < end).then(|| (Kind::Source { first }, end - first))
}

fn content_source(text: &str) -> Result<ContentSource, MalformedRule> {
    let read = match text.split_once(':') {
        None => match text {
            "path" => Some(ContentSource::Path),
            "host" => Some(ContentSource::Host),
            "label" => Some(ContentSource::Label),
            _ => None,
        },
        Some((_, "")) => None,
        Some(("segment", at)) => number(at, 1..=255).map(ContentSource::Segment),
        Some(("query", name)) => Some(ContentSource::Query(name.into())),
        Some(("header", name)) => Some(ContentSource::Header(name.into())),
        Some(_) => None,
    };
    read.ok_or_else(|| malformed(text, "expected path, segment:1 to 255, query:NAME, header:NAME, host or label"))
}

fn token_mode(text: &str) -> Result<TokenMode, MalformedRule> {
    match text {
        "tunnel" => Ok(TokenMode::Tunnel),
        "pp2" => Ok(TokenMode::Pp2),
        "header" => Ok(TokenMode::Header),
        "none" => Ok(TokenMode::None),
        _ => Err(malformed(text, "expected token=tunnel, pp2, header or none")),
    }
}

fn within<T: TryFrom<u64> + PartialOrd>(
    text: &str,
    range: RangeInclusive<T>,
    expected: &'static str,
) -> Result<T, MalformedRule> {
    number(text, range).ok_or_else(|| malformed(text, expected))
}

/// A `number` of the grammar, in `range`.
fn number<T: TryFrom<u64> + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    // `str::parse` would also take a sign and leading zeros.
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|octet| octet.is_ascii_digit()));
    let number = canonical.then(|| text.parse::<u64>().ok()).flatten()?;
    T::try_from(number).ok().filter(|number| range.contains(number))
}

/// 16 octets as 32 hexadecimal digits of either case.
fn hex32(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok()).flatten().map(u128::to_be_bytes)
}

fn malformed(part: &str, reason: &'static str) -> MalformedRule {
    MalformedRule { part: part.chars().take(64).collect(), reason }
}
