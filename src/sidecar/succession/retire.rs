//! A sidecar that has been succeeded: it finishes what is under way, and, if it was there first, stays for whoever
//! started it, passes signals on to its successors, and ends as the last of them ends.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep_until};

use super::heir::Heir;
use super::{Word, hear};
use crate::ops::children::Children;
use crate::ops::drain::Drain;
use crate::ops::signals::{Signals, Upgrades, Wish};
use crate::sidecar::reload::Reload;

/// What a sidecar is told by, from outside.
pub(in crate::sidecar) struct Office {
    pub(in crate::sidecar) signals: Signals,
    pub(in crate::sidecar) upgrades: Upgrades,
    pub(in crate::sidecar) children: Children,
    pub(in crate::sidecar) reload: Reload,
}

/// Those that came after, the last of them last.
struct Successors(Vec<Pid>);

impl Successors {
    fn tell(&self, signal: Signal) {
        if let Some(last) = self.0.last() {
            // It may have ended just now.
            let _ = kill_process(*last, signal);
        }
    }

    fn tell_all(&self, signal: Signal) {
        for process in &self.0 {
            let _ = kill_process(*process, signal);
        }
    }
}

/// Finishes what is under way, without hurry until told to stop: then `within` that.
///
/// With `stays`, until no successor is left; what is returned is the last one's exit code. Without, until nothing is
/// under way.
pub(in crate::sidecar) async fn retire(
    mut heir: Heir,
    office: &mut Office,
    (inbound, outbound): (&Drain, &Drain),
    within: Duration,
    stays: bool,
) -> ExitCode {
    let mut successors = Successors(vec![heir.process]);
    let (mut code, mut listens, mut finished) = (0, true, false);
    let mut forced_at = None;
    let mut finishing = pin!(async { tokio::join!(inbound.drain(Duration::MAX), outbound.drain(Duration::MAX)) });
    let mut word = Box::pin(next(&mut heir));
    while if stays { !successors.0.is_empty() } else { !finished } {
        tokio::select! {
            biased;
            (heard, heir) = &mut word, if listens => {
                match heard.and_then(|word| word.process()) {
                    Some(process) => successors.0.push(process),
                    None => listens = false,
                }
                word = Box::pin(next(heir));
            }
            ended = office.children.next() => {
                if successors.0.last() == Some(&ended.pid) {
                    code = ended.code;
                }
                successors.0.retain(|process| *process != ended.pid);
            }
            wish = office.signals.next() => match wish {
                Wish::Stop => {
                    successors.tell_all(Signal::TERM);
                    forced_at.get_or_insert(Instant::now() + within);
                }
                Wish::Reload => successors.tell(Signal::HUP),
            },
            // Tokens of connections that go on are renewed from files.
            () = office.reload.next() => {}
            () = office.upgrades.next() => successors.tell(Signal::USR2),
            _ = &mut finishing, if !finished => {
                finished = true;
                tracing::info!("what was under way before the new sidecar has finished");
            }
            () = sleep_until(forced_at.unwrap_or_else(Instant::now)), if forced_at.is_some() && !finished => {
                inbound.force();
                outbound.force();
            }
        }
    }
    ExitCode::from(code)
}

/// The next word of whoever has come after, and where the one after that comes from.
async fn next(heir: &mut Heir) -> (Option<Word>, &mut Heir) {
    (hear(&mut heir.words).await.ok(), heir)
}
