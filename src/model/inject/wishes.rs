//! Annotations that change the sidecar of one pod, or of a namespace's pods: `config.funicular.dev/log-level: debug`.
//!
//! The pod's wins over its namespace's, which is copied onto the pod, so that the pod alone tells how it was made.

use serde_json::{Map, Value};

use super::{Namespace, Refusal, Settings};
use crate::model::lists;

/// What all of them begin with.
pub const PREFIX: &str = "config.funicular.dev/";

type Parsed = Result<(), String>;
/// Puts the text into the settings, or says what it should have been.
type Wish = fn(&mut Settings, &str) -> Parsed;

/// All annotations there are.
pub(super) const WISHES: [(&str, Wish); 21] = [
    ("config-map", |settings, text| object_name(text).map(|name| settings.config_map = name)),
    ("cpu-limit", |settings, text| quantity(text).map(|limit| settings.resources.cpu_limit = Some(limit))),
    ("cpu-request", |settings, text| quantity(text).map(|request| settings.resources.cpu_request = request)),
    ("device", |settings, text| device(text).map(|device| settings.device = device)),
    ("drain-seconds", drain),
    ("identity-secret", |settings, text| object_name(text).map(|name| settings.identity_secret = Some(name))),
    ("image", |settings, text| image(text).map(|image| settings.image = image)),
    ("image-pull-policy", |settings, text| {
        word(text, &["Always", "IfNotPresent", "Never"]).map(|policy| settings.pull_policy = Some(policy))
    }),
    ("leases", |settings, text| truth(text).map(|leases| settings.leases = leases)),
    ("log-format", |settings, text| word(text, &["text", "json"]).map(|format| settings.log_format = Some(format))),
    ("log-level", |settings, text| {
        word(text, &["off", "error", "warn", "info", "debug", "trace"]).map(|level| settings.log_level = Some(level))
    }),
    ("memory-limit", |settings, text| quantity(text).map(|limit| settings.resources.memory_limit = Some(limit))),
    ("memory-request", |settings, text| quantity(text).map(|request| settings.resources.memory_request = request)),
    ("native-sidecar", |settings, text| truth(text).map(|native| settings.native = native)),
    ("rewrite-probes", |settings, text| truth(text).map(|rewrite| settings.rewrite_probes = rewrite)),
    ("service-prefix", service_prefixes),
    ("skip-inbound-ports", |settings, text| {
        listed(lists::ports(text)).map(|ports| settings.skip_inbound_ports = ports)
    }),
    ("skip-outbound-ports", |settings, text| {
        listed(lists::ports(text)).map(|ports| settings.skip_outbound_ports = ports)
    }),
    ("skip-subnets", |settings, text| listed(lists::subnets(text)).map(|subnets| settings.skip_subnets = subnets)),
    ("skip-uids", |settings, text| listed(lists::users(text)).map(|users| settings.skip_uids = users)),
    ("token-audience", |settings, text| image(text).map(|audience| settings.audience = audience)),
];

/// The namespace's wishes that the pod does not state itself.
pub(super) fn of_namespace(pod: &Value, namespace: &Namespace) -> Map<String, Value> {
    let stated = |key: &String| pod["metadata"]["annotations"].get(key).is_some();
    let wishes = namespace.annotations.iter().filter(|(key, _)| key.starts_with(PREFIX) && !stated(key));
    wishes.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The settings with the pod's wishes, its own and those copied from its namespace, put over them.
///
/// # Errors
/// An annotation of ours that nothing reads, or whose value is none.
pub(super) fn heeded(settings: &Settings, pod: &Value, copied: &Map<String, Value>) -> Result<Settings, Refusal> {
    let mut settings = settings.clone();
    let stated = pod["metadata"]["annotations"].as_object().into_iter().flatten().chain(copied);
    for (key, value) in stated {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let Some((_, wish)) = WISHES.iter().find(|(known, _)| *known == name) else {
            let known = WISHES.map(|(name, _)| name).join(", ");
            return Err(Refusal::AnnotationUnknown { key: key.clone(), known });
        };
        let invalid = |expected| Refusal::AnnotationInvalid {
            key: key.clone(),
            value: value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned),
            expected,
        };
        let text = value.as_str().ok_or_else(|| invalid("an annotation is a text: put it in quotes".to_owned()))?;
        wish(&mut settings, text).map_err(invalid)?;
    }
    Ok(settings)
}

fn listed<T>(list: Result<T, lists::ListError>) -> Result<T, String> {
    list.map_err(|error| error.to_string())
}

fn truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "write \"true\" or \"false\"".to_owned())
}

fn word(text: &str, words: &[&str]) -> Result<String, String> {
    if words.contains(&text) { Ok(text.to_owned()) } else { Err(format!("it is one of {}", words.join(", "))) }
}

/// Names of ConfigMaps and Secrets are DNS subdomains (RFC 1123).
fn object_name(text: &str) -> Result<String, String> {
    let part = |part: &str| {
        let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !part.is_empty() && part.bytes().all(inside) && !part.starts_with('-') && !part.ends_with('-')
    };
    let is_name = text.len() <= 253 && text.split('.').all(part);
    is_name.then(|| text.to_owned()).ok_or_else(|| "the name of an object is like orders-config".to_owned())
}

fn image(text: &str) -> Result<String, String> {
    let is_one_word = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    is_one_word.then(|| text.to_owned()).ok_or_else(|| "it is one word".to_owned())
}

/// Names of devices have up to 15 octets (IFNAMSIZ).
fn device(text: &str) -> Result<String, String> {
    let is_name = (1..=15).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c == '/');
    is_name.then(|| text.to_owned()).ok_or_else(|| "the name of a device is like eth0".to_owned())
}

/// A quantity of Kubernetes: digits, perhaps a fraction, perhaps a unit.
fn quantity(text: &str) -> Result<String, String> {
    const UNITS: [&str; 12] = ["", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let is_number = number.parse::<f64>().is_ok_and(|number| number > 0.0) && !number.starts_with('.');
    let is_quantity = is_number && UNITS.contains(&unit);
    is_quantity.then(|| text.to_owned()).ok_or_else(|| "a quantity is like 100m, 0.5, 24Mi".to_owned())
}

fn drain(settings: &mut Settings, text: &str) -> Parsed {
    let seconds: Option<u32> = text.parse().ok().filter(|_| !text.starts_with('+'));
    let seconds = seconds.ok_or("it is a whole number of seconds")?;
    settings.drain = Some(std::time::Duration::from_secs(seconds.into()));
    Ok(())
}

fn service_prefixes(settings: &mut Settings, text: &str) -> Parsed {
    let prefix = |item: &str| item.trim().parse::<ipnet::Ipv6Net>().map(|prefix| prefix.trunc());
    let prefixes: Result<Vec<_>, _> = text.split(',').map(prefix).collect();
    settings.service_prefixes = prefixes.map_err(|_| "write IPv6 prefixes like 2001:db8:5:1::/64".to_owned())?;
    Ok(())
}
