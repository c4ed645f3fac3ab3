//! The configuration of the webhook, and of the sidecars that it puts into pods.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use super::common::{Admin, Format, Level, Log};
use super::section::{choice, section};
use super::{Check, Role};
use crate::model::token::TrustDomain;
use crate::model::{Name, inject};

section! {
    /// The configuration of `funicular webhook`.
    pub struct Webhook {
        /// Where the API server asks, over TLS.
        listen: SocketAddr = "[::]:8443",
        /// The Service by which the API server finds the webhook; the certificate proves its name.
        service: String = "funicular-webhook",
        /// The namespace that it runs in. None: the one in which its pod is.
        namespace: Option<String>,
        /// The MutatingWebhookConfiguration whose `caBundle` is kept up to date.
        configuration: String = "funicular-webhook",
        /// The file that says how to reach the API server, as kubectl reads it. None: as a pod does.
        kubeconfig: Option<PathBuf>,
        /// What proves the webhook's name to the API server.
        certificate: Certificate,
        /// What Peak's nodes prove to each other, where the webhook is to make it.
        peak: PeakCertificate,
        /// Whether Kubernetes events tell what became of a pod.
        events: bool = "true",
        /// How often all pods are looked over for those that should have a sidecar and have none.
        survey: Duration = "5m",
        /// The sidecars, where a pod or its namespace does not wish otherwise.
        sidecar: SidecarDefaults,
        /// Where the webhook can be asked how it is.
        admin: Admin,
        /// What is logged, and how.
        log: Log,
    }
}

section! {
    /// The webhook makes its own authority and certificate and renews them, unless files are named.
    pub struct Certificate {
        /// The Secret that holds the authority and the certificate, shared by all replicas.
        secret: String = "funicular-webhook-certificate",
        /// How long a certificate is good for; it is renewed when two thirds are over. The authority lives five times
        /// as long.
        life: Duration = "2160h",
        /// More names and addresses to prove, besides the Service's.
        names: Vec<String>,
        /// A file with a certificate that somebody else renews, such as cert-manager, who then keeps the `caBundle` up
        /// to date as well. With `key`.
        file: Option<PathBuf>,
        /// The file with its private key (PEM).
        key: Option<PathBuf>,
    }
}

section! {
    /// An authority and a certificate for Peak's nodes, made and renewed as the webhook's own.
    pub struct PeakCertificate {
        /// The Secret that holds them; Peak's pods mount it. None: somebody else makes what they need.
        secret: Option<String>,
        /// The name that it is for: `cluster.name` of Peak's configuration.
        name: Name = "registry.peak",
    }
}

choice! {
    /// Whether the sidecar is an init container that restarts always.
    pub enum Native, "auto, always or never" {
        /// Where the cluster knows such containers: Kubernetes 1.29 and later.
        Auto = "auto",
        /// Everywhere.
        Always = "always",
        /// Nowhere: the sidecar is an ordinary container, the first.
        Never = "never",
    }
}

section! {
    /// What every sidecar gets; `config.funicular.dev/…` annotations override it for a pod or a namespace.
    pub struct SidecarDefaults {
        /// The image of both containers. None: that of this version.
        image: Option<String>,
        /// When it is pulled: Always, IfNotPresent or Never. None: as Kubernetes decides.
        image_pull_policy: Option<String>,
        /// Whether it is an init container that restarts always.
        native: Native = "auto",
        /// The user that it runs as, and that redirect rules exempt.
        uid: u32 = "7246",
        /// The ConfigMap of the pod's namespace whose key `funicular.yaml` is its configuration.
        config_map: String = "funicular",
        /// The Secret of the pod's namespace that is mounted at `/identity`.
        identity_secret: Option<String>,
        /// The audience of the pod's token in `/var/run/secrets/funicular/token`.
        token_audience: String = "funicular.dev",
        /// Processor time that it asks for.
        cpu_request: String = "20m",
        /// Memory that it asks for.
        memory_request: String = "24Mi",
        /// Processor time at most. None is right for most: a throttled sidecar delays every call.
        cpu_limit: Option<String>,
        /// Memory at most.
        memory_limit: String = "128Mi",
        /// How long connections may go on after a stop. None: two seconds less than the pod's grace period.
        drain: Option<Duration>,
        /// The least serious message that it logs. None: what its configuration says.
        log_level: Option<Level>,
        /// How lines of its log look. None: what its configuration says.
        log_format: Option<Format>,
        /// Whether the kubelet's probes are asked of the sidecar, which asks the application.
        rewrite_probes: bool = "true",
        /// Whether pods lease slices of their services. They are given the node agent's socket, a folder of the node
        /// that namespaces with Pod Security `baseline` or stricter do not allow, and a name for their lease.
        leases: bool = "false",
        /// The trust domain in which a pod's account is its identity: `spiffe://<this>/ns/<namespace>/sa/<account>`. None:
        /// the sidecar's configuration says who it is.
        trust_domain: Option<TrustDomain>,
        /// The device that connects pods.
        device: String = "eth0",
        /// Prefixes of services that the pods serve.
        service_prefixes: Vec<Ipv6Net>,
        /// Ports reached from outside without the sidecar, such as `9100` or `8000-8010`.
        skip_inbound_ports: Option<Ports>,
        /// Ports dialled without the sidecar.
        skip_outbound_ports: Option<Ports>,
        /// Prefixes dialled without the sidecar.
        skip_subnets: Vec<IpNet>,
    }
}

/// Ports and ranges of ports in one text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ports(pub Vec<std::ops::RangeInclusive<u16>>);

impl super::setting::Single for Ports {
    const EXPECTED: &'static str = "ports and ranges such as 25,8000-8010";

    fn parse(text: &str) -> Result<Self, std::borrow::Cow<'static, str>> {
        crate::model::lists::ports(text).map(Self).map_err(|error| error.to_string().into())
    }

    fn show(&self) -> serde_json::Value {
        crate::model::lists::written(&self.0).into()
    }
}

impl SidecarDefaults {
    /// The form that injection takes. `native_known`: whether the cluster knows native sidecars.
    #[must_use]
    pub fn settings(&self, native_known: bool) -> inject::Settings {
        let ports = |ports: &Option<Ports>| ports.as_ref().map(|ports| ports.0.clone()).unwrap_or_default();
        let assumed = inject::Settings::default();
        inject::Settings {
            image: self.image.clone().unwrap_or(assumed.image),
            pull_policy: self.image_pull_policy.clone(),
            native: match self.native {
                Native::Auto => native_known,
                Native::Always => true,
                Native::Never => false,
            },
            uid: self.uid,
            config_map: self.config_map.clone(),
            identity_secret: self.identity_secret.clone(),
            audience: self.token_audience.clone(),
            resources: inject::Resources {
                cpu_request: self.cpu_request.clone(),
                memory_request: self.memory_request.clone(),
                cpu_limit: self.cpu_limit.clone(),
                memory_limit: Some(self.memory_limit.clone()),
            },
            drain: self.drain,
            log_level: self.log_level.map(|level| level.word().to_owned()),
            log_format: self.log_format.map(|format| format.word().to_owned()),
            rewrite_probes: self.rewrite_probes,
            leases: self.leases,
            trust_domain: self.trust_domain.clone(),
            device: self.device.clone(),
            service_prefixes: self.service_prefixes.clone(),
            skip_inbound_ports: ports(&self.skip_inbound_ports),
            skip_outbound_ports: ports(&self.skip_outbound_ports),
            skip_subnets: self.skip_subnets.clone(),
            skip_uids: assumed.skip_uids,
        }
    }
}

/// The least life of a certificate: clocks of nodes differ, and every renewal is a write.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);

impl Role for Webhook {
    const COMMAND: &'static str = "webhook";

    fn check(&self, check: &mut Check<'_>) {
        if self.certificate.file.is_some() != self.certificate.key.is_some() {
            check.fault(&["certificate.file", "certificate.key"], "a certificate and its key come together");
        }
        if self.certificate.life < SHORTEST_LIFE {
            check.fault(&["certificate.life"], "it is at least 1m");
        }
        if self.survey.is_zero() {
            check.fault(&["survey"], "it is more than nothing");
        }
        if matches!(self.sidecar.uid, 0 | 1337 | 2102 | 65_532) {
            check.fault(&["sidecar.uid"], "it is neither root nor a user of other meshes or base images");
        }
        let policies = ["Always", "IfNotPresent", "Never"];
        if self.sidecar.image_pull_policy.as_ref().is_some_and(|policy| !policies.contains(&policy.as_str())) {
            check.fault(&["sidecar.image_pull_policy"], "it is one of Always, IfNotPresent, Never");
        }
    }
}
