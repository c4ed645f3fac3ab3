//! What the data path needs to know of services: the narrow face of the resolver.

use std::future::Future;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::Arc;

use super::resolve::{ResolveError, Resolver, Service};
use crate::model::Name;

/// What a lookup gives, once it is done.
pub type Found<'a> = Pin<Box<dyn Future<Output = Result<Arc<Service>, ResolveError>> + Send + 'a>>;

/// Knows services by name and by address. The resolver in a running sidecar, a table in tests.
pub trait Directory: Send + Sync {
    /// The service of `name`.
    fn lookup<'a>(&'a self, name: &'a Name) -> Found<'a>;

    /// The service in whose space `addr` lies, among those looked up so far; perhaps past its TTL.
    fn in_space(&self, addr: Ipv6Addr) -> Option<Arc<Service>>;
}

impl Directory for Resolver {
    fn lookup<'a>(&'a self, name: &'a Name) -> Found<'a> {
        Box::pin(Resolver::lookup(self, name))
    }

    fn in_space(&self, addr: Ipv6Addr) -> Option<Arc<Service>> {
        Resolver::in_space(self, addr)
    }
}
