//! The plan of the demo: who has which address, which services there are, and the texts that say so (zones, YAML).
//!
//! Pure: addresses and text. `site` builds what stands here.
//!
//! ```text
//!                       2001:db8:53::/64   main Peak      (zone peak.)
//!                       2001:db8:53:1::/64 cluster Peak   (zone shop.peak.)
//!  client ---- router --+
//!  2001:db8:1::10       2001:db8:2:N::10   pods s1 s2 s3, N = 1 2 3
//!                       2001:db8:5:S::/64  services: 1 orders, 2 cache, 3 mail …; the router sends their slices to pods
//! ```

use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::path::Path;

use ipnet::Ipv6Net;

use super::material::Certified;
use crate::model::ssa::slice_prefixes;

/// The mark that exempts the sidecar's own packets from its pod's redirect rules (there is only one uid).
pub const MARK: u32 = 0x0046_554e;
/// The trust domain's issuer of callers' tokens.
pub const ISSUER: &str = "https://issuer.shop.example";
/// The caller's identity.
pub const CALLER: &str = "spiffe://shop.example/ns/default/sa/web";
/// The stand-ins' prefix that sidecars use and the network set-up routes.
pub const STAND_INS: &str = "fd46:554e:1c00::/64";
/// How many pods serve.
pub const PODS: usize = 3;
/// Every subnet of the plan is a /64.
pub const SUBNET_BITS: u8 = 64;

/// The client pod.
pub const CLIENT: Host = Host { name: "client", subnet: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0), host: 0x10 };
/// The name server of `peak.`.
pub const MAIN_PEAK: Host =
    Host { name: "peak-main", subnet: Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 0), host: 0x53 };
/// A second name server of `peak.`, for tests of fail-over.
pub const SECOND_PEAK: Host =
    Host { name: "peak-second", subnet: Ipv6Addr::new(0x2001, 0xdb8, 0x53, 2, 0, 0, 0, 0), host: 0x53 };
/// The name server of `shop.peak.`.
pub const CLUSTER_PEAK: Host =
    Host { name: "peak-cluster", subnet: Ipv6Addr::new(0x2001, 0xdb8, 0x53, 1, 0, 0, 0, 0), host: 0x53 };

/// The server pod `s1`, `s2` or `s3`.
#[must_use]
pub fn pod(index: usize) -> Host {
    const NAMES: [&str; PODS] = ["s1", "s2", "s3"];
    let number = index as u16 + 1;
    Host { name: NAMES[index], subnet: Ipv6Addr::new(0x2001, 0xdb8, 2, number, 0, 0, 0, 0), host: 0x10 }
}

/// A machine with one link to the router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Host {
    /// What it is called.
    pub name: &'static str,
    subnet: Ipv6Addr,
    host: u16,
}

impl Host {
    /// Its own address.
    #[must_use]
    pub const fn address(&self) -> Ipv6Addr {
        at(self.subnet, self.host)
    }

    /// The router's address on the same link.
    #[must_use]
    pub const fn gateway(&self) -> Ipv6Addr {
        at(self.subnet, 1)
    }
}

const fn at(subnet: Ipv6Addr, host: u16) -> Ipv6Addr {
    Ipv6Addr::from_bits(subnet.to_bits() | host as u128)
}

/// A service with an address space of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Service {
    /// Its name without the final dot.
    pub name: &'static str,
    number: u16,
    /// Its rule.
    pub rule: &'static str,
    /// The port that its SVCB record gives.
    pub port: Option<u16>,
    /// The pods that serve it, by index.
    pub pods: &'static [usize],
    /// Seconds that its records may be kept.
    pub ttl: u32,
}

/// Where the HTTP applications listen.
pub const APPLICATION_PORT: u16 = 8080;

/// HTTP on three pods, in tunnels, as a rule that says nothing of tokens wants it. The first 16 host bits are random, so that one client's requests spread; the other 48 are a hash
/// of the caller's whole address, so that whoever makes up a source is found out.
pub const ORDERS: Service = Service {
    name: "orders.shop.peak",
    number: 1,
    rule: "v=ssa1 layout=random:16,source-hash:48/128 slices=14",
    port: Some(APPLICATION_PORT),
    pods: &[0, 1, 2],
    ttl: 60,
};

/// Redis on one pod, with a token by `pp2`: any server that reads PROXY v2 behind TLS could stand in its place.
pub const CACHE: Service = Service {
    name: "cache.shop.peak",
    number: 2,
    rule: "v=ssa1 layout=random:16,source-hash:48/128 slices=14 token=pp2",
    port: None,
    pods: &[0],
    ttl: 60,
};

/// SMTP on one pod: a protocol in which the server speaks first. All its slices count as one, so that a caller's tunnels
/// serve every call.
pub const MAIL: Service = Service {
    name: "mail.shop.peak",
    number: 3,
    rule: "v=ssa1 layout=random:16,source-hash:48/128 slices=0",
    port: None,
    pods: &[1],
    ttl: 60,
};

/// HTTP on one pod with a token in each request, at whatever port a program asks for.
pub const WEB: Service = Service {
    name: "web.shop.peak",
    number: 5,
    rule: "v=ssa1 layout=random:16,source-hash:48/128 slices=0 token=header",
    port: None,
    pods: &[2],
    ttl: 60,
};

/// Pages on three pods: a page has an address of its own, so every request for it comes to the same pod.
pub const PAGES: Service = Service {
    name: "pages.shop.peak",
    number: 6,
    rule: "v=ssa1 layout=content-hash:64 content=path token=header",
    ..ORDERS
};

/// HTTP again, with records that are soon forgotten: for the test of a control plane that is gone.
pub const BRIEF: Service = Service { name: "brief.shop.peak", number: 4, ttl: 3, ..ORDERS };

/// A program that has no sidecar and no address space: it runs beside the cluster's name server.
pub const LEGACY: &str = "legacy.shop.peak";

/// Every service.
pub const SERVICES: [Service; 6] = [ORDERS, CACHE, MAIL, BRIEF, WEB, PAGES];

impl Service {
    /// The whole service space.
    #[must_use]
    pub fn prefix(&self) -> Ipv6Net {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 5, self.number, 0, 0, 0, 0);
        Ipv6Net::new_assert(address, SUBNET_BITS)
    }

    /// Which prefixes lead to which pod: equal shares of 2^14 slices, as few prefixes as possible.
    #[must_use]
    pub fn routes(&self) -> Vec<(usize, Ipv6Net)> {
        const SLICE_BITS: u8 = 14;
        let slices = 1_u128 << SLICE_BITS;
        let pods = self.pods.len() as u128;
        let mut routes = Vec::new();
        for (rank, &pod) in self.pods.iter().enumerate() {
            let first = slices * rank as u128 / pods;
            let end = slices * (rank as u128 + 1) / pods;
            let prefixes = slice_prefixes(self.prefix(), SLICE_BITS, first, end - first);
            routes.extend(prefixes.into_iter().map(|prefix| (pod, prefix)));
        }
        routes
    }

    /// The pod to which the router sends an address.
    #[must_use]
    pub fn owner(&self, address: Ipv6Addr) -> Option<usize> {
        self.routes().into_iter().find(|(_, prefix)| prefix.contains(&address)).map(|(pod, _)| pod)
    }
}

/// The zone of the main servers: it delegates the shop to its own.
#[must_use]
pub fn main_zone(servers: &[Host]) -> String {
    let mut zone = String::from("$ORIGIN peak.\n$TTL 3600\n@ SOA peak-main hostmaster 1 3600 600 86400 5\n");
    for server in servers {
        let _ = writeln!(zone, "@ NS {0}\n{0} AAAA {1}", server.name, server.address());
    }
    let _ = writeln!(zone, "shop NS ns.shop\nns.shop AAAA {}", CLUSTER_PEAK.address());
    zone
}

/// The zone of the cluster's server: the services.
#[must_use]
pub fn cluster_zone() -> String {
    let mut zone = format!(
        "$ORIGIN shop.peak.\n$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 5\n@ NS ns\nns AAAA {}\n\
         legacy AAAA {}\n",
        CLUSTER_PEAK.address(),
        CLUSTER_PEAK.address(),
    );
    for service in SERVICES {
        let Service { name, rule, ttl, .. } = service;
        let prefix = service.prefix();
        let port = service.port.map(|port| format!("port={port} ")).unwrap_or_default();
        let _ = writeln!(
            zone,
            "{name}. {ttl} AAAA {}\n{name}. {ttl} APL 2:{prefix}\n\
             _ssa.{name}. {ttl} SVCB 1 {name}. {port}key65400=\"{rule}\"",
            at(prefix.network(), 1),
        );
    }
    zone
}

/// What a sidecar's file says about itself, whichever side it is on.
fn common(main_servers: &[Host]) -> String {
    let servers: Vec<String> = main_servers.iter().map(|server| format!("\"[{}]:53\"", server.address())).collect();
    format!(
        "dns:\n  upstream: [\"127.0.0.1:9\"]\n  peak:\n    zones: [peak]\n    servers: [{}]\n  \
         stand_ins: {{ ipv6: \"{STAND_INS}\", ipv4: 240.0.0.0/4 }}\n\
         admin:\n  listen: \"127.0.0.1:15000\"\n  metrics: \"[::]:15020\"\n\
         log: {{ level: info, format: json }}\ndrain: 2s\n",
        servers.join(", "),
    )
}

/// The client's sidecar.
#[must_use]
pub fn client_config(main_servers: &[Host], signing_key: &Path, key_id: &str, ca: &Path) -> String {
    format!(
        "identity:\n  id: \"{CALLER}\"\n  issuer: \"{ISSUER}\"\n  signing_key: {}\n  key_id: {key_id}\n  ca: {}\n\
         outbound:\n  connect_deadline: 5s\n  attempt_timeout: 1s\n  mark: {MARK}\n{}",
        quoted(signing_key),
        quoted(ca),
        common(main_servers),
    )
}

/// A server pod's sidecar.
#[must_use]
pub fn server_config(main_servers: &[Host], index: usize, tls: &Certified, jwks: &Path) -> String {
    let mut services = String::new();
    for service in SERVICES.iter().filter(|service| service.pods.contains(&index)) {
        let _ = writeln!(services, "    - name: {}\n      callers: [\"{CALLER}\"]", service.name);
    }
    format!(
        "tls:\n  certificate: {}\n  key: {}\ntrust:\n  - issuer: \"{ISSUER}\"\n    jwks: {}\n    algorithms: [EdDSA]\n\
         outbound:\n  mark: {MARK}\n\
         inbound:\n  policy: strict\n  handshake_timeout: 5s\n  services:\n{services}{}",
        quoted(&tls.certificate),
        quoted(&tls.key),
        quoted(jwks),
        common(main_servers),
    )
}

/// A YAML double-quoted scalar; JSON's strings are a subset of them.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy().into_owned()).to_string()
}

/// Where the C library looks names up: not in a cache or resolver of the machine's own.
pub const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// The name server of the pods' programs: an address at which nobody answers, so that only the redirect to the sidecar
/// can.
pub const NOBODY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 0x53);

/// What an unmodified program reads to find its name server.
#[must_use]
pub fn resolv_conf() -> String {
    format!("nameserver {NOBODY}\noptions timeout:2 attempts:2\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_service_leads_to_exactly_one_pod() {
        let mut covered = 0_u128;
        for (_, prefix) in ORDERS.routes() {
            covered += 1 << (128 - prefix.prefix_len());
        }
        assert_eq!(covered, 1 << (128 - SUBNET_BITS));
        assert_eq!(ORDERS.owner(ORDERS.prefix().network()), Some(0));
        assert_eq!(ORDERS.owner(ORDERS.prefix().broadcast()), Some(2));
        assert_eq!(ORDERS.owner(CLIENT.address()), None);
    }

    #[test]
    fn shares_are_equal_within_one_slice() {
        let mut slices = [0_u128; PODS];
        for (pod, prefix) in ORDERS.routes() {
            slices[pod] += 1 << (SUBNET_BITS + 14 - prefix.prefix_len());
        }
        assert!(slices.iter().max().unwrap() - slices.iter().min().unwrap() <= 1, "{slices:?}");
    }
}
