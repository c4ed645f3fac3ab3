//! `funicular demo` as people and machines start it, and as it ends: always without a trace.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{program, until};

fn demo(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    command.arg("demo").args(flags).stdin(Stdio::null());
    command
}

/// The claims that did not hold, with what was seen.
fn failures(findings: &Value) -> Vec<String> {
    let steps = findings["steps"].as_array().unwrap();
    let claims = steps.iter().flat_map(|step| step["claims"].as_array().unwrap());
    claims.filter(|claim| claim["held"] != true).map(Value::to_string).collect()
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn the_demo_checks_all_its_claims_and_tells_machines() {
    let output = demo(&["-o", "json"]).output().unwrap();

    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(failures(&findings), [""; 0], "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    assert!(findings["checked"].as_u64().unwrap() >= 20);
}

/// The demo as an ordinary user starts it. Where this user namespace knows no other id than its root's, an ordinary user
/// made it, and its root is one already.
fn unprivileged_demo(folder: &Path) -> Command {
    const NOBODY: &str = "65534";
    let ids = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    if ids.split_whitespace().last() == Some("1") {
        return demo(&[]);
    }
    // The program may lie where nobody else can read it.
    let exe = folder.join("funicular");
    std::fs::copy(env!("CARGO_BIN_EXE_funicular"), &exe).unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program("setpriv"));
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all"]);
    command.arg(exe).arg("demo").current_dir("/").stdin(Stdio::null());
    command
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn the_demo_needs_no_privilege_and_fits_80_columns_without_colour() {
    let folder = tempfile::tempdir().unwrap();

    let output = unprivileged_demo(folder.path()).output().unwrap();

    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!text.contains('\x1b'));
}

/// A demo that has told its story and is left running.
struct Kept {
    outer: Child,
    findings: Value,
}

fn kept() -> Kept {
    let mut outer = demo(&["--keep", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(outer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut text = String::new();
    for line in lines.by_ref() {
        text.push_str(&line);
        if line == "}" {
            break;
        }
    }
    Kept { outer, findings: serde_json::from_str(&text).unwrap() }
}

impl Kept {
    fn commands(&self) -> impl Iterator<Item = &str> {
        self.findings["commands"].as_array().unwrap().iter().map(|hint| hint["command"].as_str().unwrap())
    }

    /// The thread of the client pod, as the first command to look around names it.
    fn task(&self) -> String {
        let command = self.commands().next().unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        words[words.iter().position(|&word| word == "-t").unwrap() + 1].to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.outer), signal).unwrap();
    }
}

fn is_gone(task: &str) -> bool {
    !Path::new("/proc").join(task).exists()
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_demo_that_is_kept_can_be_called_with_the_command_it_gives_until_it_is_interrupted() {
    let mut kept = kept();
    let task = kept.task();
    let command = kept.commands().next().unwrap().to_owned();

    let answer = Command::new("sh").args(["-c", &command]).output().unwrap();
    kept.signal(Signal::INT);
    let status = kept.outer.wait().unwrap();

    let pod = String::from_utf8(answer.stdout).unwrap();
    assert!(["s1", "s2", "s3"].contains(&pod.trim()), "{command}: {pod:?} {}", String::from_utf8_lossy(&answer.stderr));
    assert_eq!(failures(&kept.findings), [""; 0]);
    assert_eq!(status.code(), Some(0));
    assert!(is_gone(&task));
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_demo_that_is_killed_leaves_nothing_behind() {
    let mut kept = kept();
    let task = kept.task();
    assert!(!is_gone(&task));

    kept.signal(Signal::KILL);
    kept.outer.wait().unwrap();

    until("every process of the demo is gone", Duration::from_secs(10), || is_gone(&task));
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_demo_that_is_interrupted_while_it_builds_says_so_by_its_exit_code() {
    let mut outer = demo(&[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = outer.stdout.take().unwrap();
    let mut first = [0; 1];
    output.read_exact(&mut first).unwrap();

    kill_process(Pid::from_child(&outer), Signal::TERM).unwrap();

    assert_eq!(outer.wait().unwrap().code(), Some(128 + 15));
}
