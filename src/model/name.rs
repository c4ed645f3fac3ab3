//! Domain names.
//!
//! Owns the name's one form in this crate: the uncompressed wire form (RFC 1035 §3.1), case kept, compared without
//! case (RFC 4343). Invariant: 1 to 255 octets, labels of 1 to 63 octets, the root label last.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A fully qualified domain name in wire form.
///
/// Equality, order of hash and lookup ignore ASCII case; the spelling is kept for answers.
#[derive(Clone)]
pub struct Name(Box<[u8]>);

/// Why a text or an octet string is no domain name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Nothing between two dots, or a dot at the start.
    #[error("a label is empty")]
    EmptyLabel,
    /// RFC 1035 §2.3.4.
    #[error("a label is longer than 63 octets")]
    LabelTooLong,
    /// RFC 1035 §2.3.4.
    #[error("the name is longer than 255 octets")]
    NameTooLong,
    /// RFC 1035 §5.1: `\DDD` with DDD up to 255, or `\X` with X no digit.
    #[error("a backslash must be followed by three digits up to 255 or by one other character")]
    BadEscape,
    /// The octets end inside the name, or hold a compression pointer.
    #[error("the octets are no uncompressed name")]
    NotWire,
}

impl Name {
    /// The root, `.`.
    #[must_use]
    pub fn root() -> Self {
        Self(Box::from([0]))
    }

    /// A name from exactly its uncompressed wire form.
    ///
    /// # Errors
    /// [`NameError::NotWire`] when the octets are anything else, or the length errors.
    pub fn from_wire(octets: &[u8]) -> Result<Self, NameError> {
        let mut at = 0;
        loop {
            let length = usize::from(*octets.get(at).ok_or(NameError::NotWire)?);
            if length == 0 {
                break;
            }
            if length > 63 {
                return Err(NameError::NotWire);
            }
            at += length + 1;
        }
        if at + 1 != octets.len() {
            return Err(NameError::NotWire);
        }
        if octets.len() > 255 {
            return Err(NameError::NameTooLong);
        }
        Ok(Self(octets.into()))
    }

    /// The uncompressed wire form, in the spelling it came with.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels from the leftmost on, without the root's.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            if length == 0 {
                return None;
            }
            let (label, tail) = tail.split_at(usize::from(length));
            rest = tail;
            Some(label)
        })
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The name without its leftmost label; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let length = usize::from(self.0[0]);
        (length > 0).then(|| Self(self.0[length + 1..].into()))
    }

    /// Whether this name is `ancestor` or lies below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &Self) -> bool {
        self.ends_in(&ancestor.0)
    }

    /// Whether this name is the one with this uncompressed wire form or lies below it.
    #[must_use]
    pub fn ends_in(&self, ancestor: &[u8]) -> bool {
        let mut tail: &[u8] = &self.0;
        while tail.len() > ancestor.len() {
            tail = &tail[usize::from(tail[0]) + 1..];
        }
        tail.eq_ignore_ascii_case(ancestor)
    }

    /// `label` put before this name.
    ///
    /// # Errors
    /// When the label is empty or too long, or the result is.
    pub fn prefixed(&self, label: &[u8]) -> Result<Self, NameError> {
        let length = match label.len() {
            0 => return Err(NameError::EmptyLabel),
            length @ 1..=63 => length as u8,
            _ => return Err(NameError::LabelTooLong),
        };
        if self.0.len() + label.len() + 1 > 255 {
            return Err(NameError::NameTooLong);
        }
        let mut octets = Vec::with_capacity(self.0.len() + label.len() + 1);
        octets.push(length);
        octets.extend_from_slice(label);
        octets.extend_from_slice(&self.0);
        Ok(Self(octets.into()))
    }

    /// The same name in lower case, the form in which wire octets compare equal exactly when the names do.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        Self(self.0.to_ascii_lowercase().into())
    }

    /// Reads presentation form (RFC 1035 §5.1); a name without a final dot is completed with `origin`.
    ///
    /// # Errors
    /// The first rule of RFC 1035 that the text breaks.
    pub fn parse(text: &str, origin: &Self) -> Result<Self, NameError> {
        if text == "." {
            return Ok(Self::root());
        }
        if text == "@" {
            return Ok(origin.clone());
        }
        // As many as there will be unless there are escapes, so that nothing is moved.
        let completed = if text.ends_with('.') { 0 } else { origin.0.len() };
        let mut octets = Vec::with_capacity(text.len() + 1 + completed);
        let mut label_at = 0;
        octets.push(0);
        let mut chars = text.bytes();
        let mut absolute = false;
        while let Some(octet) = chars.next() {
            absolute = false;
            if octet == b'.' {
                close_label(&mut octets, label_at)?;
                label_at = octets.len();
                octets.push(0);
                absolute = true;
            } else if octet == b'\\' {
                octets.push(unescape(&mut chars)?);
            } else {
                octets.push(octet);
            }
        }
        if !absolute {
            close_label(&mut octets, label_at)?;
            octets.extend_from_slice(&origin.0);
        }
        if octets.len() > 255 {
            return Err(NameError::NameTooLong);
        }
        Ok(Self(octets.into()))
    }
}

/// Writes the length of the label that began at `label_at` and now ends the octets.
fn close_label(octets: &mut [u8], label_at: usize) -> Result<(), NameError> {
    let length = octets.len() - label_at - 1;
    octets[label_at] = match length {
        0 => return Err(NameError::EmptyLabel),
        1..=63 => length as u8,
        _ => return Err(NameError::LabelTooLong),
    };
    Ok(())
}

fn unescape(chars: &mut impl Iterator<Item = u8>) -> Result<u8, NameError> {
    let first = chars.next().ok_or(NameError::BadEscape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = chars.next().filter(u8::is_ascii_digit).ok_or(NameError::BadEscape)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::BadEscape)
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads presentation form; a missing final dot is forgiven.
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text, &Self::root())
    }
}

impl fmt::Display for Name {
    /// Presentation form with its final dot, special and unprintable octets escaped (RFC 1035 §5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl Serialize for Name {
    /// The wire form, as one string of octets.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let octets = <&[u8]>::deserialize(deserializer)?;
        Self::from_wire(octets).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        // Length octets are below 64, so folding ASCII letters leaves them as they are.
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Ord for Name {
    /// By the octets of the wire form without case; not the order of DNSSEC.
    fn cmp(&self, other: &Self) -> Ordering {
        let lower = |name: &Self| name.0.to_ascii_lowercase();
        lower(self).cmp(&lower(other))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for octet in &self.0 {
            state.write_u8(octet.to_ascii_lowercase());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn names_compare_without_case_and_keep_their_spelling() {
        assert_eq!(name("Shop.PEAK."), name("shop.peak"));
        assert_eq!(name("Shop.PEAK").to_string(), "Shop.PEAK.");
    }

    #[test]
    fn a_relative_name_is_completed_with_the_origin_and_an_absolute_one_is_not() {
        let origin = name("shop.peak.");
        assert_eq!(Name::parse("orders", &origin).unwrap(), name("orders.shop.peak."));
        assert_eq!(Name::parse("orders.", &origin).unwrap(), name("orders."));
        assert_eq!(Name::parse("@", &origin).unwrap(), origin);
    }

    #[test]
    fn a_label_may_have_63_octets_and_not_64() {
        assert!("a".repeat(63).parse::<Name>().is_ok());
        assert_eq!("a".repeat(64).parse::<Name>().unwrap_err(), NameError::LabelTooLong);
    }

    #[test]
    fn a_name_may_have_255_octets_and_not_256() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(name(&longest).wire().len(), 255);
        assert_eq!(format!("{longest}b").parse::<Name>().unwrap_err(), NameError::NameTooLong);
    }

    #[test]
    fn escapes_are_read_as_they_are_written() {
        let dotted = name(r"a\.b\007.peak.");
        assert_eq!(dotted.labels().next().unwrap(), b"a.b\x07");
        assert_eq!(dotted.to_string(), r"a\.b\007.peak.");
        assert_eq!(r"a\256.".parse::<Name>().unwrap_err(), NameError::BadEscape);
        assert_eq!("a..b".parse::<Name>().unwrap_err(), NameError::EmptyLabel);
    }

    #[test]
    fn below_is_by_whole_labels() {
        assert!(name("a.shop.peak").is_at_or_below(&name("SHOP.peak")));
        assert!(!name("xshop.peak").is_at_or_below(&name("shop.peak")));
        assert!(name("peak").is_at_or_below(&Name::root()));
        assert!(!name("peak").is_at_or_below(&name("shop.peak")));
    }
}
