//! `funicular check`: is this configuration right, before anything depends on it.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::role::{Checked, Role};
use crate::config::{Fault, Faults, Place, Sources, assignment};
use crate::ops::output::{Format, Output, print};

/// Flags of `funicular check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file to check. FUNICULAR_… variables of the environment override it, as they do for the role.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whose configuration it is; without this, told by the file's name or its keys.
    #[arg(long)]
    role: Option<Role>,
    /// Set a key over the file and the environment; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Do not look whether the files that it names can be read: they are on another machine.
    #[arg(long)]
    no_files: bool,
    /// Show every setting in effect and where it comes from.
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    output: Output,
}

/// Exit code 0 when nothing is wrong, 1 otherwise.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let role = args.role.or_else(|| Role::of_file(&args.file)).with_context(|| {
        format!("{}: cannot tell whose configuration this is; say --role sidecar, for example", args.file.display())
    })?;
    let sources = Sources::of_process().file(&args.file);
    let sources = args.set.iter().fold(sources, |sources, (key, value)| sources.flag("--set", key, value));
    let checked = role.check(&if args.no_files { sources } else { sources.look_at_files() });
    let report = match args.output.format {
        Format::Text => text(&args, role, &checked),
        Format::Json => format!("{:#}\n", machine(&args, role, &checked)),
    };
    print(&report)?;
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(args: &Args, role: Role, checked: &Result<Checked, Faults>) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = match checked {
        Ok(checked) => right(&mut text, args, role, checked),
        Err(faults) => {
            let count = faults.len();
            let (s, file, command) = (if count == 1 { "" } else { "s" }, args.file.display(), role.command());
            writeln!(text, "{faults}\n\n{file}: {count} fault{s}; funicular {command} would not start with it")
        }
    };
    text
}

fn right(text: &mut String, args: &Args, role: Role, checked: &Checked) -> std::fmt::Result {
    for remark in &checked.remarks {
        writeln!(text, "note: {remark}")?;
    }
    for variable in &checked.unread_variables {
        writeln!(text, "note: environment {variable}: nothing reads it")?;
    }
    for (key, setting) in checked.settings.as_object().into_iter().flatten().filter(|_| args.show) {
        let from = setting["from"].as_str().unwrap_or_default();
        writeln!(text, "{key:<34} {:<40} {from}", setting["value"].to_string())?;
    }
    writeln!(text, "{}: right for funicular {}", args.file.display(), role.command())
}

fn machine(args: &Args, role: Role, checked: &Result<Checked, Faults>) -> Value {
    let all = |faults: &[Fault]| faults.iter().map(told).collect::<Vec<_>>();
    match checked {
        Ok(checked) => json!({
            "file": args.file, "role": role.command(), "right": true, "faults": [],
            "remarks": all(&checked.remarks),
            "unread_variables": checked.unread_variables,
            "settings": checked.settings,
        }),
        Err(faults) => json!({
            "file": args.file, "role": role.command(), "right": false,
            "faults": faults.iter().map(told).collect::<Vec<_>>(),
        }),
    }
}

fn told(fault: &Fault) -> Value {
    let place = match &fault.place {
        Place::File { path, line: 0, .. } => json!({ "file": **path }),
        Place::File { path, line, column } => json!({ "file": **path, "line": line, "column": column }),
        Place::Environment(variable) => json!({ "environment": **variable }),
        Place::Flag(flag) => json!({ "flag": **flag }),
        Place::Default => json!({ "default": true }),
    };
    json!({
        "place": place, "key": fault.key, "value": fault.value,
        "reason": fault.cause.reason(), "message": fault.cause.to_string(),
    })
}
