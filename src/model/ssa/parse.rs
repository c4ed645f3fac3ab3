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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::AplItem;
    use super::*;

    fn parse(text: &str) -> Result<Rule, MalformedRule> {
        rule(text, &space("2:2001:db8:5:1::/64"))
    }

    fn space(items: &str) -> Space {
        Space::new(&AplItem::list(items).unwrap()).unwrap()
    }

    #[test]
    fn a_rule_without_parameters_has_the_defaults() {
        let rule = parse("v=ssa1").unwrap();
        assert_eq!((rule.step(), rule.skew(), rule.replicas(), rule.slice_bits()), (30, 1, 1, 14));
        assert_eq!((rule.generation(), rule.from()), (0, UnixSeconds(0)));
        assert_eq!((rule.token_mode(), rule.content_source()), (TokenMode::Tunnel, &ContentSource::Path));
        assert_eq!((rule.secret_id(), rule.salt, rule.work_bits()), (None, Salt([0; 16]), None));
        assert!(!rule.reads_source() && !rule.reads_content() && !rule.reads_time() && !rule.needs_secret());
    }

    #[test]
    fn every_parameter_is_taken_over() {
        let text = "v=ssa1 from=9223372036854775807 gen=4294967295 token=pp2 slices=128 replicas=256 \
                    content=header:X-Key skew=16 step=4294967295 secret=s1 salt=000102030405060708090A0b0c0d0e0f \
                    layout=hop:8,work:8/3";
        let rule = parse(text).unwrap();
        assert_eq!((rule.step(), rule.skew(), rule.replicas(), rule.slice_bits()), (u32::MAX, 16, 256, 128));
        assert_eq!((rule.generation(), rule.from()), (u32::MAX, UnixSeconds(i64::MAX as u64)));
        assert_eq!((rule.token_mode(), rule.secret_id()), (TokenMode::Pp2, Some("s1")));
        assert_eq!(rule.content_source(), &ContentSource::Header("X-Key".into()));
        assert_eq!(rule.salt, Salt(std::array::from_fn(|at| at as u8)));
        assert_eq!((rule.work_bits(), rule.text()), (Some(3), text));
        assert!(rule.reads_source() && rule.reads_time() && rule.needs_secret() && !rule.reads_content());
    }

    #[test]
    fn every_field_is_read_as_it_is_written() {
        let text = "random:3,fixed:5/1f,source:60-64,source-hash:6/48,content:7,content-hash:8,hop:9,work:10/64";
        let rule = parse(&format!("v=ssa1 secret=s layout={text}")).unwrap();
        let written: Vec<String> = rule.layout.fields().iter().map(ToString::to_string).collect();
        assert_eq!(written.join(","), text);
    }

    #[test]
    fn content_sources_are_told_apart() {
        let read = |text: &str| parse(&format!("v=ssa1 content={text}")).map(|rule| rule.content);
        assert_eq!(read("path").unwrap(), ContentSource::Path);
        assert_eq!(read("segment:255").unwrap(), ContentSource::Segment(255));
        assert_eq!(read("query:a:b").unwrap(), ContentSource::Query("a:b".into()));
        assert_eq!(read("host").unwrap(), ContentSource::Host);
        assert_eq!(read("label").unwrap(), ContentSource::Label);
        for text in ["segment:0", "segment:256", "segment", "query:", "query", "host:x", "path:", "Path", "x:y"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        for (within, past) in [
            ("layout=random:64", "layout=random:65"),
            ("layout=random:1", "layout=random:0"),
            ("layout=source-hash:64/128", "layout=source-hash:64/129"),
            ("layout=source-hash:1/1", "layout=source-hash:1/0"),
            ("layout=source:127-128", "layout=source:127-129"),
            ("layout=source:64-65", "layout=source:65-65"),
            ("layout=fixed:4/f", "layout=fixed:4/10"),
            ("layout=fixed:4/0000000000000000000000000000000f", "layout=fixed:4/00000000000000000000000000000000f"),
            ("layout=work:64/0", "layout=work:65/0"),
            ("layout=work:8/64", "layout=work:8/65"),
            ("step=1", "step=0"),
            ("step=4294967295", "step=4294967296"),
            ("skew=16", "skew=17"),
            ("replicas=256", "replicas=257"),
            ("slices=128", "slices=129"),
            ("gen=4294967295", "gen=4294967296"),
            ("from=9223372036854775807", "from=9223372036854775808"),
            ("gen=0", "gen=00"),
            ("gen=1", "gen=+1"),
            ("gen=1", "gen=١"),
        ] {
            assert!(parse(&format!("v=ssa1 {within}")).is_ok(), "{within}");
            assert!(parse(&format!("v=ssa1 {past}")).is_err(), "{past}");
        }
    }

    #[test]
    fn a_layout_may_fill_the_host_part_of_the_longest_prefix_and_no_more() {
        let mixed = space("2:2001:db8::/64 2:2001:db9::/112 2:2001:db8:0:0:1::/80");
        assert!(rule("v=ssa1 layout=random:16", &mixed).is_ok());
        assert!(rule("v=ssa1 layout=random:17", &mixed).is_err());
        let nested = space("2:2001:db8::/56 2:2001:db8::/120");
        assert!(rule("v=ssa1 layout=random:72", &nested).is_ok(), "an item inside a prefix is no prefix");
        assert!(rule("v=ssa1", &space("2:2001:db8::1/128")).is_ok(), "the default layout is cut to the host part");
        assert!(rule("v=ssa1 layout=fixed:128/ffffffffffffffffffffffffffffffff", &space("2:::/0")).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (text, message) in [
            ("v=ssa2", r#"expected the rule to begin with v=ssa1 at "v=ssa2""#),
            ("", r#"expected the rule to begin with v=ssa1 at """#),
            ("v=ssa1 ", r#"expected single spaces, between parameters only, at "v=ssa1 ""#),
            ("v=ssa1 layout", r#"expected name=value at "layout""#),
            ("v=ssa1 Gen=1", r#"expected a name of a-z, 0-9 and - before = at "Gen=1""#),
            ("v=ssa1 gen=", r#"expected a value of visible ASCII after = at "gen=""#),
            ("v=ssa1 x=\t", r#"expected a value of visible ASCII after = at "x=\t""#),
            ("v=ssa1 x=1 x=2", r#"expected each parameter once at "x=2""#),
            ("v=ssa1 v=ssa1", r#"expected each parameter once at "v=ssa1""#),
            ("v=ssa1 layout=magic:8", r#"expected a field that SSA version 1 knows at "magic:8""#),
            ("v=ssa1 layout=hop:8", r#"expected secret=ID beside a hop field at "hop""#),
            ("v=ssa1 layout=work:1/1,work:1/1", r#"expected at most one work field at "work:1/1,work:1/1""#),
            ("v=ssa1 token=pigeon", r#"expected token=tunnel, pp2, header or none at "pigeon""#),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }

    #[test]
    fn a_long_text_is_not_repeated_whole() {
        assert_eq!(parse(&"v".repeat(1_000)).unwrap_err().part.len(), 64);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            _ = parse(&text);
            _ = AplItem::list(&text);
        }

        #[test]
        fn no_text_of_nearly_the_right_shape_makes_the_parser_panic(
            words in prop::collection::vec("(v|layout|salt|content|gen|from|step|x)=[a-z0-9:/,+-]{0,20}", 0..6),
            fields in "((random|fixed|source|source-hash|content|hop|work):[0-9]{0,4}([/-][0-9a-f]{0,34})?,?){0,5}",
        ) {
            _ = parse(&format!("v=ssa1 {}", words.join(" ")));
            _ = parse(&format!("v=ssa1 secret=s layout={fields}"));
        }
    }
}
