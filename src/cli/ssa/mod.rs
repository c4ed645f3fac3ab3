//! `funicular ssa`: structured service addresses for people, by the same arithmetic that the sidecars use.
//!
//! Exit codes: 0 done, 1 the answer is no (a wrong address, no address, a failed vector), 2 wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::ops::entropy;
use crate::ops::output::{Format, Output};

mod given;
mod picture;
mod plan;
mod report;
mod vectors;

use given::{Given, Subject, UsageError};

/// Flags of `funicular ssa`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Box<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the address a client would connect to.
    Compute {
        #[command(flatten)]
        given: Given,
        /// The replica to compute for; a sidecar tries all of them from a random one on.
        #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
        replica: String,
        #[command(flatten)]
        output: Output,
    },
    /// Say whether an address fits a rule, and if not, which field is wrong and what was expected.
    Check {
        #[command(flatten)]
        given: Given,
        /// The address to check.
        #[arg(long, value_name = "ADDR", allow_hyphen_values = true)]
        destination: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show an address field by field: its bits, where they come from, what they hold.
    Explain {
        #[command(flatten)]
        given: Given,
        /// The address to explain; without one, the address computed for the replica.
        #[arg(long, value_name = "ADDR", conflicts_with = "replica")]
        destination: Option<String>,
        /// The replica to compute for.
        #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
        replica: String,
        #[command(flatten)]
        output: Output,
    },
    /// Say how many slices a service needs: imbalance, routes and moves for each number.
    Plan(plan::Args),
    /// Run a file of test vectors against this program.
    Vectors {
        /// A JSON file with `cases`, `malformed` and `wellformed`.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let outcome = match *args.command {
        Command::Compute { given, replica, output } => compute(&given, &replica, output.format),
        Command::Check { given, destination, output } => check(&given, &destination, output.format),
        Command::Explain { given, destination, replica, output } => {
            explain(&given, destination.as_deref(), &replica, output.format)
        }
        Command::Plan(args) => match plan::run(&args) {
            Ok(answered) => return answered,
            Err(wrong) => Err(wrong),
        },
        Command::Vectors { file, output } => vectors::run(&file, output.format),
    };
    Ok(outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    }))
}

fn compute(given: &Given, replica: &str, format: Format) -> Result<ExitCode, UsageError> {
    let subject = given.subject()?;
    let replica = given::replica(replica)?;
    let Some(rule) = subject.current() else { return Ok(no_rule_in_use(&subject)) };
    let inputs = subject.inputs(rule, replica)?;
    match rule.compute(&subject.space, &inputs, replica, &mut entropy::draw) {
        Ok(address) => {
            match format {
                Format::Text => println!("{address}"),
                Format::Json => report::print_json(&report::computed(&subject, rule, address, replica)),
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(failed(&error.to_string())),
    }
}

fn check(given: &Given, destination: &str, format: Format) -> Result<ExitCode, UsageError> {
    let subject = given.subject()?;
    let destination = given::address("--destination", destination)?;
    let checked = report::Checked::new(&subject, destination);
    match format {
        Format::Text => print!("{}", report::checked_text(&checked)),
        Format::Json => report::print_json(&report::checked_json(&checked)),
    }
    Ok(if checked.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn explain(given: &Given, destination: Option<&str>, replica: &str, format: Format) -> Result<ExitCode, UsageError> {
    let subject = given.subject()?;
    let replica = given::replica(replica)?;
    let Some(rule) = subject.current() else { return Ok(no_rule_in_use(&subject)) };
    let address = match destination {
        Some(destination) => given::address("--destination", destination)?,
        None => {
            let inputs = subject.inputs(rule, replica)?;
            match rule.compute(&subject.space, &inputs, replica, &mut entropy::draw) {
                Ok(address) => address,
                Err(error) => return Ok(failed(&error.to_string())),
            }
        }
    };
    let explanation = rule.explain(&subject.space, address, &subject.known());
    match format {
        Format::Text => print!("{}", report::explained_text(&subject, rule, &explanation)),
        Format::Json => report::print_json(&report::explained_json(&subject, rule, &explanation)),
    }
    Ok(ExitCode::SUCCESS)
}

fn no_rule_in_use(subject: &Subject) -> ExitCode {
    let earliest = subject.rules.iter().map(|rule| rule.from().0).min().unwrap_or(0);
    failed(&format!("no rule is in use at {}: the earliest begins at {earliest}", subject.now.0))
}

fn failed(cause: &str) -> ExitCode {
    eprintln!("funicular: {cause}");
    ExitCode::FAILURE
}
