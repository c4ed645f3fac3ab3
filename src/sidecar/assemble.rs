//! From a configuration to a sidecar that listens on everything and serves nothing yet.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::directory::{Directory, LastKnown};
use super::inbound::admit::{OwnService, Told};
use super::inbound::forward::Forward;
use super::inbound::verify::Verifier;
use super::inbound::{Inbound, Policy};
use super::material::{self, MaterialError};
use super::original::OriginalDst;
use super::outbound::{Limits, Outbound, Sources};
use super::report::Report;
use super::resolve::{ResolveMetrics, Resolver, Settings};
use super::secrets::{SecretFileError, Secrets};
use super::stub::{BadPools, Parts, StandIns, Stub, StubMetrics};
use crate::config::sidecar::{self, InboundService, Sidecar};
use crate::net::dns_client::{DnsClient, NoSystemServers, system_servers};
use crate::net::listen;
use crate::ops::entropy;
use crate::ops::metrics::Registry;

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// A sidecar with all its listeners bound.
pub(super) struct Assembled {
    pub(super) stub: Stub,
    pub(super) outbound: (TcpListener, Arc<Outbound>),
    pub(super) inbound: (TcpListener, Arc<Inbound>),
    pub(super) admin: TcpListener,
    pub(super) health: TcpListener,
}

/// Why a sidecar cannot start. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssembleError {
    /// A key or a certificate.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// The stand-ins' pools.
    #[error(transparent)]
    StandIns(#[from] BadPools),
    /// The name servers for other names.
    #[error(transparent)]
    NoServers(#[from] NoSystemServers),
    /// A listener.
    #[error("{key}: cannot listen on {address}: {cause}")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// Reads the files, binds the listeners and puts the parts together.
pub(super) fn assemble(config: &Sidecar, registry: &Registry) -> Result<Assembled, AssembleError> {
    let report = Report::new(registry);
    let client = DnsClient::new(config.outbound.mark, entropy::draw);
    let resolver = Resolver::new(lookups(&config.dns), client, ResolveMetrics::new(registry));
    let stand_ins = Arc::new(StandIns::new(config.dns.stand_ins.ipv4, config.dns.stand_ins.ipv6)?);
    let directory: Arc<dyn Directory> = Arc::new(resolver.clone());
    let secrets = Arc::new(Secrets::from_files(&config.outbound.secrets)?);

    let parts = Parts {
        resolver,
        stand_ins: Arc::clone(&stand_ins),
        upstream: upstream(&config.dns)?,
        client,
        metrics: StubMetrics::new(registry),
    };
    let stub = Stub::bind(config.dns.listen, parts).map_err(refused("dns.listen", config.dns.listen))?;
    let bind = |key, address| listen::tcp(address).map_err(refused(key, address));
    let listeners = [
        bind("outbound.listen", config.outbound.listen)?,
        bind("inbound.listen", config.inbound.listen)?,
        bind("admin.listen", config.admin.listen)?,
        bind("admin.metrics", config.admin.metrics)?,
    ];
    let mut reserved: BTreeSet<u16> =
        listeners.iter().filter_map(|listener| listener.local_addr().ok()).map(|address| address.port()).collect();
    reserved.insert(stub.local_addr().port());

    let outbound = Outbound {
        original: OriginalDst::of_the_kernel(),
        directory: Arc::clone(&directory),
        stand_ins,
        secrets: Arc::clone(&secrets),
        identity: config.identity.as_ref().map(|identity| material::identity(identity, &report)).transpose()?,
        tunnels: Arc::new(report.pool()),
        http: super::outbound::http::Shared::new(&report),
        sources: Sources::default(),
        limits: limits(&config.outbound),
        report: report.clone(),
    };
    let inbound = Inbound {
        original: OriginalDst::of_the_kernel(),
        directory: Arc::new(LastKnown::new(directory)),
        secrets,
        policy: policy(config.inbound.policy),
        services: config.inbound.services.iter().map(own_service).collect(),
        tls: config.tls.as_ref().map(material::server).transpose()?,
        verifier: Arc::new(Verifier::new(material::trusted(&config.trust)?, report.clone())),
        handshake_timeout: config.inbound.handshake_timeout,
        forward: Forward { mark: config.outbound.mark, reserved },
        report,
    };
    let [for_outbound, for_inbound, admin, health] = listeners;
    Ok(Assembled {
        stub,
        outbound: (for_outbound, Arc::new(outbound)),
        inbound: (for_inbound, Arc::new(inbound)),
        admin,
        health,
    })
}

fn lookups(dns: &sidecar::Dns) -> Settings {
    Settings {
        zones: dns.peak.zones.clone(),
        servers: dns.peak.servers.iter().map(|server| server.0).collect(),
        delegated_port: DNS_PORT,
    }
}

/// The configured name servers, else the system's.
fn upstream(dns: &sidecar::Dns) -> Result<Vec<SocketAddr>, NoSystemServers> {
    match dns.upstream.as_slice() {
        [] => system_servers(),
        configured => Ok(configured.iter().map(|server| server.0).collect()),
    }
}

fn limits(outbound: &sidecar::Outbound) -> Limits {
    Limits {
        connect_deadline: outbound.connect_deadline,
        attempt_timeout: outbound.attempt_timeout,
        mark: outbound.mark,
    }
}

fn policy(policy: sidecar::Policy) -> Policy {
    match policy {
        sidecar::Policy::Strict => Policy::Strict,
        sidecar::Policy::Permissive => Policy::Permissive,
        sidecar::Policy::Audit => Policy::Audit,
    }
}

fn own_service(service: &InboundService) -> OwnService {
    OwnService {
        name: service.name.clone(),
        callers: service.callers.clone(),
        ports: service.ports.clone(),
        told: Told { caller: service.tell_caller, forwarded: service.tell_forwarded },
    }
}

fn refused(key: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> AssembleError {
    move |cause| AssembleError::Listen { key, address, cause }
}
