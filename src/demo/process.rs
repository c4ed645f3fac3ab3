//! Processes in pods: started with their output in a file or in memory, ended with their handle.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::door::{BedError, Door};

/// How long a program that is waited for may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(10);

/// A command that will run in a pod.
#[derive(Debug)]
pub struct PodCommand {
    door: Door,
    /// The command line as a person would type it.
    shown: String,
    command: Command,
}

impl PodCommand {
    /// `command` behind `door`, shown as `shown`.
    pub(super) fn new(door: Door, command: Command, shown: String) -> Self {
        Self { door, shown, command }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        let argument = argument.as_ref();
        self.shown.push(' ');
        self.shown.push_str(&quoted(&argument.to_string_lossy()));
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = S>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Runs in `folder`.
    #[must_use]
    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// The command line as a person would type it.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Starts it; both its outputs go to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self, log: &Path) -> Result<Process, BedError> {
        let pod = self.door.pod;
        let io = |source| BedError::Io { pod, action: format!("start `{}`", self.shown), source };
        let out = File::create(log).map_err(io)?;
        let err = out.try_clone().map_err(io)?;
        self.command.stdout(out).stderr(err);
        let mut command = self.command;
        let child = self.door.inside(move |_| command.spawn())?.map_err(io)?;
        Ok(Process { pod, shown: self.shown, child, log: log.to_owned() })
    }

    /// Runs it to its end and gives what it printed, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started, or takes longer than half a minute.
    pub fn output(mut self) -> Result<Output, BedError> {
        let pod = self.door.pod;
        let shown = self.shown;
        let io = |source| BedError::Io { pod, action: format!("run `{shown}`"), source };
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = self.command;
        let mut child = self.door.inside(move |_| command.spawn())?.map_err(io)?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let deadline = Instant::now() + LIMIT;
        let outputs =
            [stdout, stderr].map(|output| output.recv_timeout(deadline.saturating_duration_since(Instant::now())));
        let [Ok(stdout), Ok(stderr)] = outputs else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(BedError::NotReady { pod, what: shown, after: LIMIT, said: String::from("(it never ended)") });
        };
        let status = child.wait().map_err(io)?;
        Ok(Output { status, stdout, stderr })
    }

    /// Runs it to its end and gives its standard output; it must succeed.
    ///
    /// # Errors
    /// As [`Self::output`], and [`BedError::Failed`] for any other exit code than 0.
    pub fn run(self) -> Result<String, BedError> {
        let (pod, program) = (self.door.pod, self.shown.clone());
        let Output { status, stdout, stderr } = self.output()?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        if status.success() {
            return Ok(text(&stdout));
        }
        Err(BedError::Failed { pod, program, status, output: text(&stderr) + &text(&stdout) })
    }
}

/// Reads a pipe to its end from a thread of its own, so that a full pipe never stops the program.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (done, output) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut octets = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut octets);
        }
        let _ = done.send(octets);
    });
    output
}

/// An argument as a shell reads it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,[]".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    pod: &'static str,
    shown: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Everything that it has printed so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read(&self.log).map(|octets| String::from_utf8_lossy(&octets).into_owned()).unwrap_or_default()
    }

    /// The file that holds what it has printed.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `ready` holds.
    ///
    /// # Errors
    /// [`BedError::NotReady`] after `limit`, [`BedError::Failed`] as soon as the process has ended.
    pub fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), BedError> {
        let deadline = Instant::now() + limit;
        loop {
            if ready() {
                return Ok(());
            }
            let (pod, what) = (self.pod, self.shown.clone());
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(BedError::Failed { pod, program: what, status, output: self.said() });
            }
            if Instant::now() > deadline {
                return Err(BedError::NotReady { pod, what, after: limit, said: self.said() });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It has not been waited for, so the number is still its own.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Stops it as a crash would and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed_into_a_shell() {
        assert_eq!(quoted("--noproxy"), "--noproxy");
        assert_eq!(quoted("*"), "'*'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
