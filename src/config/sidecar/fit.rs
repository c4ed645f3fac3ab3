//! Whether the sidecar's settings fit together.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Identity, Inbound, Outbound, Policy, Sidecar, StandIns, Trust};
use crate::config::Check;

/// A token must outlive the call it is made for, and the clocks' differences.
const SHORTEST_TOKEN: Duration = Duration::from_secs(10);
/// A stolen token is good for as long as this.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3_600);

/// Below this, not even an idle sidecar would fit.
const LEAST_MEMORY: u64 = 16 * 1024 * 1024;

pub(super) fn check(sidecar: &Sidecar, check: &mut Check<'_>) {
    if sidecar.memory.0 < LEAST_MEMORY {
        check.fault(&["memory"], "must be at least 16MiB: no connection would ever be accepted");
    }
    if let Some(identity) = &sidecar.identity {
        token_life(identity, check);
        proof(identity, check);
    }
    Trust::check_all(&sidecar.trust, "trust", check);
    lookups(sidecar, check);
    stand_ins(&sidecar.dns.stand_ins, check);
    outbound(&sidecar.outbound, check);
    inbound(&sidecar.inbound, check);
    if let Some(lease) = &sidecar.lease {
        lease.check(check);
        if sidecar.identity.as_ref().is_none_or(|identity| identity.id.is_none()) {
            check.fault(&["lease", "identity.id"], "identity.id is missing: Peak gives slices to those it knows");
        }
    }
    callers_can_be_served(sidecar, check);
    listeners(sidecar, check);
}

fn token_life(identity: &Identity, check: &mut Check<'_>) {
    if !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&identity.token_life) {
        check.fault(&["identity.token_life"], "must be from 10s to 24h");
    }
}

/// Either all that signing takes, or a token.
fn proof(identity: &Identity, check: &mut Check<'_>) {
    let for_signing = [
        ("identity.id", identity.id.is_some()),
        ("identity.issuer", identity.issuer.is_some()),
        ("identity.signing_key", identity.signing_key.is_some()),
        ("identity.key_id", identity.key_id.is_some()),
    ];
    match (&identity.token_file, &identity.signing_key) {
        (Some(_), Some(_)) => {
            check
                .fault(&["identity.token_file", "identity.signing_key"], "one of them proves who the pod is: give one");
        }
        (None, None) => {
            check.fault(&["identity"], "give signing_key with id, issuer and key_id, or token_file");
        }
        (None, Some(_)) => {
            for (key, _) in for_signing.into_iter().filter(|(_, given)| !given) {
                check
                    .fault(&["identity.signing_key"], format!("{key} is missing: a token cannot be signed without it"));
            }
        }
        (Some(_), None) => {}
    }
}

fn lookups(sidecar: &Sidecar, check: &mut Check<'_>) {
    let peak = &sidecar.dns.peak;
    if peak.zones.is_empty() != peak.servers.is_empty() {
        let missing = if peak.zones.is_empty() { "zones" } else { "servers" };
        check.fault(&["dns.peak"], format!("zones and servers belong together: {missing} are missing"));
    }
    if sidecar.identity.is_none() && !peak.zones.is_empty() {
        check.remark("identity", "none: calls to services whose rule asks for a token will fail");
    }
    for (at, service) in sidecar.inbound.services.iter().enumerate() {
        if !peak.zones.iter().any(|zone| service.name.is_at_or_below(zone)) {
            let rule = format!("{} lies in none of dns.peak.zones: its rule cannot be looked up", service.name);
            check.remark(&format!("inbound.services[{at}].name"), rule);
        }
    }
}

fn stand_ins(stand_ins: &StandIns, check: &mut Check<'_>) {
    if !(64..=96).contains(&stand_ins.ipv6.prefix_len()) {
        check.fault(&["dns.stand_ins.ipv6"], "must be 64 to 96 bits long: a whole IPv4 address follows the prefix");
    }
    if !(4..=15).contains(&stand_ins.ipv4.prefix_len()) {
        check.fault(&["dns.stand_ins.ipv4"], "must be 4 to 15 bits long: room for 65536 names");
    }
}

fn outbound(outbound: &Outbound, check: &mut Check<'_>) {
    for (key, span) in
        [("outbound.attempt_delay", outbound.attempt_delay), ("outbound.attempt_timeout", outbound.attempt_timeout)]
    {
        if span.is_zero() {
            check.fault(&[key], "must be longer than 0s");
        }
    }
    limits(
        check,
        &[
            ("outbound.limits.connections", outbound.limits.connections),
            ("outbound.limits.pending", outbound.limits.pending),
        ],
    );
    if outbound.explicit.is_some_and(|address| !address.ip().is_loopback()) {
        check.remark("outbound.explicit", "not a loopback address: whoever reaches it calls services as this pod");
    }
    if outbound.attempt_timeout > outbound.connect_deadline {
        check.fault(
            &["outbound.attempt_timeout", "outbound.connect_deadline"],
            "must not be longer than outbound.connect_deadline",
        );
    }
    if outbound.mark == Some(0) {
        check.fault(&["outbound.mark"], "0 is what unmarked packets have: choose another number, or leave it out");
    }
}

fn limits(check: &mut Check<'_>, limits: &[(&str, u32)]) {
    for (key, _) in limits.iter().filter(|(_, limit)| *limit == 0) {
        check.fault(&[key], "0 would refuse everything");
    }
}

fn inbound(inbound: &Inbound, check: &mut Check<'_>) {
    limits(
        check,
        &[
            ("inbound.limits.connections_per_source", inbound.limits.connections_per_source),
            ("inbound.limits.handshakes_per_source", inbound.limits.handshakes_per_source),
            ("inbound.limits.handshakes", inbound.limits.handshakes),
        ],
    );
    if inbound.handshake_timeout.is_zero() {
        check.fault(&["inbound.handshake_timeout"], "must be longer than 0s");
    }
    let mut seen = HashSet::new();
    for (at, service) in inbound.services.iter().enumerate() {
        if !seen.insert(&service.name) {
            check.fault(&[&format!("inbound.services[{at}].name")], format!("{} is listed twice", service.name));
        }
        if service.proxy_header.contains(&0) {
            check.fault(&[&format!("inbound.services[{at}].proxy_header")], "0 is no port");
        }
        if service.ports.iter().any(|(&arriving, &local)| arriving == 0 || local == 0) {
            check.fault(&[&format!("inbound.services[{at}].ports")], "0 is no port");
        }
    }
}

fn callers_can_be_served(sidecar: &Sidecar, check: &mut Check<'_>) {
    if sidecar.inbound.services.is_empty() {
        return;
    }
    if sidecar.tls.is_none() {
        check.fault(
            &["inbound.services", "tls"],
            "tls is missing: callers send nothing to a service that cannot prove its name",
        );
    }
    if sidecar.trust.is_empty() && sidecar.inbound.policy == Policy::Strict {
        check.fault(
            &["inbound.services", "trust", "inbound.policy"],
            "trust is missing: policy strict refuses all without a token, and none counts",
        );
    }
}

fn listeners(sidecar: &Sidecar, check: &mut Check<'_>) {
    let mut listeners = vec![
        ("outbound.listen", sidecar.outbound.listen),
        ("inbound.listen", sidecar.inbound.listen),
        ("admin.listen", sidecar.admin.listen),
        ("admin.metrics", sidecar.admin.metrics),
    ];
    listeners.extend(sidecar.outbound.explicit.map(|address| ("outbound.explicit", address)));
    for (at, (key, address)) in listeners.iter().enumerate() {
        let clash = listeners[..at].iter().find(|(_, earlier)| collide(*earlier, *address));
        if let Some((other, _)) = clash {
            check.fault(&[key, other], format!("the port is that of {other} too"));
        }
    }
    if !sidecar.admin.listen.ip().is_loopback() {
        check.remark("admin.listen", "not a loopback address: whoever reaches it can stop this role");
    }
}

/// Whether both cannot be listened on at once: a wildcard takes its port from every address. Port 0 is any free one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}
