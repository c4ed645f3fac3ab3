//! What this machine's kernel can do, found out by doing it in a network namespace that is then gone.

use std::io;
use std::process::{Command, Output, Stdio};

use super::findings::Finding;
use crate::net::namespace::{self, NetNs};
use crate::net::routes::{LOOPBACK, Netlink};

/// nf_tables as `funicular init` uses it.
const OLDEST: (u32, u32) = (5, 2);
/// Where the tunnel that is tried would listen; nothing ever comes to it.
const TUNNEL_PORT: u16 = 7247;
const TUNNEL_MTU: u32 = 1280;

pub(super) async fn look() -> Vec<Finding> {
    let mut findings = vec![version("kernel-version", &namespace::sysctl("kernel.osrelease").unwrap_or_default())];
    let has_ipv6 = std::path::Path::new("/proc/net/if_inet6").exists();
    findings.push(Finding::holds(
        "ipv6",
        has_ipv6,
        if has_ipv6 { "on" } else { "off" },
        "start the kernel without ipv6.disable=1: slices are IPv6 prefixes",
    ));
    if namespace::is_privileged() {
        findings.push(redirect().await);
        findings.push(tunnel().await);
    } else {
        let hint = "run this as root on a node";
        findings.push(Finding::skipped("redirect", "needs CAP_NET_ADMIN and CAP_SYS_ADMIN", hint));
        findings.push(Finding::skipped("tunnel", "needs CAP_NET_ADMIN and CAP_SYS_ADMIN", hint));
    }
    findings
}

/// Whether a kernel is new enough, by its release: `6.1.0-18-amd64`.
pub(super) fn version(check: &'static str, release: &str) -> Finding {
    let hint = format!("Linux {}.{} or later is needed", OLDEST.0, OLDEST.1);
    Finding::holds(check, is_new_enough(release), format!("Linux {release}"), &hint)
}

/// Whether that release has what is needed.
pub(super) fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(major), Some(minor)) if (major, minor) >= OLDEST)
}

/// What `funicular init` does in each pod, and reads back.
async fn redirect() -> Finding {
    let tried = async {
        let namespace = NetNs::create()?;
        Netlink::inside(&namespace).map_err(io::Error::other)?.set_up(LOOPBACK).await.map_err(io::Error::other)?;
        let mut init = Command::new(std::env::current_exe()?);
        init.args(["init", "--uid", "7246", "--device", LOOPBACK, "--service-prefix", "2001:db8::/64"]);
        init.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        namespace.spawn(&mut init, &[])?.wait_with_output()
    };
    let hint = "load nf_tables, nft_redir and nft_ct on every node; the manual's chapter on init says more";
    let tried: io::Result<Output> = tried.await;
    match tried {
        Ok(output) if output.status.success() => {
            Finding::right("redirect", "packet rules and routes of a pod can be made, and read back")
        }
        Ok(output) => Finding::wrong("redirect", String::from_utf8_lossy(&output.stderr).trim(), hint),
        Err(error) => Finding::wrong("redirect", error.to_string(), hint),
    }
}

/// The tunnel by which the node agent carries strays.
async fn tunnel() -> Finding {
    let hint =
        "load vxlan on every node; without it slices move from other nodes only when their connections have ended";
    let tried = async {
        let namespace = NetNs::create().map_err(|error| error.to_string())?;
        let netlink = Netlink::inside(&namespace).map_err(|error| error.to_string())?;
        netlink.add_tunnel("try", TUNNEL_PORT, TUNNEL_MTU).await.map_err(|error| error.to_string())
    };
    match tried.await {
        Ok(()) => Finding::right("tunnel", "strays can be carried between nodes"),
        Err(error) => Finding::doubtful("tunnel", error, hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_new_enough_from_5_2_on() {
        for (release, enough) in [
            ("5.2.0", true),
            ("5.1.21-generic", false),
            ("6.1.0-18-amd64", true),
            ("10.0", true),
            ("4.19", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(release), enough, "{release}");
        }
    }
}
