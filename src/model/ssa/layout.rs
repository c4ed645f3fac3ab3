//! The layout: which bits of the host part each field fills (SSA.md §2).
//!
//! Positions are kept in the *host word*: 128 bits whose first bit is the first bit of the host part, whatever the
//! length of the prefix. A field's place there never changes, so masks and shifts are made once, when the rule is
//! read; an address is its prefix with the host word moved down by the prefix length.

use std::fmt;

use super::bits::{down, leading_ones, up};

/// What fills a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Random bits.
    Random,
    /// A number.
    Fixed {
        /// Fits in the width.
        number: u128,
    },
    /// Bits of the source.
    Source {
        /// The first of them.
        first: u8,
    },
    /// The hash of the first bits of the source.
    SourceHash {
        /// How many bits, 1 to 128.
        source_bits: u8,
    },
    /// The content key's hexadecimal digits.
    Content,
    /// The hash of the content key and the replica.
    ContentHash,
    /// The hash of the epoch and the source under the secret.
    Hop,
    /// A number that makes a hash begin with zeros.
    Work {
        /// How many, 0 to 64.
        zero_bits: u8,
    },
}

/// One field in its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Field {
    pub(super) kind: Kind,
    /// Bits of the host part before it.
    pub(super) offset: u8,
    /// 1 to 128; `offset + width` is at most 128.
    pub(super) width: u8,
    /// Its bits of the host word.
    pub(super) mask: u128,
}

impl Field {
    /// A field of `width` bits after `offset` others; together at most 128, the width at least 1.
    pub(super) fn at(kind: Kind, offset: u8, width: u8) -> Self {
        Self { kind, offset, width, mask: leading_ones(offset + width) & !leading_ones(offset) }
    }

    /// The name that a checker answers with.
    pub(super) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Random => "random",
            Kind::Fixed { .. } => "fixed",
            Kind::Source { .. } => "source",
            Kind::SourceHash { .. } => "source-hash",
            Kind::Content => "content",
            Kind::ContentHash => "content-hash",
            Kind::Hop => "hop",
            Kind::Work { .. } => "work",
        }
    }

    /// The first bits of `value` in the field's place.
    #[inline]
    pub(super) fn place(&self, value: u128) -> u128 {
        (value >> self.offset) & self.mask
    }

    /// `number`, which fits in the width, in the field's place.
    #[inline]
    pub(super) fn place_number(&self, number: u128) -> u128 {
        up(number, 128 - self.offset - self.width)
    }

    /// The number that stands in the field's place of `host`.
    pub(super) fn number_in(&self, host: u128) -> u128 {
        down(host & self.mask, 128 - self.offset - self.width)
    }
}

impl fmt::Display for Field {
    /// The field as a rule writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, width) = (self.name(), self.width);
        match self.kind {
            Kind::Random | Kind::Content | Kind::ContentHash | Kind::Hop => write!(f, "{name}:{width}"),
            Kind::Fixed { number } => write!(f, "{name}:{width}/{number:x}"),
            Kind::Source { first } => write!(f, "{name}:{first}-{}", u16::from(first) + u16::from(width)),
            Kind::SourceHash { source_bits } => write!(f, "{name}:{width}/{source_bits}"),
            Kind::Work { zero_bits } => write!(f, "{name}:{width}/{zero_bits}"),
        }
    }
}

/// The input that decides which of several prefixes is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decider {
    /// The first bits of the source.
    Source {
        /// How many.
        source_bits: u8,
    },
    /// The content key and the replica.
    Content,
}

/// The fields of a rule in order, and what follows from them alone. By default there is none: all bits are random.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Layout {
    fields: Box<[Field]>,
    /// The bits of the host word that no random field and no rest of the host part fills.
    determined: u128,
    /// What the `fixed` fields put into the host word.
    fixed: u128,
    decider: Option<Decider>,
    /// Where in `fields` the `work` field stands, and its number of zero bits.
    work: Option<(usize, u8)>,
}

impl Layout {
    /// Puts fields, each with its width, one after the other; none when they are wider than an address.
    pub(super) fn new(kinds: impl IntoIterator<Item = (Kind, u8)>) -> Option<Self> {
        let mut fields = Vec::new();
        let mut offset = 0_u8;
        for (kind, width) in kinds {
            let end = offset.checked_add(width).filter(|&end| end <= 128)?;
            fields.push(Field::at(kind, offset, width));
            offset = end;
        }
        let mut layout = Self::default();
        for (at, field) in fields.iter().enumerate() {
            layout.decider = layout.decider.or(decider_of(field.kind));
            if field.kind != Kind::Random {
                layout.determined |= field.mask;
            }
            if let Kind::Fixed { number } = field.kind {
                layout.fixed |= field.place_number(number);
            }
            if let Kind::Work { zero_bits } = field.kind {
                layout.work = Some((at, zero_bits));
            }
        }
        Some(Self { fields: fields.into(), ..layout })
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// How many bits the fields fill together.
    pub(super) fn width(&self) -> u8 {
        self.fields.last().map_or(0, |last| last.offset + last.width)
    }

    /// The bits of the host word that are drawn at random where the host part has them.
    #[inline]
    pub(super) fn random(&self) -> u128 {
        !self.determined
    }

    /// What the `fixed` fields put into the host word.
    #[inline]
    pub(super) fn fixed(&self) -> u128 {
        self.fixed
    }

    /// What decides between several prefixes: the first such field does; without one the choice is random.
    #[inline]
    pub(super) fn decider(&self) -> Option<Decider> {
        self.decider
    }

    /// The field that asks for work, with its number of zero bits.
    #[inline]
    pub(super) fn work(&self) -> Option<(&Field, u8)> {
        self.work.map(|(at, zero_bits)| (&self.fields[at], zero_bits))
    }

    /// Whether some field is of a kind that `wanted` picks.
    pub(super) fn any(&self, wanted: impl Fn(Kind) -> bool) -> bool {
        self.fields.iter().any(|field| wanted(field.kind))
    }
}

/// What a field says about the choice between prefixes (SSA.md §2, "Which prefix").
fn decider_of(kind: Kind) -> Option<Decider> {
    match kind {
        Kind::Source { .. } => Some(Decider::Source { source_bits: 64 }),
        Kind::SourceHash { source_bits } => Some(Decider::Source { source_bits }),
        Kind::Content | Kind::ContentHash => Some(Decider::Content),
        Kind::Random | Kind::Fixed { .. } | Kind::Hop | Kind::Work { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_one_another_from_the_most_significant_bit() {
        let layout = Layout::new([(Kind::Fixed { number: 0xa }, 4), (Kind::Random, 60), (Kind::Hop, 64)]).unwrap();
        assert_eq!(layout.fixed(), 0xa << 124);
        assert_eq!(layout.random(), leading_ones(64) & !leading_ones(4));
        assert_eq!(layout.fields()[2].number_in(u128::MAX), u128::from(u64::MAX));
        assert_eq!(layout.width(), 128);
    }

    #[test]
    fn fields_may_fill_128_bits_and_not_129() {
        assert!(Layout::new([(Kind::Random, 128)]).is_some());
        assert!(Layout::new([(Kind::Random, 128), (Kind::Random, 1)]).is_none());
        assert!(Layout::new(std::iter::repeat_n((Kind::Random, 1), 1_000)).is_none());
    }

    #[test]
    fn the_first_field_that_can_decide_does() {
        let source = (Kind::Source { first: 3 }, 8);
        let content = (Kind::ContentHash, 8);
        let hop = (Kind::Hop, 8);
        assert_eq!(Layout::new([hop, source, content]).unwrap().decider(), Some(Decider::Source { source_bits: 64 }));
        assert_eq!(Layout::new([hop, content, source]).unwrap().decider(), Some(Decider::Content));
        assert_eq!(Layout::new([hop]).unwrap().decider(), None);
    }
}
