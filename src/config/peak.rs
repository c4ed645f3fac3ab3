//! The configuration of Peak, the DNS server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::api::Api;
use super::common::{Admin, Log};
use super::section::{choice, section};
use super::slices::Slices;
use super::values::{Folder, NameServer};
use super::{Check, Role};
use crate::model::Name;

/// The least and the most that `udp_size` may be: what everybody takes (RFC 1035 §4.2.1), and what fits in one
/// Ethernet frame of jumbo size.
const UDP_SIZES: std::ops::RangeInclusive<u16> = 512..=8_192;

section! {
    /// The configuration of `funicular peak`.
    pub struct Peak {
        /// Where questions arrive, over UDP and TCP.
        listen: SocketAddr = "[::]:53",
        /// The zones to answer for; `--zone NAME=FILE` adds to them.
        zones: Vec<Zone>,
        /// The keys that sign updates, transfers and notices (TSIG, RFC 8945).
        keys: Vec<Key>,
        /// A file with the secrets of cookies (RFC 7873), the same at all servers that answer at one address: one a line, of
        /// 16 octets in hexadecimal. The first makes cookies, all are accepted. None: this server draws its own, and
        /// another every day.
        cookie_secrets: Option<PathBuf>,
        /// The folder in which changes of zones are kept: the registry, what was updated, and what was transferred from a
        /// primary. Required when a zone has `allow_update`; without it a secondary asks for its zones anew after each
        /// start, and the registry ends with the program.
        state: Option<Folder>,
        /// The nodes that hold the registry together with this one.
        cluster: Cluster,
        /// The largest reply over UDP in octets, also for askers that take more: what no network on the way has to cut
        /// into fragments. What is larger is asked again over TCP.
        udp_size: u16 = "1232",
        /// Zones that may be on their way to other servers at once. Whoever asks for one more is to ask again.
        transfers: u16 = "64",
        /// How many cores answer. None: all of them.
        workers: Option<u16>,
        /// What the server puts up with over TCP.
        tcp: Tcp,
        /// How much one network is sent over UDP.
        rate_limit: RateLimit,
        /// The slices of services that this Peak gives to pods. None: none.
        slices: Option<Slices>,
        /// Where records are changed over HTTP, and the registry is looked at. None: nowhere.
        api: Option<Api>,
        /// Where Peak can be asked how it is. None: nowhere.
        admin: Option<Admin>,
        /// What is logged, and how.
        log: Log,
    }
}

section! {
    /// A zone, from a file or from other servers.
    pub struct Zone {
        /// The zone's apex.
        name: Name,
        /// The zone file, in the form of RFC 1035 §5; read again on SIGHUP. Where the zone takes updates, what they
        /// made of it wins over a file whose serial is not newer.
        file: Option<PathBuf>,
        /// Whether the zone is held in the registry, by all nodes of the cluster alike. Its file, if it has one, is what it
        /// begins with, and not looked at again.
        replicated: bool = "false",
        /// When the zone's questions are answered; for one that is replicated, and what it begins with.
        reads: Reads = "available",
        /// The servers the zone is transferred from (AXFR, IXFR), in order of preference. Either these or `file`.
        primaries: Vec<Peer>,
        /// The servers that transfer the zone from here: they may, and are told of each change (NOTIFY).
        secondaries: Vec<Peer>,
        /// Who else may transfer the zone.
        allow_transfer: Vec<Allowed>,
        /// Who may change the zone (RFC 2136). None: nobody.
        allow_update: Vec<Allowed>,
        /// Whose updates are passed on to the primaries (RFC 2136 §6); for zones that have primaries. None: nobody's.
        forward_update: Vec<Allowed>,
        /// Who besides the primaries may say that the zone has changed (NOTIFY).
        allow_notify: Vec<Allowed>,
    }
}

choice! {
    /// When a zone's questions are answered.
    pub enum Reads, "available or strict" {
        /// Always, from what this node has, which may be behind.
        Available = "available",
        /// Only while this node knows that it has all that was acknowledged; else SERVFAIL.
        Strict = "strict",
    }
}

section! {
    /// The nodes that hold the registry together.
    pub struct Cluster {
        /// Where the other nodes reach this one (TCP). None: nobody does, and this node is alone.
        listen: Option<SocketAddr>,
        /// Host and port at which they reach it, where that is not `listen`.
        address: Option<String>,
        /// Nodes of the cluster that this one joins when it first starts, each as host and port; one that answers is
        /// enough. The same list may be every node's, this one in it: where all of them are new, the first begins the
        /// cluster once all have answered. None: this node begins one of its own, with the first zone that is replicated.
        join: Vec<String>,
        /// The name that the certificate of every node is for.
        name: Name = "registry.peak",
        /// How nodes prove that they belong together. Required unless `listen` is loopback.
        tls: Option<ClusterTls>,
    }
}

section! {
    /// How nodes prove to each other that they belong together.
    pub struct ClusterTls {
        /// The authorities whose certificates count, PEM: an authority of the cluster's own.
        authorities: PathBuf,
        /// This node's certificate, PEM, then those between it and the authority.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    }
}

section! {
    /// Another name server of a zone.
    pub struct Peer {
        /// Its address.
        address: NameServer,
        /// The key that signs what goes to it and comes from it, one of `keys`. None: nothing is signed, and the address
        /// alone counts.
        key: Option<Name>,
    }
}

section! {
    /// Somebody who may do something: both conditions hold where both are given.
    pub struct Allowed {
        /// Requests are signed with this key, one of `keys`.
        key: Option<Name>,
        /// Requests come from this prefix.
        prefix: Option<IpNet>,
    }
}

section! {
    /// A shared key (TSIG, RFC 8945).
    pub struct Key {
        /// Its name, the same on both sides.
        name: Name,
        /// What computes signatures with it.
        algorithm: KeyAlgorithm = "hmac-sha256",
        /// The file with the secret in base64, at least 16 octets, and nothing else.
        secret_file: PathBuf,
    }
}

choice! {
    /// What computes a signature.
    pub enum KeyAlgorithm, "hmac-sha256, hmac-sha384 or hmac-sha512" {
        /// HMAC with SHA-256.
        Sha256 = "hmac-sha256",
        /// HMAC with SHA-384.
        Sha384 = "hmac-sha384",
        /// HMAC with SHA-512.
        Sha512 = "hmac-sha512",
    }
}

section! {
    /// What the server puts up with over TCP.
    pub struct Tcp {
        /// Connections at once, of all peers; one more is closed.
        connections: u32 = "4096",
        /// Connections at once of one address; one more is closed.
        connections_per_peer: u32 = "256",
        /// How long a connection may go without a whole question, and a reply without being taken.
        idle: Duration = "10s",
    }
}

section! {
    /// How much one network (24 bits of IPv4, 56 of IPv6) is sent over UDP, so that the server is no use against those
    /// in whose name others ask. Who shows a cookie of this server is not limited.
    pub struct RateLimit {
        /// Answers a second of one kind. 0: as many as are asked for, which is right where nobody
        /// from outside can ask.
        per_second: u32 = "0",
        /// Every so manieth answer beyond is sent empty with TC, so that true askers come again over TCP; 0: none.
        slip: u16 = "2",
    }
}

impl Role for Peak {
    const COMMAND: &'static str = "peak";

    fn check(&self, check: &mut Check<'_>) {
        if !UDP_SIZES.contains(&self.udp_size) {
            let (least, most) = UDP_SIZES.into_inner();
            check.fault(&["udp_size"], format!("it is from {least} to {most}"));
        }
        if self.workers.is_some_and(|workers| !(1..=1024).contains(&workers)) {
            check.fault(&["workers"], "it is from 1 to 1024");
        }
        if self.transfers == 0 {
            check.fault(&["transfers"], "it is at least 1; who may transfer a zone is said by allow_transfer");
        }
        if self.tcp.connections == 0 || self.tcp.connections_per_peer == 0 {
            let key = if self.tcp.connections == 0 { "tcp.connections" } else { "tcp.connections_per_peer" };
            check.fault(&[key], "it is at least 1: DNS over TCP is no extra (RFC 7766 §5)");
        }
        if self.tcp.idle.is_zero() {
            check.fault(&["tcp.idle"], "it is more than nothing");
        }
        if let Some(slices) = &self.slices {
            slices.check(check);
        }
        if let Some(api) = &self.api {
            api.check(check);
        }
        for (index, key) in self.keys.iter().enumerate() {
            if self.keys[..index].iter().any(|other| other.name == key.name) {
                check.fault(&["keys"], format!("each key is listed once, and {} is there again", key.name));
            }
        }
        for (index, zone) in self.zones.iter().enumerate() {
            if self.zones[..index].iter().any(|other| other.name == zone.name) {
                check.fault(&["zones"], format!("each zone is listed once, and {} is there again", zone.name));
            }
            zone.check(&format!("zones[{index}]"), self, check);
        }
        self.cluster.check(check);
    }
}

impl Cluster {
    fn check(&self, check: &mut Check<'_>) {
        match self.listen {
            Some(listen) if !listen.ip().is_loopback() && self.tls.is_none() => {
                let rule = "nodes prove to each other that they belong together: name their certificates";
                check.fault(&["cluster.tls", "cluster.listen"], rule);
            }
            Some(listen) if self.address.is_none() && listen.ip().is_unspecified() => {
                let rule = "the other nodes need a host, not all addresses: say at which they reach this one";
                check.fault(&["cluster.address", "cluster.listen"], rule);
            }
            None if self.address.is_some() || !self.join.is_empty() => {
                let key = if self.join.is_empty() { "cluster.address" } else { "cluster.join" };
                check.fault(&[key, "cluster.listen"], "the other nodes have to reach this one: say where it listens");
            }
            Some(_) | None => {}
        }
        for address in self.join.iter().chain(&self.address) {
            let port = address.rsplit_once(':').map(|(host, port)| (host.is_empty(), port.parse::<u16>()));
            if !matches!(port, Some((false, Ok(1..)))) {
                let key = if self.join.contains(address) { "cluster.join" } else { "cluster.address" };
                check.fault(&[key], format!("{address:?} is no host and port such as peak-0.example:7444"));
            }
        }
    }
}

impl Zone {
    fn check(&self, at: &str, peak: &Peak, check: &mut Check<'_>) {
        let key = |name: &str| format!("{at}.{name}");
        if self.replicated && !self.primaries.is_empty() {
            check.fault(&[&key("replicated"), &key("primaries")], "a zone that has primaries is held by them");
        }
        if !self.replicated && self.reads == Reads::Strict {
            check.fault(&[&key("reads"), &key("replicated")], "strict answers need a zone that is replicated");
        }
        if !self.replicated && self.file.is_some() != self.primaries.is_empty() {
            check.fault(&[&key("file"), &key("primaries")], "a zone has either a file or primaries");
        }
        if !self.primaries.is_empty() && !self.allow_update.is_empty() {
            let rule = "a zone that has primaries is updated there: forward_update passes updates on";
            check.fault(&[&key("allow_update")], rule);
        }
        if self.primaries.is_empty() && !self.forward_update.is_empty() {
            check.fault(&[&key("forward_update")], "only a zone that has primaries has its updates passed on");
        }
        if !self.allow_update.is_empty() && peak.state.is_none() {
            let rule = "updates outlive a restart (RFC 2136 §3.5): name a folder for them with state";
            check.fault(&[&key("allow_update"), "state"], rule);
        }
        if self.primaries.is_empty() && !self.allow_notify.is_empty() {
            check.fault(&[&key("allow_notify")], "only a zone that has primaries is told of changes");
        }
        for (list, allowed) in [
            ("allow_transfer", &self.allow_transfer),
            ("allow_update", &self.allow_update),
            ("forward_update", &self.forward_update),
            ("allow_notify", &self.allow_notify),
        ] {
            if allowed.iter().any(|allowed| allowed.key.is_none() && allowed.prefix.is_none()) {
                check
                    .fault(&[&key(list)], "each entry has a key or a prefix, or both; everybody is ::/0 and 0.0.0.0/0");
            }
            Self::check_keys(&key(list), allowed.iter().filter_map(|allowed| allowed.key.as_ref()), peak, check);
        }
        for (list, peers) in [("primaries", &self.primaries), ("secondaries", &self.secondaries)] {
            Self::check_keys(&key(list), peers.iter().filter_map(|peer| peer.key.as_ref()), peak, check);
        }
    }

    fn check_keys<'k>(at: &str, named: impl Iterator<Item = &'k Name>, peak: &Peak, check: &mut Check<'_>) {
        for name in named.filter(|name| !peak.keys.iter().any(|key| key.name == **name)) {
            check.fault(&[at, "keys"], format!("{name} is none of keys"));
        }
    }
}
