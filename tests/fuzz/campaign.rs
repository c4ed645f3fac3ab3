//! Running a target on many inputs, within a time or up to a number, and telling what broke it.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::corpus;
use super::mutate::{self, Numbers};

/// The same inputs in every run, unless somebody wants others.
const SEED: u64 = 0x0046_554e;
/// How long a target runs.
const SECONDS: u64 = 2;
/// No input takes a machine that still works so long.
const HANG: Duration = Duration::from_secs(30);
/// How many inputs are run between two looks at the clock.
const BETWEEN_LOOKS: u64 = 64;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    extent: Extent,
}

#[derive(Clone, Copy, Debug)]
enum Extent {
    For(Duration),
    Inputs(u64),
    Only(u64),
}

impl Plan {
    /// What the environment says; see the crate's documentation.
    pub(crate) fn of_environment() -> Self {
        let number = |name: &str| {
            let text = env::var(name).ok()?;
            let read = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
            Some(read.unwrap_or_else(|_| panic!("{name} is no number: {text}")))
        };
        let extent = match (number("FUNICULAR_FUZZ_AT"), number("FUNICULAR_FUZZ_MESSAGES")) {
            (Some(index), _) => Extent::Only(index),
            (None, Some(count)) => Extent::Inputs(count),
            (None, None) => Extent::For(Duration::from_secs(number("FUNICULAR_FUZZ_SECONDS").unwrap_or(SECONDS))),
        };
        Self { seed: number("FUNICULAR_FUZZ_SEED").unwrap_or(SEED), extent }
    }
}

/// How a run went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    pub(crate) inputs: u64,
    pub(crate) took: Duration,
}

/// Runs `check` on the kept inputs of `target` and on mutations of them.
///
/// # Panics
/// When `check` does, after telling how to bring the input back.
pub(crate) fn hold(target: &'static str, check: impl FnMut(&[u8])) {
    let kept = corpus::kept(target);
    let ran = run(target, &kept, |numbers| mutate::input(numbers, &kept), check);
    println!("{target}: {} inputs in {:.1} s", ran.inputs, ran.took.as_secs_f64());
}

/// Runs `check` on the kept inputs of `target`, then on those that `make` makes of numbers.
///
/// # Panics
/// As [`hold`].
pub(crate) fn run(
    target: &'static str,
    kept: &[Vec<u8>],
    mut make: impl FnMut(&mut Numbers) -> Vec<u8>,
    mut check: impl FnMut(&[u8]),
) -> Ran {
    let plan = Plan::of_environment();
    let started = Instant::now();
    if !matches!(plan.extent, Extent::Only(_)) {
        for (place, octets) in kept.iter().enumerate() {
            guarded(octets, &mut check, || format!("input {} of tests/corpus/{target}.txt", place + 1));
        }
    }
    let watched = Watched::start(target, plan.seed);
    let (mut index, end) = match plan.extent {
        Extent::Only(index) => (index, index + 1),
        Extent::Inputs(count) => (0, count),
        Extent::For(_) => (0, u64::MAX),
    };
    while index < end {
        if let Extent::For(long) = plan.extent
            && index.is_multiple_of(BETWEEN_LOOKS)
            && started.elapsed() >= long
        {
            break;
        }
        watched.at(index);
        let octets = make(&mut Numbers::of(plan.seed, target, index));
        guarded(&octets, &mut check, || again(target, plan.seed, index));
        index += 1;
    }
    Ran { inputs: index, took: started.elapsed() }
}

fn again(target: &str, seed: u64, index: u64) -> String {
    format!("target {target}: FUNICULAR_FUZZ_SEED={seed:#x} FUNICULAR_FUZZ_AT={index} cargo test --test fuzz")
}

/// Runs `check` once; when it panics, says on what, and keeps the input where it can be found.
fn guarded(octets: &[u8], check: &mut impl FnMut(&[u8]), which: impl Fn() -> String) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(octets))) else { return };
    let line = corpus::line(octets);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-broken.txt");
    let told = std::fs::write(&file, &line).map_or(String::new(), |()| format!(" (in {})", file.display()));
    eprintln!("broken by {} octets{told}; {}", octets.len(), which());
    eprintln!("to keep it, add to tests/corpus, with the reason: {}", &line[..line.len().min(2_000)]);
    resume_unwind(panic);
}

/// Ends the process when an input takes too long, for a loop cannot be ended otherwise.
struct Watched(Arc<AtomicU64>);

impl Watched {
    fn start(target: &'static str, seed: u64) -> Self {
        let at = Arc::new(AtomicU64::new(0));
        // It sees that the run is over by being the last who knows of the number.
        let seen = Arc::downgrade(&at);
        std::thread::spawn(move || {
            let mut last = (u64::MAX, Instant::now());
            while let Some(at) = seen.upgrade() {
                let now = at.load(Ordering::Relaxed);
                drop(at);
                if now != last.0 {
                    last = (now, Instant::now());
                } else if last.1.elapsed() > HANG {
                    eprintln!("an input has taken {} s; {}", HANG.as_secs(), again(target, seed, now));
                    std::process::abort();
                }
                std::thread::park_timeout(HANG / 10);
            }
        });
        Self(at)
    }

    fn at(&self, index: u64) {
        self.0.store(index, Ordering::Relaxed);
    }
}
