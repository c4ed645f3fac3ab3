//! Connections as they end, for somebody who looks on: the access log's lines, whatever the log's level.
//!
//! Nothing is kept while nobody looks. The first question begins it, and it ends when nobody has asked for [`PATIENCE`].
//! Each question names the line it has seen last, so that none is missed between two of them as long as no more than
//! [`MOST`] came meanwhile. It is the process's, as the log is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How many lines wait for the next question.
pub const MOST: usize = 1_000;
/// How long lines are kept after the last question.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a question waits for a line.
const WAIT: Duration = Duration::from_secs(5);

/// The process's.
pub(super) static TAP: Tap = Tap::new();

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The number up to which lines were seen, from the last answer; without it, what comes from now on.
    pub after: Option<u64>,
    /// Lines of this service alone, with or without the final dot.
    pub service: Option<String>,
    /// Lines of this direction alone.
    pub direction: Option<String>,
}

impl Wanted {
    fn fits(&self, line: &Value) -> bool {
        let same = |wanted: &Option<String>, key: &str| {
            let bare = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
            wanted.as_ref().is_none_or(|wanted| line[key].as_str().is_some_and(|found| bare(found) == bare(wanted)))
        };
        same(&self.service, "service") && same(&self.direction, "direction")
    }
}

/// Lines that wait for whoever looks on.
pub(super) struct Tap {
    open: AtomicBool,
    kept: Mutex<Kept>,
    came: Notify,
}

struct Kept {
    lines: VecDeque<Value>,
    /// How many have come since the process began: the number of the last one.
    count: u64,
    asked: Option<Instant>,
}

impl Tap {
    const fn new() -> Self {
        let kept = Kept { lines: VecDeque::new(), count: 0, asked: None };
        Self { open: AtomicBool::new(false), kept: Mutex::new(kept), came: Notify::const_new() }
    }

    /// Whether anybody looks on.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a line.
    pub(super) fn keep(&self, line: Value) {
        let mut kept = self.kept.lock();
        if kept.asked.is_none_or(|asked| asked.elapsed() > PATIENCE) {
            self.open.store(false, Ordering::Relaxed);
            kept.lines = VecDeque::new();
            return;
        }
        if kept.lines.len() >= MOST {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line);
        kept.count += 1;
        self.came.notify_waiters();
    }

    /// What has come since, at once if anything has, else what comes within five seconds.
    async fn ask(&self, wanted: &Wanted) -> Value {
        let came = self.came.notified();
        let after = {
            let mut kept = self.kept.lock();
            kept.asked = Some(Instant::now());
            self.open.store(true, Ordering::Relaxed);
            wanted.after.unwrap_or(kept.count)
        };
        if self.kept.lock().count <= after {
            // Whether it came or not, the answer says what there is.
            let _ = timeout(WAIT, came).await;
        }
        let kept = self.kept.lock();
        let missing = usize::try_from(kept.count.saturating_sub(after)).unwrap_or(usize::MAX);
        let seen = kept.lines.len().saturating_sub(missing);
        let lines: Vec<_> = kept.lines.iter().skip(seen).filter(|line| wanted.fits(line)).collect();
        json!({ "last": kept.count, "missed": missing.saturating_sub(kept.lines.len()), "lines": lines })
    }
}

/// The process's connections as they end: `last`, to be named in the next question; `missed`, how many came since the last
/// question and were not kept; `lines`.
pub async fn look(wanted: Wanted) -> Value {
    TAP.ask(&wanted).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(service: &str) -> Value {
        json!({ "service": service, "direction": "outbound" })
    }

    fn after(number: u64) -> Wanted {
        Wanted { after: Some(number), ..Wanted::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_before_anybody_asks_and_after_nobody_has_for_long() {
        let tap = Tap::new();
        tap.keep(line("early."));
        assert_eq!(tap.ask(&Wanted::default()).await["lines"], json!([]));
        assert!(tap.is_open());
        tokio::time::advance(PATIENCE + Duration::from_secs(1)).await;
        tap.keep(line("late."));
        assert!(!tap.is_open());
        assert_eq!(tap.kept.lock().count, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_line_is_told_once_and_what_was_too_much_is_counted() {
        let tap = Tap::new();
        let _ = tap.ask(&Wanted::default()).await;
        tap.keep(line("a."));
        tap.keep(line("b."));
        let first = tap.ask(&after(0)).await;
        assert_eq!((&first["last"], &first["lines"]), (&json!(2), &json!([line("a."), line("b.")])));
        tap.keep(line("c."));
        assert_eq!(tap.ask(&after(2)).await["lines"], json!([line("c.")]));
        for _ in 0..=MOST {
            tap.keep(line("d."));
        }
        let flood = tap.ask(&after(3)).await;
        assert_eq!((&flood["missed"], flood["lines"].as_array().unwrap().len()), (&json!(1), MOST));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_waits_for_the_next_line_and_takes_what_it_asked_for() {
        let tap = Tap::new();
        let wanted = Wanted { service: Some("Orders.peak".to_owned()), ..Wanted::default() };
        let (told, ()) = tokio::join!(tap.ask(&wanted), async {
            tokio::task::yield_now().await;
            tap.keep(line("orders.peak."));
        });
        assert_eq!(told["lines"], json!([line("orders.peak.")]));
        tap.keep(line("users.peak."));
        let other = Wanted { after: Some(1), ..wanted };
        assert_eq!(tap.ask(&other).await["lines"], json!([]));
    }
}
