//! From a configuration to a sidecar that listens on everything and serves nothing yet.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

use super::directory::{Directory, LastKnown};
use super::inbound::admit::{OwnService, Probes, Told};
use super::inbound::forward::Forward;
use super::inbound::relay::Leased;
use super::inbound::verify::Verifier;
use super::inbound::{Inbound, Policy};
use super::lease::{LeaseMetrics, Slices, Wanted};
use super::material::{self, MaterialError};
use super::memory::Memory;
use super::original::OriginalDst;
use super::outbound::health::Health;
use super::outbound::retries::Retries;
use super::outbound::{Limits, Outbound, Sources};
use super::quota::{Bounds, Quota};
use super::report::Report;
use super::resolve::{ResolveMetrics, Resolver, Settings};
use super::secrets::{SecretFileError, Secrets};
use super::stub::{BadPools, Parts, StandIns, Stub, StubMetrics};
use crate::config::sidecar::{self, InboundService, Sidecar};
use crate::config::slices::Lease;
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
    pub(super) explicit: Option<TcpListener>,
    pub(super) inbound: (TcpListener, Arc<Inbound>),
    pub(super) memory: Arc<Memory>,
    /// What is asked of Peak, where slices are leased.
    pub(super) lease: Option<(Wanted, LeaseMetrics)>,
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

/// The listeners of connections, bound.
struct Listeners {
    outbound: TcpListener,
    explicit: Option<TcpListener>,
    inbound: TcpListener,
    admin: TcpListener,
    health: TcpListener,
}

/// What both halves share.
struct Common {
    directory: Arc<dyn Directory>,
    stand_ins: Arc<StandIns>,
    secrets: Arc<Secrets>,
    memory: Arc<Memory>,
    /// The sidecar's own ports.
    reserved: BTreeSet<u16>,
    report: Report,
}

/// Reads the files, binds the listeners and puts the parts together.
pub(super) fn assemble(config: &Sidecar, registry: &Registry) -> Result<Assembled, AssembleError> {
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
    let listeners = Listeners::bind(config)?;
    let reserved = listeners.ports().chain([stub.local_addr().port()]).collect();
    let memory = Arc::new(Memory::new(config.memory.0));
    let common = Common { directory, stand_ins, secrets, memory, reserved, report: Report::new(registry) };
    let (outbound, inbound) = (Arc::new(outbound(config, &common)?), Arc::new(inbound(config, &common)?));
    let port = listeners.inbound.local_addr().map_or(config.inbound.listen.port(), |address| address.port());
    let lease = config.lease.as_ref().map(|lease| (wanted(config, lease, port), LeaseMetrics::new(registry)));
    Ok(Assembled {
        stub,
        outbound: (listeners.outbound, outbound),
        explicit: listeners.explicit,
        inbound: (listeners.inbound, inbound),
        memory: common.memory,
        lease,
        admin: listeners.admin,
        health: listeners.health,
    })
}

impl Listeners {
    fn bind(config: &Sidecar) -> Result<Self, AssembleError> {
        let bind = |key, address| listen::tcp(address).map_err(refused(key, address));
        Ok(Self {
            outbound: bind("outbound.listen", config.outbound.listen)?,
            explicit: config.outbound.explicit.map(|address| bind("outbound.explicit", address)).transpose()?,
            inbound: bind("inbound.listen", config.inbound.listen)?,
            admin: bind("admin.listen", config.admin.listen)?,
            health: bind("admin.metrics", config.admin.metrics)?,
        })
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        let always = [&self.outbound, &self.inbound, &self.admin, &self.health];
        let all = always.into_iter().chain(&self.explicit);
        all.filter_map(|listener| listener.local_addr().ok()).map(|address| address.port())
    }
}

fn outbound(config: &Sidecar, common: &Common) -> Result<Outbound, AssembleError> {
    let Common { directory, stand_ins, secrets, memory, reserved, report } = common;
    let limits = &config.outbound.limits;
    Ok(Outbound {
        original: OriginalDst::of_the_kernel(),
        directory: Arc::clone(directory),
        stand_ins: Arc::clone(stand_ins),
        secrets: Arc::clone(secrets),
        identity: config.identity.as_ref().map(|identity| material::identity(identity, report)).transpose()?,
        tunnels: Arc::new(report.pool()),
        http: super::outbound::http::Shared::new(report),
        sources: Sources::default(),
        health: Health::default(),
        retries: Retries::default(),
        circuits: Quota::new(Bounds { open: limits.connections, pending: limits.pending }),
        reserved: reserved.clone(),
        memory: Arc::clone(memory),
        limits: connecting(&config.outbound),
        report: report.clone(),
    })
}

fn inbound(config: &Sidecar, common: &Common) -> Result<Inbound, AssembleError> {
    let Common { directory, stand_ins: _, secrets, memory, reserved, report } = common;
    let sidecar::Inbound { limits, probes, .. } = &config.inbound;
    Ok(Inbound {
        original: OriginalDst::of_the_kernel(),
        directory: Arc::new(LastKnown::new(Arc::clone(directory))),
        secrets: Arc::clone(secrets),
        policy: policy(config.inbound.policy),
        services: config.inbound.services.iter().map(own_service).collect(),
        tls: config.tls.as_ref().map(material::server).transpose()?,
        verifier: Arc::new(Verifier::new(material::trusted(&config.trust)?, report.clone())),
        handshake_timeout: config.inbound.handshake_timeout,
        sources: Quota::new(Bounds { open: limits.connections_per_source, pending: limits.handshakes_per_source }),
        handshakes: Quota::new(Bounds { open: limits.handshakes, pending: limits.handshakes }),
        probes: Probes { ports: probes.ports.iter().copied().collect(), from: probes.from.clone() },
        memory: Arc::clone(memory),
        leased: leased(config, report)?,
        forward: Forward { mark: config.outbound.mark, reserved: reserved.clone() },
        report: report.clone(),
    })
}

/// What the data path knows of leased slices.
fn leased(config: &Sidecar, report: &Report) -> Result<Option<Leased>, AssembleError> {
    let Some((lease, identity)) = config.lease.as_ref().zip(config.identity.as_ref()) else { return Ok(None) };
    Ok(Some(Leased {
        slices: Arc::new(Slices::new(lease.lapsed)),
        identity: Arc::new(material::identity(identity, report)?),
        id: identity.id.clone(),
        mark: config.outbound.mark,
    }))
}

/// What is asked of Peak; `port` is where other sidecars reach this one.
fn wanted(config: &Sidecar, lease: &Lease, port: u16) -> Wanted {
    let inbound = match lease.address {
        Some(SocketAddr::V6(address)) => (*address.ip(), address.port()),
        Some(SocketAddr::V4(_)) | None => (Ipv6Addr::UNSPECIFIED, port),
    };
    Wanted {
        servers: lease.servers.clone(),
        peak: lease.name.clone(),
        pod: lease.pod.clone(),
        inbound,
        weight: lease.weight,
        services: config.inbound.services.iter().map(|service| service.name.clone()).collect(),
        agent: lease.agent.clone(),
        drain: config.drain,
        mark: config.outbound.mark,
    }
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

fn connecting(outbound: &sidecar::Outbound) -> Limits {
    Limits {
        connect_deadline: outbound.connect_deadline,
        attempt_delay: outbound.attempt_delay,
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
        proxy_header: service.proxy_header.iter().copied().collect(),
    }
}

fn refused(key: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> AssembleError {
    move |cause| AssembleError::Listen { key, address, cause }
}
