//! One flight per key: whoever asks for what is already being fetched waits for that.
//!
//! The work runs as a task of its own, so that a caller who goes away neither stops it nor leaves the others waiting.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

type Landing<V> = watch::Receiver<Option<V>>;

/// The flights under way.
#[derive(Debug)]
pub(in crate::sidecar) struct Flights<K, V> {
    most: usize,
    under_way: Mutex<HashMap<K, Landing<V>>>,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No flights yet, and never more than `most` at once.
    pub(in crate::sidecar) fn new(most: usize) -> Self {
        Self { most, under_way: Mutex::default() }
    }

    /// The value that the flight for `key` brings; `work` is started when there is none.
    ///
    /// None when as many flights as allowed are under way, or the work died.
    pub(in crate::sidecar) async fn join<F>(self: &Arc<Self>, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut landing = self.board(key, work)?;
        let landed = landing.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }

    fn board<F>(self: &Arc<Self>, key: K, work: impl FnOnce() -> F) -> Option<Landing<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(landing) = under_way.get(&key) {
            return Some(landing.clone());
        }
        if under_way.len() >= self.most {
            return None;
        }
        let (announce, landing) = watch::channel(None);
        under_way.insert(key.clone(), landing.clone());
        let work = work();
        let seat = Seat { flights: self.clone(), key };
        tokio::spawn(async move {
            let value = work.await;
            drop(seat);
            announce.send_replace(Some(value));
        });
        Some(landing)
    }
}

/// Takes the flight off the board however it ends.
struct Seat<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Seat<K, V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn a_hundred_callers_for_one_key_cost_one_flight() {
        let (flights, started) = (Arc::new(Flights::new(8)), Arc::new(AtomicUsize::new(0)));
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (flights, started) = (flights.clone(), started.clone());
                tokio::spawn(async move {
                    let work = || async move {
                        tokio::task::yield_now().await;
                        started.fetch_add(1, Ordering::Relaxed)
                    };
                    flights.join("name", work).await
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Some(0));
        }
        assert!(flights.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_takes_nothing_from_the_others() {
        let (flights, go) = (Arc::new(Flights::new(8)), Arc::new(Notify::new()));
        let work = |go: Arc<Notify>| async move {
            go.notified().await;
            7
        };
        let first = tokio::spawn({
            let (flights, go) = (flights.clone(), go.clone());
            async move { flights.join("name", || work(go)).await }
        });
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = flights.join("name", || async { unreachable!("the first flight goes on") });
        go.notify_one();
        assert_eq!(second.await, Some(7));
    }

    #[tokio::test]
    async fn no_more_flights_than_allowed_are_under_way() {
        let flights = Arc::new(Flights::<_, u8>::new(1));
        let waiting = flights.board("a", std::future::pending);
        assert!(waiting.is_some());
        assert_eq!(flights.join("b", || async { 1 }).await, None);
    }

    #[tokio::test]
    async fn work_that_dies_leaves_nobody_waiting() {
        let flights = Arc::new(Flights::<_, u8>::new(1));
        assert_eq!(flights.join("a", || async { panic!("the work dies") }).await, None);
        assert_eq!(flights.join("a", || async { 1 }).await, Some(1));
    }
}
