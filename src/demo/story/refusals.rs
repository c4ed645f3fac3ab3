//! The steps in which a server says no, and to exactly what.

use std::net::Ipv6Addr;

use super::super::plan::{self, CACHE, CALLER, CLIENT, ISSUER, ORDERS, Service};
use super::super::probe::{self, Attempt, Outcome};
use super::super::render::{Claim, Evidence};
use super::super::site::Site;
use super::{StoryError, Told, Tools};
use crate::model::UnixSeconds;
use crate::ops::clock;

/// The pod that is knocked at.
const TARGET: usize = 1;
/// Nobody's address, from the client's own subnet.
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xbad);

/// An attempt, what is wrong with it, and whether it is meant to be served.
struct Knock {
    what: &'static str,
    attempt: Attempt,
    served: bool,
}

/// A token of the client's own key for `service` that lives from `from` to `until`, in seconds from now.
fn sign(site: &Site, service: &Service, from: i64, until: i64) -> Result<String, StoryError> {
    let at = |seconds: i64| UnixSeconds(clock::now().0.saturating_add_signed(seconds));
    Ok(site.signing_key().sign(&probe::claims(ISSUER, CALLER, service.name, at(from), at(until))?)?)
}

fn honest(site: &Site, source: Ipv6Addr) -> Result<Attempt, StoryError> {
    let pod = plan::pod(TARGET).name;
    let destination = probe::address_at(&ORDERS, source, TARGET).ok_or(StoryError::NoAddress { pod })?;
    Ok(Attempt::honest(&ORDERS, destination, site.ca(), sign(site, &ORDERS, 0, 60)?))
}

/// Makes each attempt and tells what came of it, by the caller's and by the server's own account.
fn knock(site: &Site, knocks: Vec<Knock>) -> Result<(Evidence, Vec<Claim>), StoryError> {
    let pod = site.pod(TARGET);
    let mut rows = Vec::new();
    let mut claims = Vec::new();
    for Knock { what, attempt, served } in knocks {
        let before = site.refusals(pod)?;
        let outcome = attempt.make(site.client())?;
        let after = site.refusals(pod)?;
        let mut counted = after.iter().filter(|(reason, count)| before.get(*reason) != Some(*count));
        let reason = counted.next().map(|(reason, _)| reason.clone());
        let seen = match &outcome {
            Outcome::Answered(_) => String::from("answered"),
            Outcome::Closed(_) => String::from("closed, no byte"),
            Outcome::Handshake(_) | Outcome::Silent | Outcome::Unreachable(_) => outcome.describe(),
        };
        let detail = format!("{}, counted: {reason:?}", outcome.describe());
        claims.push(if served {
            Claim::new(format!("{what}: served"), outcome.is_served() && reason.is_none(), detail)
        } else {
            Claim::new(format!("{what}: refused and counted"), outcome.is_refused() && reason.is_some(), detail)
        });
        rows.push(vec![what.to_owned(), seen, reason.unwrap_or_else(|| String::from("-"))]);
    }
    let header = vec!["what is sent", "what comes back", "counted by the server as"];
    Ok((Evidence::Table { caption: String::new(), header, rows }, claims))
}

/// Everything right but the token.
pub(super) fn token(site: &mut Site, _tools: &Tools) -> Result<Told, StoryError> {
    let right = honest(site, CLIENT.address())?;
    let refused = |what, attempt| Knock { what, attempt, served: false };
    let (evidence, claims) = knock(
        site,
        vec![
            Knock { what: "everything right", attempt: right.clone(), served: true },
            refused("plain HTTP, no TLS", Attempt { tls: false, header: false, ..right.clone() }),
            refused("TLS, no header", Attempt { header: false, ..right.clone() }),
            refused("header without token", Attempt { token: None, ..right.clone() }),
            refused("a token that expired", Attempt { token: Some(sign(site, &ORDERS, -600, -300)?), ..right.clone() }),
            refused("another service's token", Attempt { token: Some(sign(site, &CACHE, 0, 60)?), ..right }),
        ],
    )?;
    Ok(Told {
        explanation: String::from(
            "Now from the client pod by hand, around its sidecar, straight to an address of the service. The first \
             line does what the sidecar does and is served, so the others fail for no other cause than the one they \
             name. The program in the pod hears nothing of any refusal: no byte reaches it.",
        ),
        evidence: vec![evidence],
        claims,
    })
}

/// Everything right but the source.
pub(super) fn source(site: &mut Site, _tools: &Tools) -> Result<Told, StoryError> {
    let right = honest(site, CLIENT.address())?;
    let elsewhere = honest(site, STRANGER)?;
    let refused = |what, attempt| Knock { what, attempt, served: false };
    let (evidence, claims) = knock(
        site,
        vec![
            Knock { what: "own source", attempt: right.clone(), served: true },
            refused("a header with a made-up source", Attempt { source: Some(STRANGER), ..right }),
            refused("an address made for that source", elsewhere.clone()),
            refused("both", Attempt { source: Some(STRANGER), ..elsewhere }),
        ],
    )?;
    Ok(Told {
        explanation: format!(
            "The token is good each time. The caller pretends to be {STRANGER}: in the header, in the address that it \
             computes, in both. The header must name the peer that the packets come from, and the address must be the \
             one that the rule gives to that peer. So nobody can collect somebody else's addresses and turn them on \
             one pod.",
        ),
        evidence: vec![evidence],
        claims,
    })
}
