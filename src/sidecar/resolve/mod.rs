//! Which service a name or an address belongs to, as Peak publishes it.
//!
//! Owns the sidecar's whole view of DNS below Peak's zones. Given only the main servers' addresses it follows referrals
//! to the clusters' servers, fails over between name servers, believes nobody beyond its own zone, and keeps everything
//! exactly as long as its TTL says. With no name server left, services that were found go on for a stated time past their
//! TTL (RFC 8767), and after that a lookup fails at once with a counted reason; nothing here ever says "an ordinary name" only because nobody answered.
//!
//! | module | owns |
//! |---|---|
//! | `discover` | from a name to its service: APL, then the first source of rules (SSA.md §1) |
//! | `walk` | from the main servers down to an answer; the caches |
//! | `verdict` | what one answer says, and what of it may be believed |
//! | `race`, `health` | whom to ask, when to ask the next, who is down |
//! | `flight` | one question at a time for the same thing |
//! | `spaces` | from an address to its service |
//!
//! Aliases: a CNAME leads to the service at its end, and that name is the one that has to be proven. DNS already says
//! by the rule whether a token is asked for at all, so who publishes a name below Peak's zones decides what it means.

pub(in crate::sidecar) mod cache;
mod discover;
mod error;
pub(in crate::sidecar) mod flight;
pub(in crate::sidecar) mod health;
mod metrics;
pub(in crate::sidecar) mod race;
pub(in crate::sidecar) mod seldom;
mod spaces;
mod verdict;
mod walk;

pub use error::ResolveError;
pub use metrics::ResolveMetrics;

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::discover::Directory;
pub(in crate::sidecar) use self::walk::{Answer, Fact, Known};
use crate::model::Name;
use crate::model::ssa::{Rule, Space};
use crate::net::dns_client::DnsClient;
use crate::wire::dns::Type;

/// Where services are looked up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names at or below these are asked of Peak, and no others.
    pub zones: Vec<Name>,
    /// The main servers.
    pub servers: Vec<SocketAddr>,
    /// The port of the servers that referrals name: 53 wherever DNS is what it is elsewhere.
    pub delegated_port: u16,
    /// How long past its TTL a service that was found is used while nobody can be asked (RFC 8767 §5).
    pub stale: Duration,
}

/// A service as DNS publishes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// The service's own name: what its certificate proves and its tokens are for. Aliases (CNAME) of it, and the
    /// labels below a service that reads its content key from there, lead to this one.
    pub name: Name,
    /// Its whole address space.
    pub space: Space,
    /// Its usable rules, never empty; [`crate::model::ssa::current`] chooses among them.
    pub rules: Vec<Rule>,
    /// The port to connect to instead of the one that the application chose (RFC 9460 §7.2).
    pub port: Option<u16>,
}

/// A service, and how long that answer holds.
#[derive(Clone, Debug)]
pub(in crate::sidecar) struct Found {
    pub(in crate::sidecar) service: Arc<Service>,
    pub(in crate::sidecar) until: Instant,
}

/// Asks Peak which service a name is. Cheap to clone; all clones share one memory.
#[derive(Clone, Debug)]
pub struct Resolver {
    directory: Arc<Directory>,
}

impl Resolver {
    /// A resolver that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings, client: DnsClient, metrics: ResolveMetrics) -> Self {
        Self { directory: Arc::new(Directory::new(settings, client, metrics)) }
    }

    /// The service of `name`, from memory or from Peak; many callers for one name cost one question.
    ///
    /// Takes at most a few seconds, and no time at all while Peak is known to be down.
    ///
    /// # Errors
    /// What DNS says instead ([`ResolveError::is_verdict`]), or why it could not be asked.
    pub async fn lookup(&self, name: &Name) -> Result<Arc<Service>, ResolveError> {
        self.find(name).await.map(|found| found.service)
    }

    /// The service in whose space `addr` lies, among those looked up so far.
    ///
    /// Its answer may be past its TTL: look its name up again before you connect, so that nothing goes the old way
    /// only because Peak is silent.
    #[must_use]
    pub fn in_space(&self, addr: Ipv6Addr) -> Option<Arc<Service>> {
        self.directory.spaces.find(addr)
    }

    /// The services looked up so far, by name; as with [`Resolver::in_space`], perhaps past their TTL.
    #[must_use]
    pub fn known(&self) -> Vec<Arc<Service>> {
        self.directory.spaces.all()
    }

    /// Whether Peak is asked about `name`.
    #[must_use]
    pub fn is_in_peak(&self, name: &Name) -> bool {
        self.directory.walker.zone_of(name).is_some()
    }

    /// As [`Resolver::lookup`], with the time until which it holds.
    pub(in crate::sidecar) async fn find(&self, name: &Name) -> Result<Found, ResolveError> {
        self.directory.find(name).await
    }

    /// Any other question about a name below Peak's zones.
    pub(in crate::sidecar) async fn query(&self, name: &Name, rtype: Type) -> Result<Answer, ResolveError> {
        self.directory.walker.query(name, rtype).await
    }
}

/// What is left until `until`, in whole seconds begun: a TTL to pass on.
pub(in crate::sidecar) fn seconds_left(until: Instant, now: Instant) -> u32 {
    let left = until.saturating_duration_since(now);
    let begun = left.as_secs() + u64::from(left > Duration::from_secs(left.as_secs()));
    u32::try_from(begun).unwrap_or(u32::MAX)
}
