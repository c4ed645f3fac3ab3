//! Reading the pod's network and changing it, step by step, with a way back.

use super::plan::Plan;
use super::redirect;
use super::routing::{Pod, Routing, routing};
use super::steps::{self, Step};
use super::{PROTOCOL, TABLE};
use crate::net::namespace::sysctl;
use crate::net::nft::{self, Difference, NftError};
use crate::net::routes::{Family, LOOPBACK, Netlink, RouteError};

/// Why a pod's network is not what it is to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error("the loopback device is down, and stand-ins are dialled through it: `ip link set lo up` first")]
    LoopbackDown,
    #[error(
        "IPv6 is off in this pod (net.ipv6.conf.lo.disable_ipv6), so it cannot serve the prefix of a service: turn it \
         on, or leave out --service-prefix"
    )]
    Ipv6Off,
    #[error("{cause}; undoing `{step}` failed as well ({undoing}): run `funicular init --remove`")]
    NotUndone { cause: Box<Self>, step: String, undoing: Box<Self> },
    #[error("after every step succeeded, this is still missing: `{0}`; something else changes this pod's network")]
    NotInPlace(String),
}

/// What there is to work with.
pub(super) async fn pod() -> Result<Pod, InitError> {
    let netlink = Netlink::here()?;
    let mut ipv4_address = false;
    for link in netlink.links().await?.iter().filter(|link| link.name != LOOPBACK) {
        let addresses = netlink.addresses(&link.name).await?;
        ipv4_address |= addresses.iter().any(|address| Family::of(address) == Family::V4);
    }
    // A kernel without IPv6 lacks the parameter.
    let ipv6 = sysctl("net.ipv6.conf.lo.disable_ipv6").is_ok_and(|off| off == "0");
    Ok(Pod { ipv6, ipv4_address })
}

/// Everything under our protocol number.
async fn present(netlink: &Netlink) -> Result<Routing, InitError> {
    let mut present = Routing::default();
    for family in [Family::V4, Family::V6] {
        present.routes.extend(netlink.routes(family, PROTOCOL).await?);
        present.rules.extend(netlink.rules(family, PROTOCOL).await?);
    }
    Ok(present)
}

/// The steps that `plan` still needs.
pub(super) async fn missing(plan: &Plan) -> Result<Vec<Step>, InitError> {
    missing_given(plan, nft::difference(&redirect::table(plan))?).await
}

/// As [`missing`]; who may not read packet rules is shown those of a pod that has none.
pub(super) async fn missing_as_far_as_known(plan: &Plan) -> Result<Vec<Step>, InitError> {
    let difference = match nft::difference(&redirect::table(plan)) {
        Err(NftError::NotPermitted) => Some(Difference::NoTable),
        known => known?,
    };
    missing_given(plan, difference).await
}

async fn missing_given(plan: &Plan, difference: Option<Difference>) -> Result<Vec<Step>, InitError> {
    let netlink = Netlink::here()?;
    let pod = pod().await?;
    if !netlink.link(LOOPBACK).await?.up {
        return Err(InitError::LoopbackDown);
    }
    if !plan.service_prefixes.is_empty() {
        if !pod.ipv6 {
            return Err(InitError::Ipv6Off);
        }
        // A rule may name a device that is not there, and would then never match.
        netlink.link(&plan.device).await?;
    }
    let table = difference.map(|why| Step::ReplaceTable { table: redirect::table(plan), why });
    Ok(steps::towards(&routing(plan, pod), &present(&netlink).await?, table))
}

/// Makes `plan` so, and reads back that it is; gives the steps that it took.
pub(super) async fn apply(plan: &Plan) -> Result<Vec<Step>, InitError> {
    let steps = missing(plan).await?;
    perform_all(&steps, &Netlink::here()?).await?;
    match missing(plan).await?.first() {
        None => Ok(steps),
        Some(step) => Err(InitError::NotInPlace(step.summary())),
    }
}

/// The steps that remove everything.
pub(super) async fn removal() -> Result<Vec<Step>, InitError> {
    let table = nft::exists(TABLE)?;
    Ok(steps::away(&present(&Netlink::here()?).await?, table))
}

/// Removes everything, and reads back that nothing is left; gives the steps that it took.
pub(super) async fn remove() -> Result<Vec<Step>, InitError> {
    let steps = removal().await?;
    perform_all(&steps, &Netlink::here()?).await?;
    match removal().await?.first() {
        None => Ok(steps),
        Some(step) => Err(InitError::NotInPlace(step.summary())),
    }
}

/// Performs `steps`. On failure those that can be undone are, back to the last that cannot.
async fn perform_all(steps: &[Step], netlink: &Netlink) -> Result<(), InitError> {
    let mut undo = Vec::new();
    for step in steps {
        if let Err(cause) = perform(step, netlink).await {
            return Err(go_back(cause, undo, netlink).await);
        }
        match step.inverse() {
            Some(inverse) => undo.push(inverse),
            None => undo.clear(),
        }
    }
    Ok(())
}

/// Undoes, last first; gives the error to report.
async fn go_back(cause: InitError, undo: Vec<Step>, netlink: &Netlink) -> InitError {
    for step in undo.iter().rev() {
        if let Err(undoing) = perform(step, netlink).await {
            let (cause, undoing) = (Box::new(cause), Box::new(undoing));
            return InitError::NotUndone { cause, step: step.to_string(), undoing };
        }
    }
    cause
}

async fn perform(step: &Step, netlink: &Netlink) -> Result<(), InitError> {
    match step {
        Step::AddRoute(route) => netlink.add_route(route).await?,
        Step::ReplaceRoute { new, .. } => netlink.replace_route(new).await?,
        Step::DeleteRoute(route) => netlink.delete_route(route).await?,
        Step::AddRule(rule) => netlink.add_rule(rule).await?,
        Step::DeleteRule(rule) => netlink.delete_rule(rule).await?,
        Step::ReplaceTable { table, .. } => nft::replace(table)?,
        Step::RemoveTable => {
            nft::remove(TABLE)?;
        }
    }
    Ok(())
}

/// One line for whoever ran it.
pub(super) fn in_place(plan: &Plan, already: bool) -> String {
    let ports = plan.ports;
    let exempt = [("uid", plan.exempt.user), ("gid", plan.exempt.group)].into_iter();
    let exempt = exempt.filter_map(|(what, id)| Some(format!("{what} {}", id?)));
    let exempt: Vec<_> = exempt.chain(plan.exempt.mark.map(|mark| format!("mark {mark:#x}"))).collect();
    format!(
        "{}: outbound TCP to port {}, DNS to {}, inbound TCP to {}; not for {}",
        if already { "in place already" } else { "in place" },
        ports.outbound,
        ports.dns,
        ports.inbound,
        exempt.join(", "),
    )
}
