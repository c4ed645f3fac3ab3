//! Which path answers what. No socket here: a request's method, path and query go in, a reply comes out.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

/// An answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// The methods that would be served, where the request's is not.
    pub(super) allow: Option<&'static str>,
}

impl Reply {
    /// 200 with plain text.
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self::typed("text/plain; charset=utf-8", body)
    }

    /// 200 with JSON, laid out for people.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self::typed("application/json", format!("{body:#}\n"))
    }

    /// 200 with text of some other type.
    #[must_use]
    pub fn typed(content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status: 200, content_type, body: body.into(), allow: None }
    }

    /// The same with another status.
    #[must_use]
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

/// What stands after the `?`.
#[derive(Clone, Copy, Debug)]
pub struct Query<'r>(&'r str);

impl<'r> Query<'r> {
    pub(super) fn new(text: &'r str) -> Self {
        Self(text)
    }

    /// The value of the first pair with this name, percent-decoded (RFC 3986 §2.1).
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        let pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }
}

/// Octets that are no UTF-8 after decoding become U+FFFD, and a stray `%` stays: no value that we take needs either.
fn decoded(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| octet == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        octets.push(code.unwrap_or(octet));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// An answer that takes its time.
pub(super) type Later = Pin<Box<dyn Future<Output = Reply> + Send>>;

#[derive(Clone)]
enum Answer {
    Now(Arc<dyn Fn(&Query<'_>) -> Reply + Send + Sync>),
    Later(Arc<dyn Fn(&Query<'_>) -> Later + Send + Sync>),
}

/// What a request gets.
pub(super) enum Answered {
    Now(Reply),
    Later(Later),
}

#[derive(Clone, Default)]
struct Route {
    get: Option<Answer>,
    post: Option<Answer>,
}

/// The paths of one listener.
#[derive(Clone, Default)]
pub struct Routes(BTreeMap<Cow<'static, str>, Route>);

impl Routes {
    /// No paths yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows something at `path`. The answer is computed on the runtime's thread, so it must not take long.
    #[must_use]
    pub fn get(mut self, path: &'static str, answer: impl Fn(&Query<'_>) -> Reply + Send + Sync + 'static) -> Self {
        self.0.entry(path.into()).or_default().get = Some(Answer::Now(Arc::new(answer)));
        self
    }

    /// Shows something at `path` that has to be asked for first.
    #[must_use]
    pub fn ask<A>(mut self, path: String, answer: impl Fn(&Query<'_>) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Reply> + Send + 'static,
    {
        let later = move |query: &Query<'_>| -> Later { Box::pin(answer(query)) };
        self.0.entry(path.into()).or_default().get = Some(Answer::Later(Arc::new(later)));
        self
    }

    /// Changes something by POST to `path`. The answer is computed on the runtime's thread, so it must not take long.
    #[must_use]
    pub fn post(mut self, path: &'static str, answer: impl Fn(&Query<'_>) -> Reply + Send + Sync + 'static) -> Self {
        self.0.entry(path.into()).or_default().post = Some(Answer::Now(Arc::new(answer)));
        self
    }

    /// Changes something by POST to `path`, and answers when that is done.
    #[must_use]
    pub fn act<A>(mut self, path: &'static str, answer: impl Fn(&Query<'_>) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Reply> + Send + 'static,
    {
        let later = move |query: &Query<'_>| -> Later { Box::pin(answer(query)) };
        self.0.entry(path.into()).or_default().post = Some(Answer::Later(Arc::new(later)));
        self
    }

    pub(super) fn answer(&self, method: &str, path: &str, query: &Query<'_>) -> Answered {
        let Some(route) = self.0.get(path) else {
            let status = if path == "/" { 200 } else { 404 };
            return Answered::Now(Reply::text(self.listed()).status(status));
        };
        let chosen = match method {
            "GET" | "HEAD" => &route.get,
            "POST" => &route.post,
            _ => &None,
        };
        match chosen {
            Some(Answer::Now(answer)) => Answered::Now(answer(query)),
            Some(Answer::Later(answer)) => Answered::Later(answer(query)),
            None => {
                let allow = route.methods();
                let refusal = Reply::text(format!("{path} takes {allow}\n")).status(405);
                Answered::Now(Reply { allow: Some(allow), ..refusal })
            }
        }
    }

    fn listed(&self) -> String {
        self.0.iter().map(|(path, route)| format!("{path:<12} {}\n", route.methods())).collect()
    }
}

impl Route {
    fn methods(&self) -> &'static str {
        match (&self.get, &self.post) {
            (Some(_), Some(_)) => "GET, HEAD, POST",
            (Some(_), None) => "GET, HEAD",
            (None, Some(_) | None) => "POST",
        }
    }
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        Routes::new()
            .get("/shown", |_| Reply::text("shown"))
            .post("/changed", |query| Reply::text(query.value("to").unwrap_or_default()))
    }

    fn answer(method: &str, path: &str) -> Reply {
        match routes().answer(method, path, &Query::new("to=a%2Cb")) {
            Answered::Now(reply) => reply,
            Answered::Later(_) => panic!("nothing here has to be asked for"),
        }
    }

    #[test]
    fn what_is_shown_is_not_changed_and_what_is_changed_is_not_shown() {
        assert_eq!(answer("GET", "/shown").status, 200);
        assert_eq!(answer("HEAD", "/shown").status, 200);
        assert_eq!(answer("POST", "/changed").body, "a,b");
        for (method, path, allow) in
            [("POST", "/shown", "GET, HEAD"), ("GET", "/changed", "POST"), ("DELETE", "/shown", "GET, HEAD")]
        {
            let reply = answer(method, path);
            assert_eq!((reply.status, reply.allow), (405, Some(allow)), "{method} {path}");
        }
    }

    #[test]
    fn an_unknown_path_is_answered_with_those_that_are_known() {
        let reply = answer("GET", "/nothing");
        assert_eq!(reply.status, 404);
        assert!(reply.body.contains("/shown") && reply.body.contains("/changed"));
        assert_eq!(answer("GET", "/").status, 200);
    }

    #[test]
    fn a_query_is_read_by_name_and_decoded() {
        let query = Query::new("a=1&level=info,funicular%3a%3Asidecar=debug&level=off&flag");
        assert_eq!(query.value("level").as_deref(), Some("info,funicular::sidecar=debug"));
        assert_eq!(query.value("flag").as_deref(), Some(""));
        assert_eq!(query.value("b"), None);
        for (written, read) in
            [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%+1", "%+1"), ("%ff", "\u{fffd}"), ("%25", "%")]
        {
            assert_eq!(decoded(written), read);
        }
    }
}
