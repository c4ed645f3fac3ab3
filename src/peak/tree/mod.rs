//! `funicular peak tree`: the hierarchy of zones below a server, and what is wrong with it.
//!
//! Owns the command: its flags, its output, its exit code. It asks as any resolver does, over UDP and TCP, and needs
//! no right on any server; where a server allows a transfer, to everybody or to a key, it finds every zone.

mod draw;
mod survey;
mod transfer;
mod walk;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::model::Name;
use crate::net::dns_client::DnsClient;
use crate::ops::entropy;
use crate::ops::output::{Format, Output, print};
use crate::peak::keys;
use crate::wire::dns::tsig::Key;
pub use walk::WalkError;
use walk::{Family, Guide};

/// Where DNS is served.
const PORT: u16 = 53;

/// Flags of `funicular peak tree`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The zone to begin with; when the server does not serve it, the walk begins at the zone above that it serves.
    #[arg(value_name = "NAME")]
    name: Name,
    /// The server to begin at, of NAME or of a zone above.
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = server_flag)]
    server: SocketAddr,
    /// A zone to look for where no server allows a transfer; may be given several times.
    #[arg(long = "zone", value_name = "NAME")]
    zones: Vec<Name>,
    /// Where the servers listen that the zones name [default: the port of --server].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Ask servers at their IPv4 addresses only.
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Ask servers at their IPv6 addresses only.
    #[arg(short = '6')]
    ipv6: bool,
    /// The key that signs transfers (TSIG): its algorithm, unless that is hmac-sha256, its name, and the file with the
    /// secret in base64.
    #[arg(long, value_name = "[ALGORITHM:]NAME=FILE", value_parser = keys::flag)]
    key: Option<Arc<Key>>,
    /// How long one question may take, in milliseconds.
    #[arg(long = "timeout", value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
    #[command(flatten)]
    output: Output,
}

fn server_flag(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok();
    bare.parse::<IpAddr>()
        .ok()
        .map(|ip| SocketAddr::new(ip, PORT))
        .or_else(with_port)
        .ok_or_else(|| "expected an address, or ADDR:PORT with IPv6 in brackets".to_owned())
}

/// Draws the tree. Exit code 1 when something in it is flagged.
///
/// # Errors
/// When the walk cannot begin.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let guide = Guide {
        client: DnsClient::new(None, entropy::draw),
        first: args.server,
        port: args.port.unwrap_or(args.server.port()),
        family: match (args.ipv4, args.ipv6) {
            (true, _) => Some(Family::Ipv4),
            (_, true) => Some(Family::Ipv6),
            (false, false) => None,
        },
        patience: Duration::from_millis(args.timeout_ms),
        key: args.key.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let zone = runtime.block_on(walk::walk(&guide, &args.name, &args.zones))?;
    let text = match args.output.format {
        Format::Text => draw::text(&zone),
        Format::Json => format!("{:#}\n", draw::to_json(&zone)),
    };
    print(&text).context("cannot print")?;
    Ok(if zone.fault_count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is wrong with the zones from `name` on down, as the server at `first` and those that they name show them. A
/// question may take as long as `patience`.
///
/// # Errors
/// [`WalkError`].
pub async fn faults(first: SocketAddr, name: &Name, patience: Duration) -> Result<Vec<String>, WalkError> {
    let client = DnsClient::new(None, entropy::draw);
    let guide = Guide { client, first, port: first.port(), family: None, patience, key: None };
    let zone = walk::walk(&guide, name, &[]).await?;
    let mut faults = Vec::new();
    zone.tell(&mut faults);
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_with_or_without_a_port() {
        for (text, read) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5300", "192.0.2.1:5300"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5300", "[2001:db8::1]:5300"),
        ] {
            assert_eq!(server_flag(text).unwrap().to_string(), read);
        }
        for wrong in ["", "ns1.example.net", "192.0.2.1:", "192.0.2.1:99999"] {
            assert!(server_flag(wrong).is_err(), "{wrong}");
        }
    }
}
