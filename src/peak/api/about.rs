//! What the API says of itself and of its node.

use std::future::ready;

use super::access::Need;
use super::refusal::Refusal;
use super::route::{Reply, Routes};
use crate::peak::store::Store;

/// The description of the whole API.
pub(super) const OPENAPI: &str = include_str!("openapi.yaml");

/// The paths.
pub(super) fn routes(store: &Store) -> Routes {
    let (status, backup) = (store.clone(), store.clone());
    Routes::default()
        .on("GET", "/v1/openapi.yaml", Need::Nothing, |_| ready(Ok(Reply::typed("application/yaml", OPENAPI))))
        .on("GET", "/v1/status", Need::Read, move |_| ready(Ok(Reply::json(&status.status()))))
        .on("GET", "/v1/backup", Need::Admin, move |_| {
            let store = backup.clone();
            async move {
                // A large registry takes its time, and others should be answered meanwhile.
                let octets = tokio::task::spawn_blocking(move || store.backup()).await;
                Ok(Reply::typed("application/octet-stream", octets.map_err(|_| Refusal::Broken)?))
            }
        })
}
