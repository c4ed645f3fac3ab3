//! Whether a configuration is right, before anything depends on it.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::Configuration;
use crate::cli::role::{Checked, Role};
use crate::config::{Fault, Faults, Place, Sources};
use crate::ops::output::{Format, Output, print};

/// Exit code 0 when nothing is wrong, 1 otherwise.
pub(super) fn run(file: &Path, args: Configuration, output: Output) -> anyhow::Result<ExitCode> {
    let role = args.role.or_else(|| Role::of_file(file)).with_context(|| {
        format!("{}: cannot tell whose configuration this is; say --role sidecar, for example", file.display())
    })?;
    let sources = Sources::of_process().file(file);
    let sources = args.set.iter().fold(sources, |sources, (key, value)| sources.flag("--set", key, value));
    let checked = role.check(&if args.no_files { sources } else { sources.look_at_files() });
    let report = match output.format {
        Format::Text => text(file, args.show, role, &checked),
        Format::Json => format!("{:#}\n", machine(file, role, &checked)),
    };
    print(&report)?;
    Ok(if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(file: &Path, show: bool, role: Role, checked: &Result<Checked, Faults>) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = match checked {
        Ok(checked) => right(&mut text, file, show, role, checked),
        Err(faults) => {
            let count = faults.len();
            let (s, file, command) = (if count == 1 { "" } else { "s" }, file.display(), role.command());
            writeln!(text, "{faults}\n\n{file}: {count} fault{s}; funicular {command} would not start with it")
        }
    };
    text
}

fn right(text: &mut String, file: &Path, show: bool, role: Role, checked: &Checked) -> std::fmt::Result {
    for remark in &checked.remarks {
        writeln!(text, "note: {remark}")?;
    }
    for variable in &checked.unread_variables {
        writeln!(text, "note: environment {variable}: nothing reads it")?;
    }
    for (key, setting) in checked.settings.as_object().into_iter().flatten().filter(|_| show) {
        let from = setting["from"].as_str().unwrap_or_default();
        writeln!(text, "{key:<34} {:<40} {from}", setting["value"].to_string())?;
    }
    writeln!(text, "{}: right for funicular {}", file.display(), role.command())
}

fn machine(file: &Path, role: Role, checked: &Result<Checked, Faults>) -> Value {
    let all = |faults: &[Fault]| faults.iter().map(told).collect::<Vec<_>>();
    match checked {
        Ok(checked) => json!({
            "file": file, "role": role.command(), "right": true, "faults": [],
            "remarks": all(&checked.remarks),
            "unread_variables": checked.unread_variables,
            "settings": checked.settings,
        }),
        Err(faults) => json!({
            "file": file, "role": role.command(), "right": false,
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
