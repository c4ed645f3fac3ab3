//! The two ends of leases: what Peak gives out (`slices`), and what a sidecar asks for (`lease`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Check;
use super::common::Trust;
use super::section::{choice, section};
use crate::model::Name;
use crate::model::token::CallerPattern;

/// The least and the most that a lease may last.
const LIVES: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(600);

section! {
    /// The slices of services that this Peak gives to pods.
    pub struct Slices {
        /// Where sidecars come for their leases, over TLS.
        listen: SocketAddr = "[::]:7445",
        /// The name that Peak proves to them, and the `aud` of the tokens that they show.
        name: Name,
        /// File with the certificate chain (PEM) that proves it.
        certificate: PathBuf,
        /// File with its private key (PEM).
        key: PathBuf,
        /// The issuers whose tokens are accepted.
        trust: Vec<Trust>,
        /// How long a lease lasts without being renewed.
        lease: Duration = "5s",
        /// The services whose slices are leased; their spaces and rules stand in Peak's zones.
        services: Vec<LeasedService>,
        /// The most slices of one service that are on their way at once. Slices that nobody alive has move whatever
        /// this says.
        moving: u32 = "16384",
        /// Slices of one service that may move in a minute so that pods have fewer prefixes, beyond what has to move.
        defragment: u32 = "256",
    }
}

section! {
    /// A service whose slices are leased.
    pub struct LeasedService {
        /// Its name.
        name: Name,
        /// The workloads that may serve it, in which `*` stands for any one part.
        pods: Vec<CallerPattern>,
    }
}

section! {
    /// Where this pod gets its slices.
    pub struct Lease {
        /// Peak's nodes, where they take leases; the sidecar finds the one that leads.
        servers: Vec<SocketAddr>,
        /// The name that they prove, and the `aud` of the token that they are shown.
        name: Name,
        /// The pod's name, which no other pod of its workload has.
        pod: String,
        /// Where other sidecars reach this one without any slice. None: where Peak sees it come from, at
        /// `inbound.listen`'s port.
        address: Option<SocketAddr>,
        /// Its share of the slices, against the others'; 0: none while others serve.
        weight: u32 = "1",
        /// The unix socket of the node's agent. None: routes are somebody else's, and are there as soon as they are due.
        agent: Option<PathBuf>,
        /// What becomes of calls when the lease could not be renewed.
        lapsed: Lapsed = "serve",
    }
}

choice! {
    /// What becomes of calls when the lease could not be renewed.
    pub enum Lapsed, "serve or refuse" {
        /// They are served while they arrive: nobody else may have been told to.
        Serve = "serve",
        /// They are refused, before anybody else is given the slices.
        Refuse = "refuse",
    }
}

impl Slices {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        if !LIVES.contains(&self.lease) {
            check.fault(&["slices.lease"], "it is from 500ms to 10m");
        }
        if self.trust.is_empty() {
            check.fault(&["slices.trust"], "it is missing: no sidecar could prove who it is");
        }
        Trust::check_all(&self.trust, "slices.trust", check);
        for (at, service) in self.services.iter().enumerate() {
            if self.services[..at].iter().any(|other| other.name == service.name) {
                check.fault(&[&format!("slices.services[{at}].name")], format!("{} is listed twice", service.name));
            }
            if service.pods.is_empty() {
                check.fault(&[&format!("slices.services[{at}].pods")], "lists none, so nobody could serve it");
            }
        }
    }
}

impl Lease {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        if self.servers.is_empty() {
            check.fault(&["lease.servers"], "lists none, so there is nobody to ask");
        }
        if self.address.is_some_and(|address| address.is_ipv4()) {
            check.fault(&["lease.address"], "it is IPv6: slices are");
        }
    }
}
