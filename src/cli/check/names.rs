//! What Peak tells: whether every slice has an owner, and whether every delegation leads somewhere.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::findings::Finding;
use crate::cli::record::connection::{Peak, Server};
use crate::model::Name;
use crate::peak::tree;

/// A Peak that is there answers at once.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one name server may take.
const QUESTION: Duration = Duration::from_secs(2);

/// Whether every slice of every service has an owner.
pub(super) async fn slices(server: &Server) -> Vec<Finding> {
    const CHECK: &str = "slices-owned";
    let hint = "say where Peak's API is: --server URL; kubectl port-forward brings it here";
    let asked = async { anyhow::Ok(serde_json::from_slice::<Value>(&Peak::new(server)?.look("/v1/slices").await?)?) };
    let told = match timeout(PATIENCE, asked).await {
        Ok(Ok(told)) => told,
        Ok(Err(error)) if !server.is_default() => return vec![Finding::wrong(CHECK, format!("{error:#}"), hint)],
        Err(_) if !server.is_default() => return vec![Finding::wrong(CHECK, "Peak does not answer", hint)],
        Ok(Err(_)) | Err(_) => return vec![Finding::skipped(CHECK, "Peak's API is not here", hint)],
    };
    let services = told["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut findings: Vec<Finding> = services.iter().map(|service| owned(CHECK, service)).collect();
    if findings.is_empty() {
        findings.push(Finding::right(CHECK, "no service has slices"));
    }
    findings.extend(services.iter().filter_map(waits));
    findings
}

fn owned(check: &'static str, service: &Value) -> Finding {
    let name = service["service"].as_str().unwrap_or_default();
    // First slice, number of slices, owner.
    let runs = service["owners"].as_array().into_iter().flatten();
    let unowned: u64 = runs.filter(|run| run[2].is_null()).filter_map(|run| run[1].as_u64()).sum();
    let all = service["slices"].as_u64().unwrap_or(0);
    let hint =
        "a call in so many of that many fails: start pods of the service, and look whether they get their leases";
    Finding::holds(
        check,
        unowned == 0,
        format!("{name}: {} of {all} slices are owned", all.saturating_sub(unowned)),
        hint,
    )
}

/// Slices that do not change hands, and why.
fn waits(service: &Value) -> Option<Finding> {
    let mut handovers = service["handovers"].as_array()?.iter();
    let why = handovers.find_map(|handover| handover["waits"].as_str())?;
    let seen = format!("{}: {why}", service["service"].as_str().unwrap_or_default());
    Some(Finding::doubtful(
        "handovers-wait",
        seen,
        "`funicular slices` shows which; the manual's chapter on slices, why",
    ))
}

/// Whether the zones below one, and the servers that they name, fit together.
pub(super) async fn delegations(server: Option<SocketAddr>, zone: Option<&Name>) -> Finding {
    const CHECK: &str = "delegations";
    let (Some(server), Some(zone)) = (server, zone) else {
        return Finding::skipped(CHECK, "no zone is given", "say where to begin: --dns ADDR:PORT --zone NAME");
    };
    let hint = format!("`funicular peak tree {zone} --server {server}` draws where");
    match tree::faults(server, zone, QUESTION).await {
        Ok(faults) if faults.is_empty() => Finding::right(CHECK, format!("below {zone} every server answers")),
        Ok(faults) => Finding::wrong(CHECK, faults.join("; "), hint),
        Err(error) => Finding::wrong(CHECK, error.to_string(), hint),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_slice_without_an_owner_is_wrong() {
        let service = |last: Value| json!({ "service": "a.peak", "slices": 4, "owners": [[0, 3, 7], [3, 1, last]] });
        assert_eq!(owned("c", &service(json!(8))), Finding::right("c", "a.peak: 4 of 4 slices are owned"));
        assert_ne!(owned("c", &service(Value::Null)), Finding::right("c", "a.peak: 3 of 4 slices are owned"));
    }

    #[test]
    fn a_handover_that_waits_is_told_with_its_reason() {
        let service =
            |waits: Value| json!({ "service": "a.peak", "handovers": [{ "waits": null }, { "waits": waits }] });
        assert!(waits(&service(Value::Null)).is_none());
        assert!(waits(&service(json!("tunnel-unavailable"))).is_some());
    }
}
