//! The checks of an installation, by categories: what is asked in which order, and what is left out before it is there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::findings::{self, Category, Finding};
use super::{kernel, kubernetes, names, rights, routing, webhook};
use crate::cli::record::connection::Server;
use crate::model::Name;
use crate::net::kubernetes::Cluster;
use crate::ops::output::{Format, Output, print};

/// For an installation.
#[derive(Debug, clap::Args)]
pub(super) struct Installation {
    /// Before anything is installed: whether this machine and the cluster are fit for it, and you may install it.
    #[arg(long)]
    pre: bool,
    /// How to reach the API server, as kubectl reads it [default: as kubectl does].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace of the control plane.
    #[arg(long, value_name = "NAME", default_value = "funicular")]
    namespace: String,
    /// A name server of Peak's, for `--zone`.
    #[arg(long, value_name = "ADDR:PORT", requires = "zone")]
    dns: Option<SocketAddr>,
    /// The zone from which on delegations are looked at.
    #[arg(long, value_name = "NAME", requires = "dns")]
    zone: Option<Name>,
    /// BIRD's control socket on this node.
    #[arg(long, value_name = "SOCKET", default_value = "/run/bird/bird.ctl")]
    bird: PathBuf,
    #[command(flatten)]
    peak: Server,
}

/// Exit code 0 when nothing is wrong, 1 otherwise.
pub(super) fn run(args: &Installation, output: Output) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let categories = runtime.block_on(all(args));
    let report = match output.format {
        Format::Text => findings::text(&categories),
        Format::Json => format!("{:#}\n", findings::to_json(&categories)),
    };
    print(&report)?;
    Ok(if findings::is_well(&categories) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn all(args: &Installation) -> Vec<Category> {
    let mut categories = vec![Category { name: "kernel", findings: kernel::look().await }];
    let mut add = |name, findings| categories.push(Category { name, findings });
    match Cluster::new(args.kubeconfig.as_deref()).await {
        Ok(cluster) => {
            let (reached, findings) = kubernetes::look(&cluster).await;
            add("kubernetes", findings);
            if reached && args.pre {
                add("rights", rights::before(&cluster, &args.namespace).await);
            } else if reached {
                add("rights", rights::after(&cluster, &args.namespace).await);
                add("webhook", webhook::look(&cluster, &args.namespace).await);
                add("workloads", kubernetes::workloads(&cluster, &args.namespace).await);
            }
        }
        Err(error) => {
            let hint = "where there is no cluster, that is all right; else say --kubeconfig FILE";
            add("kubernetes", vec![Finding::skipped("api-reachable", error.to_string(), hint)]);
        }
    }
    if !args.pre {
        add("slices", names::slices(&args.peak).await);
        add("routing", vec![routing::bgp(&args.bird).await]);
        add("names", vec![names::delegations(args.dns, args.zone.as_ref()).await]);
    }
    categories
}
