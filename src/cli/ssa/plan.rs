//! `funicular ssa plan`: how many slices a service needs, and what each number costs in imbalance, moves and routes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use ipnet::Ipv6Net;
use serde_json::{Value, json};

use super::given::UsageError;
use super::report;
use crate::model::ssa::plan::{self, Budget, Demand, Ownership, PodId};
use crate::ops::output::{self, Format, Output};

mod plot;

/// What is compared unless `--slices` says otherwise.
const USUAL_BITS: [u8; 5] = [8, 10, 12, 14, 16];
/// How many instance counts of a range the table has.
const COUNTS: u32 = 5;
/// How many the plot has: between two of the table much happens.
const PLOTTED: u32 = 49;
/// The most instances that can be asked for.
const MOST_INSTANCES: u32 = 100_000;
/// The imbalance, in percent, that the recommendation stays within at every number of pods.
const TOLERABLE: f64 = 10.0;

/// Flags of `funicular ssa plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service's prefix.
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    prefix: String,
    /// How many pods there may be: A..B, or one number.
    #[arg(long, value_name = "A..B", allow_hyphen_values = true)]
    instances: String,
    /// Two to the power of this many slices; without it, several are compared.
    #[arg(long, value_name = "BITS", allow_hyphen_values = true)]
    slices: Option<String>,
    /// Also draw imbalance and routes, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// What one number of slices comes to with one number of pods.
#[derive(Clone, Copy, Debug)]
struct Figures {
    bits: u8,
    pods: u32,
    /// Slices of the pods that have fewest and most.
    fewest: u32,
    most: u32,
    /// How far the pod that has most is above an equal share, in percent.
    imbalance: f64,
    /// Prefixes of all pods together, and of the one that has most: the routes.
    routes: u32,
    most_routes: u32,
    /// Slices, and prefixes, that move when one pod comes.
    moved: u32,
    moves: u32,
}

impl Figures {
    /// Of a new service.
    fn of(bits: u8, pods: u32) -> Result<Self, plan::BadSize> {
        let mut ownership = Ownership::vacant(1, bits)?;
        let pods_up_to = |pods: u32| Demand::equal((0..pods.into()).map(PodId));
        let first = plan::plan(&ownership, &pods_up_to(pods), &Budget::DUE);
        ownership.apply(&first.moves);
        let holdings = ownership.holdings();
        let slices = holdings.values().map(|holding| holding.slices);
        let without = holdings.len() < pods as usize;
        let (fewest, most) = (slices.clone().min().filter(|_| !without).unwrap_or(0), slices.max().unwrap_or(0));
        let one_more = plan::plan(&ownership, &pods_up_to(pods + 1), &Budget::DUE);
        Ok(Self {
            bits,
            pods,
            fewest,
            most,
            imbalance: imbalance(bits, pods),
            routes: holdings.values().map(|holding| holding.prefixes).sum(),
            most_routes: holdings.values().map(|holding| holding.prefixes).max().unwrap_or(0),
            moved: one_more.slices(),
            moves: one_more.moves.len() as u32,
        })
    }

    /// Routes of one pod, on average.
    fn routes_each(&self) -> f64 {
        f64::from(self.routes) / f64::from(self.pods)
    }

    fn json(&self) -> Value {
        json!({
            "slice_bits": self.bits,
            "slices": 1_u32 << self.bits,
            "instances": self.pods,
            "slices_per_instance": { "fewest": self.fewest, "most": self.most },
            "imbalance_percent": rounded(self.imbalance),
            "routes": { "total": self.routes, "average": rounded(self.routes_each()), "most": self.most_routes },
            "one_more_instance": { "slices_moved": self.moved, "moves": self.moves },
        })
    }
}

/// A number of slices that is enough for a range of pods.
#[derive(Clone, Copy, Debug)]
struct Enough {
    bits: u8,
    from: u32,
    to: u32,
    /// The imbalance at the worst number of pods among them, in percent.
    worst: f64,
}

/// How far the pod with most slices is above an equal share, in percent.
fn imbalance(bits: u8, pods: u32) -> f64 {
    let slices = 1_u32 << bits;
    100.0 * (f64::from(slices.div_ceil(pods)) * f64::from(pods) / f64::from(slices) - 1.0)
}

fn worst_imbalance(bits: u8, from: u32, to: u32) -> f64 {
    (from..=to).map(|pods| imbalance(bits, pods)).fold(0.0, f64::max)
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// # Errors
/// The first flag that is wrong.
pub(super) fn run(args: &Args) -> Result<anyhow::Result<ExitCode>, UsageError> {
    let prefix = prefix(&args.prefix)?;
    let (from, to) = instances(&args.instances)?;
    let all_bits = bits(args.slices.as_deref(), prefix)?;
    // The bits were checked, so no size is refused.
    let figures = |steps| {
        let counts = counts(from, to, steps);
        all_bits
            .iter()
            .flat_map(|&bits| counts.iter().flat_map(move |&pods| Figures::of(bits, pods)))
            .collect::<Vec<_>>()
    };
    let enough = all_bits.iter().map(|&bits| Enough { bits, from, to, worst: worst_imbalance(bits, from, to) });
    let enough = enough.into_iter().find(|enough| enough.worst <= TOLERABLE);
    Ok(print(args, prefix, enough, &figures(COUNTS)).and_then(|code| {
        if let Some(file) = &args.plot {
            let ticks = counts(from, to, COUNTS);
            write(file, &plot::svg(prefix, &figures(PLOTTED), &ticks))?;
        }
        Ok(code)
    }))
}

fn print(args: &Args, prefix: Ipv6Net, enough: Option<Enough>, figures: &[Figures]) -> anyhow::Result<ExitCode> {
    match args.output.format {
        Format::Text => output::print(&text(prefix, enough, figures))?,
        Format::Json => report::print_json(&json!({
            "prefix": prefix,
            "sizes": figures.iter().map(Figures::json).collect::<Vec<_>>(),
            "recommended": enough.map(|enough| json!({
                "slice_bits": enough.bits,
                "worst_imbalance_percent": rounded(enough.worst),
            })),
        })),
    }
    Ok(ExitCode::SUCCESS)
}

fn write(file: &Path, svg: &str) -> anyhow::Result<()> {
    std::fs::write(file, svg).with_context(|| format!("writing the plot to {}", file.display()))
}

fn text(prefix: Ipv6Net, enough: Option<Enough>, figures: &[Figures]) -> String {
    let mut text = format!(
        "{prefix}, fresh\n\n\
         slices        pods  slices each  imbalance   routes  per pod  most  one more\n",
    );
    for group in figures.chunk_by(|one, other| one.bits == other.bits) {
        for one in group {
            let each =
                if one.fewest == one.most { one.most.to_string() } else { format!("{}-{}", one.fewest, one.most) };
            let slices = format!("2^{} /{}", one.bits, prefix.prefix_len() + one.bits);
            text += &format!(
                "{slices:10} {:>7}  {each:>11} {:>9.1}% {:>8} {:>8.1} {:>5}  {} in {}\n",
                one.pods,
                one.imbalance,
                one.routes,
                one.routes_each(),
                one.most_routes,
                one.moved,
                one.moves,
            );
        }
        text.push('\n');
    }
    text += "imbalance: the pod with most slices, above an equal share; routes: prefixes of\n\
             all pods; one more: slices that move when a pod comes, in how many prefixes.\n";
    text += &match enough {
        Some(Enough { bits, from, to, worst }) => {
            format!("slices={bits} is enough: at most {worst:.1} % at any number of pods from {from} to {to}.\n")
        }
        None => format!("None of these keeps the imbalance within {TOLERABLE} % at every number of pods.\n"),
    };
    text
}

/// From the first to the last, at most `steps` of them, each about as many times the one before.
fn counts(from: u32, to: u32, steps: u32) -> Vec<u32> {
    let ratio = f64::from(to) / f64::from(from);
    let at = |step: u32| f64::from(from) * ratio.powf(f64::from(step) / f64::from(steps - 1));
    let mut counts: Vec<u32> = (0..steps).map(|step| at(step).round() as u32).collect();
    counts.dedup();
    counts
}

fn prefix(text: &str) -> Result<Ipv6Net, UsageError> {
    let expected = "expected an IPv6 prefix such as 2001:db8:5:1::/64";
    let prefix: Ipv6Net = text.parse().map_err(|_| UsageError::value("--prefix", text, expected))?;
    if prefix.trunc() != prefix {
        let expected = format!("it has bits past its length, expected {}", prefix.trunc());
        return Err(UsageError::value("--prefix", text, expected));
    }
    Ok(prefix)
}

fn instances(text: &str) -> Result<(u32, u32), UsageError> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse().ok().filter(|number| (1..=MOST_INSTANCES).contains(number));
    let range = number(from).zip(number(to)).filter(|(from, to)| from <= to);
    let expected = format!("expected A..B with 1 to {MOST_INSTANCES} instances, such as 10..1000");
    range.ok_or_else(|| UsageError::value("--instances", text, expected))
}

fn bits(text: Option<&str>, prefix: Ipv6Net) -> Result<Vec<u8>, UsageError> {
    let most = (128 - prefix.prefix_len()).min(plan::MOST_SLICES.ilog2() as u8);
    let Some(text) = text else {
        let mut bits: Vec<u8> = USUAL_BITS.into_iter().map(|bits| bits.min(most)).collect();
        bits.dedup();
        return Ok(bits);
    };
    let bits = text.parse().ok().filter(|bits| *bits <= most);
    let expected = format!("expected 0 to {most}, as the prefix is a /{}", prefix.prefix_len());
    bits.map(|bits| vec![bits]).ok_or_else(|| UsageError::value("--slices", text, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_spread_evenly_by_ratio_and_include_both_ends() {
        assert_eq!(counts(10, 1_000, 5), [10, 32, 100, 316, 1_000]);
        assert_eq!(counts(3, 3, 5), [3]);
        assert_eq!(counts(1, 2, 5), [1, 2]);
    }

    #[test]
    fn instances_are_a_range_that_does_not_run_backwards() {
        assert_eq!(instances("10..1000").unwrap(), (10, 1_000));
        assert_eq!(instances("7").unwrap(), (7, 7));
        for wrong in ["", "0..3", "5..4", "1..100001", "a..b", "1..", "-1"] {
            assert!(instances(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_worst_number_of_pods_is_not_always_the_largest() {
        assert_eq!(rounded(imbalance(14, 1_000)), 3.76);
        assert_eq!(rounded(worst_imbalance(14, 10, 1_000)), rounded(imbalance(14, 963)));
        assert_eq!(rounded(imbalance(14, 963)), 5.8);
    }

    #[test]
    fn with_fewer_slices_than_pods_some_have_none() {
        let figures = Figures::of(2, 5).unwrap();
        assert_eq!((figures.fewest, figures.most, figures.routes), (0, 1, 4));
    }
}
