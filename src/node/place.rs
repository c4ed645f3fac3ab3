//! This node, and how others are reached from it.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) address: Ipv6Addr,
    pub(super) spaces: Vec<Ipv6Net>,
    /// Where other nodes' addresses lie.
    pub(super) nodes: Vec<Ipv6Net>,
    pub(super) tunnel: String,
    pub(super) tunnel_port: u16,
    /// The mark of strays; those of pods come after it, and are also the numbers of their tables.
    pub(super) mark: u32,
}

impl Node {
    pub(super) fn mark_of(&self, number: u16) -> u32 {
        self.mark | u32::from(number)
    }

    /// The number of the pod whose table this is.
    pub(super) fn number_of(&self, table: u32) -> Option<u16> {
        let number = (table ^ self.mark) & 0xffff;
        (table & !0xffff == self.mark && number != 0).then_some(number as u16)
    }
}

/// How another node is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hop {
    /// It is on a link of ours.
    Direct(Ipv6Addr),
    /// Whatever lies between does not know where slices are.
    Through(Ipv6Addr),
}
