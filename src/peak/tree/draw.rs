//! A walked hierarchy as text of 80 columns, and as JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::survey::{Below, Fault, Server, Standing, Zone};

/// What text keeps to, names that are longer excepted.
const COLUMNS: usize = 80;
/// Where addresses begin, and how wide they are taken to be.
const ADDRESS_AT: usize = 40;
const ADDRESS_COLUMNS: usize = 24;

/// The tree, and a last line that sums it up.
pub(super) fn text(zone: &Zone) -> String {
    let mut out = String::new();
    draw(&mut out, zone, "", "");
    let faults = match zone.fault_count() {
        0 => "no faults".to_owned(),
        1 => "1 fault".to_owned(),
        count => format!("{count} faults"),
    };
    let zones = if zone.count() == 1 { "1 zone".to_owned() } else { format!("{} zones", zone.count()) };
    // Writing to a string does not fail.
    let _ = writeln!(out, "\n{zones}, {faults}");
    out
}

/// `first` stands before the zone's own line, `rest` before all others.
fn draw(out: &mut String, zone: &Zone, first: &str, rest: &str) {
    let _ = writeln!(out, "{first}{}", zone.apex);
    let inside = format!("{rest}{}", if zone.zones.is_empty() { "    " } else { "│   " });
    for server in &zone.servers {
        draw_server(out, server, &inside);
    }
    for fault in &zone.faults {
        wrap(out, &format!("{inside}! "), &format!("{inside}  "), &fault.words());
    }
    if let Some(remark) = remark(zone) {
        wrap(out, &format!("{inside}  "), &format!("{inside}  "), remark);
    }
    for (at, below) in zone.zones.iter().enumerate() {
        let (branch, on) = if at + 1 < zone.zones.len() { ("├── ", "│   ") } else { ("└── ", "    ") };
        draw(out, below, &format!("{rest}{branch}"), &format!("{rest}{on}"));
    }
}

/// What a reader should know who sees no zones below.
fn remark(zone: &Zone) -> Option<&'static str> {
    match zone.below {
        Below::Asked if zone.zones.is_empty() => {
            Some("(no transfer allowed: zones below are looked for where --zone names them)")
        }
        Below::Unknown => Some("(nobody could be asked for zones below)"),
        Below::Asked | Below::Transferred => None,
    }
}

fn draw_server(out: &mut String, server: &Server, before: &str) {
    let name = server.name.as_ref().map_or_else(|| "(--server)".to_owned(), ToString::to_string);
    let addr = server.addr.map_or_else(|| "no address".to_owned(), short);
    let state = state(server.standing);
    let room = ADDRESS_AT.saturating_sub(before.chars().count() + 1);
    let line = format!("{before}{name:room$} {addr:ADDRESS_COLUMNS$} {state}");
    if line.chars().count() <= COLUMNS {
        let _ = writeln!(out, "{line}");
    } else {
        let _ = writeln!(out, "{before}{name}\n{before}  {addr:ADDRESS_COLUMNS$} {state}");
    }
}

/// Without the port that everybody knows.
fn short(addr: SocketAddr) -> String {
    if addr.port() == 53 { addr.ip().to_string() } else { addr.to_string() }
}

fn state(standing: Standing) -> String {
    match standing {
        Standing::Serves { serial } => format!("serial {serial}"),
        Standing::Lame(_) => "lame".to_owned(),
        Standing::Unknown => "unknown".to_owned(),
        Standing::NotAsked => "not asked".to_owned(),
    }
}

/// Writes words in lines of 80 columns: `first` before the first, `rest` before the others.
fn wrap(out: &mut String, first: &str, rest: &str, text: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(out, "{line}");
            line = rest.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{line}");
}

/// The hierarchy for programs: the first zone, with the zones below inside, and how many faults there are.
pub(super) fn to_json(zone: &Zone) -> Value {
    json!({ "faults": zone.fault_count(), "zones": zone.count(), "tree": zone_json(zone) })
}

fn zone_json(zone: &Zone) -> Value {
    let below = match zone.below {
        Below::Transferred => "transferred",
        Below::Asked => "asked",
        Below::Unknown => "unknown",
    };
    json!({
        "apex": zone.apex.to_string(),
        "servers": zone.servers.iter().map(server_json).collect::<Value>(),
        "faults": zone.faults.iter().map(fault_json).collect::<Value>(),
        "below": below,
        "zones": zone.zones.iter().map(zone_json).collect::<Value>(),
    })
}

fn server_json(server: &Server) -> Value {
    let (standing, serial, lame) = match server.standing {
        Standing::Serves { serial } => ("serves", Some(serial), None),
        Standing::Lame(why) => ("lame", None, Some(why.reason())),
        Standing::Unknown => ("unknown", None, None),
        Standing::NotAsked => ("not-asked", None, None),
    };
    json!({
        "name": server.name.as_ref().map(ToString::to_string),
        "address": server.addr,
        "standing": standing,
        "serial": serial,
        "lame": lame,
    })
}

fn fault_json(fault: &Fault) -> Value {
    json!({ "reason": fault.reason(), "text": fault.words() })
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
