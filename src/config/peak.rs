//! The configuration of Peak, the DNS server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::common::{Admin, Log};
use super::section::section;
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
        /// The zones to answer for, each from a zone file; `--zone NAME=FILE` adds to them.
        zones: Vec<ZoneFile>,
        /// The largest reply over UDP in octets, also for askers that take more: what no network on the way has to cut
        /// into fragments. What is larger is asked again over TCP.
        udp_size: u16 = "1232",
        /// How many cores answer. None: all of them.
        workers: Option<u16>,
        /// What the server puts up with over TCP.
        tcp: Tcp,
        /// How much one network is sent over UDP.
        rate_limit: RateLimit,
        /// Where Peak can be asked how it is. None: nowhere.
        admin: Option<Admin>,
        /// What is logged, and how.
        log: Log,
    }
}

section! {
    /// A zone and its file.
    pub struct ZoneFile {
        /// The zone's apex.
        name: Name,
        /// The zone file, in the form of RFC 1035 §5; read again on SIGHUP.
        file: PathBuf,
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
        for (index, zone) in self.zones.iter().enumerate() {
            if self.zones[..index].iter().any(|other| other.name == zone.name) {
                check.fault(&["zones"], format!("each zone is listed once, and {} is there again", zone.name));
            }
        }
    }
}
