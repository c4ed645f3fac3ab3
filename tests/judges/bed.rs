//! The program under judgement, and programs that judge.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use funicular::net::namespace::NetNs;

/// Long enough for the slowest machine, and never waited for when things work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The apex of the zone that holds every type.
pub(crate) const APEX: &str = "every.peak.";

/// The zone's file.
pub(crate) fn zone_file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/every-type.zone"))
}

/// A running server; ended when dropped.
pub(crate) struct Peak {
    process: Child,
    pub(crate) addr: SocketAddr,
}

impl Peak {
    /// Serves the zone that holds every type, on a free port.
    pub(crate) fn serving_every_type() -> Self {
        Self::started(command(&["--zone", &format!("{APEX}={}", zone_file().display()), "--listen", "127.0.0.1:0"]))
            .unwrap()
    }

    /// The same, to be transferred by whoever asks on this machine.
    pub(crate) fn giving_every_type_away() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("peak.yaml");
        let zone = format!(
            "{{ name: {APEX}, file: \"{}\", allow_transfer: [{{ prefix: 127.0.0.0/8 }}] }}",
            zone_file().display()
        );
        std::fs::write(&config, format!("listen: 127.0.0.1:0\nzones: [{zone}]\n")).unwrap();
        // Once it listens, it has read its configuration.
        Self::started(command(&["--config", config.to_str().unwrap()])).unwrap()
    }

    /// The same as the first, inside a namespace, at an address of its own.
    pub(crate) fn serving_every_type_in(pod: &NetNs, listen: &str) -> Self {
        let mut command = command(&["--zone", &format!("{APEX}={}", zone_file().display()), "--listen", listen]);
        Self::of(pod.spawn(&mut command, &[]).unwrap()).unwrap()
    }

    /// Starts the command; what it said instead of listening, when it ended.
    pub(crate) fn started(mut command: Command) -> Result<Self, String> {
        Self::of(command.spawn().unwrap())
    }

    fn of(mut process: Child) -> Result<Self, String> {
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if log.read_line(&mut line).unwrap() == 0 {
                process.wait().unwrap();
                return Err(said);
            }
            if let Some((_, addr)) = line.split_once("listening address=") {
                let addr = addr.trim().parse().unwrap();
                // A full pipe would stop the server in the middle of a log line.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Ok(Self { process, addr });
            }
            said += &line;
        }
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `funicular peak` with these arguments, its log in a pipe.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    command.arg("peak").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a program makes of these arguments; none where it is not installed.
pub(crate) fn judged(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("not judged by {program}, which is not installed");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// A program's standard output, in one string.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
