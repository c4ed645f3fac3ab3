//! Events: what became of pods, told on whoever makes them, where `kubectl describe` shows it.
//!
//! Answers never wait for an event. The same word about the same owner is told again only after a while, so that a
//! workload of a thousand pods makes one event and not a thousand.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::metrics::{Metrics, Told};
use crate::model::UnixSeconds;
use crate::model::inject::review::Subject;
use crate::net::kubernetes::Cluster;
use crate::ops::{clock, entropy};

/// Events that wait to be sent; what comes beyond is dropped and counted.
const WAITING: usize = 256;
/// How long one event speaks for those that would say the same.
const SPEAKS_FOR: Duration = Duration::from_secs(600);
/// The most that is remembered of what was said.
const REMEMBERED: usize = 4_096;

/// One event.
#[derive(Clone, Debug)]
pub(super) struct What {
    pub(super) namespace: String,
    pub(super) owner: Subject,
    /// Whether somebody has to act.
    pub(super) warns: bool,
    /// In one word.
    pub(super) word: &'static str,
    pub(super) message: String,
}

/// Where events are handed in. Clones lead to the same sender.
#[derive(Clone, Debug)]
pub(super) struct Events {
    queue: Option<mpsc::Sender<What>>,
    metrics: Metrics,
}

impl Events {
    /// A queue, and the work of sending what is put into it; no queue where nobody wants events.
    pub(super) fn new(wanted: bool, metrics: Metrics) -> (Self, mpsc::Receiver<What>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { queue: wanted.then_some(sender), metrics }, receiver)
    }

    /// Hands an event in. Never waits.
    pub(super) fn tell(&self, what: What) {
        if self.queue.as_ref().is_some_and(|queue| queue.try_send(what).is_err()) {
            self.metrics.events.increment(&Told::Dropped);
        }
    }
}

/// Sends what is handed in, for ever.
pub(super) async fn send(mut queue: mpsc::Receiver<What>, cluster: Cluster, metrics: Metrics) {
    let mut memory = Memory::default();
    while let Some(what) = queue.recv().await {
        if !memory.is_news(&what, Instant::now()) {
            continue;
        }
        let path = format!("/api/v1/namespaces/{}/events", what.namespace);
        match cluster.create(&path, &event(&what, clock::now(), entropy::draw())).await {
            Ok(_) => metrics.events.increment(&Told::Sent),
            Err(error) => {
                metrics.events.increment(&Told::Failed);
                tracing::debug!(reason = error.reason(), "event not sent: {error}");
            }
        }
    }
}

/// What was said lately.
#[derive(Debug, Default)]
struct Memory(HashMap<(Subject, &'static str, String), Instant>);

impl Memory {
    fn is_news(&mut self, what: &What, now: Instant) -> bool {
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, said| now.duration_since(*said) < SPEAKS_FOR);
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let key = (what.owner.clone(), what.word, what.message.clone());
        match self.0.get(&key) {
            Some(said) if now.duration_since(*said) < SPEAKS_FOR => false,
            Some(_) | None => {
                self.0.insert(key, now);
                true
            }
        }
    }
}

/// The object; its name must be one of its own, so it ends in something random.
fn event(what: &What, now: UnixSeconds, random: u128) -> Value {
    let time = now.to_rfc3339();
    let mut owner = what.owner.name.clone();
    // Names of objects have up to 253 octets, all of one octet a character.
    owner.truncate(200);
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": format!("{owner}.{:016x}", random as u64), "namespace": what.namespace },
        "involvedObject": {
            "apiVersion": what.owner.api_version,
            "kind": what.owner.kind,
            "name": what.owner.name,
            "namespace": what.namespace,
            "uid": what.owner.uid,
        },
        "type": if what.warns { "Warning" } else { "Normal" },
        "reason": what.word,
        "message": what.message,
        "source": { "component": "funicular-webhook" },
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(name: &str, word: &'static str) -> What {
        let owner = Subject {
            api_version: "apps/v1".to_owned(),
            kind: "ReplicaSet".to_owned(),
            name: name.to_owned(),
            uid: "u".to_owned(),
        };
        What { namespace: "shop".to_owned(), owner, warns: false, word, message: "m".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_about_an_owner_is_news_once_in_a_while() {
        let mut memory = Memory::default();
        let begun = Instant::now();
        assert!(memory.is_news(&what("a", "Injected"), begun));
        assert!(!memory.is_news(&what("a", "Injected"), begun + SPEAKS_FOR - Duration::from_millis(1)));
        assert!(memory.is_news(&what("a", "InjectionRefused"), begun));
        assert!(memory.is_news(&what("b", "Injected"), begun));
        assert!(memory.is_news(&what("a", "Injected"), begun + SPEAKS_FOR));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let mut memory = Memory::default();
        for at in 0..2 * REMEMBERED {
            memory.is_news(&what(&at.to_string(), "Injected"), Instant::now());
        }
        assert!(memory.0.len() <= REMEMBERED);
    }

    #[test]
    fn an_event_names_its_owner_and_its_time() {
        let event = event(&what("orders-1", "Injected"), UnixSeconds(0), 7);
        assert_eq!(event["metadata"]["name"], "orders-1.0000000000000007");
        assert_eq!(event["involvedObject"]["kind"], "ReplicaSet");
        assert_eq!(event["lastTimestamp"], "1970-01-01T00:00:00Z");
    }
}
