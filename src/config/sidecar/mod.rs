//! The sidecar's configuration.

mod fit;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

use super::common::{Admin, Log, Trust};
use super::section::{choice, section};
use super::slices::Lease;
use super::values::{NameServer, Size};
use super::{Check, Role};
use crate::model::Name;
use crate::model::token::{CallerPattern, WorkloadId};

section! {
    /// The configuration of `funicular sidecar`.
    pub struct Sidecar {
        /// Who this pod is to the services it calls. Required for every service whose rule asks for a token.
        identity: Option<Identity>,
        /// What proves this pod's services' names to their callers. Required when `inbound.services` has any.
        tls: Option<Tls>,
        /// The issuers whose tokens this pod's services accept.
        trust: Vec<Trust>,
        /// The DNS stub, and where names are looked up.
        dns: Dns,
        /// What the pod's own programs call.
        outbound: Outbound,
        /// Calls to this pod's services.
        inbound: Inbound,
        /// Where this pod gets the slices of its services. None: it serves whatever arrives.
        lease: Option<Lease>,
        /// Where the sidecar can be asked how it is.
        admin: Admin,
        /// What is logged, and how.
        log: Log,
        /// The memory that the sidecar is to stay within. When it is short, no connection is accepted and less is read ahead
        /// on those that are open, so that peers wait instead.
        memory: Size = "256MiB",
        /// How long connections may go on after the sidecar was told to stop; then they are closed.
        drain: Duration = "30s",
        /// What is asked of the application when somebody asks `/probe/NAME` on `admin.metrics`: the kubelet's probes,
        /// which prove nothing and so would be refused at the application's own ports. The webhook writes them.
        probes: BTreeMap<String, Probe>,
    }
}

section! {
    /// A question to the application, whose answer is good or not.
    pub struct Probe {
        /// How it is asked.
        kind: ProbeKind,
        /// The application's port.
        port: u16,
        /// The path of an HTTP request.
        path: String = "/",
        /// Header fields of an HTTP request.
        headers: BTreeMap<String, String>,
        /// The service whose health is asked by gRPC. None: the whole server's.
        service: Option<String>,
        /// How long the answer may take.
        timeout: Duration = "1s",
    }
}

choice! {
    /// How a probe is asked, as Kubernetes asks it.
    pub enum ProbeKind, "http, https, tcp or grpc" {
        /// GET; a status from 200 to 399 is good.
        Http = "http",
        /// The same over TLS, whatever the certificate.
        Https = "https",
        /// A connection is made.
        Tcp = "tcp",
        /// `grpc.health.v1.Health/Check` says SERVING.
        Grpc = "grpc",
    }
}

impl Role for Sidecar {
    const COMMAND: &'static str = "sidecar";

    fn check(&self, check: &mut Check<'_>) {
        fit::check(self, check);
    }
}

section! {
    /// Who this pod is, and what proves it: a key with which the sidecar signs a token for each service that it calls
    /// (`id`, `issuer`, `signing_key`, `key_id`), or a token that something else renews (`token_file`).
    pub struct Identity {
        /// The pod's name: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`; the `sub` of its tokens.
        id: Option<WorkloadId>,
        /// The `iss` of its tokens: what the services' `trust` lists.
        issuer: Option<String>,
        /// File with the private key that signs them: PKCS#8 PEM, Ed25519 or P-256.
        signing_key: Option<PathBuf>,
        /// The `kid` of that key in the issuer's key set.
        key_id: Option<String>,
        /// How long a token is good for; it is renewed before half of that is over.
        token_life: Duration = "300s",
        /// File with a token that is sent as it is to every service, and read again whenever it changes: a Kubernetes
        /// projected service account token. Whoever receives it can show it to others of its audience, so signing is
        /// better where there is a key.
        token_file: Option<PathBuf>,
        /// File with the certificates (PEM) of the authorities that vouch for the services' names.
        ca: PathBuf,
    }
}

section! {
    /// The certificate that proves this pod's services' names.
    pub struct Tls {
        /// File with the certificate chain (PEM), the pod's own first; it holds every name of `inbound.services`.
        certificate: PathBuf,
        /// File with its private key (PEM).
        key: PathBuf,
    }
}

section! {
    /// The DNS stub, and where names are looked up.
    pub struct Dns {
        /// Where the pod's questions arrive, over UDP and TCP; `funicular init` redirects port 53 here.
        listen: SocketAddr = "[::]:15053",
        /// Name servers for all names that are not Peak's. None: those of /etc/resolv.conf.
        upstream: Vec<NameServer>,
        /// Where services with structured addresses are looked up.
        peak: Peak,
        /// What programs get for a service's name. With `computed` they see addresses of the service itself, IPv6 alone: for
        /// programs that speak UDP, or that must see where they connect to.
        answers: Answers = "stand-in",
        /// How long past its TTL an answer is used while none of its name servers can be asked; `0s`: not at all.
        stale: Duration = "1h",
        /// Addresses the stub hands out in place of a service's own.
        stand_ins: StandIns,
    }
}

choice! {
    /// What programs get for a service's name.
    pub enum Answers, "stand-in or computed" {
        /// An address that stands for the service, in this pod alone.
        StandIn = "stand-in",
        /// An address of the service, computed for each question.
        Computed = "computed",
    }
}

section! {
    /// Which names are looked up at Peak, and where its main servers are.
    pub struct Peak {
        /// Zones: names at or below them are asked of the servers, all others of `dns.upstream`.
        zones: Vec<Name>,
        /// The main servers; the way from them to the clusters' servers is found by their referrals.
        servers: Vec<NameServer>,
    }
}

section! {
    /// Stand-in addresses: one per name of each family, meaningful only inside this pod.
    pub struct StandIns {
        /// For AAAA questions: 64 to 96 bits long, the same as `funicular init --stand-in6`.
        ipv6: Ipv6Net = "fd46:554e:1c00::/64",
        /// For A questions, so that programs that speak only IPv4 work too: 4 to 15 bits long, the same as
        /// `funicular init --stand-in4`.
        ipv4: Ipv4Net = "240.0.0.0/4",
    }
}

section! {
    /// What the pod's own programs call.
    pub struct Outbound {
        /// Where redirected connections arrive.
        listen: SocketAddr = "[::]:15001",
        /// Where programs may ask for connections by SOCKS5 or HTTP CONNECT, on machines where nothing is redirected.
        /// Not given: nowhere.
        explicit: Option<SocketAddr>,
        /// How long all attempts to connect may take together.
        connect_deadline: Duration = "5s",
        /// How long one candidate address has before the next is tried as well.
        attempt_delay: Duration = "250ms",
        /// How long one candidate address has in all.
        attempt_timeout: Duration = "3s",
        /// How many connections each service may have; more are refused at once.
        limits: OutboundLimits,
        /// Socket mark of the sidecar's own connections, when `funicular init --mark` exempts them by it.
        mark: Option<u32>,
        /// Shared secrets of rules with a `hop` field, by their ID: files with 32 hexadecimal digits.
        secrets: BTreeMap<String, PathBuf>,
    }
}

section! {
    /// How many connections to one service may be under way.
    pub struct OutboundLimits {
        /// In all.
        connections: u32 = "8192",
        /// Not connected yet.
        pending: u32 = "1024",
    }
}

section! {
    /// Calls to this pod's services.
    pub struct Inbound {
        /// Where redirected connections arrive.
        listen: SocketAddr = "[::]:15006",
        /// What happens to a connection without a token.
        policy: Policy = "strict",
        /// The services of this pod; their rules come from DNS.
        services: Vec<InboundService>,
        /// How long a caller has for its TLS handshake and its header.
        handshake_timeout: Duration = "5s",
        /// How many callers may be let in at once; more are refused at once.
        limits: InboundLimits,
    }
}

section! {
    /// How many connections from outside may be under way. A source is one address.
    pub struct InboundLimits {
        /// From one source, in all.
        connections_per_source: u32 = "4096",
        /// From one source, before their handshake is done.
        handshakes_per_source: u32 = "256",
        /// From all sources together, before their handshake is done.
        handshakes: u32 = "1024",
    }
}

choice! {
    /// What happens to a connection without a token.
    pub enum Policy, "strict, permissive or audit" {
        /// It is refused.
        Strict = "strict",
        /// It passes, and is counted.
        Permissive = "permissive",
        /// Everything passes; what `strict` would refuse is counted.
        Audit = "audit",
    }
}

section! {
    /// A service of this pod.
    pub struct InboundService {
        /// Its name, as callers look it up: the `aud` of their tokens, and a name in `tls.certificate`.
        name: Name,
        /// Who may call: workloads' names, in which `*` stands for any one part. Not given: whoever proves an identity.
        /// An empty list: nobody.
        callers: Option<Vec<CallerPattern>>,
        /// Port a connection arrives at: local port it is handed to. A port not listed stays as it is.
        ports: BTreeMap<u16, u16>,
        /// Whether the application is told who calls, in the field `Peak-Caller` of each request in `header` mode.
        tell_caller: bool = "false",
        /// Whether the application is told the caller's address, in `Forwarded` (RFC 7239) of each request in `header` mode.
        tell_forwarded: bool = "false",
        /// Local ports whose program reads a PROXY protocol v2 header, and so learns the caller's address and the one that
        /// it called.
        proxy_header: Vec<u16>,
    }
}
