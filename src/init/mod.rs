//! Pod network set-up: which connections are turned to the sidecar, and which addresses are the pod's own.
//!
//! Runs once, privileged, and is gone. Flags become a `plan`; the plan becomes packet rules (`redirect`) and routes
//! (`routing`); what is missing in the kernel becomes `steps`, performed in an order that leaves nothing half done,
//! or printed (`--dry-run`), or only asked about (`--validate-only`). For kernels with legacy iptables alone,
//! `iptables` writes the same rules as restore input.
//!
//! Invariant: everything this writes is in a table, or under a protocol number, of its own; whatever else the pod has
//! is never touched.

mod apply;
mod iptables;
mod plan;
mod redirect;
mod routing;
mod steps;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::process::ExitCode;

use anyhow::Context;
use clap::ArgGroup;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::lists;

use plan::Plan;

/// The name of our nftables table, and of our chains' prefix in iptables.
const TABLE: &str = "funicular";
/// Who wrote our routes and rules (RTA_PROTOCOL, FRA_PROTOCOL): an `F`.
const PROTOCOL: u8 = b'F';
/// The routing table of stand-ins, and the priority of its rules: the port that they lead to.
const STAND_IN_TABLE: u32 = 15001;
/// The routing table of service prefixes, likewise.
const SERVICE_TABLE: u32 = 15006;
/// Where resolvers listen (RFC 1035 §4.2).
const DNS: u16 = 53;

const LOOPBACK4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
const LINK_LOCAL4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
const MULTICAST4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
const LOOPBACK6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
const LINK_LOCAL6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
const MULTICAST6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

/// A list in one flag; clap would take `Vec` for a flag given several times.
type PortList = Vec<RangeInclusive<u16>>;
type UserList = Vec<RangeInclusive<u32>>;
type SubnetList = Vec<IpNet>;

/// How packet rules reach the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Backend {
    /// Written to the kernel as nftables, in one transaction.
    Nft,
    /// Written to standard output, for `iptables-restore --noflush` and `ip6tables-restore --noflush` alike; the `ip`
    /// commands that belong to them stand in comments. Changes nothing itself.
    Iptables,
}

/// Flags of `funicular init`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("exempt").args(["uid", "gid", "mark", "remove"]).required(true).multiple(true))]
pub struct Args {
    /// User id of the sidecar, whose traffic is never redirected
    #[arg(long)]
    uid: Option<u32>,
    /// Group id of the sidecar, where its user id is also the application's
    #[arg(long)]
    gid: Option<u32>,
    /// Socket mark of the sidecar, where there is one user and one group; such as 0x46554e
    #[arg(long, value_parser = lists::mark)]
    mark: Option<u32>,

    /// Port at which the sidecar takes the pod's own TCP connections
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    outbound_port: u16,
    /// Port at which the sidecar takes TCP connections from outside
    #[arg(long, value_name = "PORT", default_value_t = 15006)]
    inbound_port: u16,
    /// Port of the sidecar's DNS stub, UDP and TCP
    #[arg(long, value_name = "PORT", default_value_t = 15053)]
    dns_port: u16,
    /// Port of metrics and health, reached from outside as it is
    #[arg(long, value_name = "PORT", default_value_t = 15020)]
    metrics_port: u16,

    /// Ports that the pod dials without the sidecar: 25,8000-8010. DNS and stand-ins are redirected all the same
    #[arg(long, value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = lists::ports)]
    skip_outbound_ports: PortList,
    /// Ports that are reached from outside without the sidecar, besides the metrics port
    #[arg(long, value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = lists::ports)]
    skip_inbound_ports: PortList,
    /// UDP ports that are reached from outside: 443,5000-5010. No others are; answers to the pod's own datagrams always
    #[arg(long, value_name = "PORTS", default_value = "", hide_default_value = true, value_parser = lists::ports)]
    inbound_udp_ports: PortList,
    /// Where QUIC (UDP to port 443) is refused at once, so that clients fall back to TCP and the sidecar: ::/0,0.0.0.0/0
    #[arg(long, value_name = "PREFIXES", default_value = "", hide_default_value = true, value_parser = lists::subnets)]
    refuse_quic: SubnetList,
    /// Where the pod dials without the sidecar: 10.0.0.0/8,2001:db8::/32. DNS is redirected all the same
    #[arg(long, value_name = "PREFIXES", default_value = "", hide_default_value = true, value_parser = lists::subnets)]
    skip_subnets: SubnetList,
    /// Users whose traffic is left alone, DNS included: 0,1000-1010
    #[arg(long, value_name = "UIDS", default_value = "", hide_default_value = true, value_parser = lists::users)]
    skip_uids: UserList,

    /// A prefix of a service that this pod serves: every address of it is the pod's own, for what comes in by the device
    #[arg(long = "service-prefix", value_name = "PREFIX")]
    service_prefixes: Vec<Ipv6Net>,
    /// The device that connects the pod
    #[arg(long, default_value = "eth0")]
    device: String,
    /// IPv6 addresses that stand in for services; as `dns.stand_ins` of the sidecar
    #[arg(long, value_name = "PREFIX", default_value = "fd46:554e:1c00::/64")]
    stand_in6: Ipv6Net,
    /// IPv4 addresses that stand in for services
    #[arg(long, value_name = "PREFIX", default_value = "240.0.0.0/4")]
    stand_in4: Ipv4Net,

    /// How packet rules reach the kernel
    #[arg(long, value_enum, default_value_t = Backend::Nft)]
    backend: Backend,
    /// Print what would be done, as a shell script, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Undo everything, whichever flags made it
    #[arg(long)]
    remove: bool,
    /// Change nothing; exit 0 when everything is in place, else say what is not and exit 1
    #[arg(long, conflicts_with_all = ["remove", "dry_run"])]
    validate_only: bool,
}

/// Runs `funicular init`.
///
/// # Errors
/// Faulty flags, or what the kernel refuses; nothing has changed then, except where the error says so.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match (args.backend, args.remove) {
        (Backend::Iptables, _) if args.validate_only => {
            anyhow::bail!("--validate-only reads nftables, and cannot judge what --backend iptables wrote")
        }
        (Backend::Iptables, true) => print!("{}", iptables::removal()),
        (Backend::Iptables, false) => {
            let plan = Plan::new(&args)?;
            let pod = in_kernel(apply::pod())?;
            print!("{}", iptables::installation(&plan, pod));
        }
        (Backend::Nft, true) => remove(&args)?,
        (Backend::Nft, false) => return install(&args, &Plan::new(&args)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn install(args: &Args, plan: &Plan) -> anyhow::Result<ExitCode> {
    if args.validate_only {
        let missing = in_kernel(apply::missing(plan))?;
        missing.iter().for_each(|step| println!("missing: {}", step.summary()));
        return Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if args.dry_run {
        print!("{}", steps::script(&in_kernel(apply::missing_as_far_as_known(plan))?));
        return Ok(ExitCode::SUCCESS);
    }
    let done = in_kernel(apply::apply(plan))?;
    done.iter().for_each(|step| println!("{}", step.summary()));
    println!("{}", apply::in_place(plan, done.is_empty()));
    Ok(ExitCode::SUCCESS)
}

fn remove(args: &Args) -> anyhow::Result<()> {
    if args.dry_run {
        print!("{}", steps::script(&in_kernel(apply::removal())?));
        return Ok(());
    }
    let done = in_kernel(apply::remove())?;
    done.iter().for_each(|step| println!("{}", step.summary()));
    println!("{}", if done.is_empty() { "nothing to remove" } else { "removed" });
    Ok(())
}

/// Waits for `work`, which talks to the kernel and never for long, on this thread: its namespace is the pod's.
fn in_kernel<T>(work: impl Future<Output = Result<T, apply::InitError>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("cannot start the runtime")?;
    Ok(runtime.block_on(work)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Init {
        #[command(flatten)]
        args: Args,
    }

    pub(super) fn parse(flags: &str) -> Result<Args, clap::Error> {
        Init::try_parse_from(std::iter::once("init").chain(flags.split_whitespace())).map(|init| init.args)
    }

    pub(super) fn args(flags: &str) -> Args {
        parse(flags).unwrap()
    }

    pub(super) fn plan(flags: &str) -> Plan {
        Plan::new(&args(flags)).unwrap()
    }

    #[test]
    fn somebody_must_be_exempt_unless_all_is_removed() {
        assert!(parse("").is_err());
        assert!(parse("--dry-run").is_err());
        for enough in ["--uid 1337", "--gid 1337", "--mark 7", "--remove", "--uid 1 --gid 2 --mark 3"] {
            assert!(parse(enough).is_ok(), "{enough}");
        }
    }

    #[test]
    fn asking_excludes_changing() {
        assert!(parse("--uid 1 --validate-only --dry-run").is_err());
        assert!(parse("--validate-only --remove").is_err());
    }

    #[test]
    fn an_empty_list_is_a_list() {
        let mut flags = vec!["init", "--uid", "1"];
        flags.extend(["--skip-outbound-ports", "", "--skip-subnets", ""]);
        let Init { args } = Init::try_parse_from(flags).unwrap();
        assert!(args.skip_outbound_ports.is_empty() && args.skip_subnets.is_empty());
    }
}
