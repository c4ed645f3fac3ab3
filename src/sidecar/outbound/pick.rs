//! Third phase: which address to connect to, and which next when that one does not answer.
//!
//! Candidates come in the order of SSA.md §2: the replicas from a random one on, each with a new draw; after the last
//! the first again, as long as draws give addresses that have not been tried.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use ipnet::Ipv6Net;

use super::recognise::Called;
use crate::model::UnixSeconds;
use crate::model::ssa::{self, ComputeError, ContentSource, Inputs, Known, Rule};
use crate::sidecar::resolve::Service;
use crate::sidecar::secrets::Secrets;

/// The most addresses that are tried for one connection.
const MOST_ATTEMPTS: usize = 16;
/// How often each replica is drawn for before there is no address left that has not been tried.
const MOST_DRAWS: u128 = 8;
/// From this many bits of work on, computing an address may take longer than other connections should wait.
const HEAVY_WORK_BITS: u8 = 10;

/// An address computed for one attempt. Only [`Candidates`] makes one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Picked {
    destination: SocketAddrV6,
    source: Ipv6Addr,
    generation: u32,
    /// The application itself chose this address.
    dialled: bool,
}

impl Picked {
    /// Where to connect.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::V6(self.destination)
    }

    /// The same, known to be IPv6.
    #[must_use]
    pub fn destination_v6(&self) -> SocketAddrV6 {
        self.destination
    }

    /// The caller's address that the destination was computed from: the connection must come from it.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.source
    }

    /// The generation of the rule.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the application chose the address itself.
    pub(super) fn is_dialled(&self) -> bool {
        self.dialled
    }
}

/// Why there is no address to try.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoCandidate {
    /// Every published rule begins in the future.
    #[error("none of the rules of the service is in force yet: compare `from` with this machine's clock")]
    NoRuleInForce,
    /// No replica has an address.
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

impl NoCandidate {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoRuleInForce => "rule-not-in-force",
            Self::Compute(error) => error.reason(),
        }
    }
}

/// A service and the one of its rules that a client goes by now.
#[derive(Clone, Debug)]
pub struct InForce {
    service: Arc<Service>,
    at: usize,
}

impl InForce {
    /// The rule of `service` at `now`.
    ///
    /// # Errors
    /// [`NoCandidate::NoRuleInForce`].
    pub fn at(service: &Arc<Service>, now: UnixSeconds) -> Result<Self, NoCandidate> {
        let rule = ssa::current(&service.rules, now).ok_or(NoCandidate::NoRuleInForce)?;
        let at = service.rules.iter().position(|other| std::ptr::eq(other, rule));
        Ok(Self { service: Arc::clone(service), at: at.ok_or(NoCandidate::NoRuleInForce)? })
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.service.rules[self.at]
    }
}

/// The addresses to try for one connection, one after another.
pub struct Candidates {
    in_force: InForce,
    secrets: Arc<Secrets>,
    content: Vec<u8>,
    port: u16,
    source: Ipv6Addr,
    now: UnixSeconds,
    draw: fn() -> u128,
    /// An address of the application's own choice that fits the rule comes first.
    first: Option<Ipv6Addr>,
    /// Counts attempts at replicas, the first one random.
    turn: u128,
    tried: Vec<Ipv6Addr>,
}

impl Candidates {
    /// The candidates of the rule in force for a caller at `source`. `draw` gives 128 random bits a call.
    #[must_use]
    pub fn new(
        called: &Called,
        in_force: InForce,
        secrets: Arc<Secrets>,
        source: Ipv6Addr,
        now: UnixSeconds,
        draw: fn() -> u128,
    ) -> Self {
        Self {
            content: content_key(called, in_force.rule()),
            first: called.dialled,
            turn: draw() % u128::from(in_force.rule().replicas()),
            port: called.port,
            tried: Vec::new(),
            in_force,
            secrets,
            source,
            now,
            draw,
        }
    }

    /// Computes addresses for this content key, which was read from the request itself.
    #[must_use]
    pub fn for_content(self, content: Vec<u8>) -> Self {
        Self { content, ..self }
    }

    /// The source was another than expected: from now on addresses are computed for this one.
    pub fn come_from(&mut self, source: Ipv6Addr) {
        self.source = source;
        self.tried.clear();
    }

    /// Whether a connection to `other`, which lies in the same slice, serves as well as one to the address that was
    /// picked: it is an address that the rule might have given for this very call, so that they differ in random bits
    /// alone. An address of the application's own choice is served by itself only.
    #[must_use]
    pub fn serves(&self, picked: &Picked, other: Ipv6Addr) -> bool {
        if picked.dialled { other == *picked.destination.ip() } else { self.fits(other) }
    }

    /// The slice an address lies in: those in one slice lead to one endpoint.
    #[must_use]
    pub fn slice_of(&self, address: Ipv6Addr) -> Option<Ipv6Net> {
        self.rule().slice_of(&self.in_force.service.space, address)
    }

    /// The text of the rule by which addresses are computed.
    #[must_use]
    pub fn rule_text(&self) -> &str {
        self.rule().text()
    }

    /// Whether computing an address takes so much work that it should not hold up other connections.
    #[must_use]
    pub fn are_heavy(&self) -> bool {
        self.rule().work_bits().is_some_and(|bits| bits >= HEAVY_WORK_BITS)
    }

    /// The next address that has not been tried; `None` when there are no more.
    ///
    /// # Errors
    /// Why no replica has any address, when that is so.
    pub fn pick(&mut self) -> Result<Option<Picked>, NoCandidate> {
        if self.tried.len() >= MOST_ATTEMPTS {
            return Ok(None);
        }
        if let Some(dialled) = self.first.take()
            && self.fits(dialled)
        {
            return Ok(Some(Picked { dialled: true, ..self.picked(dialled) }));
        }
        let replicas = u128::from(self.rule().replicas());
        let mut failure = None;
        let draws = if self.are_heavy() { 1 } else { MOST_DRAWS };
        for _ in 0..draws * replicas {
            let replica = (self.turn % replicas) as u8;
            self.turn += 1;
            match self.compute(replica) {
                Ok(address) if self.tried.contains(&address) => {}
                Ok(address) => return Ok(Some(self.picked(address))),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if self.tried.is_empty() => Err(error.into()),
            Some(_) | None => Ok(None),
        }
    }

    fn rule(&self) -> &Rule {
        self.in_force.rule()
    }

    fn picked(&mut self, address: Ipv6Addr) -> Picked {
        self.tried.push(address);
        Picked {
            destination: SocketAddrV6::new(address, self.port, 0, 0),
            source: self.source,
            generation: self.rule().generation(),
            dialled: false,
        }
    }

    fn compute(&self, replica: u8) -> Result<Ipv6Addr, ComputeError> {
        let inputs =
            Inputs { source: self.source, content: &self.content, secret: self.secrets.of(self.rule()), now: self.now };
        self.rule().compute(&self.in_force.service.space, &inputs, replica, &mut || (self.draw)())
    }

    /// Whether the rule might have given this address for this call.
    #[must_use]
    pub fn fits(&self, address: Ipv6Addr) -> bool {
        let known = Known {
            source: Some(self.source),
            content: Some(&self.content),
            secret: self.secrets.of(self.rule()),
            now: Some(self.now),
        };
        self.rule().check(&self.in_force.service.space, address, &known).is_ok()
    }
}

/// What of the content key can be known without reading the request: the label by which the service was called
/// (SSA.md §2). Everything else is absent, and what is absent gives the empty key.
fn content_key(called: &Called, rule: &Rule) -> Vec<u8> {
    let name = called.asked.to_lowercase();
    match rule.content_source() {
        ContentSource::Label if name.parent().as_ref() == Some(&called.service.name) => {
            name.labels().next().map(<[u8]>::to_vec).unwrap_or_default()
        }
        ContentSource::Label
        | ContentSource::Path
        | ContentSource::Segment(_)
        | ContentSource::Query(_)
        | ContentSource::Header(_)
        | ContentSource::Host => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::model::Name;
    use crate::model::ssa::Space;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);

    thread_local! {
        static DRAWS: Cell<u128> = const { Cell::new(0) };
    }

    /// Successive draws differ in every part, and tests repeat.
    fn counting() -> u128 {
        DRAWS.replace(DRAWS.get() + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
    }

    fn called(rules: &[&str]) -> Called {
        let items = ["2:2001:db8:5:1::/64".parse().unwrap()];
        let space = Space::new(&items).unwrap();
        let rules = rules.iter().map(|text| Rule::parse(text, &space).unwrap()).collect();
        let name: Name = "orders.shop.peak".parse().unwrap();
        let service = Arc::new(Service { name: name.clone(), space, rules, port: None });
        Called { service, asked: name, dialled: None, port: 80 }
    }

    fn candidates(called: &Called) -> Candidates {
        let in_force = InForce::at(&called.service, UnixSeconds(1_000)).unwrap();
        Candidates::new(called, in_force, Arc::default(), SOURCE, UnixSeconds(1_000), counting)
    }

    #[test]
    fn random_candidates_go_on_until_sixteen_were_tried_and_none_comes_twice() {
        let mut candidates = candidates(&called(&["v=ssa1 layout=random:64"]));
        let mut seen = Vec::new();
        while let Some(picked) = candidates.pick().unwrap() {
            seen.push(*picked.destination_v6().ip());
        }
        assert_eq!(seen.len(), MOST_ATTEMPTS);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), MOST_ATTEMPTS);
    }

    #[test]
    fn a_rule_without_chance_has_one_candidate_for_each_replica() {
        let mut one = candidates(&called(&["v=ssa1 layout=source-hash:64/128"]));
        let picked = one.pick().unwrap().unwrap();
        assert_eq!((picked.source(), picked.destination().port()), (SOURCE, 80));
        assert_eq!(one.pick().unwrap(), None);

        let mut several = candidates(&called(&["v=ssa1 layout=content-hash:64 replicas=3"]));
        let tried = std::iter::from_fn(|| several.pick().unwrap()).count();
        assert_eq!(tried, 3);
    }

    #[test]
    fn the_largest_generation_in_force_decides_and_is_named() {
        let called = called(&["v=ssa1 gen=1", "v=ssa1 gen=2", "v=ssa1 gen=3 from=2000"]);
        assert_eq!(candidates(&called).pick().unwrap().unwrap().generation(), 2);
    }

    #[test]
    fn a_service_whose_rules_all_begin_later_has_no_rule() {
        let called = called(&["v=ssa1 from=2000"]);
        let in_force = |now| InForce::at(&called.service, UnixSeconds(now));
        assert_eq!(in_force(1_999).unwrap_err(), NoCandidate::NoRuleInForce);
        assert!(in_force(2_000).is_ok());
    }

    #[test]
    fn a_rule_that_hops_with_a_secret_we_lack_is_an_error_that_names_it() {
        let called = called(&["v=ssa1 layout=hop:64 secret=blue"]);
        let error = candidates(&called).pick().unwrap_err();
        assert_eq!(error.reason(), "secret-unknown");
        assert!(error.to_string().contains("blue"));
    }

    #[test]
    fn an_address_that_the_application_dialled_comes_first_exactly_when_it_fits_the_rule() {
        let mut called = called(&["v=ssa1 layout=fixed:32/7,random:32"]);
        let dialled = |text: &str| Some(text.parse::<Ipv6Addr>().unwrap());
        called.dialled = dialled("2001:db8:5:1:0:7:1234:5678");
        let first = candidates(&called).pick().unwrap().unwrap();
        assert_eq!(Some(*first.destination_v6().ip()), called.dialled);
        called.dialled = dialled("2001:db8:5:1::1");
        let first = candidates(&called).pick().unwrap().unwrap();
        assert_ne!(Some(*first.destination_v6().ip()), called.dialled);
    }

    #[test]
    fn the_label_by_which_a_service_was_called_is_its_content_key() {
        let mut called = called(&["v=ssa1 layout=content:64 content=label"]);
        called.asked = "CAFE.orders.shop.peak".parse().unwrap();
        let picked = candidates(&called).pick().unwrap().unwrap();
        assert_eq!(picked.destination_v6().ip().to_string(), "2001:db8:5:1:cafe::");
        called.asked = "a.cafe.orders.shop.peak".parse().unwrap();
        assert_eq!(candidates(&called).pick().unwrap_err().reason(), "content-not-hex");
    }

    #[test]
    fn a_new_source_gives_new_addresses() {
        let called = called(&["v=ssa1 layout=source-hash:64/128"]);
        let mut candidates = candidates(&called);
        let first = candidates.pick().unwrap().unwrap();
        candidates.come_from("2001:db8:1::11".parse().unwrap());
        let second = candidates.pick().unwrap().unwrap();
        assert_ne!(first.destination(), second.destination());
    }
}
