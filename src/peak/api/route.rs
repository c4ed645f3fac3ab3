//! Which method and path is answered by what. No socket here.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::access::{Need, Permit};
use super::refusal::Refusal;

/// A request that its caller may make.
#[derive(Debug)]
pub(in crate::peak) struct Call {
    /// What the caller may do.
    pub(in crate::peak) permit: Permit,
    /// The parts of the path that stand for something, in order, percent-decoded.
    pub(in crate::peak) parts: Vec<String>,
    /// What stands after the `?`, decoded; of equal names the last counts.
    pub(in crate::peak) query: BTreeMap<String, String>,
    /// The `Idempotency-Key` field.
    pub(in crate::peak) key: Option<Bytes>,
    /// The body, whole.
    pub(in crate::peak) body: Bytes,
}

impl Call {
    /// The first part of the path that stands for something.
    pub(in crate::peak) fn part(&self) -> &str {
        self.parts.first().map_or("", String::as_str)
    }

    /// Whether a switch of the query is on: `?strict=true`, or `?strict` alone.
    pub(in crate::peak) fn switch(&self, name: &'static str) -> Result<bool, Refusal> {
        match self.query.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(Refusal::Query { name, expected: "true or false" }),
        }
    }
}

/// What is answered.
#[derive(Debug)]
pub(in crate::peak) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
}

impl Reply {
    /// 200 with JSON.
    pub(in crate::peak) fn json(body: &impl serde::Serialize) -> Self {
        // Our own types have only text keys, and writing to memory does not fail.
        Self::typed("application/json", serde_json::to_vec(body).unwrap_or_default())
    }

    /// 200 with something else.
    pub(in crate::peak) fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: 200, content_type, body: body.into() }
    }

    /// The same with another status.
    pub(in crate::peak) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

/// What comes of a call.
pub(in crate::peak) type Answered = Result<Reply, Refusal>;

type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Answered> + Send>> + Send + Sync>;

/// One path with one method.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// The path as the OpenAPI document writes it: `/v1/zones/{zone}`.
    pub(super) template: &'static str,
    pub(super) need: Need,
    pub(super) handler: Handler,
}

/// The paths of the API.
#[derive(Clone, Default)]
pub(in crate::peak) struct Routes(Vec<Route>);

impl Routes {
    /// Adds a path; `{…}` in the template takes one segment. What the handler does for as long as it does not wait, it
    /// does on the API's thread.
    #[must_use]
    pub(in crate::peak) fn on<F>(
        mut self,
        method: &'static str,
        template: &'static str,
        need: Need,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        self.0.push(Route { method, template, need, handler });
        self
    }

    /// These and those.
    #[must_use]
    pub(in crate::peak) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Finds what answers a request, and the parts of its path.
    pub(super) fn find(&self, method: &str, path: &str) -> Result<(&Route, Vec<String>), Refusal> {
        let mut methods = Vec::new();
        for route in &self.0 {
            let Some(parts) = parts(route.template, path) else { continue };
            if route.method == method || (method == "HEAD" && route.method == "GET") {
                return Ok((route, parts));
            }
            methods.push(route.method);
        }
        if methods.is_empty() { Err(Refusal::Path) } else { Err(Refusal::Method { allowed: methods.join(", ") }) }
    }

    /// Method and template of each.
    #[cfg(test)]
    pub(super) fn list(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.0.iter().map(|route| (route.method, route.template))
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|route| (route.method, route.template))).finish()
    }
}

/// What `path` has in the places of the template's braces; none when it is another path.
fn parts(template: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    let mut parts = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parts),
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => parts.push(decoded(given)?),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

/// The pairs of a query (RFC 3986 §3.4), decoded; what is not UTF-8 is left out.
pub(super) fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter_map(|(name, value)| Some((decoded(name)?, decoded(value)?))).collect()
}

/// Percent-decoded text (RFC 3986 §2.1); none when it is malformed or no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                (high << 4 | low) as u8
            }
            octet => octet,
        });
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let nothing = |_| async { Ok(Reply::json(&())) };
        Routes::default().on("GET", "/v1/zones/{zone}", Need::Read, nothing).on(
            "PUT",
            "/v1/zones/{zone}",
            Need::Admin,
            nothing,
        )
    }

    fn found(method: &str, path: &str) -> Result<(&'static str, Vec<String>), &'static str> {
        let routes = routes();
        routes.find(method, path).map(|(route, parts)| (route.method, parts)).map_err(|refusal| refusal.reason())
    }

    #[test]
    fn a_request_finds_its_route_by_method_and_path() {
        assert_eq!(found("GET", "/v1/zones/shop.peak"), Ok(("GET", vec!["shop.peak".to_owned()])));
        assert_eq!(found("HEAD", "/v1/zones/a%2fb"), Ok(("GET", vec!["a/b".to_owned()])));
        assert_eq!(found("PUT", "/v1/zones/."), Ok(("PUT", vec![".".to_owned()])));
        assert_eq!(found("POST", "/v1/zones/shop.peak"), Err("method-not-allowed"));
        for path in ["/", "/v1/zones", "/v1/zones/", "/v1/zones/a/b", "/v2/zones/a", "/v1/zones/%zz", "/v1/zones/%ff"] {
            assert_eq!(found("GET", path), Err("path-unknown"), "{path}");
        }
        let Err(Refusal::Method { allowed }) = routes().find("POST", "/v1/zones/x").map(|_| ()) else { panic!() };
        assert_eq!(allowed, "GET, PUT");
    }

    #[test]
    fn a_query_is_decoded_and_a_switch_is_on_off_or_wrong() {
        let query = query("strict&name=a%2eb&dry_run=false&bad=%zz&other=maybe");
        assert_eq!(query.get("name").map(String::as_str), Some("a.b"));
        assert!(!query.contains_key("bad"));
        let call = Call { permit: Permit::everything(), parts: vec![], query, key: None, body: Bytes::new() };
        assert!(call.switch("strict").is_ok_and(|on| on) && call.switch("dry_run").is_ok_and(|on| !on));
        assert!(call.switch("absent").is_ok_and(|on| !on));
        assert_eq!(call.switch("other").unwrap_err().reason(), "query-malformed");
    }
}
