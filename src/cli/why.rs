//! `funicular why`: why a pod gets a sidecar, or does not.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::manifests;
use super::output::{Format, Output, print};
use crate::model::inject::{self, Injection, LABEL, Left, Op, Outcome, Refusal};

/// Flags of `funicular why`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Pods or workloads in YAML or JSON, with their namespaces if these are to count; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take the namespaces that are not in the file for ones that ask for sidecars.
    #[arg(long)]
    namespace_injected: bool,
    /// The webhook's configuration, for the sidecars' settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// One pod, and what becomes of it.
struct Verdict {
    owner: String,
    injection: Result<Injection, Refusal>,
}

/// Exit code 0 when every pod comes out with a sidecar, 1 otherwise.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = manifests::settings(args.config.as_deref())?;
    let objects = manifests::read(&args.file)?;
    let templates = objects.iter().flat_map(|object| inject::templates(object).into_iter().map(move |at| (object, at)));
    let verdicts: Vec<Verdict> = templates
        .map(|(object, template)| {
            let namespace = manifests::namespace(&objects, template.namespace.as_deref(), args.namespace_injected);
            let injection = inject::inject(manifests::pod(object, &template), &namespace, &settings);
            Verdict { owner: template.owner, injection }
        })
        .collect();
    match args.output.format {
        Format::Text => print(&verdicts.iter().map(text).collect::<String>())?,
        Format::Json => print(&format!("{:#}\n", Value::Array(verdicts.iter().map(machine).collect())))?,
    }
    let meshed = verdicts.iter().all(|verdict| has_sidecar(&verdict.injection));
    Ok(if meshed && !verdicts.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn has_sidecar(injection: &Result<Injection, Refusal>) -> bool {
    match injection {
        Ok(Injection { outcome: Outcome::Injected(_) | Outcome::Left(Left::ByHand | Left::Current), .. }) => true,
        Ok(Injection { outcome: Outcome::Left(Left::NotOptedIn | Left::OptedOut), .. }) | Err(_) => false,
    }
}

fn text(verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut line = |words: String| text.push_str(&format!("{:<40} {words}\n", verdict.owner));
    match &verdict.injection {
        Ok(injection) => {
            match &injection.outcome {
                Outcome::Injected(ops) => line(format!("gets a sidecar: {}", changes(ops).join(", "))),
                Outcome::Left(left) => line(format!("stays as it is ({}): {}", left.reason(), hint(*left))),
            }
            injection.warnings.iter().for_each(|warning| line(format!("note: {warning}")));
        }
        Err(refusal) => line(format!("is refused ({}): {refusal}", refusal.reason())),
    }
    text
}

fn hint(left: Left) -> String {
    match left {
        Left::NotOptedIn => format!("label the pod or its namespace {LABEL}: \"true\""),
        Left::OptedOut => format!("{LABEL} is \"false\""),
        Left::ByHand => "its manifest has a container funicular already".to_owned(),
        Left::Current => "it has been injected with these very settings".to_owned(),
    }
}

/// The places that change, without what is put there.
fn changes(ops: &[Op]) -> Vec<&str> {
    ops.iter()
        .map(|op| match op {
            Op::Add { path, .. } | Op::Replace { path, .. } | Op::Remove { path } => path.as_str(),
        })
        .collect()
}

fn machine(verdict: &Verdict) -> Value {
    let meshed = has_sidecar(&verdict.injection);
    match &verdict.injection {
        Ok(injection) => {
            let (reason, patch) = match &injection.outcome {
                Outcome::Injected(ops) => ("injected", ops.iter().map(Op::to_json).collect()),
                Outcome::Left(left) => (left.reason(), Vec::new()),
            };
            json!({ "owner": verdict.owner, "sidecar": meshed, "reason": reason, "warnings": injection.warnings, "patch": patch })
        }
        Err(refusal) => {
            json!({ "owner": verdict.owner, "sidecar": meshed, "reason": refusal.reason(), "message": refusal.to_string() })
        }
    }
}
