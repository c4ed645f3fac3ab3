//! What the data path needs to know of services: the narrow face of the resolver.

use std::collections::HashMap;
use std::future::Future;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;

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

/// A directory that answers with what it last knew of a name, and asks again beside that.
///
/// For a pod's own services: their rules decide who is let in, and a control plane that is gone or slow must neither shut
/// pods that are well nor hold up their callers. What DNS *says*, such as that the name is no service any more, counts as
/// soon as it has said so.
#[derive(Clone)]
pub struct LastKnown {
    inner: Arc<dyn Directory>,
    /// One entry for each of the pod's own services, so bounded by configuration.
    kept: Arc<Mutex<HashMap<Name, Kept>>>,
}

struct Kept {
    service: Arc<Service>,
    /// Somebody is asking again.
    asking: bool,
}

impl LastKnown {
    /// A directory that asks `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Directory>) -> Self {
        Self { inner, kept: Arc::default() }
    }

    async fn ask(&self, name: &Name) -> Result<Arc<Service>, ResolveError> {
        let kept = self.kept.lock().get(name).map(|kept| Arc::clone(&kept.service));
        let Some(kept) = kept else {
            let answer = self.inner.lookup(name).await;
            return self.learn(name, answer);
        };
        // What the inner directory remembers it answers at once.
        match self.inner.lookup(name).now_or_never() {
            Some(answer) => self.learn(name, answer),
            None => {
                self.ask_beside(name);
                Ok(kept)
            }
        }
    }

    fn ask_beside(&self, name: &Name) {
        let asks = self.kept.lock().get_mut(name).is_some_and(|kept| !std::mem::replace(&mut kept.asking, true));
        if asks {
            let (directory, name) = (self.clone(), name.clone());
            tokio::spawn(async move {
                let answer = directory.inner.lookup(&name).await;
                // What it is worth shows in what is kept.
                let _ = directory.learn(&name, answer);
            });
        }
    }

    /// Keeps what was said; where nothing was, what is kept goes on.
    fn learn(&self, name: &Name, answer: Result<Arc<Service>, ResolveError>) -> Result<Arc<Service>, ResolveError> {
        let mut kept = self.kept.lock();
        match answer {
            Ok(service) => {
                let new = Kept { service: Arc::clone(&service), asking: false };
                match kept.get_mut(name) {
                    Some(known) => *known = new,
                    None => drop(kept.insert(name.clone(), new)),
                }
                Ok(service)
            }
            Err(error) if error.is_verdict() => {
                kept.remove(name);
                Err(error)
            }
            Err(error) => match kept.get_mut(name) {
                Some(known) => {
                    known.asking = false;
                    Ok(Arc::clone(&known.service))
                }
                None => Err(error),
            },
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

    #[tokio::test]
    async fn a_lookup_that_waits_is_not_waited_for_when_something_is_known() {
        let (told, directory) = told();
        *told.0.lock() = Some(Ok(service()));
        directory.lookup(&orders()).await.unwrap();

        *told.0.lock() = None;

        assert_eq!(directory.lookup(&orders()).now_or_never().unwrap().unwrap(), service());
    }

    /// Answers every second lookup late.
    struct Late(Result<Arc<Service>, ResolveError>, Mutex<u32>);

    impl Directory for Late {
        fn lookup<'a>(&'a self, _name: &'a Name) -> Found<'a> {
            let turn = std::mem::replace(&mut *self.1.lock(), 1);
            Box::pin(async move {
                if turn == 0 {
                    return Ok(service());
                }
                tokio::task::yield_now().await;
                self.0.clone()
            })
        }

        fn in_space(&self, _addr: Ipv6Addr) -> Option<Arc<Service>> {
            None
        }
    }

    #[tokio::test]
    async fn what_is_learned_beside_counts_from_then_on() {
        let gone = ResolveError::NoName { name: orders() };
        let directory = LastKnown::new(Arc::new(Late(Err(gone.clone()), Mutex::default())));
        directory.lookup(&orders()).await.unwrap();

        assert_eq!(directory.lookup(&orders()).await.unwrap(), service());
        while !directory.kept.lock().is_empty() {
            tokio::task::yield_now().await;
        }

        assert_eq!(directory.lookup(&orders()).await.unwrap_err(), gone);
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
