//! HTTP as both halves of the sidecar speak it in `header` mode: what is passed on, what is never passed on, and what is
//! answered instead.
//!
//! A message is read and written anew at each hop, by the same library, so that the two sidecars and the application
//! cannot disagree about where it ends. Between an application and the other one the version stays what it is: HTTP/1.1
//! arrives as HTTP/1.1, HTTP/2 as HTTP/2.
//!
//! | module | owns |
//! |---|---|
//! | [`fields`] | which fields go on, whose are ours, how many octets are too many |
//! | [`message`] | what is read of a message and written into it |
//! | [`body`] | content on its way, what is held until it has gone, 100-continue |
//! | [`client`] | a connection on which we ask |
//! | [`serve`] | a connection on which we are asked |
//! | [`upgrade`] | what becomes of a connection that stops being HTTP |
//! | [`answer`] | what we say ourselves |
//! | [`pace`] | how slow a peer may be |
//! | [`golden`] | how requests fare |
//!
//! Source: RFC 9110 §7 (intermediaries), RFC 9112, RFC 9113.

pub(super) mod answer;
pub(super) mod body;
pub(super) mod client;
pub(super) mod fields;
pub(super) mod golden;
pub(super) mod message;
pub(super) mod pace;
pub(super) mod prefixed;
pub(super) mod serve;
pub(super) mod upgrade;

use hyper::Request;
use hyper::header::HOST;

use crate::model::ssa::Asked;

/// The ALPN protocol of HTTP/1.1 (RFC 7301 §6).
pub(super) const HTTP_1: &str = "http/1.1";
/// The ALPN protocol of HTTP/2 (RFC 9113 §3.2).
pub(super) const HTTP_2: &str = "h2";

/// A version of HTTP, as a connection speaks it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::sidecar) enum Version {
    /// HTTP/1.0 and 1.1: one request at a time.
    One,
    /// HTTP/2: many.
    Two,
}

impl Version {
    /// The version that an ALPN protocol stands for.
    pub(super) fn of_alpn(protocol: &str) -> Option<Self> {
        match protocol {
            HTTP_1 => Some(Self::One),
            HTTP_2 => Some(Self::Two),
            _ => None,
        }
    }

    /// What to offer a server, this version first.
    pub(super) fn offer(self) -> &'static [&'static str] {
        match self {
            Self::One => &[HTTP_1, HTTP_2],
            Self::Two => &[HTTP_2, HTTP_1],
        }
    }
}

/// A request as content keys see it.
pub(super) struct Seen<'r, B>(pub(super) &'r Request<B>);

impl<B> Asked for Seen<'_, B> {
    fn path(&self) -> &str {
        self.0.uri().path()
    }

    fn query(&self) -> Option<&str> {
        self.0.uri().query()
    }

    fn authority(&self) -> Option<&str> {
        let host = || self.0.headers().get(HOST).and_then(|host| host.to_str().ok());
        self.0.uri().authority().map(hyper::http::uri::Authority::as_str).or_else(host)
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        self.0.headers().get(name).map(hyper::header::HeaderValue::as_bytes)
    }
}
