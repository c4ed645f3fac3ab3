//! What every sidecar of a cluster gets, unless its pod wishes otherwise.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::model::token::TrustDomain;

/// How sidecars are made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The image of both containers.
    pub image: String,
    /// When the image is pulled; none: as Kubernetes decides.
    pub pull_policy: Option<String>,
    /// Whether the sidecar is an init container that restarts always (Kubernetes 1.29 and later), or the first among
    /// the pod's containers.
    pub native: bool,
    /// The user that the sidecar runs as, and that redirect rules exempt.
    pub uid: u32,
    /// The ConfigMap of the pod's namespace whose key `funicular.yaml` is the sidecar's configuration.
    pub config_map: String,
    /// The Secret of the pod's namespace with the keys and certificates that the configuration names under `/identity`.
    pub identity_secret: Option<String>,
    /// The audience of the pod's token.
    pub audience: String,
    /// What both containers ask for and may use.
    pub resources: Resources,
    /// How long connections may go on after a stop; none: two seconds less than the pod's grace period.
    pub drain: Option<Duration>,
    /// The least serious message that is logged; none: what the configuration says.
    pub log_level: Option<String>,
    /// How lines of the log look; none: what the configuration says.
    pub log_format: Option<String>,
    /// Whether the kubelet's probes are asked of the sidecar, which asks the application.
    pub rewrite_probes: bool,
    /// Whether the pod leases slices of its services: it is given its node's agent to talk to, and a name for its lease.
    pub leases: bool,
    /// The trust domain in which the pod's account is its identity; none: what the configuration says.
    pub trust_domain: Option<TrustDomain>,
    /// The device that connects the pod.
    pub device: String,
    /// The prefixes of the services that the pod serves.
    pub service_prefixes: Vec<Ipv6Net>,
    /// Ports reached from outside without the sidecar.
    pub skip_inbound_ports: Vec<RangeInclusive<u16>>,
    /// Ports dialled without the sidecar.
    pub skip_outbound_ports: Vec<RangeInclusive<u16>>,
    /// Prefixes dialled without the sidecar.
    pub skip_subnets: Vec<IpNet>,
    /// Users whose traffic is left alone.
    pub skip_uids: Vec<RangeInclusive<u32>>,
}

/// Quantities as Kubernetes writes them: `20m`, `24Mi`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resources {
    /// Processor time asked for.
    pub cpu_request: String,
    /// Memory asked for.
    pub memory_request: String,
    /// Processor time at most; none is right for most, since a throttled sidecar delays every call.
    pub cpu_limit: Option<String>,
    /// Memory at most.
    pub memory_limit: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: concat!("funicular:", env!("CARGO_PKG_VERSION")).to_owned(),
            pull_policy: None,
            native: true,
            uid: 7246,
            config_map: "funicular".to_owned(),
            identity_secret: None,
            audience: "funicular.dev".to_owned(),
            resources: Resources::default(),
            drain: None,
            log_level: None,
            log_format: None,
            rewrite_probes: true,
            leases: false,
            trust_domain: None,
            device: "eth0".to_owned(),
            service_prefixes: Vec::new(),
            skip_inbound_ports: Vec::new(),
            skip_outbound_ports: Vec::new(),
            skip_subnets: Vec::new(),
            skip_uids: Vec::new(),
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: "20m".to_owned(),
            memory_request: "24Mi".to_owned(),
            cpu_limit: None,
            memory_limit: Some("128Mi".to_owned()),
        }
    }
}
