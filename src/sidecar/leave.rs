//! `funicular sidecar leave`: a pod that is about to end gives its slices away while its application still answers.
//!
//! Runs in the sidecar's own container as Kubernetes' `preStop`, which comes before anybody of the pod is told to stop. What is
//! done for it is `POST /hand-over` of the sidecar's admin port. A sidecar among the pod's containers also waits here until
//! nobody calls any longer, since it is told to stop together with the application.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::ask;
use super::lease::Leaver;
use super::wait::span;
use crate::ops::admin::{Reply, Routes};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest that a sidecar works at one hand-over.
const LONGEST: Duration = Duration::from_secs(600);

/// What says how many connections are open.
const OPEN: &str = "funicular_connections_open{";

/// Flags of `funicular sidecar leave`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The sidecar's admin port, on this machine
    #[arg(long, default_value_t = 15000)]
    port: u16,
    /// Then wait until no connection has been open for so long, such as 3s
    #[arg(long, value_name = "SPAN", value_parser = span)]
    idle: Option<Duration>,
    /// How long to wait for all of it, such as 15s
    #[arg(long, value_name = "SPAN", default_value = "15s", value_parser = span)]
    deadline: Duration,
}

/// Adds `/hand-over`.
pub(super) fn routes(routes: Routes, leaver: Option<Leaver>) -> Routes {
    routes.act("/hand-over", move |_| {
        let leaver = leaver.clone();
        async move {
            let Some(leaver) = leaver else { return Reply::text("no slices are leased\n") };
            if leaver.hand_over(LONGEST).await {
                Reply::text("handed over\n")
            } else {
                Reply::text("nobody has taken the slices\n").status(503)
            }
        }
    })
}

/// Always ends with 0: whatever is left by the deadline is the concern of the sidecar's own end.
pub(super) fn run(args: &Args) -> ExitCode {
    let (at, deadline) = ((Ipv4Addr::LOCALHOST, args.port).into(), Instant::now() + args.deadline);
    match ask::post(at, "/hand-over", args.deadline.max(PAUSE)) {
        Ok((_, said)) => eprint!("{said}"),
        Err(error) => eprintln!("the sidecar at {at} does not say whether its slices are handed over: {error}"),
    }
    if let Some(idle) = args.idle {
        until_idle(at, idle, deadline);
    }
    ExitCode::SUCCESS
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
