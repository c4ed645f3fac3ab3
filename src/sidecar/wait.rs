//! `funicular sidecar wait`: holds a pod's start up until its sidecar is ready, or its sidecar's end until nobody calls.
//!
//! Runs in the sidecar's own container, as Kubernetes' `postStart` and `preStop`, where it has neither shell nor curl. Only
//! a sidecar among the pod's containers needs it: a native one is begun before and ended after them by Kubernetes itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::ask;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What says how many connections are open.
const OPEN: &str = "funicular_connections_open{";

/// Flags of `funicular sidecar wait`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The port of the sidecar's metrics and health
    #[arg(long, default_value_t = 15020)]
    port: u16,
    /// Wait until no connection has been open for so long, such as 3s, instead of until the sidecar is ready
    #[arg(long, value_name = "SPAN", value_parser = span)]
    idle: Option<Duration>,
    /// How long to wait, such as 90s
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    deadline: Duration,
}

/// A span of time as configurations write it.
fn span(text: &str) -> Result<Duration, String> {
    use crate::config::setting::Single;
    Duration::parse(text).map_err(|detail| format!("write {}{detail}", Duration::EXPECTED))
}

/// Exit code 0 once the sidecar is ready, 1 when it was not by the deadline; with `--idle` always 0, since whoever still
/// calls by then is the sidecar's own drain's concern.
///
/// # Errors
/// The sidecar is not ready by the deadline.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (at, deadline) = ((Ipv4Addr::LOCALHOST, args.port).into(), Instant::now() + args.deadline);
    if let Some(idle) = args.idle {
        until_idle(at, idle, deadline);
        return Ok(ExitCode::SUCCESS);
    }
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

/// Waits until no connection has been open for `idle`, or nobody can say any longer.
fn until_idle(at: SocketAddr, idle: Duration, deadline: Instant) {
    let mut since = None;
    while Instant::now() < deadline {
        let Ok((_, told)) = ask::get(at, "/metrics", PATIENCE) else { return };
        since = if is_idle(&told) { since.or_else(|| Some(Instant::now())) } else { None };
        if since.is_some_and(|since: Instant| since.elapsed() >= idle) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_idle(metrics: &str) -> bool {
    metrics.lines().filter(|line| line.starts_with(OPEN)).all(|line| line.ends_with(" 0"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers each question with the next of these bodies, then is gone.
    fn answering(bodies: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for body in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 512]).unwrap() > 0);
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}\n").unwrap();
            }
        });
        at
    }

    const BUSY: &str =
        "funicular_connections_open{direction=\"inbound\"} 0\nfunicular_connections_open{direction=\"outbound\"} 2";
    const IDLE: &str =
        "funicular_connections_open{direction=\"inbound\"} 0\nfunicular_connections_open{direction=\"outbound\"} 0";

    #[test]
    fn a_sidecar_is_idle_when_no_direction_has_a_connection() {
        assert!(is_idle(IDLE) && !is_idle(BUSY));
    }

    #[test]
    fn it_waits_for_open_connections_and_no_longer_than_the_sidecar_lives() {
        let far = Instant::now() + Duration::from_secs(600);
        let begun = Instant::now();
        until_idle(answering(&[BUSY, IDLE, IDLE]), PAUSE, far);
        assert!(begun.elapsed() >= 2 * PAUSE, "busy once, then idle for as long as was asked");
        until_idle(answering(&[BUSY]), PAUSE, far);
        until_idle(answering(&[BUSY]), PAUSE, Instant::now());
    }
}
