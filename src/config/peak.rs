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
        /// The folder in which changes of zones are kept: what was updated, and what was transferred from a primary.
        /// Required when a zone has `allow_update`; without it a secondary asks for its zones anew after each start.
        state: Option<Folder>,
        /// The largest reply over UDP in octets, also for askers that take more: what no network on the way has to cut
        /// into fragments. What is larger is asked again over TCP.
        udp_size: u16 = "1232",
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
        /// The servers the zone is transferred from (AXFR, IXFR), in order of preference. Either these or `file`.
        primaries: Vec<Peer>,
        /// The servers that transfer the zone from here: they may, and are told of each change (NOTIFY).
        secondaries: Vec<Peer>,
        /// Who else may transfer the zone.
        allow_transfer: Vec<Allowed>,
        /// Who may change the zone (RFC 2136). None: nobody.
        allow_update: Vec<Allowed>,
        /// Who besides the primaries may say that the zone has changed (NOTIFY).
        allow_notify: Vec<Allowed>,
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
        /// Answers a second of one kind, for each worker. 0: as many as are asked for, which is right where nobody
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
    }
}

impl Zone {
    fn check(&self, at: &str, peak: &Peak, check: &mut Check<'_>) {
        let key = |name: &str| format!("{at}.{name}");
        if self.file.is_some() != self.primaries.is_empty() {
            check.fault(&[&key("file"), &key("primaries")], "a zone has either a file or primaries");
        }
        if !self.primaries.is_empty() && !self.allow_update.is_empty() {
            check.fault(&[&key("allow_update")], "a zone that has primaries is updated there");
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
