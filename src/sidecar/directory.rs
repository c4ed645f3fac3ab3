//! What the data path needs to know of services: the narrow face of the resolver.

use std::collections::HashMap;
use std::future::Future;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

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

/// How long a lookup may take when something is known already.
const PATIENCE: Duration = Duration::from_millis(250);

/// A directory that goes on with what it last knew of a name while nobody can be asked.
///
/// For a pod's own services: their rules decide who is let in, and a control plane that is gone must not shut pods that
/// are well. What DNS *says*, such as that the name is no service any more, counts at once.
pub struct LastKnown {
    inner: Arc<dyn Directory>,
    /// One entry for each of the pod's own services, so bounded by configuration.
    kept: Mutex<HashMap<Name, Arc<Service>>>,
}

impl LastKnown {
    /// A directory that asks `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Directory>) -> Self {
        Self { inner, kept: Mutex::default() }
    }

    async fn ask(&self, name: &Name) -> Result<Arc<Service>, ResolveError> {
        let kept = self.kept.lock().get(name).cloned();
        let answer = match &kept {
            None => self.inner.lookup(name).await,
            Some(kept) => timeout(PATIENCE, self.inner.lookup(name)).await.unwrap_or_else(|_| Ok(Arc::clone(kept))),
        };
        match (answer, kept) {
            (Ok(service), kept) => {
                if kept.is_none_or(|kept| !Arc::ptr_eq(&kept, &service)) {
                    self.kept.lock().insert(name.clone(), Arc::clone(&service));
                }
                Ok(service)
            }
            (Err(error), Some(kept)) if !error.is_verdict() => Ok(kept),
            (Err(error), _) => Err(error),
        }
    }
}

impl Directory for LastKnown {
    fn lookup<'a>(&'a self, name: &'a Name) -> Found<'a> {
        Box::pin(self.ask(name))
    }

    fn in_space(&self, addr: Ipv6Addr) -> Option<Arc<Service>> {
        self.inner.in_space(addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ssa::Space;

    /// Answers with whatever it was last told to; with nothing, never.
    #[derive(Default)]
    struct Told(Mutex<Option<Result<Arc<Service>, ResolveError>>>);

    impl Directory for Told {
        fn lookup<'a>(&'a self, _name: &'a Name) -> Found<'a> {
            let answer = self.0.lock().clone();
            Box::pin(async {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }

        fn in_space(&self, _addr: Ipv6Addr) -> Option<Arc<Service>> {
            None
        }
    }

    fn orders() -> Name {
        "orders.shop.peak".parse().unwrap()
    }

    fn service() -> Arc<Service> {
        let space = Space::new(&["2:2001:db8:5:1::/64".parse().unwrap()]).unwrap();
        Arc::new(Service { name: orders(), space, rules: Vec::new(), port: None })
    }

    fn silence() -> ResolveError {
        ResolveError::Unreachable { zone: "shop.peak".parse().unwrap(), name: orders() }
    }

    fn told() -> (Arc<Told>, LastKnown) {
        let told = Arc::new(Told::default());
        (Arc::clone(&told), LastKnown::new(told))
    }

    #[tokio::test]
    async fn what_was_known_goes_on_while_nobody_can_be_asked() {
        let (told, directory) = told();
        *told.0.lock() = Some(Ok(service()));
        directory.lookup(&orders()).await.unwrap();

        *told.0.lock() = Some(Err(silence()));

        assert_eq!(directory.lookup(&orders()).await.unwrap(), service());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_takes_long_is_not_waited_for_when_something_is_known() {
        let (told, directory) = told();
        *told.0.lock() = Some(Ok(service()));
        directory.lookup(&orders()).await.unwrap();

        *told.0.lock() = None;

        assert_eq!(directory.lookup(&orders()).await.unwrap(), service());
    }

    #[tokio::test]
    async fn what_was_never_known_is_an_error() {
        let (told, directory) = told();
        *told.0.lock() = Some(Err(silence()));

        assert_eq!(directory.lookup(&orders()).await.unwrap_err(), silence());
    }

    #[tokio::test]
    async fn a_name_that_is_no_service_any_more_counts_at_once() {
        let (told, directory) = told();
        *told.0.lock() = Some(Ok(service()));
        directory.lookup(&orders()).await.unwrap();
        let gone = ResolveError::NoName { name: orders() };

        *told.0.lock() = Some(Err(gone.clone()));

        assert_eq!(directory.lookup(&orders()).await.unwrap_err(), gone);
    }
}
