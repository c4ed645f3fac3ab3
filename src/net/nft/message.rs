//! nf_tables messages: what is wanted as one batch, and what the kernel lists.
//!
//! Source: linux/netfilter/nf_tables.h (types and attributes), linux/netfilter/nfnetlink.h (batches).

use super::attributes::{self, Attributes};
use super::expression::{self, DATA_VALUE};
use super::lower::{
    Edge, Lowered, LoweredChain, LoweredRule, LoweredSet, comment_from_user_data, comment_to_user_data,
};

/// The `inet` family, NFPROTO_INET.
const INET: u8 = 1;
const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// struct nlmsghdr, and struct nfgenmsg after it.
pub(super) const HEADER: usize = 16;
const GENERAL: usize = 4;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// Elements in one message: far under the 64 KiB that one attribute holds.
const ELEMENTS_AT_ONCE: usize = 1_000;

/// Types of messages: enum nf_tables_msg_types.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Verb {
    NewTable = 0,
    GetTable = 1,
    DeleteTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    GetSet = 10,
    NewElements = 12,
    GetElements = 13,
    GetGeneration = 16,
}

/// One message before it has its number.
#[derive(Debug)]
pub(super) struct Request {
    kind: u16,
    flags: u16,
    general: [u8; GENERAL],
    attributes: Vec<u8>,
    /// What it does, as an `nft` command for people.
    pub(super) attempted: String,
}

impl Request {
    fn new(verb: Verb, flags: u16, attributes: Attributes, attempted: String) -> Self {
        Self {
            kind: (SUBSYSTEM_NFTABLES << 8) | verb as u16,
            flags: flags | REQUEST,
            general: [INET, 0, 0, 0],
            attributes: attributes.into_bytes(),
            attempted,
        }
    }

    /// The messages around a batch say which subsystem it is for.
    fn edge(kind: u16) -> Self {
        let [high, low] = SUBSYSTEM_NFTABLES.to_be_bytes();
        let attempted = "change packet rules".to_owned();
        Self { kind, flags: REQUEST, general: [0, 0, high, low], attributes: Vec::new(), attempted }
    }

    /// A question to which the answer is a list.
    pub(super) fn list(verb: Verb, attributes: Attributes) -> Self {
        Self::new(verb, DUMP, attributes, "list packet rules".to_owned())
    }

    /// A question to which the answer is one message.
    pub(super) fn one(verb: Verb, attributes: Attributes) -> Self {
        Self::new(verb, ACK, attributes, "list packet rules".to_owned())
    }

    /// Whether its failing with "invalid" or "not supported" means that the kernel lacks the whole subsystem.
    pub(super) const fn only_reaches_out(&self) -> bool {
        self.kind == BATCH_BEGIN
            || self.kind == (SUBSYSTEM_NFTABLES << 8) | Verb::GetGeneration as u16
            || self.kind == (SUBSYSTEM_NFTABLES << 8) | Verb::GetTable as u16
    }

    /// Asks the kernel to confirm it.
    fn confirmed(mut self) -> Self {
        self.flags |= ACK;
        self
    }

    /// The message, numbered so that an answer names it.
    pub(super) fn encode(&self, number: u32) -> Vec<u8> {
        let len = HEADER + GENERAL + self.attributes.len();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&self.flags.to_ne_bytes());
        bytes.extend_from_slice(&number.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.general);
        bytes.extend_from_slice(&self.attributes);
        bytes
    }
}

/// A batch that puts `wanted` in place of the table called `table`. Adding before deleting makes deleting sure to find
/// something: kernels before 6.3 have no "delete if there".
pub(super) fn replace(table: &str, wanted: &Lowered) -> Vec<Request> {
    let mut batch = vec![Request::edge(BATCH_BEGIN), add_table(table), delete_table(table), add_table(table)];
    for (number, (name, set)) in (1_u32..).zip(&wanted.sets) {
        batch.push(add_set(table, name, number, set));
        batch.extend(set.edges.chunks(ELEMENTS_AT_ONCE).map(|edges| add_elements(table, name, edges)));
    }
    for (name, chain) in &wanted.chains {
        batch.push(add_chain(table, name, chain));
        batch.extend(chain.rules.iter().map(|rule| add_rule(table, name, rule)));
    }
    finish(batch)
}

/// A batch that removes the table called `table`, which must be there.
pub(super) fn remove(table: &str) -> Vec<Request> {
    finish(vec![Request::edge(BATCH_BEGIN), delete_table(table)])
}

/// Closes a batch; its last change is confirmed, so that success is told from silence.
fn finish(mut batch: Vec<Request>) -> Vec<Request> {
    if let Some(last) = batch.pop() {
        batch.push(last.confirmed());
    }
    batch.push(Request::edge(BATCH_END));
    batch
}

fn add_table(table: &str) -> Request {
    let attributes = Attributes::default().text(table::NAME, table).number(table::FLAGS, 0);
    Request::new(Verb::NewTable, CREATE, attributes, format!("add table inet {table}"))
}

fn delete_table(table: &str) -> Request {
    let attributes = Attributes::default().text(table::NAME, table);
    Request::new(Verb::DeleteTable, 0, attributes, format!("delete table inet {table}"))
}

fn add_set(table: &str, name: &str, number: u32, set: &LoweredSet) -> Request {
    let attributes = Attributes::default()
        .text(set::TABLE, table)
        .text(set::NAME, name)
        .number(set::FLAGS, set::INTERVAL)
        .number(set::KEY_TYPE, set.key_type)
        .number(set::KEY_LEN, set.key_len)
        .number(set::ID, number)
        .bytes(set::USER_DATA, &set::BIG_ENDIAN_KEYS);
    Request::new(Verb::NewSet, CREATE, attributes, format!("add set inet {table} {name}"))
}

fn add_elements(table: &str, name: &str, edges: &[Edge]) -> Request {
    let list = edges.iter().fold(Attributes::default(), |list, edge| {
        let key = Attributes::default().bytes(DATA_VALUE, &edge.key);
        let element = Attributes::default().nest(element::KEY, key);
        let element = if edge.ends { element.number(element::FLAGS, element::INTERVAL_END) } else { element };
        list.nest(LIST_ITEM, element)
    });
    let attributes =
        Attributes::default().text(elements::TABLE, table).text(elements::SET, name).nest(elements::ELEMENTS, list);
    Request::new(Verb::NewElements, CREATE, attributes, format!("add elements to set inet {table} {name}"))
}

fn add_chain(table: &str, name: &str, chain: &LoweredChain) -> Request {
    let hook =
        Attributes::default().number(hook::NUMBER, chain.hook).bytes(hook::PRIORITY, &chain.priority.to_be_bytes());
    let attributes = Attributes::default()
        .text(chain::TABLE, table)
        .text(chain::NAME, name)
        .nest(chain::HOOK, hook)
        .number(chain::POLICY, chain::ACCEPT)
        .text(chain::TYPE, &chain.kind);
    Request::new(Verb::NewChain, CREATE, attributes, format!("add {} chain inet {table} {name}", chain.kind))
}

fn add_rule(table: &str, chain: &str, rule: &LoweredRule) -> Request {
    let list = rule
        .expressions
        .iter()
        .fold(Attributes::default(), |list, expression| list.nest(LIST_ITEM, expression::encode(expression)));
    let mut attributes =
        Attributes::default().text(rule::TABLE, table).text(rule::CHAIN, chain).nest(rule::EXPRESSIONS, list);
    if !rule.comment.is_empty() {
        attributes = attributes.bytes(rule::USER_DATA, &comment_to_user_data(&rule.comment));
    }
    let attempted = format!("add rule inet {table} {chain} ({})", rule.comment);
    Request::new(Verb::NewRule, CREATE | APPEND, attributes, attempted)
}

/// Asks about one table by name.
pub(super) fn table_named(name: &str) -> Attributes {
    Attributes::default().text(table::NAME, name)
}

/// Asks for one set's elements.
pub(super) fn set_named(table: &str, name: &str) -> Attributes {
    Attributes::default().text(elements::TABLE, table).text(elements::SET, name)
}

/// Attributes of a table.
mod table {
    pub(super) const NAME: u16 = 1;
    pub(super) const FLAGS: u16 = 2;
}

/// Attributes of a set.
mod set {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const KEY_TYPE: u16 = 4;
    pub(super) const KEY_LEN: u16 = 5;
    pub(super) const ID: u16 = 10;
    pub(super) const USER_DATA: u16 = 13;
    /// In `FLAGS`: elements are edges of intervals.
    pub(super) const INTERVAL: u32 = 4;
    /// For nft's listing alone: type 0 (order of key octets), length 4, big-endian (2, little-endian itself).
    pub(super) const BIG_ENDIAN_KEYS: [u8; 6] = [0, 4, 2, 0, 0, 0];
}

/// Attributes of a message about elements.
mod elements {
    pub(super) const TABLE: u16 = 1;
    pub(super) const SET: u16 = 2;
    pub(super) const ELEMENTS: u16 = 3;
}

/// Attributes of one element.
mod element {
    pub(super) const KEY: u16 = 1;
    pub(super) const FLAGS: u16 = 3;
    pub(super) const INTERVAL_END: u32 = 1;
}

/// Attributes of a chain.
mod chain {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const POLICY: u16 = 5;
    pub(super) const TYPE: u16 = 7;
    /// In `POLICY`: NF_ACCEPT.
    pub(super) const ACCEPT: u32 = 1;
}

/// Attributes of a chain's hook.
mod hook {
    pub(super) const NUMBER: u16 = 1;
    pub(super) const PRIORITY: u16 = 2;
}

/// Attributes of a rule.
mod rule {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const EXPRESSIONS: u16 = 4;
    pub(super) const USER_DATA: u16 = 7;
}

/// An item of any list, NFTA_LIST_ELEM.
const LIST_ITEM: u16 = 1;

/// What a listed message is about, as far as it is in the table called `table`. `body` follows its header.
pub(super) fn read_chain(table: &str, body: &[u8]) -> Option<(String, LoweredChain)> {
    let of = |kind| attributes::find(body.get(GENERAL..)?, kind);
    let hooked = of(chain::HOOK).unwrap_or_default();
    let in_table = body.first() == Some(&INET) && attributes::text(of(chain::TABLE)?) == table;
    // One without a hook meets no packet by itself; a number no hook has makes it differ from any that is wanted.
    let number = attributes::find(hooked, hook::NUMBER).and_then(attributes::number).unwrap_or(u32::MAX);
    let priority = attributes::find(hooked, hook::PRIORITY).and_then(attributes::number).unwrap_or(0);
    let accepts = of(chain::POLICY).and_then(attributes::number) == Some(chain::ACCEPT);
    let read = LoweredChain {
        kind: of(chain::TYPE).map(attributes::text).unwrap_or_default(),
        hook: if accepts { number } else { u32::MAX },
        priority: i32::from_ne_bytes(priority.to_ne_bytes()),
        rules: Vec::new(),
    };
    in_table.then_some((attributes::text(of(chain::NAME)?), read))
}

/// A listed rule and the chain that it stands in.
pub(super) fn read_rule(table: &str, body: &[u8]) -> Option<(String, LoweredRule)> {
    let of = |kind| attributes::find(body.get(GENERAL..)?, kind);
    if attributes::text(of(rule::TABLE)?) != table {
        return None;
    }
    let list = of(rule::EXPRESSIONS).unwrap_or_default();
    let read = LoweredRule {
        expressions: attributes::read(list).map(|(_, item)| expression::decode(item)).collect(),
        comment: of(rule::USER_DATA).map(comment_from_user_data).unwrap_or_default(),
    };
    Some((attributes::text(of(rule::CHAIN)?), read))
}

/// A listed set, its elements not yet known.
pub(super) fn read_set(table: &str, body: &[u8]) -> Option<(String, LoweredSet)> {
    let of = |kind| attributes::find(body.get(GENERAL..)?, kind);
    let number = |kind| of(kind).and_then(attributes::number);
    if attributes::text(of(set::TABLE)?) != table {
        return None;
    }
    let plain = number(set::FLAGS) == Some(set::INTERVAL);
    let read = LoweredSet {
        // Type 0 is none that is ever wanted.
        key_type: if plain { number(set::KEY_TYPE)? } else { 0 },
        key_len: number(set::KEY_LEN)?,
        edges: Vec::new(),
    };
    Some((attributes::text(of(set::NAME)?), read))
}

/// The edges that a listed message about elements holds. nft begins a set with an end at zero, which says nothing.
pub(super) fn read_elements(body: &[u8]) -> Vec<Edge> {
    let attributes = body.get(GENERAL..).unwrap_or_default();
    let list = attributes::find(attributes, elements::ELEMENTS).unwrap_or_default();
    let edge = |item| {
        let flags = attributes::find(item, element::FLAGS).and_then(attributes::number).unwrap_or(0);
        let key = attributes::find(attributes::find(item, element::KEY)?, DATA_VALUE)?;
        Some(Edge { key: key.to_vec(), ends: flags & element::INTERVAL_END != 0 })
    };
    let means_something = |edge: &Edge| !edge.ends || edge.key.iter().any(|octet| *octet != 0);
    attributes::read(list).filter_map(|(_, item)| edge(item)).filter(means_something).collect()
}

/// The number of the generation of rules.
pub(super) fn read_generation(body: &[u8]) -> Option<u32> {
    attributes::number(attributes::find(body.get(GENERAL..)?, 1)?)
}

#[cfg(test)]
mod tests {
    use super::super::lower::{Expression, conntrack, meta};
    use super::*;
    use proptest::prelude::*;

    /// One of each.
    fn expressions() -> Vec<Expression> {
        vec![
            Expression::Meta(meta::SKUID),
            Expression::Payload { base: 1, offset: 16, len: 4 },
            Expression::Mask(vec![0xf0, 0, 0, 0]),
            Expression::ToNetworkOrder,
            Expression::Compare { negated: false, value: vec![1, 2] },
            Expression::Compare { negated: true, value: vec![0; 16] },
            Expression::Lookup { set: "ports".into(), negated: false },
            Expression::Lookup { set: "ports".into(), negated: true },
            Expression::Conntrack(conntrack::STATE),
            Expression::NextHop,
            Expression::SetMark,
            Expression::SetConnectionMark,
            Expression::Load(vec![58, 153]),
            Expression::Accept,
            Expression::Drop,
            Expression::Reject,
            Expression::Reset,
            Expression::Redirect,
        ]
    }

    #[test]
    fn a_rule_reads_back_as_it_was_written() {
        let rule = LoweredRule { expressions: expressions(), comment: "why".into() };
        let written = add_rule("funicular", "output", &rule).encode(7);
        assert_eq!(read_rule("funicular", &written[HEADER..]), Some(("output".into(), rule)));
        assert_eq!(read_rule("another", &written[HEADER..]), None);
    }

    #[test]
    fn a_chain_and_a_set_read_back_as_they_were_written() {
        let chain = LoweredChain { kind: "nat".into(), hook: 3, priority: -110, rules: vec![] };
        let set = LoweredSet { key_type: 13, key_len: 2, edges: vec![] };
        let edges = vec![Edge { key: vec![0, 80], ends: false }, Edge { key: vec![0, 81], ends: true }];
        let body = |request: Request| request.encode(1)[HEADER..].to_vec();
        assert_eq!(read_chain("t", &body(add_chain("t", "c", &chain))), Some(("c".into(), chain)));
        assert_eq!(read_set("t", &body(add_set("t", "s", 1, &set))), Some(("s".into(), set)));
        assert_eq!(read_elements(&body(add_elements("t", "s", &edges))), edges);
    }

    #[test]
    fn what_another_hand_wrote_is_foreign() {
        let counter = Expression::Foreign("counter".into());
        let dropped = LoweredRule { expressions: vec![counter], comment: String::new() };
        let written = add_rule("t", "c", &dropped).encode(1);
        assert_eq!(read_rule("t", &written[HEADER..]), Some(("c".into(), dropped)));
    }

    #[test]
    fn a_long_set_goes_in_several_messages() {
        let edge = |number: u32| Edge { key: number.to_be_bytes().to_vec(), ends: number % 2 == 1 };
        let set = LoweredSet { key_type: 7, key_len: 4, edges: (0..2_500).map(edge).collect() };
        let wanted = Lowered { sets: [("s".to_owned(), set.clone())].into(), chains: [].into() };
        let batch = replace("t", &wanted);
        let read: Vec<_> = batch.iter().flat_map(|message| read_elements(&message.encode(1)[HEADER..])).collect();
        assert_eq!(read, set.edges);
        assert!(batch.iter().all(|message| message.attributes.len() < 1 << 16));
    }

    proptest! {
        #[test]
        fn no_octets_from_the_kernel_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (read_chain("t", &octets), read_rule("t", &octets), read_set("t", &octets));
            let _ = (read_elements(&octets), read_generation(&octets), expression::decode(&octets));
        }
    }
}
