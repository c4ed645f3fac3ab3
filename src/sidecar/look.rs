//! What an operator sees of a running sidecar, on its admin port: `/rules`, `/tokens`, `/tap`.
//!
//! Of tokens their claims alone: who reads them learns who calls whom, and can call nobody.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::inbound::Inbound;
use super::outbound::Outbound;
use super::resolve::{Resolver, Service};
use crate::model::token::Claims;
use crate::ops::admin::{Query, Reply, Routes};
use crate::ops::tap::{self, Wanted};

/// How many callers' tokens are shown, those first that expire last.
const MOST_SHOWN: usize = 1_000;

/// Adds the paths.
pub(super) fn routes(
    routes: Routes,
    resolver: &Resolver,
    outbound: &Arc<ArcSwap<Outbound>>,
    inbound: &Arc<ArcSwap<Inbound>>,
) -> Routes {
    let (resolver, outbound) = (resolver.clone(), Arc::clone(outbound));
    let (own, callers) = (Arc::clone(inbound), Arc::clone(inbound));
    routes
        .get("/rules", move |_| Reply::json(&rules(&resolver.known(), &own.load())))
        .get("/tokens", move |_| Reply::json(&tokens(&outbound.load(), &callers.load())))
        .ask("/tap".to_owned(), |query| {
            let wanted = wanted(query);
            async move { Reply::json(&tap::look(wanted).await) }
        })
}

fn rules(known: &[Arc<Service>], inbound: &Inbound) -> Value {
    let service = |service: &Arc<Service>| {
        json!({
            "name": service.name.to_string(),
            "space": service.space.prefixes().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "rules": service.rules.iter().map(|rule| rule.text()).collect::<Vec<_>>(),
            "port": service.port,
            "own": inbound.services.iter().any(|own| own.name == service.name),
        })
    };
    json!({ "services": known.iter().map(service).collect::<Vec<_>>() })
}

fn tokens(outbound: &Outbound, inbound: &Inbound) -> Value {
    let mut callers = inbound.verifier.known();
    callers.sort_by_key(|claims| std::cmp::Reverse(claims.expires));
    let more = callers.len().saturating_sub(MOST_SHOWN);
    callers.truncate(MOST_SHOWN);
    let own = outbound.identity.as_ref().map(|identity| identity.tokens.shown()).unwrap_or_default();
    json!({ "own": own, "callers": callers.iter().map(|claims| shown(claims)).collect::<Vec<_>>(), "not_shown": more })
}

fn shown(claims: &Claims) -> Value {
    json!({
        "iss": claims.issuer,
        "sub": claims.subject.to_string(),
        "aud": claims.audience,
        "iat": claims.issued_at.0,
        "nbf": claims.not_before.0,
        "exp": claims.expires.0,
    })
}

fn wanted(query: &Query<'_>) -> Wanted {
    Wanted {
        after: query.value("after").and_then(|after| after.parse().ok()),
        service: query.value("service"),
        direction: query.value("direction"),
    }
}
