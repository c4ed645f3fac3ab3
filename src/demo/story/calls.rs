//! The steps in which unmodified programs call.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::plan::{self, CACHE, CALLER, CLIENT, LEGACY, ORDERS, PODS};
use super::super::render::{Claim, Evidence};
use super::super::site::{LEGACY_PORT, Site, accepts};
use super::{StoryError, Told, Tools};
use crate::model::ssa::{AplItem, Known, Rule, Space};
use crate::ops::clock;

/// How many requests are sent.
const REQUESTS: usize = 200;
/// A pod's count of [`REQUESTS`] at even odds among three is binomial: mean 66.7, deviation 6.7. Five deviations off
/// happens once in a million runs.
const FAIR: std::ops::RangeInclusive<usize> = 34..=100;

/// How long the servers' sidecars have to log what they carried, and how often to look.
const LOGGED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Answers by pod and the number that failed, from what the HTTP client printed: body, status, body, status...
fn tally(output: &str) -> (BTreeMap<String, usize>, usize) {
    let words: Vec<&str> = output.split_whitespace().collect();
    let mut answers: BTreeMap<String, usize> = (0..PODS).map(|index| (plan::pod(index).name.to_owned(), 0)).collect();
    let mut served = 0;
    for pair in words.chunks(2) {
        if let [body, "200"] = pair
            && let Some(count) = answers.get_mut(*body)
        {
            *count += 1;
            served += 1;
        }
    }
    (answers, served)
}

/// 200 requests, a connection each.
pub(super) fn spread(site: &mut Site, tools: &Tools) -> Result<Told, StoryError> {
    let command = tools.http(site, &format!("http://{}/", ORDERS.name), REQUESTS, false);
    let shown = command.shown().to_owned();
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (answers, served) = tally(&text);
    let errors = String::from_utf8_lossy(&output.stderr);
    let counts = || answers.iter().map(|(pod, count)| format!("{pod} {count}")).collect::<Vec<_>>().join(", ");
    let tunnelled = carried_by(site, "tunnel")?;
    Ok(Told {
        explanation: format!(
            "An HTTP client that knows nothing asks for http://{}/ {REQUESTS} times. Its sidecar catches each \
             connection, computes an address, proves the server by its certificate and the caller by a token, and \
             hands the bytes over. The program behind it listens on 127.0.0.1:{} alone. No list of pods is anywhere.",
            ORDERS.name,
            ORDERS.port.unwrap_or(80),
        ),
        evidence: vec![
            Evidence::Command { pod: String::from("client"), command: shown, output: Vec::new() },
            Evidence::Bars {
                caption: String::from("answers by pod"),
                bars: answers.iter().map(|(pod, &count)| (pod.clone(), count)).collect(),
            },
        ],
        claims: vec![
            Claim::new(
                format!("all {REQUESTS} requests are answered"),
                served == REQUESTS,
                format!("{served} were; {}", errors.lines().next().unwrap_or_default()),
            ),
            Claim::new(
                format!("each pod serves a fair share ({} to {})", FAIR.start(), FAIR.end()),
                answers.values().all(|count| FAIR.contains(count)),
                counts(),
            ),
            Claim::new(
                "each went through a tunnel, as rules have it that say nothing else",
                tunnelled >= REQUESTS as u64,
                format!("{tunnelled} did"),
            ),
        ],
    })
}

/// How many connections the client's sidecar has carried in this token mode.
fn carried_by(site: &Site, mode: &str) -> Result<u64, StoryError> {
    let labels = [("direction", "outbound"), ("mode", mode)];
    Ok(site.counted(site.client(), "funicular_connections_total", &labels)? as u64)
}

/// A connection that a server's sidecar carried, by its own access log.
struct Landed {
    address: Ipv6Addr,
    pod: usize,
    caller: String,
}

/// The connections to the service that the sidecars of all pods have logged so far.
fn landed(site: &mut Site) -> Vec<Landed> {
    let mut connections = Vec::new();
    for pod in 0..PODS {
        let log = site.process(&format!("{}/sidecar", plan::pod(pod).name)).map(|process| process.said());
        for line in log.unwrap_or_default().lines() {
            connections.extend(carried(line, pod));
        }
    }
    connections
}

/// Reads one line of a JSON log; only carried inbound connections to the service count.
fn carried(line: &str, pod: usize) -> Option<Landed> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let ours = text("direction") == Some("inbound")
        && text("outcome") == Some("carried")
        && text("service").is_some_and(|service| service.trim_end_matches('.') == ORDERS.name);
    let address: SocketAddrV6 = text("orig_dst").filter(|_| ours)?.parse().ok()?;
    Some(Landed { address: *address.ip(), pod, caller: text("caller").unwrap_or_default().to_owned() })
}

/// All of them, or those that were logged in good time: a line is written when its connection has ended on both sides,
/// which is after the client has its answer.
fn all_landed(site: &mut Site) -> Vec<Landed> {
    let deadline = Instant::now() + LOGGED_WITHIN;
    loop {
        let connections = landed(site);
        if connections.len() >= REQUESTS || Instant::now() >= deadline {
            return connections;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// What the servers saw of the 200 requests.
pub(super) fn addresses(site: &mut Site, _tools: &Tools) -> Result<Told, StoryError> {
    let connections = all_landed(site);
    let item = AplItem { negated: false, prefix: ORDERS.prefix() };
    let (space, now) = (Space::new(&[item]).ok(), clock::now());
    let rule = space.as_ref().and_then(|space| Rule::parse(ORDERS.rule, space).ok());
    let known = Known { source: Some(CLIENT.address()), now: Some(now), ..Known::default() };
    let fits = |address: Ipv6Addr| match (&rule, &space) {
        (Some(rule), Some(space)) => rule.check(space, address, &known).is_ok(),
        _ => false,
    };
    let slice = |address: Ipv6Addr| {
        let found = rule.as_ref().zip(space.as_ref()).and_then(|(rule, space)| rule.slice_of(space, address));
        found.map(|slice| slice.to_string()).unwrap_or_default()
    };
    let distinct: BTreeSet<Ipv6Addr> = connections.iter().map(|landed| landed.address).collect();
    let misfits = connections.iter().filter(|landed| !fits(landed.address)).count();
    let strays = connections.iter().filter(|landed| ORDERS.owner(landed.address) != Some(landed.pod)).count();
    let unknown = connections.iter().filter(|landed| landed.caller != CALLER).count();
    let mut rows = Vec::new();
    for pod in 0..PODS {
        for landed in connections.iter().filter(|landed| landed.pod == pod).take(3) {
            let address = landed.address;
            rows.push(vec![address.to_string(), slice(address), plan::pod(pod).name.to_owned()]);
        }
    }
    let total = connections.len();
    Ok(Told {
        explanation: String::from(
            "Each server's sidecar logs the address it was called at and who called. Every connection had an address \
             of its own: the middle is random, the end is the hash of the caller, always the same.",
        ),
        evidence: vec![Evidence::Table {
            caption: String::from("some of the addresses, and the pod each landed on"),
            header: vec!["address", "slice", "pod"],
            rows,
        }],
        claims: vec![
            Claim::new(
                format!("the servers saw all {REQUESTS} connections"),
                total >= REQUESTS,
                format!("{total} seen"),
            ),
            Claim::new(
                "nearly all addresses differ",
                distinct.len() >= REQUESTS - 5,
                format!("{} different ones", distinct.len()),
            ),
            Claim::new("every address follows the rule", total > 0 && misfits == 0, format!("{misfits} do not")),
            Claim::new(
                "every one landed on the pod that owns its slice",
                total > 0 && strays == 0,
                format!("{strays} did not"),
            ),
            Claim::new(
                format!("every caller was proved to be {CALLER}"),
                total > 0 && unknown == 0,
                format!("{unknown} were not"),
            ),
        ],
    })
}

/// The same service for a program that knows no IPv6.
pub(super) fn ipv4(site: &mut Site, tools: &Tools) -> Result<Told, StoryError> {
    let isolated = site.client().within(|_| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:80")
    })?;
    let no_ipv4 = isolated.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable);
    let count = 6;
    let command = tools.http(site, &format!("http://{}/", ORDERS.name), count, true);
    let shown = command.shown().to_owned();
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, served) = tally(&text);
    let errors = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(Told {
        explanation: String::from(
            "The client pod has no IPv4 at all beyond its loopback. A program that asks for IPv4 addresses alone gets \
             a stand-in from 240.0.0.0/4; the sidecar catches the connection and goes on over IPv6.",
        ),
        evidence: vec![Evidence::Command {
            pod: String::from("client"),
            command: shown,
            output: words.chunks(2).map(|pair| pair.join(" ")).collect(),
        }],
        claims: vec![
            Claim::new("the client pod cannot reach any IPv4 address", no_ipv4, format!("{isolated:?}")),
            Claim::new(
                "requests over IPv4 are answered",
                served == count,
                format!("{served} of {count}; {}", errors.lines().next().unwrap_or_default()),
            ),
        ],
    })
}

/// Redis where it is there, and a name that is no service.
pub(super) fn others(site: &mut Site, tools: &Tools) -> Result<Told, StoryError> {
    let mut evidence = Vec::new();
    let mut claims = Vec::new();
    let mut programs = String::from("Not only HTTP: whatever speaks TCP goes the same way.");
    if let Some((server, client)) = &tools.redis {
        let before = carried_by(site, "pp2")?;
        let (seen, claim) = redis(site, server, client)?;
        evidence.push(seen);
        claims.push(claim);
        let carried = carried_by(site, "pp2")? - before;
        let wanted = carried == REDIS_COMMANDS.len() as u64;
        claims.push(Claim::new("its rule says token=pp2, and so it went", wanted, format!("{carried} by pp2")));
    } else {
        programs = String::from("Where Redis is installed, this step runs it, unmodified; it is not here.");
    }
    let command = tools.http(site, &format!("http://{LEGACY}:{LEGACY_PORT}/"), 1, false);
    let shown = command.shown().to_owned();
    let output = command.output()?;
    let words = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    claims.push(Claim::new(
        "a name without a space is reached as ever",
        words == format!("{LEGACY} 200"),
        format!("{words} {}", String::from_utf8_lossy(&output.stderr)),
    ));
    evidence.push(Evidence::Command { pod: String::from("client"), command: shown, output: vec![words] });
    Ok(Told {
        explanation: format!(
            "{programs} A name that publishes no space, like {LEGACY}, is left alone: its traffic passes untouched.",
        ),
        evidence,
        claims,
    })
}

const REDIS_COMMANDS: [&[&str]; 3] = [&["SET", "funicular", "up"], &["GET", "funicular"], &["INCR", "rides"]];

fn redis(site: &mut Site, server: &std::path::Path, client: &std::path::Path) -> Result<(Evidence, Claim), StoryError> {
    const PORT: u16 = 6379;
    let index = CACHE.pods[0];
    let command = site.pod(index).command(server).args(["--port", &PORT.to_string(), "--bind", "127.0.0.1"]);
    let command = command.args(["--save", "", "--appendonly", "no"]).current_dir(site.folder());
    let address = SocketAddr::from(([127, 0, 0, 1], PORT));
    site.run("s1/redis", command, |site, _| accepts(site.pod(index), address))?;
    let mut output = Vec::new();
    let mut shown = Vec::new();
    for words in REDIS_COMMANDS {
        let command = site.client().command(client).args(["-h", CACHE.name]).args(words);
        shown.push(command.shown().to_owned());
        let answer = command.output()?;
        output.push(String::from_utf8_lossy(&answer.stdout).trim().to_owned());
    }
    let held = output == ["OK", "up", "1"];
    let claim = Claim::new("redis-cli talks to redis-server in another pod", held, output.join(", "));
    let lines = shown
        .iter()
        .skip(1)
        .zip(&output[1..])
        .flat_map(|(command, answer)| [format!("client$ {command}"), answer.clone()]);
    let output = output.first().cloned().into_iter().chain(lines).collect();
    Ok((Evidence::Command { pod: String::from("client"), command: shown.swap_remove(0), output }, claim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_of_known_pods_with_status_200_count() {
        let (answers, served) = tally("s1\n 200\ns2\n 200\ns1\n 503\nnobody\n 200\n- 000\n");
        assert_eq!((answers["s1"], answers["s2"], answers["s3"], served), (1, 1, 0, 2));
    }

    #[test]
    fn a_log_line_counts_when_it_is_a_carried_inbound_connection_to_the_service() {
        let line = |direction: &str, outcome: &str| {
            format!(
                r#"{{"level":"INFO","fields":{{"direction":"{direction}","outcome":"{outcome}","service":"orders.shop.peak.",
                "orig_dst":"[2001:db8:5:1::7]:8080","caller":"spiffe://a/ns/b/sa/c"}}}}"#
            )
        };
        let landed = carried(&line("inbound", "carried"), 2).unwrap();
        assert_eq!((landed.address.to_string().as_str(), landed.pod), ("2001:db8:5:1::7", 2));
        assert!(carried(&line("outbound", "carried"), 2).is_none());
        assert!(carried(&line("inbound", "token-expired"), 2).is_none());
        assert!(carried("no JSON", 2).is_none());
    }
}
