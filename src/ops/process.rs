//! What a process knows of itself: its version, its memory, its descriptors, its time on the processor; and how many
//! descriptors it may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::metrics::{Kind, Registry};

/// `utime` and `stime` of `/proc` are in ticks of a hundredth of a second on every Linux (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the process's own metrics; they are read when they are asked for.
pub fn register(registry: &Registry) {
    registry.sampled("funicular_build_info", "The running version; always 1.", Kind::Gauge, &["version"], |samples| {
        samples.put(&[env!("CARGO_PKG_VERSION")], 1.0);
    });
    let figure = |name, help, kind, read: fn() -> Option<f64>| {
        registry.sampled(name, help, kind, &[], move |samples| {
            // Without /proc there is nothing to say.
            if let Some(value) = read() {
                samples.put(&[], value);
            }
        });
    };
    let resident = || resident_bytes().map(|bytes| bytes as f64);
    figure("funicular_process_resident_memory_bytes", "Memory in use.", Kind::Gauge, resident);
    figure("funicular_process_open_descriptors", "Open file descriptors.", Kind::Gauge, open_descriptors);
    figure("funicular_process_max_descriptors", "Open file descriptors allowed.", Kind::Gauge, max_descriptors);
    figure("funicular_process_cpu_seconds_total", "Processor time, user and system.", Kind::Counter, cpu_seconds);
}

/// The process's memory in use, in bytes; `None` without /proc.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

fn open_descriptors() -> Option<f64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // The folder being read is one of them.
    Some(entries.count().saturating_sub(1) as f64)
}

fn max_descriptors() -> Option<f64> {
    getrlimit(Resource::Nofile).current.map(|most| most as f64)
}

/// Lets the process open as many descriptors as whoever started it allows at most.
///
/// The soft limit is 1,024 nearly everywhere, for programs that call select(2); a connection takes two. Where the
/// system refuses, the limit stays what it was, which the metrics show.
pub fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the command, is in parentheses and may hold anything; `utime` is field 14, `stime` 15.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: f64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_s_figures_are_plausible() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(open_descriptors().unwrap() >= 3.0);
        assert!(max_descriptors().unwrap() >= open_descriptors().unwrap());
        assert!(cpu_seconds().unwrap() >= 0.0);
    }

    #[test]
    fn every_figure_is_shown() {
        let registry = Registry::new();
        register(&registry);
        let text = registry.text();
        for family in registry.families() {
            assert!(text.contains(&format!("\n{}", family.name)), "{} in {text}", family.name);
        }
    }
}
