//! `funicular sidecar wait`: holds a pod's start up until its sidecar is ready.
//!
//! Runs in the sidecar's own container, as Kubernetes' `postStart`, where it has neither shell nor curl.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

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
fn span(text: &str) -> Result<Duration, String> {
    use crate::config::setting::Single;
    Duration::parse(text).map_err(|detail| format!("write {}{detail}", Duration::EXPECTED))
}

/// Exit code 0 once the sidecar is ready, 1 when it was not by the deadline.
///
/// # Errors
/// Never; the shape is that of other commands.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + args.deadline;
    loop {
        let said = match ask((Ipv4Addr::LOCALHOST, args.port).into()) {
            Ok(said) if said.starts_with("HTTP/1.1 200 ") => return Ok(ExitCode::SUCCESS),
            Ok(said) => said.lines().last().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            anyhow::bail!("the sidecar is not ready after {} s: {said}", args.deadline.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// One request and its whole answer.
fn ask(at: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
