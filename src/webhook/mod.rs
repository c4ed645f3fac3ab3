//! The admission webhook: the API server asks what becomes of each pod that is made, and gets a patch or a refusal.
//!
//! ```text
//! API server ──AdmissionReview, TLS──▶ listener ─▶ answer ─▶ model::inject
//!     ▲  ▲                                            ├─▶ metrics
//!     │  └──────events───────────────────────────────┘
//!     ├── namespaces: watched, for their labels and wishes
//!     ├── certificate: one Secret for all replicas; its authority becomes the configuration's caBundle
//!     └── survey: which pods should have a sidecar and have none
//! ```
//!
//! Replicas need no leader: the Secret is replaced only in the version that was read, and everything else is the same
//! whoever does it.

mod answer;
mod certificate;
mod events;
mod listener;
mod metrics;
mod namespaces;
mod rotation;
mod serve;
mod survey;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config;
use crate::config::common::Format;
use crate::config::webhook::Webhook;
use crate::ops::{logging, process};

/// Flags of `funicular webhook`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, YAML; `funicular check` looks it over. None: the defaults, and the environment
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads that answer; one answers some thousand pods a second
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
}

/// Runs `funicular webhook` until it is told to stop.
///
/// # Errors
/// Whatever kept it from starting.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let sources = config::Sources::of_process();
    let sources = args.config.iter().fold(sources, |sources, file| sources.file(file));
    let loaded = config::read::<Webhook>(&sources)?;
    let format = match loaded.value.log.format {
        Format::Text => logging::Format::Text,
        Format::Json => logging::Format::Json,
    };
    let logging = logging::start(loaded.value.log.level.word(), format)?;
    process::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(args.threads))
        .thread_name("webhook")
        .enable_all()
        .build()?;
    runtime.block_on(serve::serve(loaded, logging))?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
