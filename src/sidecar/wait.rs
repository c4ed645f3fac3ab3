//! `funicular sidecar wait`: holds a pod's start up until its sidecar is ready.
//!
//! Runs in the sidecar's own container, as Kubernetes' `postStart`, where it has neither shell nor curl. Only a sidecar among
//! the pod's containers needs it: a native one is begun before them by Kubernetes itself.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::ask;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Flags of `funicular sidecar wait`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The port of the sidecar's metrics and health
    #[arg(long, default_value_t = 15020)]
    port: u16,
    /// How long to wait, such as 90s
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    deadline: Duration,
}

/// A span of time as configurations write it.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    use crate::config::setting::Single;
    Duration::parse(text).map_err(|detail| format!("write {}{detail}", Duration::EXPECTED))
}

/// Exit code 0 once the sidecar is ready, 1 when it was not by the deadline.
///
/// # Errors
/// The sidecar is not ready by the deadline.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (at, deadline) = ((Ipv4Addr::LOCALHOST, args.port).into(), Instant::now() + args.deadline);
    loop {
        let said = match ask::get(at, "/ready", PATIENCE) {
            Ok((200, _)) => return Ok(ExitCode::SUCCESS),
            Ok((_, said)) => said.trim_end().to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            anyhow::bail!("the sidecar is not ready after {} s: {said}", args.deadline.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}
