//! The steps about DNS and the rule.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::Ipv6Net;

use super::super::plan::{self, CLIENT, CLUSTER_PEAK, MAIN_PEAK, MARK, ORDERS};
use super::super::render::{Claim, Evidence};
use super::super::site::Site;
use super::{StoryError, Told, Tools};
use crate::model::Name;
use crate::net::dns_client::{AskError, DnsClient, Transport};
use crate::ops::entropy;
use crate::wire::dns::ssa_records::{self, Sources};
use crate::wire::dns::{Message, Record, Type, WireError};

/// How long a name server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    /// The name.
    #[error("{0} is no name")]
    Name(&'static str),
    /// Nothing came.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What came is no message.
    #[error("the answer cannot be read")]
    Unreadable(#[from] WireError),
}

/// Asks a name server from inside the client pod; with the sidecar's mark the question is not redirected.
fn ask(site: &Site, mark: Option<u32>, server: Ipv6Addr, name: &Name, rtype: Type) -> Result<Message, StoryError> {
    let query = Message::query(0, name.clone(), rtype).encode(usize::from(u16::MAX));
    let answer = site.client().within(move |runtime| {
        let client = DnsClient::new(mark, entropy::draw);
        runtime.block_on(client.exchange(Transport::Udp, SocketAddr::from((server, 53)), &query, PATIENCE))
    })?;
    let answer = answer.map_err(LookupError::Ask)?;
    Ok(Message::parse(&answer).map_err(LookupError::Unreadable)?)
}

fn lines<'r>(records: impl IntoIterator<Item = &'r Record>) -> Vec<String> {
    records.into_iter().map(Record::to_string).collect()
}

/// What DNS publishes, and what the program gets to see.
pub(super) fn published(site: &mut Site, _tools: &Tools) -> Result<Told, StoryError> {
    let name: Name = ORDERS.name.parse().map_err(|_| LookupError::Name(ORDERS.name))?;
    let rules = name.prefixed(b"_ssa").map_err(|_| LookupError::Name(ORDERS.name))?;
    let referral = ask(site, Some(MARK), MAIN_PEAK.address(), &name, Type::APL)?;
    let address = ask(site, Some(MARK), CLUSTER_PEAK.address(), &name, Type::AAAA)?;
    let space = ask(site, Some(MARK), CLUSTER_PEAK.address(), &name, Type::APL)?;
    let service = ask(site, Some(MARK), CLUSTER_PEAK.address(), &rules, Type::SVCB)?;

    let refers = referral.answers.is_empty()
        && referral.authorities.iter().any(|record| record.rtype == Type::NS)
        && referral.additionals.iter().any(|record| record.rdata[..] == CLUSTER_PEAK.address().octets());
    let (apl, svcb) = (rdata(&space, Type::APL), rdata(&service, Type::SVCB));
    let published = ssa_records::service(&Sources { apl: &apl, svcb: &svcb, ..Sources::default() });
    let whole = published.as_ref().is_ok_and(|published| published.space.prefixes() == [ORDERS.prefix()]);
    let ruled = published.as_ref().is_ok_and(|published| {
        published.rules.iter().any(|rule| rule.text() == ORDERS.rule) && published.port == ORDERS.port
    });

    let seen = match &published {
        Ok(published) => format!("{published:?}"),
        Err(legacy) => legacy.to_string(),
    };
    let answers = address.answers.iter().chain(&space.answers).chain(&service.answers);
    let (stand_ins, stood_in) = stand_ins(site, &name)?;
    let evidence = vec![
        Evidence::Lines {
            caption: format!("The main server, {}, asked for the APL of {name}, refers:", MAIN_PEAK.address()),
            lines: lines(referral.authorities.iter().chain(&referral.additionals)),
        },
        Evidence::Lines {
            caption: format!("The cluster's server, {}, answers (AAAA, APL, SVCB):", CLUSTER_PEAK.address()),
            lines: lines(answers),
        },
        Evidence::Lines {
            caption: format!(
                "A program in the pod asks the name server of its resolv.conf, {}, where nobody listens. The question \
                 is redirected to the sidecar, which answers with addresses of its own:",
                plan::NOBODY,
            ),
            lines: stand_ins,
        },
    ];
    let claims = vec![
        Claim::new("the main server refers to the cluster's server and gives its address", refers, "no referral"),
        Claim::new("the service publishes its whole space and no list of pods", whole, seen.clone()),
        Claim::new("it publishes the rule and the port", ruled, seen),
        stood_in,
    ];
    Ok(Told {
        explanation: String::from(
            "The client's sidecar knows one thing: the address of the main name server. From there it finds the \
             cluster's server, which publishes for the service its space (APL: all addresses that are the service) \
             and its rule (key65400: how a caller picks one). Pods come, go and move, and these records never change.",
        ),
        evidence,
        claims,
    })
}

fn rdata(message: &Message, rtype: Type) -> Vec<&[u8]> {
    message.answers.iter().filter(|record| record.rtype == rtype).map(|record| &record.rdata[..]).collect()
}

/// What a program's own questions are answered with: one address of each family that stands in for the service.
fn stand_ins(site: &Site, name: &Name) -> Result<(Vec<String>, Claim), StoryError> {
    let mut records = Vec::new();
    for rtype in [Type::AAAA, Type::A] {
        records.extend(ask(site, None, plan::NOBODY, name, rtype)?.answers);
    }
    let prefix: Option<Ipv6Net> = plan::STAND_INS.parse().ok();
    let is_stand_in = |record: &Record| match record.rdata.len() {
        4 => record.rdata[0] >= 240,
        16 => prefix.is_some_and(|prefix| record.rdata[..8] == prefix.network().octets()[..8]),
        _ => false,
    };
    let held = records.len() == 2 && records.iter().all(is_stand_in);
    let seen = lines(&records);
    let claim = Claim::new("a program gets a stand-in, in IPv6 and in IPv4", held, seen.join(", "));
    Ok((seen, claim))
}

/// The rule, taken apart by `funicular ssa explain`, and tried both ways.
pub(super) fn rule(site: &mut Site, _tools: &Tools) -> Result<Told, StoryError> {
    let source = CLIENT.address();
    let stranger = plan::pod(2).address();
    let item = format!("2:{}", ORDERS.prefix());
    let ssa = |verb: &str, source: Ipv6Addr| {
        let command = site.client().funicular("ssa").arg(verb);
        command.args(["--apl", &item, "--rule", ORDERS.rule, "--source", &source.to_string()])
    };
    let explain = ssa("explain", source);
    let shown = explain.shown().to_owned();
    let explained = explain.run()?;
    let computed = explained.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let check = |source| ssa("check", source).args(["--destination", &computed]).output();
    let (own, other) = (check(source)?, check(stranger)?);
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Told {
        explanation: format!(
            "The first 16 bits behind the prefix are drawn at random, so one client's requests spread over all slices \
             and so over all pods. The other 48 are a hash of the caller's own address: a server recomputes it, and \
             whoever makes up a source is found out. A slice is a block of addresses with the same first 14 bits; \
             there are 2^14, and each belongs to one pod at a time. Below, an address for the client, {source}.",
        ),
        evidence: vec![Evidence::Command {
            pod: String::from("client"),
            command: shown,
            output: explained.lines().map(str::to_owned).collect(),
        }],
        claims: vec![
            Claim::new("the computed address is right for this caller", own.status.success(), said(&own)),
            Claim::new(
                format!("it is wrong for any other caller, such as {stranger}"),
                other.status.code() == Some(1),
                said(&other),
            ),
        ],
    })
}
