//! A zone that other servers hold: looked at, transferred, and given up when nobody vouches for it any more.
//!
//! ```text
//!        start, refresh, retry, NOTIFY
//!                 │
//!                 ▼
//!   SOA question ─┬─ not newer ───────────────► confirmed
//!                 ├─ newer ─► IXFR ─┬─ fits ──► confirmed
//!                 │                 └─ else ─► AXFR ─► confirmed
//!                 └─ no primary answers ──────► retry; at EXPIRE the zone is unknown (SERVFAIL)
//! ```
//!
//! Source: RFC 1034 §4.3.5, RFC 1995, RFC 1996, RFC 5936.

mod ask;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::desk::counts::{Counts, Direction, Ended, Form};
use super::exchange::Peer;
use super::ledger::Ledger;
use super::transfer::collect::Collected;
use crate::model::zone::{Seed, Zone, serial};
use crate::model::{Name, UnixSeconds};
use crate::ops::clock;
use crate::ops::metrics::Label as _;
use ask::AskError;
use schedule::{Schedule, Times};

/// A zone from primaries.
#[derive(Debug)]
pub(super) struct Secondary {
    pub(super) apex: Name,
    pub(super) primaries: Vec<Peer>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) seed: Seed,
    pub(super) counts: Counts,
    /// Someone says that there is something new.
    pub(super) woken: mpsc::Receiver<()>,
}

impl Secondary {
    /// Looks after the zone for ever. `confirmed` is when what is served was last known to be what a primary has.
    pub(super) async fn run(mut self, confirmed: Option<UnixSeconds>) {
        let mut schedule = self.schedule(confirmed);
        loop {
            tokio::select! {
                () = sleep_until(schedule.due()) => {}
                woken = self.woken.recv() => match woken {
                    // Whoever wakes us may know it of a server that is not the first to be asked.
                    Some(()) => {
                        self.refresh(&mut schedule).await;
                        continue;
                    }
                    None => return,
                },
            }
            if schedule.expire(Instant::now()) {
                tracing::error!(zone = %self.apex, "no primary has confirmed the zone for too long: it is expired");
                let (ledger, apex) = (Arc::clone(&self.ledger), self.apex.clone());
                blocking(move || ledger.expire(&apex)).await;
            }
            if schedule.is_refresh_due(Instant::now()) {
                self.refresh(&mut schedule).await;
            }
        }
    }

    fn schedule(&self, confirmed: Option<UnixSeconds>) -> Schedule {
        let times = self.held().and_then(|zone| Times::of(&zone.soa()?));
        // The clock may have been set back since.
        let ago = |at: UnixSeconds| Duration::from_secs(clock::now().0.saturating_sub(at.0));
        Schedule::new(Instant::now(), times.map(|times| (times, confirmed.map_or(Duration::ZERO, ago))))
    }

    fn held(&self) -> Option<Arc<Zone>> {
        self.ledger.zone(&self.apex).filter(|zone| zone.is_known())
    }

    /// Asks the primaries, in order, until one has confirmed or brought a version.
    async fn refresh(&mut self, schedule: &mut Schedule) {
        // The first that cannot be asked must not hide what the next has, and neither the first that is behind.
        let mut confirmed = false;
        for primary in self.primaries.clone() {
            match self.refresh_from(&primary).await {
                Ok(Fresh::Brought) => {
                    confirmed = true;
                    break;
                }
                Ok(Fresh::Same) => confirmed = true,
                Ok(Fresh::Behind) => {}
                Err(error) => {
                    let (zone, primary) = (&self.apex, primary.address);
                    tracing::warn!(%zone, %primary, %error, reason = error.reason(), "a primary could not be used");
                }
            }
        }
        let times = self.held().and_then(|zone| Times::of(&zone.soa()?));
        match times.filter(|_| confirmed) {
            Some(times) => schedule.confirmed(Instant::now(), times),
            None => schedule.failed(Instant::now()),
        }
    }

    async fn refresh_from(&self, primary: &Peer) -> Result<Fresh, AskError> {
        let held = self.held();
        let Some(held) = held else { return self.whole(primary).await };
        let latest = ask::serial(primary, &self.apex).await?;
        if latest == held.serial() {
            let (ledger, apex) = (Arc::clone(&self.ledger), self.apex.clone());
            blocking(move || ledger.confirm(&apex, clock::now())).await;
            return Ok(Fresh::Same);
        }
        if !serial::is_newer(latest, held.serial()) {
            tracing::warn!(
                zone = %self.apex, primary = %primary.address, serial = held.serial(), theirs = latest,
                "a primary has an older version"
            );
            return Ok(Fresh::Behind);
        }
        match self.differences(primary, &held).await {
            Ok(fresh) => Ok(fresh),
            Err(error) => {
                let (zone, primary_at) = (&self.apex, primary.address);
                tracing::info!(%zone, primary = %primary_at, %error, "no incremental transfer, the whole zone then");
                self.whole(primary).await
            }
        }
    }

    async fn differences(&self, primary: &Peer, held: &Zone) -> Result<Fresh, AskError> {
        let soa = held.soa();
        let outcome = match ask::transfer(primary, &self.apex, soa.as_ref()).await {
            Ok(collected) => self.take(collected).await,
            Err(error) => Err(error),
        };
        self.count(Form::Differences, &outcome);
        outcome
    }

    async fn whole(&self, primary: &Peer) -> Result<Fresh, AskError> {
        let outcome = match ask::transfer(primary, &self.apex, None).await {
            Ok(collected) => self.take(collected).await,
            Err(error) => Err(error),
        };
        self.count(Form::Whole, &outcome);
        outcome
    }

    fn count(&self, form: Form, outcome: &Result<Fresh, AskError>) {
        let ended = match outcome {
            Ok(Fresh::Brought) => Ended::Done,
            Ok(Fresh::Same | Fresh::Behind) => Ended::Nothing,
            Err(_) => Ended::Failed,
        };
        self.counts.transfers.increment(&(Direction::In, form, ended));
    }

    /// Serves what a transfer brought.
    async fn take(&self, collected: Collected) -> Result<Fresh, AskError> {
        let (ledger, apex, seed) = (Arc::clone(&self.ledger), self.apex.clone(), self.seed);
        let now = clock::now();
        let form = if matches!(collected, Collected::Whole(_)) { Form::Whole } else { Form::Differences };
        let zone = match collected {
            Collected::UpToDate => return Ok(Fresh::Same),
            Collected::Differences(deltas) => {
                let extend = move || {
                    let zone = ledger.extend(&apex, deltas, now)?;
                    ledger.tidy();
                    Ok(zone)
                };
                blocking(extend).await.unwrap_or(Err(AskError::Interrupted))?
            }
            Collected::Whole(entries) => {
                let load = move || -> Result<Arc<Zone>, AskError> {
                    let loaded = Zone::received(&apex, seed, &entries).map_err(|faults| {
                        for fault in &faults {
                            tracing::warn!(zone = %apex, fault = %fault.cause, "a transferred record cannot be served");
                        }
                        AskError::Unservable { faults: faults.len() }
                    })?;
                    let zone = Arc::new(loaded.zone);
                    ledger.replace(Arc::clone(&zone), Some(now));
                    Ok(zone)
                };
                blocking(load).await.unwrap_or(Err(AskError::Interrupted))?
            }
        };
        tracing::info!(zone = %self.apex, serial = zone.serial(), names = zone.len(), form = form.value(), "zone transferred");
        Ok(Fresh::Brought)
    }
}

/// How what a primary has compares with what is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fresh {
    /// It was newer, and is served now.
    Brought,
    /// It is the same.
    Same,
    /// It is older.
    Behind,
}

/// Runs what waits for the disk or takes long where nobody else has to wait; none when the runtime ends meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
