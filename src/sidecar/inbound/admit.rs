//! Third phase: whether the destination is right for this caller, and whether the caller may come in.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::model::ssa::{Known, Rule, TokenMode, Wrong, current};
use crate::model::token::{Admitted, Caller, CallerPattern, NotAllowed, admit};
use crate::model::{Name, UnixSeconds};
use crate::sidecar::resolve::Service;
use crate::sidecar::secrets::Secrets;

/// A service of this pod.
#[derive(Clone, Debug)]
pub struct OwnService {
    /// Its name.
    pub name: Name,
    /// Who may call; `None` is whoever proves an identity.
    pub callers: Option<Vec<CallerPattern>>,
    /// Port a connection arrives at: local port it is handed to.
    pub ports: BTreeMap<u16, u16>,
    /// Local ports whose program reads a PROXY v2 header.
    pub proxy_header: BTreeSet<u16>,
    /// What the application is told of a request that came in `header` mode.
    pub told: Told,
}

/// What the application is told of who calls.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Told {
    /// Its name, in `Peak-Caller`.
    pub caller: bool,
    /// Its address, in `Forwarded` (RFC 7239).
    pub forwarded: bool,
}

impl OwnService {
    /// The local port for one that a connection arrived at.
    #[must_use]
    pub fn local_port(&self, arrived: u16) -> u16 {
        self.ports.get(&arrived).copied().unwrap_or(arrived)
    }
}

/// The address at which a connection arrived is not one that this caller would have computed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{destination} is not an address of {service} for {caller}: {wrong} does not fit the rule")]
pub struct Misaddressed {
    /// Where it arrived.
    pub destination: Ipv6Addr,
    /// The service.
    pub service: Name,
    /// Who connected.
    pub caller: Ipv6Addr,
    /// The first thing that is wrong.
    pub wrong: Wrong,
}

impl Misaddressed {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        "address-wrong"
    }
}

/// The content key that a rule reads from a request, where there is a request.
pub(super) type ContentKey<'r> = dyn Fn(&Rule) -> Option<Cow<'r, [u8]>> + Sync + 'r;

/// Nothing is known of what is asked for.
pub(super) fn unknown<'r>(_rule: &Rule) -> Option<Cow<'r, [u8]>> {
    None
}

/// A destination that fits a rule of the service for this caller. Only [`fits`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fitting(());

/// Checks the destination against the service's rules: it is right when it fits any of them (SSA.md §1).
pub(super) fn fits(
    service: &Service,
    destination: Ipv6Addr,
    caller: Ipv6Addr,
    secrets: &Secrets,
    now: UnixSeconds,
    key: &ContentKey<'_>,
) -> Result<Fitting, Misaddressed> {
    let check = |rule: &Rule| check(rule, service, destination, caller, secrets, now, key(rule).as_deref());
    let in_use = current(&service.rules, now).or(service.rules.first());
    let wrong = match in_use.map(check) {
        Some(Ok(())) => return Ok(Fitting(())),
        Some(Err(wrong)) => wrong,
        None => Wrong("rule"),
    };
    if service.rules.iter().any(|rule| check(rule).is_ok()) {
        return Ok(Fitting(()));
    }
    Err(Misaddressed { destination, service: service.name.clone(), caller, wrong })
}

/// Checks the destination against those rules alone that ask for no token; every rule of the service must be such a
/// one, or a caller could choose to be nobody.
pub(super) fn fits_without_token(
    service: &Service,
    destination: Ipv6Addr,
    caller: Ipv6Addr,
    secrets: &Secrets,
    now: UnixSeconds,
) -> Option<Result<Fitting, Misaddressed>> {
    let open = service.rules.iter().all(|rule| rule.token_mode() == TokenMode::None);
    (open && service.space.contains(destination)).then(|| fits(service, destination, caller, secrets, now, &unknown))
}

/// Each rule names its own secret, so they are checked one by one.
fn check(
    rule: &Rule,
    service: &Service,
    destination: Ipv6Addr,
    caller: Ipv6Addr,
    secrets: &Secrets,
    now: UnixSeconds,
    content: Option<&[u8]>,
) -> Result<(), Wrong> {
    let known = Known { source: Some(caller), content, secret: secrets.of(rule), now: Some(now) };
    rule.check(&service.space, destination, &known)
}

/// Lets a verified caller in whose destination fits.
pub(super) fn admitted(_fitting: Fitting, caller: Caller, service: &OwnService) -> Result<Admitted, NotAllowed> {
    admit(caller, service.callers.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ssa::Space;

    const NOW: UnixSeconds = UnixSeconds(1_000);

    fn service(rules: &[&str]) -> Service {
        let space = Space::new(&["2:2001:db8:5:1::/64".parse().unwrap()]).unwrap();
        let rules = rules.iter().map(|text| Rule::parse(text, &space).unwrap()).collect();
        Service { name: "orders.shop.peak".parse().unwrap(), space, rules, port: None }
    }

    fn address(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_fits_any_generation_is_right_and_one_that_fits_none_is_wrong_by_the_one_in_use() {
        let service = service(&["v=ssa1 layout=fixed:16/1 gen=1", "v=ssa1 layout=fixed:16/2,source:0-8 gen=2"]);
        let caller = address("2001:db8:1::10");
        let fitting = |text| fits(&service, address(text), caller, &Secrets::default(), NOW, &unknown);
        assert!(fitting("2001:db8:5:1:1:ffff::").is_ok());
        assert!(fitting("2001:db8:5:1:2:2000::").is_ok());
        assert_eq!(fitting("2001:db8:5:1:2:ff00::").unwrap_err().wrong, Wrong("source"));
        assert_eq!(fitting("2001:db8:5:2::").unwrap_err().wrong, Wrong("prefix"));
    }

    #[test]
    fn without_a_token_only_a_service_passes_none_of_whose_rules_asks_for_one() {
        let caller = address("2001:db8:1::10");
        let passes = |rules: &[&str], text| {
            fits_without_token(&service(rules), address(text), caller, &Secrets::default(), NOW)
                .map(|fits| fits.is_ok())
        };
        assert_eq!(passes(&["v=ssa1 layout=fixed:16/1 token=none"], "2001:db8:5:1:1::"), Some(true));
        assert_eq!(passes(&["v=ssa1 layout=fixed:16/1 token=none"], "2001:db8:5:1:2::"), Some(false));
        assert_eq!(passes(&["v=ssa1 token=none"], "2001:db8:5:2::"), None);
        assert_eq!(passes(&["v=ssa1 token=none gen=1", "v=ssa1 token=pp2"], "2001:db8:5:1::"), None);
    }

    #[test]
    fn a_port_that_is_not_mapped_stays_as_it_is() {
        let ports = BTreeMap::from([(80, 8080)]);
        let name = "orders.shop.peak".parse().unwrap();
        let own = OwnService { name, callers: None, ports, proxy_header: BTreeSet::new(), told: Told::default() };
        assert_eq!((own.local_port(80), own.local_port(81)), (8080, 81));
    }
}
