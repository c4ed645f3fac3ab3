//! Tickets that servers gave us: each makes one further handshake with the same server shorter (RFC 8446 §2.2).
//!
//! A ticket serves once, so a client that makes many connections at a time needs as many: the library's own store keeps
//! eight for a server. The newest is used first, since it is good for longest. Bounded in servers and in tickets.

use std::collections::{HashMap, VecDeque};
use std::fmt;

use parking_lot::Mutex;
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// How many servers are remembered.
const MOST_SERVERS: usize = 256;
/// How many tickets of one server are kept.
const MOST_OF_A_SERVER: usize = 64;

/// What is kept of servers.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<ServerName<'static>, Known>>);

#[derive(Default)]
struct Known {
    /// The key exchange that it agreed to.
    group: Option<NamedGroup>,
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn with(&self, server: ServerName<'static>, change: impl FnOnce(&mut Known)) {
        let mut servers = self.0.lock();
        if servers.len() >= MOST_SERVERS
            && !servers.contains_key(&server)
            && let Some(other) = servers.keys().next().cloned()
        {
            servers.remove(&other);
        }
        change(servers.entry(server).or_default());
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.with(server, |known| known.group = Some(group));
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.lock().get(server).and_then(|known| known.group)
    }

    /// Not spoken here.
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.with(server, |known| {
            if known.tickets.len() >= MOST_OF_A_SERVER {
                known.tickets.pop_front();
            }
            known.tickets.push_back(ticket);
        });
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().get_mut(server)?.tickets.pop_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_servers_are_remembered_and_the_newest_is_among_them() {
        let tickets = Tickets::default();
        let name = |number: usize| ServerName::try_from(format!("s{number}.peak")).unwrap();
        for number in 0..=2 * MOST_SERVERS {
            tickets.set_kx_hint(name(number), NamedGroup::X25519);
            assert_eq!(tickets.kx_hint(&name(number)), Some(NamedGroup::X25519));
        }
        assert_eq!(tickets.0.lock().len(), MOST_SERVERS);
    }
}
