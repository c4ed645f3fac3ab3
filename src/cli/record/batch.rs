//! Batches from a file: JSON as the API takes it, or lines for people.
//!
//! ```text
//! # all of this, or nothing
//! zone shop.peak
//! require www AAAA 2001:db8::1          # exactly these
//! require absent new                    # also: present NAME [TYPE], absent NAME [TYPE]
//! add www 60 AAAA 2001:db8::2           # a TTL of - keeps the set's own
//! replace @ - TXT "one string" "another"
//! replace @ - TXT second
//! remove old AAAA
//! ```
//!
//! `require` and `replace` are about whole sets: lines of one set, one after another, are one requirement or change.

use crate::wire::api::{Batch, Change, Changes, Require};

/// Why a file is no batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    /// It begins as JSON does, and is not the one expected.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A line that says nothing.
    #[error("line {line}: expected {expected}")]
    Line {
        /// From 1.
        line: usize,
        /// What would be right.
        expected: &'static str,
    },
    /// Nothing in it.
    #[error("there is no change in it")]
    Empty,
}

const COMMANDS: &str = "zone, require, add, replace or remove";

/// Reads a file.
pub(super) fn read(text: &str) -> Result<Batch, BatchError> {
    if text.trim_start().starts_with('{') {
        return Ok(serde_json::from_str(text)?);
    }
    let mut zones: Vec<Changes> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fault = |expected| BatchError::Line { line: at + 1, expected };
        let (command, rest) = word(line);
        if command == "zone" {
            let (zone, rest) = word(rest);
            if zone.is_empty() || !rest.is_empty() {
                return Err(fault("zone NAME"));
            }
            zones.push(Changes { zone: zone.to_owned(), ..Changes::default() });
            continue;
        }
        let zone = zones.last_mut().ok_or_else(|| fault("a line \"zone NAME\" before anything else"))?;
        match command {
            "require" => push_require(&mut zone.require, require(rest).map_err(fault)?),
            "add" | "replace" => push_change(&mut zone.changes, set(command, rest).map_err(fault)?),
            "remove" => zone.changes.push(remove(rest).map_err(fault)?),
            _ => return Err(fault(COMMANDS)),
        }
    }
    if zones.iter().all(|zone| zone.changes.is_empty()) {
        return Err(BatchError::Empty);
    }
    Ok(Batch { zones, dry_run: false })
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

fn given(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn require(rest: &str) -> Result<Require, &'static str> {
    const EXPECTED: &str = "require NAME TYPE DATA, require present NAME [TYPE] or require absent NAME [TYPE]";
    let (first, rest) = word(rest);
    let (second, rest) = word(rest);
    match first {
        "present" | "absent" => {
            let (rtype, rest) = word(rest);
            let name = given(second).filter(|_| rest.is_empty()).ok_or(EXPECTED)?;
            let rtype = given(rtype);
            Ok(if first == "present" { Require::Present { name, rtype } } else { Require::Absent { name, rtype } })
        }
        _ => Ok(Require::Exactly {
            name: first.to_owned(),
            rtype: given(second).ok_or(EXPECTED)?,
            data: vec![given(rest).ok_or(EXPECTED)?],
        }),
    }
}

/// Adds a requirement, to the one before where both are of the same set.
fn push_require(all: &mut Vec<Require>, next: Require) {
    if let (
        Some(Require::Exactly { name, rtype, data }),
        Require::Exactly { name: next_name, rtype: next_type, data: more },
    ) = (all.last_mut(), &next)
        && (&*name, &*rtype) == (next_name, next_type)
    {
        data.extend_from_slice(more);
        return;
    }
    all.push(next);
}

/// Adds a change, to the one before where both replace the same set.
fn push_change(all: &mut Vec<Change>, next: Change) {
    if let (
        Some(Change::Replace { name, rtype, ttl, data }),
        Change::Replace { name: next_name, rtype: next_type, ttl: next_ttl, data: more },
    ) = (all.last_mut(), &next)
        && (&*name, &*rtype, *ttl) == (next_name, next_type, *next_ttl)
    {
        data.extend_from_slice(more);
        return;
    }
    all.push(next);
}

fn set(command: &str, rest: &str) -> Result<Change, &'static str> {
    const EXPECTED: &str = "NAME TTL TYPE DATA, where a TTL of - keeps the set's own";
    let (name, rest) = word(rest);
    let (ttl, rest) = word(rest);
    let (rtype, data) = word(rest);
    let ttl = if ttl == "-" { None } else { Some(ttl.parse().map_err(|_| EXPECTED)?) };
    let (name, rtype) = (name.to_owned(), given(rtype).ok_or(EXPECTED)?);
    let data = vec![given(data).ok_or(EXPECTED)?];
    Ok(match command {
        "add" => Change::Add { name, rtype, ttl, data },
        _ => Change::Replace { name, rtype, ttl, data },
    })
}

fn remove(rest: &str) -> Result<Change, &'static str> {
    let (name, rest) = word(rest);
    let (rtype, data) = word(rest);
    let name = given(name).ok_or("remove NAME [TYPE [DATA]]")?;
    Ok(Change::Remove { name, rtype: given(rtype), data: given(data).into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_json_say_the_same() {
        let lines = "# all or nothing\nzone shop.peak\nrequire www A 192.0.2.1\nrequire www A 192.0.2.4\nrequire absent new\n\n\
                     require present @ MX\nadd www 60 TXT \"a  b\" c\nreplace @ - A 192.0.2.2\nreplace @ - A 192.0.2.5\n\
                     replace @ 5 A 192.0.2.6\nremove old\nremove old A\n\
                     zone other.peak\nremove x A 192.0.2.3\n";
        let json = r#"{"zones":[{"zone":"shop.peak","require":[
            {"that":"exactly","name":"www","type":"A","data":["192.0.2.1","192.0.2.4"]},{"that":"absent","name":"new"},
            {"that":"present","name":"@","type":"MX"}],"changes":[
            {"do":"add","name":"www","type":"TXT","ttl":60,"data":["\"a  b\" c"]},
            {"do":"replace","name":"@","type":"A","data":["192.0.2.2","192.0.2.5"]},
            {"do":"replace","name":"@","type":"A","ttl":5,"data":["192.0.2.6"]},
            {"do":"remove","name":"old"},{"do":"remove","name":"old","type":"A"}]},
            {"zone":"other.peak","changes":[{"do":"remove","name":"x","type":"A","data":["192.0.2.3"]}]}]}"#;
        assert_eq!(read(lines).unwrap(), read(json).unwrap());
    }

    #[test]
    fn a_faulty_line_is_told_with_its_number() {
        for (text, start) in [
            ("add www 60 A 192.0.2.1", "line 1: expected a line \"zone"),
            ("zone", "line 1: expected zone NAME"),
            ("zone a b", "line 1: expected zone NAME"),
            ("zone a\ndrop x", "line 2: expected zone, require"),
            ("zone a\nadd www A 192.0.2.1", "line 2: expected NAME TTL"),
            ("zone a\nadd www 60 A", "line 2: expected NAME TTL"),
            ("zone a\nremove", "line 2: expected remove NAME"),
            ("zone a\nrequire www A", "line 2: expected require"),
            ("zone a\nrequire absent", "line 2: expected require"),
            ("zone a\n# nothing\n", "there is no change in it"),
            ("{", "EOF while parsing"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with(start), "{text:?}: {error}");
        }
    }
}
