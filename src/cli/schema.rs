//! `funicular schema`: what a configuration may hold, for editors, validators and the manual.

use std::process::ExitCode;

use clap::ValueEnum;

use super::role::Role;
use crate::ops::output::print;

/// Flags of `funicular schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose configuration.
    role: Role,
    /// In which form.
    #[arg(long, value_enum, default_value_t = As::JsonSchema)]
    r#as: As,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum As {
    /// JSON Schema, draft 2020-12.
    JsonSchema,
    /// The manual's reference: a list of all keys in Markdown.
    Markdown,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.r#as {
        As::JsonSchema => print(&format!("{:#}\n", args.role.schema()))?,
        As::Markdown => print(&args.role.reference())?,
    }
    Ok(ExitCode::SUCCESS)
}
