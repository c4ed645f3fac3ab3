//! Destinations that are no structured service: carried untouched to where they were going.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Connected, Outbound, OutboundError};
use crate::model::Name;
use crate::net::connect;
use crate::ops::access_log::Line;

impl Outbound {
    pub(super) async fn connect_legacy(
        &self,
        dst: SocketAddr,
        deadline: Instant,
        line: &mut Line,
    ) -> Result<Connected, OutboundError> {
        line.server = Some(dst);
        line.attempts += 1;
        line.mode = Some("legacy");
        match connect::tcp(dst, self.limits.mark, deadline).await {
            Ok(tcp) if self.is_our_own(&tcp, dst) => Err(OutboundError::Loop { dst }),
            Ok(tcp) => Ok(Connected::Legacy(tcp)),
            Err(cause) => Err(OutboundError::Legacy { dst, cause }),
        }
    }

    /// Tries the addresses that the system's resolver gives, in its order.
    pub(super) async fn connect_legacy_name(
        &self,
        name: Name,
        port: u16,
        deadline: Instant,
        line: &mut Line,
    ) -> Result<Connected, OutboundError> {
        // As a program would have asked: with a final dot, the names in /etc/hosts are not found.
        let host = name.to_string();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let addresses = match connect::look_up(host, port, deadline).await {
            Ok(addresses) => addresses,
            Err(cause) => return Err(OutboundError::NoAddress { name, cause }),
        };
        let mut last = OutboundError::NoAddress { name, cause: io::ErrorKind::NotFound.into() };
        let mut left = addresses.len();
        for dst in addresses {
            // Those behind it are to have their share of the time that is left.
            let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            left -= 1;
            match self.connect_legacy(dst, Instant::now() + share, line).await {
                Err(error @ OutboundError::Legacy { .. }) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    /// Whether a connection leads to one of the sidecar's own ports on this host. What listens there has seen it by
    /// now, and sees its end.
    fn is_our_own(&self, tcp: &TcpStream, dst: SocketAddr) -> bool {
        self.reserved.contains(&dst.port()) && tcp.local_addr().is_ok_and(|local| local.ip() == dst.ip())
    }
}
