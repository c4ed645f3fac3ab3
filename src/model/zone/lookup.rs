//! Finding the answer to a question (RFC 1034 §4.3.2, RFC 2308, RFC 4592, RFC 6604, RFC 8482).
//!
//! ```text
//!            ┌─ a cut above it, or at it ──────────────► Referral
//! a name ────┼─ it exists ──┬─ has the type, or any ───► Data
//!     ▲      │              ├─ has an alias ──┬─ in the zone, not too many ─┐
//!     │      │              │                 └─ else ► Elsewhere           │
//!     │      │              └─ neither ────────────────► NoData             │
//!     │      ├─ a wildcard covers it: as if it existed                      │
//!     │      └─ else ──────────────────────────────────► NoName             │
//!     └──────────────────────────────────────────────────────────────────────┘
//! ```

use std::sync::Arc;

use super::key::Key;
use super::node::Node;
use super::rrset::{Rrset, Target};
use super::{Zone, types};

/// The longest chain of aliases that one answer carries; whoever asks follows the rest.
pub const MAX_ALIASES: usize = 16;

/// What a zone says to a question.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'z> {
    /// The zone that speaks.
    pub zone: &'z Zone,
    /// Where the way ends.
    pub end: End<'z>,
    /// Whether the records of the last name come from a wildcard.
    pub synthesized: bool,
}

/// Where the way from a question ends.
#[derive(Clone, Copy, Debug)]
pub enum End<'z> {
    /// At records of the type asked for.
    Data(&'z Rrset),
    /// At a name without such records (NODATA, RFC 2308 §2.2).
    NoData,
    /// At a name that does not exist (NXDOMAIN, RFC 2308 §2.1).
    NoName,
    /// At a name that another server answers for.
    Referral {
        /// The zone cut.
        cut: &'z Node,
        /// Its name servers.
        servers: &'z Rrset,
    },
    /// At an alias whose target is outside the zone, or one too many in a chain.
    Elsewhere,
}

/// The aliases on the way to an answer, in order, each a set of one record. The first is the question's name's; each later
/// one belongs to the target of the one before, and so does whatever is at the end.
///
/// Few questions meet any, so they stand apart from the answer, and the room for them is not touched before.
#[derive(Clone, Debug, Default)]
pub struct Aliases<'z> {
    held: Option<[Option<&'z Rrset>; MAX_ALIASES]>,
}

impl<'z> Aliases<'z> {
    /// They, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'z Rrset> {
        self.held.iter().flatten().copied().flatten()
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// Adds one, when it is not there and there is room; how many there are now.
    fn add(&mut self, alias: &'z Rrset) -> Option<usize> {
        let held = self.held.get_or_insert([None; MAX_ALIASES]);
        let free = held.iter().position(|held| held.is_none_or(|held| std::ptr::eq(held, alias)))?;
        held[free].replace(alias).is_none().then_some(free + 1)
    }
}

/// What one name says.
enum Step<'z> {
    End(End<'z>, bool),
    Alias(&'z Rrset),
}

impl Zone {
    /// The answer to a question for `key`'s name, which is at the apex or below it, and type. The aliases on the way are
    /// added to `aliases`, which are none.
    #[must_use]
    pub fn answer<'z>(&'z self, key: &Key, qtype: u16, aliases: &mut Aliases<'z>) -> Answer<'z> {
        self.answer_at(key, qtype, self.nodes.get(key.hash(), key.octets()), aliases)
    }

    /// The same, where the node at exactly the name is known.
    #[inline]
    pub(super) fn answer_at<'z>(
        &'z self,
        key: &Key,
        qtype: u16,
        node: Option<&'z Arc<Node>>,
        aliases: &mut Aliases<'z>,
    ) -> Answer<'z> {
        // What nearly every question is for. Without a cut, a set of the type is the answer.
        if self.cuts.is_empty()
            && let Some(set) = node.and_then(|node| node.first_of(qtype))
        {
            return Answer { zone: self, end: End::Data(set), synthesized: false };
        }
        let (end, synthesized) = match self.step(key, qtype, node) {
            Step::End(end, synthesized) => (end, synthesized),
            Step::Alias(alias) => self.follow(alias, qtype, aliases),
        };
        Answer { zone: self, end, synthesized }
    }

    #[cold]
    fn follow<'z>(&'z self, first: &'z Rrset, qtype: u16, aliases: &mut Aliases<'z>) -> (End<'z>, bool) {
        let mut key = Key::default();
        let mut alias = first;
        loop {
            // An alias that is there already closes a loop.
            let room = aliases.add(alias).is_some_and(|count| count < MAX_ALIASES);
            let Some(target) = alias.targets().first().filter(|_| room) else { return (End::Elsewhere, false) };
            key.set(self.seed, target.name().wire());
            match self.step(&key, qtype, self.nodes.get(key.hash(), key.octets())) {
                Step::End(end, synthesized) => return (end, synthesized),
                Step::Alias(next) => alias = next,
            }
        }
    }

    #[inline]
    fn step<'z>(&'z self, key: &Key, qtype: u16, node: Option<&'z Arc<Node>>) -> Step<'z> {
        if let Some(end) = self.cut_above(key) {
            return Step::End(end, false);
        }
        match node {
            Some(node) => self.at_node(node, key, qtype),
            None => self.at_wildcard(key, qtype),
        }
    }

    /// The referral of the topmost cut above the name.
    #[inline]
    fn cut_above(&self, key: &Key) -> Option<End<'_>> {
        if self.cuts.is_empty() {
            return None;
        }
        for labels in self.cuts.between(self.apex_labels + 1, key.labels().saturating_sub(1)) {
            let (hash, octets) = key.suffix(labels);
            if let Some(cut) = self.nodes.get(hash, octets)
                && let Some(servers) = cut.set(types::NS)
            {
                return Some(End::Referral { cut, servers });
            }
        }
        None
    }

    #[inline]
    fn at_node<'z>(&'z self, node: &'z Arc<Node>, key: &Key, qtype: u16) -> Step<'z> {
        // DS is the parent's data, which stands at the cut (RFC 4035 §3.1.4.1).
        if key.labels() > self.apex_labels
            && qtype != types::DS
            && let Some(servers) = node.set(types::NS)
        {
            return Step::End(End::Referral { cut: node, servers }, false);
        }
        pick(node, qtype, false)
    }

    /// What a wildcard says for a name that does not exist (RFC 4592 §3.3).
    fn at_wildcard(&self, key: &Key, qtype: u16) -> Step<'_> {
        if self.wildcards == 0 {
            return Step::End(End::NoName, false);
        }
        let mut labels = key.labels().saturating_sub(1);
        while let Some(deepest) = self.names.deepest(labels).filter(|deepest| *deepest >= self.apex_labels) {
            let (hash, octets) = key.suffix(deepest);
            if let Some(encloser) = self.nodes.get(hash, octets) {
                return self.below_encloser(encloser, key, deepest, qtype);
            }
            let Some(above) = deepest.checked_sub(1) else { break };
            labels = above;
        }
        Step::End(End::NoName, false)
    }

    fn below_encloser<'z>(&'z self, encloser: &Node, key: &Key, labels: usize, qtype: u16) -> Step<'z> {
        let octets = encloser.wire();
        let mut wildcard = [0; 257];
        wildcard[..2].copy_from_slice(b"\x01*");
        wildcard[2..octets.len() + 2].copy_from_slice(octets);
        match self.nodes.get(key.wildcard_hash(labels), &wildcard[..octets.len() + 2]) {
            Some(node) => pick(node, qtype, true),
            None => Step::End(End::NoName, false),
        }
    }

    /// What stands at a target, for the additional section: also glue below a cut, never from a wildcard.
    #[must_use]
    #[inline]
    pub fn additional(&self, target: &Target) -> Option<&Node> {
        self.nodes.get(target.hash(), target.name().wire()).map(AsRef::as_ref)
    }
}

/// What a node that answers for itself says.
#[inline]
fn pick(node: &Node, qtype: u16, synthesized: bool) -> Step<'_> {
    if let Some(set) = node.set(qtype) {
        return Step::End(End::Data(set), synthesized);
    }
    if let Some(alias) = node.set(types::CNAME) {
        // An alias is the whole of what the name holds, so it is the answer to ANY.
        return if qtype == types::ANY { Step::End(End::Data(alias), synthesized) } else { Step::Alias(alias) };
    }
    // RFC 8482 §4.1: one of the sets stands for all.
    match node.sets().next() {
        Some(set) if qtype == types::ANY => Step::End(End::Data(set), synthesized),
        Some(_) | None => Step::End(End::NoData, synthesized),
    }
}
