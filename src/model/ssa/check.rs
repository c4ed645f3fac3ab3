//! From an address back to whether the rule allows it (SSA.md §3).
//!
//! A checker that knows less checks less, never wrongly: whatever it lacks only ever skips a test.
//!
//! `work` is right when its hash begins with enough zeros. That the number is also the smallest such one is what a
//! client computes, not what a checker asks: to know it, the checker would have to do the work itself.

use std::net::Ipv6Addr;

use super::bits::up;
use super::candidates::{Epochs, Replicas};
use super::keyed_hash::{self, WorkHash};
use super::layout::{Decider, Field, Kind};
use super::space::Block;
use super::{Known, Rule, Space, UnixSeconds, Wrong, hex_key};

/// The name that a wrong prefix, or an address outside the space, is answered with.
pub(super) const PREFIX: Wrong = Wrong("prefix");

impl Rule {
    /// Checks a destination against this one rule (SSA.md §3), without allocation.
    ///
    /// # Errors
    /// The first thing that is wrong: `prefix` or the name of a field.
    pub fn check(&self, space: &Space, destination: Ipv6Addr, known: &Known<'_>) -> Result<(), Wrong> {
        let mut examination = Examination::begin(self, space, destination, known).ok_or(PREFIX)?;
        if examination.judge_prefix() == Verdict::Wrong {
            return Err(PREFIX);
        }
        for field in self.layout.fields() {
            if examination.judge(field) == Verdict::Wrong {
                return Err(Wrong(field.name()));
            }
        }
        Ok(())
    }
}

/// What the test of a prefix or field came to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// The value is one that the inputs give.
    Fits,
    /// No value is wrong here.
    Free,
    /// The checker lacks an input.
    NotChecked(Missing),
    /// The value is none that the inputs give.
    Wrong,
}

impl Verdict {
    fn of(fits: bool) -> Self {
        if fits { Self::Fits } else { Self::Wrong }
    }
}

/// An input that a checker lacks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Missing {
    /// The caller's address.
    Source,
    /// The content key.
    ContentKey,
    /// The secret that the rule names.
    Secret,
    /// The time.
    Time,
}

/// A destination under examination, with the replicas and epochs that still fit it.
#[derive(Clone, Copy)]
pub(super) struct Examination<'a> {
    pub(super) rule: &'a Rule,
    pub(super) space: &'a Space,
    pub(super) known: &'a Known<'a>,
    pub(super) destination: u128,
    /// Which of the space's prefixes holds the destination.
    pub(super) prefix: usize,
    /// The destination's host word.
    pub(super) host: u128,
    /// None until something narrows them: then it is all of them that fit.
    replicas: Option<Replicas>,
    /// None until something narrows them, as above.
    epochs: Option<Epochs>,
}

impl<'a> Examination<'a> {
    /// None when the destination is not in the space.
    #[inline]
    pub(super) fn begin(rule: &'a Rule, space: &'a Space, destination: Ipv6Addr, known: &'a Known<'a>) -> Option<Self> {
        let destination = destination.to_bits();
        let prefix = space.block_of(destination)?;
        let host = up(destination, space.blocks()[prefix].length);
        Some(Self { rule, space, known, destination, prefix, host, replicas: None, epochs: None })
    }

    /// The replicas that still fit.
    pub(super) fn replicas(&self) -> Replicas {
        self.replicas.unwrap_or_else(|| Replicas::below(self.rule.replicas))
    }

    /// The epochs that still fit at `now`.
    pub(super) fn epochs(&self, now: UnixSeconds) -> Epochs {
        self.epochs.unwrap_or_else(|| Epochs::around(self.rule, now))
    }

    /// Keeps the replicas that `fits` accepts.
    fn narrow_replicas(&mut self, fits: impl FnMut(u8) -> bool) -> Verdict {
        let mut replicas = self.replicas();
        let any = replicas.retain(fits);
        self.replicas = Some(replicas);
        Verdict::of(any)
    }

    /// Keeps the epochs that `fits` accepts.
    fn narrow_epochs(&mut self, now: UnixSeconds, fits: impl FnMut(u64) -> bool) -> Verdict {
        let mut epochs = self.epochs(now);
        let any = epochs.retain(fits);
        self.epochs = Some(epochs);
        Verdict::of(any)
    }

    pub(super) fn block(&self) -> &'a Block {
        &self.space.blocks()[self.prefix]
    }

    /// Whether the rule picks the destination's prefix; narrows the replicas when content decides.
    #[inline]
    pub(super) fn judge_prefix(&mut self) -> Verdict {
        if self.space.blocks().len() == 1 {
            return Verdict::Fits;
        }
        let (rule, space, block) = (self.rule, self.space, self.block());
        match rule.layout.decider() {
            None => Verdict::Free,
            Some(Decider::Source { .. }) => match self.known.source {
                None => Verdict::NotChecked(Missing::Source),
                Some(source) => Verdict::of(rule.choose_prefix(space, source.to_bits(), &[], 0) == Some(block)),
            },
            Some(Decider::Content) => match self.known.content {
                None => Verdict::NotChecked(Missing::ContentKey),
                Some(key) => self.narrow_replicas(|replica| rule.choose_prefix(space, 0, key, replica) == Some(block)),
            },
        }
    }

    /// Whether a field holds what the inputs give; narrows the replicas and epochs by the way.
    #[inline]
    pub(super) fn judge(&mut self, field: &Field) -> Verdict {
        let found = self.host & field.mask;
        let salt = &self.rule.salt;
        match field.kind {
            Kind::Random => Verdict::Free,
            Kind::Fixed { number } => Verdict::of(found == field.place_number(number)),
            Kind::Source { first } => match self.known.source {
                None => Verdict::NotChecked(Missing::Source),
                Some(source) => Verdict::of(found == field.place(source.to_bits() << first)),
            },
            Kind::SourceHash { source_bits } => match self.known.source {
                None => Verdict::NotChecked(Missing::Source),
                Some(source) => {
                    Verdict::of(found == field.place(keyed_hash::source(salt, source.to_bits(), source_bits)))
                }
            },
            Kind::Content => match self.known.content {
                None => Verdict::NotChecked(Missing::ContentKey),
                Some(key) => Verdict::of(hex_key::first_bits(key).is_some_and(|value| found == field.place(value))),
            },
            Kind::ContentHash => match self.known.content {
                None => Verdict::NotChecked(Missing::ContentKey),
                Some(key) => {
                    self.narrow_replicas(|replica| found == field.place(keyed_hash::content(salt, replica, key)))
                }
            },
            Kind::Hop => self.judge_hop(field, found),
            Kind::Work { zero_bits } => self.judge_work(zero_bits),
        }
    }

    fn judge_hop(&mut self, field: &Field, found: u128) -> Verdict {
        let (Some(source), Some(secret), Some(now)) = (self.known.source, self.known.secret, self.known.now) else {
            return Verdict::NotChecked(self.missing(true));
        };
        let source = source.to_bits();
        self.narrow_epochs(now, |epoch| found == field.place(keyed_hash::hop(secret, epoch, source)))
    }

    fn judge_work(&mut self, zero_bits: u8) -> Verdict {
        let (Some(source), Some(now)) = (self.known.source, self.known.now) else {
            return Verdict::NotChecked(self.missing(false));
        };
        let (salt, source, destination) = (&self.rule.salt, source.to_bits(), self.destination);
        self.narrow_epochs(now, |epoch| WorkHash::new(salt, source, epoch).begins_with_zeros(destination, zero_bits))
    }

    /// The first thing that a field of time lacks.
    fn missing(&self, needs_secret: bool) -> Missing {
        if self.known.source.is_none() {
            Missing::Source
        } else if needs_secret && self.known.secret.is_none() {
            Missing::Secret
        } else {
            Missing::Time
        }
    }
}
