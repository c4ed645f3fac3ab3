//! The log: one subscriber per process, text or JSON, whose level can be changed while running.
//!
//! Lines go to standard error, so that what a command prints stays clean. Levels are given as Prometheus-like words
//! (`info`), or per module: `info,funicular::sidecar=debug`.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, fmt, reload};

/// What logs more than anybody reads; heard only where it is named.
const CHATTY: &str = "openraft";

/// How a line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// For people: time, level, message, `key=value`; in colour on a terminal.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The text names no level.
    #[error(
        "{given:?} is no log level: expected off, error, warn, info, debug or trace, \
         or such words per module, as in info,funicular::sidecar=debug"
    )]
    Level {
        /// The text.
        given: String,
    },
    /// A process has one log.
    #[error("the log has been set up before")]
    Twice,
}

/// The running log's level. Clones change the same.
#[derive(Clone)]
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
    levels: Arc<Mutex<String>>,
}

/// Sets up this process's log.
///
/// # Errors
/// [`LoggingError::Level`], or [`LoggingError::Twice`].
pub fn start(levels: &str, format: Format) -> Result<Logging, LoggingError> {
    let (logging, subscriber) = build(levels, format, io::stderr, io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)?;
    Ok(logging)
}

/// A log that nothing is written to, for tests of what changes its level. Its subscriber lives as long as the tests.
#[cfg(test)]
pub(super) fn detached(levels: &str) -> Logging {
    let (logging, subscriber) = build(levels, Format::Text, io::sink, false).expect("a level");
    std::mem::forget(subscriber);
    logging
}

type Subscriber = tracing_subscriber::layer::Layered<
    Box<dyn Layer<tracing_subscriber::layer::Layered<reload::Layer<Targets, Registry>, Registry>> + Send + Sync>,
    tracing_subscriber::layer::Layered<reload::Layer<Targets, Registry>, Registry>,
>;

fn build<W>(levels: &str, format: Format, writer: W, colour: bool) -> Result<(Logging, Subscriber), LoggingError>
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(levels)?);
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Text => lines.with_ansi(colour).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let logging = Logging { filter: handle, levels: Arc::new(Mutex::new(levels.to_owned())) };
    Ok((logging, Registry::default().with(filter).with(lines)))
}

fn parse(levels: &str) -> Result<Targets, LoggingError> {
    let refused = || LoggingError::Level { given: levels.chars().take(200).collect() };
    // A bare word that is no level would be taken for a module, and silence everything else.
    let words_are_levels = levels.split(',').all(|part| {
        let word = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
        matches!(word.to_ascii_lowercase().as_str(), "off" | "error" | "warn" | "info" | "debug" | "trace")
    });
    if !words_are_levels {
        return Err(refused());
    }
    let targets: Targets = levels.parse().map_err(|_| refused())?;
    // openraft tells of every message that did not arrive; the registry says itself what matters of that.
    let asked_for = levels.contains(CHATTY);
    Ok(if asked_for { targets } else { targets.with_target(CHATTY, LevelFilter::OFF) })
}

impl Logging {
    /// What is written now.
    #[must_use]
    pub fn levels(&self) -> String {
        self.levels.lock().clone()
    }

    /// Changes what is written, from the next line on.
    ///
    /// # Errors
    /// [`LoggingError::Level`]; the old levels stay.
    pub fn set(&self, levels: &str) -> Result<(), LoggingError> {
        let filter = parse(levels)?;
        // The subscriber is gone only when the process ends; then there is nothing left to filter.
        let _ = self.filter.reload(filter);
        levels.clone_into(&mut self.levels.lock());
        Ok(())
    }
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logging").field("levels", &self.levels()).finish()
    }
}

/// A log that keeps its lines, for tests of what is written.
#[cfg(test)]
pub(super) mod kept {
    use super::*;

    /// What has been written.
    #[derive(Clone, Default)]
    pub(in crate::ops) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub(in crate::ops) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock()).into_owned()
        }
    }

    impl io::Write for Kept {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log, what writes it (`tracing::subscriber::with_default`), and its lines.
    pub(in crate::ops) fn started(levels: &str, format: Format) -> (Logging, Subscriber, Kept) {
        let kept = Kept::default();
        let writer = kept.clone();
        let (logging, subscriber) = build(levels, format, move || writer.clone(), false).expect("levels");
        (logging, subscriber, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::kept::started;
    use super::*;

    #[test]
    fn the_level_is_changed_while_running() {
        let (logging, subscriber, kept) = started("info", Format::Text);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("before");
            logging.set("debug").unwrap();
            tracing::debug!("after");
        });
        assert!(!kept.text().contains("before"));
        assert!(kept.text().contains("after"));
        assert_eq!(logging.levels(), "debug");
    }

    #[test]
    fn one_module_may_say_more_than_the_others() {
        let (_logging, subscriber, kept) = started("warn,loud=debug", Format::Text);
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "loud", "heard");
            tracing::debug!(target: "quiet", "unheard");
        });
        assert!(kept.text().contains("heard") && !kept.text().contains("unheard"));
    }

    #[test]
    fn a_json_line_is_one_object_with_the_fields_at_its_top() {
        let (_logging, subscriber, kept) = started("info", Format::Json);
        tracing::subscriber::with_default(subscriber, || tracing::info!(port = 15_001, "listening"));
        let line: serde_json::Value = serde_json::from_str(&kept.text()).unwrap();
        assert_eq!((&line["message"], &line["port"]), (&"listening".into(), &15_001.into()));
    }

    #[test]
    fn a_text_that_is_no_level_is_refused_and_changes_nothing() {
        let (logging, _subscriber, _kept) = started("info", Format::Text);
        for wrong in ["", "verbose", "funicular", "funicular=loud", "info,,debug", "info debug"] {
            assert!(matches!(logging.set(wrong), Err(LoggingError::Level { .. })), "{wrong:?}");
        }
        assert_eq!(logging.levels(), "info");
    }
}
