//! `funicular inject` and `funicular uninject`: the webhook's work on files, without a cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;

use super::manifests;
use super::output::{Format, Output, print};
use crate::model::inject::{self, Outcome};

/// Flags of `funicular inject`.
#[derive(Debug, clap::Args)]
pub(super) struct Inject {
    /// Manifests in YAML or JSON; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The webhook's configuration, for the sidecars' settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Flags of `funicular uninject`.
#[derive(Debug, clap::Args)]
pub(super) struct Uninject {
    /// Manifests in YAML or JSON; - for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Prints the manifests with a sidecar in every pod that does not say it wants none. Exit code 1 when one cannot have
/// it: then nothing is printed but why.
pub(super) fn inject(args: &Inject) -> anyhow::Result<ExitCode> {
    let settings = manifests::settings(args.config.as_deref())?;
    let mut objects = manifests::read(&args.file)?;
    let before = objects.clone();
    let mut refused = false;
    for object in &mut objects {
        for template in inject::templates(object) {
            let namespace = manifests::namespace(&before, template.namespace.as_deref(), true);
            match inject::inject(manifests::pod(object, &template), &namespace, &settings) {
                Ok(injection) => {
                    injection.warnings.iter().for_each(|warning| eprintln!("{}: {warning}", template.owner));
                    match injection.outcome {
                        Outcome::Injected(ops) => put(object, &template.path, &ops)?,
                        Outcome::Left(left) => eprintln!("{}: left as it is: {}", template.owner, left.reason()),
                    }
                }
                Err(refusal) => {
                    refused = true;
                    eprintln!("{}: {refusal} ({})", template.owner, refusal.reason());
                }
            }
        }
    }
    if refused {
        return Ok(ExitCode::FAILURE);
    }
    show(&objects, args.output)
}

/// Prints the manifests as they were before they were injected.
pub(super) fn uninject(args: &Uninject) -> anyhow::Result<ExitCode> {
    let mut objects = manifests::read(&args.file)?;
    for object in &mut objects {
        for template in inject::templates(object) {
            let ops = inject::remove(manifests::pod(object, &template)).with_context(|| template.owner.clone())?;
            put(object, &template.path, &ops)?;
        }
    }
    show(&objects, args.output)
}

fn put(object: &mut Value, path: &str, ops: &[inject::Op]) -> anyhow::Result<()> {
    let pod = object.pointer_mut(path).context("the pod template is gone")?;
    *pod = inject::apply(pod, ops);
    Ok(())
}

fn show(objects: &[Value], output: Output) -> anyhow::Result<ExitCode> {
    match output.format {
        Format::Text => print(&manifests::written(objects)?)?,
        Format::Json => {
            print(&format!("{:#}\n", serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects })))?
        }
    }
    Ok(ExitCode::SUCCESS)
}
