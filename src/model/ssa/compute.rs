//! From what a client knows to the address it connects to (SSA.md §2).

use std::net::Ipv6Addr;

use super::bits::down;
use super::keyed_hash::{self, WorkHash};
use super::layout::{Decider, Field, Kind};
use super::space::Block;
use super::{ComputeError, Inputs, Rule, Space, hex_key};

/// How often random bits are drawn before a replica fails (SSA.md §2, "Draws").
const MOST_DRAWS: u32 = 16;

/// How many numbers are tried for `work` in one draw: 2²⁴ (SSA.md §2, "Draws").
const MOST_NUMBERS: u128 = 1 << 24;

impl Rule {
    /// The address for exactly `replica` (SSA.md §2), from `draw`, which gives 128 random bits a call.
    ///
    /// The rule must be parsed for this space. A draw calls `draw` once for the random bits of the address and once
    /// for the choice of a prefix, each only where there is something to choose; there are at most 16 draws. Pure
    /// arithmetic, without allocation; only [`Rule::work_bits`] can make it slow.
    ///
    /// # Errors
    /// Why this replica has none; the client goes on to the next replica.
    pub fn compute(
        &self,
        space: &Space,
        inputs: &Inputs<'_>,
        replica: u8,
        draw: &mut dyn FnMut() -> u128,
    ) -> Result<Ipv6Addr, ComputeError> {
        if u16::from(replica) >= self.replicas {
            return Err(ComputeError::NoSuchReplica { replica, replicas: self.replicas });
        }
        let host = self.determined_host(inputs, replica)?;
        let chosen = self.choose_prefix(space, inputs.source.to_bits(), inputs.content, replica);
        let draws = if chosen.is_some_and(|block| self.random_bits(block) == 0) { 1 } else { MOST_DRAWS };
        for _ in 0..draws {
            let block = chosen.unwrap_or_else(|| one_of(space.blocks(), draw()));
            let random = match self.random_bits(block) {
                0 => 0,
                bits => down(draw(), block.length) & bits,
            };
            let address = block.first | down(host, block.length) | random;
            let worked = match self.layout.work() {
                None => Some(address),
                Some((field, zero_bits)) => self.solve(address, field, zero_bits, block.length, inputs),
            };
            if let Some(address) = worked
                && space.block_of(address).is_some()
            {
                return Ok(Ipv6Addr::from_bits(address));
            }
        }
        Err(ComputeError::NoDraw)
    }

    /// The bits of an address in `block` that are random.
    fn random_bits(&self, block: &Block) -> u128 {
        down(self.layout.random(), block.length)
    }

    /// The host word as far as the inputs determine it; zero where bits are random and where work goes.
    fn determined_host(&self, inputs: &Inputs<'_>, replica: u8) -> Result<u128, ComputeError> {
        let source = inputs.source.to_bits();
        let mut host = self.layout.fixed();
        for field in self.layout.fields() {
            let value = match field.kind {
                Kind::Random | Kind::Fixed { .. } | Kind::Work { .. } => continue,
                Kind::Source { first } => source << first,
                Kind::SourceHash { source_bits } => keyed_hash::source(&self.salt, source, source_bits),
                Kind::Content => hex_key::first_bits(inputs.content).ok_or(ComputeError::ContentNotHex)?,
                Kind::ContentHash => keyed_hash::content(&self.salt, replica, inputs.content),
                Kind::Hop => {
                    let secret = inputs.secret.ok_or_else(|| self.no_secret())?;
                    keyed_hash::hop(secret, self.epoch(inputs.now), source)
                }
            };
            host |= field.place(value);
        }
        Ok(host)
    }

    /// The prefix that the inputs decide on; none when the choice is random (SSA.md §2, "Which prefix").
    pub(super) fn choose_prefix<'s>(
        &self,
        space: &'s Space,
        source: u128,
        content: &[u8],
        replica: u8,
    ) -> Option<&'s Block> {
        if let [only] = space.blocks() {
            return Some(only);
        }
        let decider = self.layout.decider()?;
        space.blocks().iter().max_by_key(|block| {
            let score = match decider {
                Decider::Source { source_bits } => {
                    keyed_hash::prefix_for_source(&self.salt, block, source, source_bits)
                }
                Decider::Content => keyed_hash::prefix_for_content(&self.salt, block, replica, content),
            };
            (score, block.first)
        })
    }

    /// `address` with the smallest number in its `work` field that does the work, if few enough tries find one.
    fn solve(&self, address: u128, field: &Field, zero_bits: u8, length: u8, inputs: &Inputs<'_>) -> Option<u128> {
        let hash = WorkHash::new(&self.salt, inputs.source.to_bits(), self.epoch(inputs.now));
        let numbers = 1_u128.checked_shl(field.width.into()).unwrap_or(u128::MAX).min(MOST_NUMBERS);
        (0..numbers)
            .map(|number| address | down(field.place_number(number), length))
            .find(|&destination| hash.begins_with_zeros(destination, zero_bits))
    }

    fn no_secret(&self) -> ComputeError {
        ComputeError::NoSecret { id: self.secret_id.clone().unwrap_or_default() }
    }
}

/// One of `blocks`, which are never none, each with the same chance.
fn one_of(blocks: &[Block], draw: u128) -> &Block {
    let scaled = (draw >> 64) * blocks.len() as u128;
    &blocks[(scaled >> 64) as usize]
}
