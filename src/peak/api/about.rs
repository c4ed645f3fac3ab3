//! What the API says of itself and of its node.

use std::future::ready;

use serde_json::json;

use super::access::Need;
use super::route::{Reply, Routes};
use crate::peak::store::{Part, Store};

/// The description of the whole API.
pub(super) const OPENAPI: &str = include_str!("openapi.yaml");

/// The paths.
pub(super) fn routes(store: &Store) -> Routes {
    let status = store.clone();
    Routes::default()
        .on("GET", "/v1/openapi.yaml", Need::Nothing, |_| ready(Ok(Reply::typed("application/yaml", OPENAPI))))
        .on("GET", "/v1/status", Need::Read, move |_| ready(Ok(told(&status))))
}

fn told(store: &Store) -> Reply {
    let status = store.status();
    Reply::json(&json!({
        "node": status.node,
        "term": status.term,
        "leader": status.leader,
        "leads": status.part == Part::Leader,
    }))
}
