//! What changes while a sidecar runs: its configuration and every file that this names.
//!
//! ```text
//! directory event, half a minute, SIGHUP ─▶ read ─▶ each part by itself: new, or as it was
//! ```
//!
//! Connections under way keep what they began with; new ones have what is new. A part whose file is bad stays as it was,
//! whatever becomes of the others, and `funicular_config_reload_success` says 0 until all is well. Addresses to listen
//! on, stand-ins and name servers are settled at the start: a change of those is named, and waits for the next one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::assemble::{self, Lasting, Material};
use super::inbound::Inbound;
use super::material::{self, MaterialError};
use super::outbound::{Identity, Outbound};
use super::report::Report;
use super::secrets::Secrets;
use crate::config::sidecar::Sidecar;
use crate::config::{Faults, Loaded};
use crate::ops::clock;
use crate::ops::files::WatchedFiles;
use crate::ops::logging::Logging;
use crate::ops::metrics::{Gauge, Registry};
use crate::trust::Issuers;

/// Reads the configuration from where it was read first.
pub(super) type Read = Box<dyn Fn() -> Result<Loaded<Sidecar>, Faults> + Send>;

/// What is replaced.
pub(super) struct Parts {
    pub(super) outbound: Arc<ArcSwap<Outbound>>,
    pub(super) inbound: Arc<ArcSwap<Inbound>>,
    pub(super) issuers: Arc<Issuers>,
    pub(super) lasting: Lasting,
    pub(super) material: Material,
    pub(super) logging: Logging,
    /// The parts whose files did not serve when last read: they are tried again with every change.
    pub(super) failed: Vec<&'static str>,
}

/// The configuration's own file, and all that it names.
pub(super) struct Files {
    own: PathBuf,
    watched: WatchedFiles,
}

impl Files {
    /// Looks at them from now on: before any of them is read, so that no change falls between.
    pub(super) fn of(own: PathBuf, loaded: &Loaded<Sidecar>) -> Self {
        let watched = WatchedFiles::new(std::iter::once(own.as_path()).chain(loaded.files()).map(Path::to_owned));
        Self { own, watched }
    }
}

/// Keeps a running sidecar to its files.
pub(super) struct Reload {
    read: Read,
    files: Files,
    loaded: Arc<ArcSwap<Loaded<Sidecar>>>,
    parts: Parts,
    success: Gauge,
    succeeded_at: Gauge,
}

impl Reload {
    /// `loaded` is what the files said at the start, and shows what is in effect.
    pub(super) fn new(
        read: Read,
        files: Files,
        loaded: Arc<ArcSwap<Loaded<Sidecar>>>,
        parts: Parts,
        registry: &Registry,
    ) -> Self {
        let success = registry.gauge("funicular_config_reload_success", "Whether all files served when last read.");
        let succeeded_at = registry.gauge(
            "funicular_config_last_reload_success_timestamp_seconds",
            "When all files last served, in seconds since 1970.",
        );
        let reload = Self { read, files, loaded, parts, success, succeeded_at };
        reload.tell(true);
        reload
    }

    /// Waits for files to change, and reads what changed. Completes after each change that was taken note of. Cancel
    /// safe while it waits.
    pub(super) async fn next(&mut self) {
        let changed = self.files.watched.changed().await;
        self.apply(|path| changed.iter().any(|changed| changed == path));
    }

    /// What lasts from one configuration to the next.
    pub(super) fn lasting(&self) -> &Lasting {
        &self.parts.lasting
    }

    /// Reads everything now.
    pub(super) fn all(&mut self) {
        self.files.watched.look();
        self.apply(|_| true);
    }

    fn tell(&self, success: bool) {
        self.success.set(success.into());
        if success {
            self.succeeded_at.set(i64::try_from(clock::now().0).unwrap_or(i64::MAX));
        }
    }

    fn apply(&mut self, changed: impl Fn(&Path) -> bool) {
        let before = self.loaded.load_full();
        let after = match (self.read)() {
            Ok(loaded) => Arc::new(loaded),
            Err(faults) => {
                tracing::warn!("the configuration stays as it is:\n{faults}");
                return self.tell(false);
            }
        };
        // What is looked at must be known before anything is read: what changes after that is then told.
        if !before.files().eq(after.files()) {
            self.files = Files::of(std::mem::take(&mut self.files.own), &after);
        }
        let success = self.parts.renew(&before.value, &after.value, changed);
        for key in waiting(&before.value, &after.value) {
            tracing::warn!(key, "a change that takes effect at the next start");
        }
        self.loaded.store(after);
        self.tell(success);
        if success {
            tracing::info!("files read again");
        }
    }
}

impl Parts {
    /// Makes anew what `changed` or is set otherwise; whether all of it could be.
    fn renew(&mut self, before: &Sidecar, after: &Sidecar, changed: impl Fn(&Path) -> bool) -> bool {
        let failed = std::mem::take(&mut self.failed);
        let mut note = |part: &'static str, error: &dyn std::fmt::Display| {
            self.failed.push(part);
            tracing::warn!(part, "stays as it is: {error}");
        };
        if before.identity != after.identity || failed.contains(&"identity") || identity_files(after).any(&changed) {
            let renewed = identity(&mut self.material.identity, after, self.lasting.report());
            renewed.unwrap_or_else(|error| note("identity", &error));
        }
        let mut server_files = after.tls.iter().flat_map(|tls| [tls.certificate.as_path(), tls.key.as_path()]);
        if before.tls != after.tls || failed.contains(&"tls") || server_files.any(&changed) {
            match after.tls.as_ref().map(material::server).transpose() {
                Ok(server) => self.material.server = server,
                Err(error) => note("tls", &error),
            }
        }
        let secrets = &after.outbound.secrets;
        let part = "outbound.secrets";
        if before.outbound.secrets != *secrets || failed.contains(&part) || secrets.values().any(|path| changed(path)) {
            match Secrets::from_files(secrets) {
                Ok(secrets) => self.material.secrets.store(Arc::new(secrets)),
                Err(error) => note(part, &error),
            }
        }
        for error in self.issuers.read_again(&after.trust).err().into_iter().flatten() {
            note("trust", &error);
        }
        if before.log.level != after.log.level
            && let Err(error) = self.logging.set(after.log.level.word())
        {
            note("log.level", &error);
        }
        self.outbound.store(Arc::new(self.lasting.outbound(after, &self.material)));
        self.inbound.store(Arc::new(self.lasting.inbound(after, &self.material)));
        self.failed.is_empty()
    }
}

/// The identity as the files have it; connections in use renew their tokens by the new proof.
fn identity(held: &mut Option<Identity>, after: &Sidecar, report: &Report) -> Result<(), MaterialError> {
    let Some(settings) = &after.identity else {
        *held = None;
        return Ok(());
    };
    match held {
        Some(identity) => {
            let tls = material::authorities(settings)?;
            if let Some(proof) = material::proof(settings)? {
                identity.tokens.replace(proof);
            }
            identity.tls = tls;
        }
        None => *held = assemble::identity(settings, report)?,
    }
    Ok(())
}

fn identity_files(config: &Sidecar) -> impl Iterator<Item = &Path> {
    config.identity.iter().flat_map(|identity| {
        let files = [Some(&identity.ca), identity.signing_key.as_ref(), identity.token_file.as_ref()];
        files.into_iter().flatten().map(PathBuf::as_path)
    })
}

/// The settings whose change waits for the next start.
fn waiting(before: &Sidecar, after: &Sidecar) -> impl Iterator<Item = &'static str> {
    let changes = [
        ("dns.listen", before.dns.listen != after.dns.listen),
        ("dns.upstream", before.dns.upstream != after.dns.upstream),
        ("dns.peak", before.dns.peak != after.dns.peak),
        ("dns.answers", before.dns.answers != after.dns.answers),
        ("dns.stale", before.dns.stale != after.dns.stale),
        ("dns.stand_ins", before.dns.stand_ins != after.dns.stand_ins),
        ("outbound.listen", before.outbound.listen != after.outbound.listen),
        ("inbound.listen", before.inbound.listen != after.inbound.listen),
        ("outbound.explicit", before.outbound.explicit != after.outbound.explicit),
        ("probes", before.probes != after.probes),
        ("lease", before.lease != after.lease),
        ("memory", before.memory != after.memory),
        ("admin", before.admin != after.admin),
        ("log.format", before.log.format != after.log.format),
    ];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key)
}
