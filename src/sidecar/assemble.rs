//! From a configuration to a sidecar that listens on everything and serves nothing yet, and from the next configuration
//! to what connections are carried by from then on.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;

use super::directory::{Directory, LastKnown};
use super::inbound::admit::{OwnService, Told};
use super::inbound::forward::Forward;
use super::inbound::relay::Leased;
use super::inbound::{Inbound, Policy};
use super::lease::{LeaseMetrics, Slices, Wanted};
use super::material::{self, MaterialError};
use super::memory::Memory;
use super::original::OriginalDst;
use super::outbound::authenticate::Tokens;
use super::outbound::health::Health;
use super::outbound::retries::Retries;
use super::outbound::transport::tunnel::Tunnels;
use super::outbound::{Identity, Limits, Outbound, Sources, http};
use super::quota::{Bounds, Quota};
use super::report::Report;
use super::resolve::{ResolveMetrics, Resolver, Settings};
use super::secrets::{SecretFileError, Secrets};
use super::stub::{BadPools, Computed, Parts, StandIns, Stub, StubMetrics};
use super::succession::{self, Estate, Known};
use crate::config::sidecar::{self, InboundService, Sidecar};
use crate::config::slices::Lease;
use crate::model::Name;
use crate::net::dns_client::{DnsClient, NoSystemServers, system_servers};
use crate::net::listen;
use crate::net::tls::ServerTls;
use crate::ops::entropy;
use crate::ops::metrics::Registry;
use crate::trust::{Issuers, IssuersError, Verifier};

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// The bounds of counts that every configuration gives its own.
const UNSET: Bounds = Bounds { open: 0, pending: 0 };

/// A sidecar with all its listeners bound.
pub(super) struct Assembled {
    pub(super) stub: Stub,
    pub(super) listeners: Listeners,
    pub(super) outbound: Arc<ArcSwap<Outbound>>,
    pub(super) inbound: Arc<ArcSwap<Inbound>>,
    pub(super) issuers: Arc<Issuers>,
    /// What is asked of Peak, where slices are leased.
    pub(super) lease: Option<(Wanted, LeaseMetrics)>,
    pub(super) lasting: Lasting,
    /// The sockets of all of it, for a successor.
    pub(super) estate: Estate,
}

/// Where connections arrive.
pub(super) struct Listeners {
    pub(super) outbound: TcpListener,
    pub(super) explicit: Option<TcpListener>,
    pub(super) inbound: TcpListener,
    pub(super) admin: TcpListener,
    pub(super) health: TcpListener,
}

/// What lasts from one configuration to the next.
pub(super) struct Lasting {
    report: Report,
    directory: Arc<dyn Directory>,
    /// The directory of this pod's own services.
    own: Arc<dyn Directory>,
    stand_ins: Arc<StandIns>,
    tunnels: Arc<Tunnels>,
    http: Arc<http::Shared>,
    health: Arc<Health>,
    retries: Arc<Retries>,
    circuits: Quota<Name>,
    verifier: Arc<Verifier>,
    callers: Quota<IpAddr>,
    handshakes: Quota<()>,
    pub(super) resolver: Resolver,
    pub(super) memory: Arc<Memory>,
    pub(super) leased: Option<Leased>,
    /// The sidecar's own ports: nothing is forwarded to them.
    reserved: BTreeSet<u16>,
}

/// What is read from files, and read again when they change.
#[derive(Clone)]
pub(super) struct Material {
    pub(super) identity: Option<Identity>,
    pub(super) server: Option<ServerTls>,
    pub(super) secrets: Arc<ArcSwap<Secrets>>,
}

/// Why a sidecar cannot start. One cause, one variant.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssembleError {
    /// A key or a certificate.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// A key set.
    #[error(transparent)]
    Issuers(#[from] IssuersError),
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

impl Material {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that does not serve.
    fn read(config: &Sidecar, report: &Report) -> Result<Self, AssembleError> {
        Ok(Self {
            identity: config.identity.as_ref().map(|settings| identity(settings, report)).transpose()?.flatten(),
            server: config.tls.as_ref().map(material::server).transpose()?,
            secrets: Arc::new(ArcSwap::from_pointee(Secrets::from_files(&config.outbound.secrets)?)),
        })
    }
}

/// Who this pod is, by what the files hold now.
pub(super) fn identity(settings: &sidecar::Identity, report: &Report) -> Result<Option<Identity>, MaterialError> {
    let Some(proof) = material::proof(settings)? else { return Ok(None) };
    let tokens = Arc::new(Tokens::new(proof, report.clone()));
    Ok(Some(Identity { tokens, tls: material::authorities(settings)? }))
}

impl Lasting {
    /// What the pod's own calls are carried by.
    pub(super) fn outbound(&self, config: &Sidecar, material: &Material) -> Outbound {
        let limits = &config.outbound.limits;
        Outbound {
            original: OriginalDst::of_the_kernel(),
            directory: Arc::clone(&self.directory),
            stand_ins: Arc::clone(&self.stand_ins),
            secrets: material.secrets.load_full(),
            identity: material.identity.clone(),
            tunnels: Arc::clone(&self.tunnels),
            http: Arc::clone(&self.http),
            sources: Sources::default(),
            health: Arc::clone(&self.health),
            retries: Arc::clone(&self.retries),
            circuits: self.circuits.within(Bounds { open: limits.connections, pending: limits.pending }),
            reserved: self.reserved.clone(),
            memory: Arc::clone(&self.memory),
            limits: connecting(&config.outbound),
            report: self.report.clone(),
        }
    }

    /// What calls to the pod are carried by.
    pub(super) fn inbound(&self, config: &Sidecar, material: &Material) -> Inbound {
        let limits = &config.inbound.limits;
        let of_source = Bounds { open: limits.connections_per_source, pending: limits.handshakes_per_source };
        let of_all = Bounds { open: limits.handshakes, pending: limits.handshakes };
        Inbound {
            original: OriginalDst::of_the_kernel(),
            directory: Arc::clone(&self.own),
            secrets: material.secrets.load_full(),
            policy: policy(config.inbound.policy),
            services: config.inbound.services.iter().map(own_service).collect(),
            tls: material.server.clone(),
            verifier: Arc::clone(&self.verifier),
            handshake_timeout: config.inbound.handshake_timeout,
            sources: self.callers.within(of_source),
            handshakes: self.handshakes.within(of_all),
            memory: Arc::clone(&self.memory),
            leased: self.leased.clone(),
            forward: Forward { mark: config.outbound.mark, reserved: self.reserved.clone() },
            report: self.report.clone(),
        }
    }

    /// What a successor cannot find out.
    pub(super) fn known(&self) -> Known {
        Known { stand_ins: self.stand_ins.given() }
    }

    /// Knows what a predecessor knew.
    pub(super) fn learn(&self, known: Known) {
        self.stand_ins.give_again(known.stand_ins);
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}

/// Reads the files, binds the listeners, those apart that were `inherited`, and puts the parts together.
pub(super) fn assemble(
    config: &Sidecar,
    registry: &Registry,
    inherited: Estate,
) -> Result<(Assembled, Material), AssembleError> {
    let report = Report::new(registry);
    let material = Material::read(config, &report)?;
    let client = DnsClient::new(config.outbound.mark, entropy::draw);
    let resolver = Resolver::new(lookups(&config.dns), client, ResolveMetrics::new(registry));
    let stand_ins = Arc::new(StandIns::new(config.dns.stand_ins.ipv4, config.dns.stand_ins.ipv6)?);
    let directory: Arc<dyn Directory> = Arc::new(resolver.clone());
    let parts = Parts {
        resolver: resolver.clone(),
        stand_ins: Arc::clone(&stand_ins),
        upstream: upstream(&config.dns)?,
        client,
        stale: config.dns.stale,
        computed: (config.dns.answers == sidecar::Answers::Computed)
            .then(|| Computed::new(Arc::clone(&material.secrets), config.outbound.mark)),
        metrics: StubMetrics::new(registry),
    };
    let mut sockets = Sockets { inherited, held: Estate::default() };
    let stub = sockets.stub(config.dns.listen, parts).map_err(refused("dns.listen", config.dns.listen))?;
    let listeners = Listeners::bind(config, &mut sockets)?;
    let verifier = Arc::new(report.verifier(Vec::new()));
    let issuers = Arc::new(Issuers::new(&config.trust, Arc::clone(&verifier), config.outbound.mark)?);
    let port = listeners.inbound.local_addr().map_or(config.inbound.listen.port(), |address| address.port());
    let lease = config.lease.as_ref().map(|lease| (wanted(config, lease, port), LeaseMetrics::new(registry)));
    let lasting = Lasting {
        leased: leased(config, &material),
        own: Arc::new(LastKnown::new(Arc::clone(&directory))),
        directory,
        stand_ins,
        tunnels: Arc::new(report.pool()),
        http: Arc::new(http::Shared::new(&report)),
        health: Arc::default(),
        retries: Arc::default(),
        circuits: Quota::new(UNSET),
        verifier,
        callers: Quota::new(UNSET),
        handshakes: Quota::new(UNSET),
        resolver,
        memory: Arc::new(Memory::new(config.memory.0)),
        reserved: listeners.ports().chain([stub.local_addr().port()]).collect(),
        report,
    };
    let outbound = Arc::new(ArcSwap::from_pointee(lasting.outbound(config, &material)));
    let inbound = Arc::new(ArcSwap::from_pointee(lasting.inbound(config, &material)));
    let estate = sockets.held;
    Ok((Assembled { stub, listeners, outbound, inbound, issuers, lease, lasting, estate }, material))
}

/// Sockets as they are bound: those of a predecessor where it had them, and all of them held for a successor.
struct Sockets {
    inherited: Estate,
    held: Estate,
}

impl Sockets {
    fn tcp(&mut self, key: &str, address: SocketAddr) -> io::Result<TcpListener> {
        let inherited = self.inherited.take(key, address).and_then(|sockets| sockets.into_iter().next());
        let listener = inherited.map_or_else(|| listen::tcp(address), succession::listener)?;
        self.held.put(key, address, [listener.as_fd()])?;
        Ok(listener)
    }

    fn stub(&mut self, address: SocketAddr, parts: Parts) -> io::Result<Stub> {
        const KEY: &str = "dns.listen";
        let stub = match self.inherited.take(KEY, address) {
            None => Stub::bind(address, parts)?,
            Some(sockets) => {
                let mut sockets = sockets.into_iter();
                let mut pairs = Vec::new();
                while let (Some(udp), Some(tcp)) = (sockets.next(), sockets.next()) {
                    pairs.push((succession::datagrams(udp)?, succession::listener(tcp)?));
                }
                Stub::over(pairs, parts)?
            }
        };
        self.held.put(KEY, address, stub.sockets())?;
        Ok(stub)
    }
}

impl Listeners {
    fn bind(config: &Sidecar, sockets: &mut Sockets) -> Result<Self, AssembleError> {
        let mut bind = |key, address| sockets.tcp(key, address).map_err(refused(key, address));
        Ok(Self {
            outbound: bind("outbound.listen", config.outbound.listen)?,
            explicit: config.outbound.explicit.map(|address| bind("outbound.explicit", address)).transpose()?,
            inbound: bind("inbound.listen", config.inbound.listen)?,
            admin: bind("admin.listen", config.admin.listen)?,
            health: bind("admin.metrics", config.admin.metrics)?,
        })
    }

    fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        let always = [&self.outbound, &self.inbound, &self.admin, &self.health];
        always
            .into_iter()
            .chain(&self.explicit)
            .filter_map(|listener| listener.local_addr().ok())
            .map(|address| address.port())
    }
}

/// What the data path knows of leased slices. It keeps the identity of the start, whose tokens are renewed with the files.
fn leased(config: &Sidecar, material: &Material) -> Option<Leased> {
    let (lease, settings) = config.lease.as_ref().zip(config.identity.as_ref())?;
    let (identity, id) = material.identity.clone().zip(settings.id.clone())?;
    let slices = Arc::new(Slices::new(lease.lapsed));
    Some(Leased { slices, identity: Arc::new(identity), id, mark: config.outbound.mark })
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
        stale: dns.stale,
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
