//! `funicular sidecar tap`: the connections of a running sidecar as they end, one JSON object a line.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::ask;

/// Longer than the sidecar waits for a line.
const PATIENCE: Duration = Duration::from_secs(20);

/// Flags of `funicular sidecar tap`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The sidecar's admin port, on this machine
    #[arg(long, default_value_t = 15000)]
    port: u16,
    /// Connections to this service alone
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Connections of this direction alone: outbound or inbound
    #[arg(long, value_name = "DIRECTION", value_parser = ["outbound", "inbound"])]
    direction: Option<String>,
    /// How many lines to print; without it, until interrupted
    #[arg(long, value_name = "N")]
    count: Option<usize>,
}

/// Prints lines until there are enough of them, or nobody reads them any longer.
///
/// # Errors
/// When the sidecar cannot be asked.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let mut left = args.count.unwrap_or(usize::MAX);
    let mut last = None;
    let mut out = std::io::stdout().lock();
    while left > 0 {
        let (status, said) =
            ask::get(at, &path(args, last), PATIENCE).with_context(|| format!("no sidecar answers at {at}"))?;
        if status != 200 {
            bail!("{at} answers {status}: {}", said.trim());
        }
        let told: Value = serde_json::from_str(&said).with_context(|| format!("{at} is no sidecar's admin port"))?;
        last = told["last"].as_u64();
        if let Some(missed @ 1..) = told["missed"].as_u64() {
            eprintln!("{missed} connections ended unseen: more came than are kept");
        }
        for line in told["lines"].as_array().into_iter().flatten().take(left) {
            if writeln!(out, "{line}").is_err() {
                return Ok(ExitCode::SUCCESS);
            }
            left -= 1;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(args: &Args, last: Option<u64>) -> String {
    let after = last.map(|last| format!("after={last}"));
    let service = args.service.as_ref().map(|service| format!("service={}", escaped(service)));
    let direction = args.direction.as_ref().map(|direction| format!("direction={direction}"));
    let query: Vec<_> = [after, service, direction].into_iter().flatten().collect();
    format!("/tap?{}", query.join("&"))
}

/// Percent-encoded but for what names are made of (RFC 3986 §2.3).
fn escaped(text: &str) -> String {
    let plain = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._~".contains(octet);
    text.bytes().map(|octet| if plain(&octet) { char::from(octet).into() } else { format!("%{octet:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_stands_in_the_path_and_nothing_breaks_out_of_it() {
        let args = Args {
            port: 1,
            service: Some("a&b=c.peak".to_owned()),
            direction: Some("inbound".to_owned()),
            count: None,
        };
        assert_eq!(path(&args, Some(7)), "/tap?after=7&service=a%26b%3Dc.peak&direction=inbound");
    }
}
