//! Sections that several roles share.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::Check;
use super::section::{choice, section};
use super::values::KeySet;
use crate::model::token::{Algorithm, TrustDomain};

section! {
    /// Where the role can be asked how it is.
    pub struct Admin {
        /// The admin port: everything, changes included. Loopback unless you know who else can reach it.
        listen: SocketAddr = "127.0.0.1:15000",
        /// Metrics and health alone: `/metrics`, `/ready`, `/live`.
        metrics: SocketAddr = "[::]:15020",
    }
}

section! {
    /// An issuer whose tokens are accepted.
    pub struct Trust {
        /// The `iss` of its tokens, compared octet for octet.
        issuer: String,
        /// Its public keys, a JSON Web Key Set (RFC 7517 §5): a file, or an `https://` address that is asked again every
        /// five minutes and when a token names an unknown key. Keys that were had are kept while it cannot be had.
        jwks: KeySet,
        /// File with the certificates (PEM) of the authorities that vouch for the server of `jwks`. Required with an
        /// `https://` address.
        jwks_ca: Option<PathBuf>,
        /// File with a bearer token for the server of `jwks`, where it wants one.
        jwks_token: Option<PathBuf>,
        /// The signature algorithms it may use; a token signed with any other is refused whatever its header says.
        algorithms: Vec<Algorithm> = "[EdDSA]",
        /// What its tokens' `aud` must hold in place of the service's name: for tokens that are not made for one service.
        audience: Option<String>,
        /// The issuer is a Kubernetes cluster, and this trust domain stands for it: `system:serviceaccount:NS:ACCOUNT` is
        /// `spiffe://<this>/ns/NS/sa/ACCOUNT`.
        kubernetes: Option<TrustDomain>,
    }
}

section! {
    /// What is logged, and how.
    pub struct Log {
        /// The least serious level that is written. `POST /logging?level=…` changes it while running.
        level: Level = "info",
        /// How a line looks.
        format: Format = "text",
    }
}

choice! {
    /// How serious a message must be to be written.
    pub enum Level, "a level: off, error, warn, info, debug or trace" {
        /// Nothing.
        Off = "off",
        /// What keeps the role from its work.
        Error = "error",
        /// What is worth waking for.
        Warn = "warn",
        /// Starts, stops, changes, and one line per connection.
        Info = "info",
        /// What happened to each connection and question.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

choice! {
    /// How a line of the log looks.
    pub enum Format, "text or json" {
        /// For people: time, level, message, `key=value`.
        Text = "text",
        /// For machines: one JSON object a line.
        Json = "json",
    }
}

impl Trust {
    /// Looks over the issuers that stand at `key`.
    pub(super) fn check_all(trust: &[Self], key: &str, check: &mut Check<'_>) {
        let mut seen = HashSet::new();
        for (at, issuer) in trust.iter().enumerate() {
            if !seen.insert(&issuer.issuer) {
                check.fault(&[&format!("{key}[{at}].issuer")], format!("{} is listed twice", issuer.issuer));
            }
            if matches!(issuer.jwks, KeySet::At(_)) && issuer.jwks_ca.is_none() {
                check.fault(&[&format!("{key}[{at}].jwks")], "jwks_ca is missing: nobody vouches for that server");
            }
            if issuer.kubernetes.is_some() && issuer.audience.is_none() {
                let rule = "none: a cluster's tokens are seldom made for one service; they must name it to be accepted";
                check.remark(&format!("{key}[{at}].audience"), rule);
            }
            if issuer.algorithms.is_empty() {
                let rule = "lists none, so none of its tokens could be accepted";
                check.fault(&[&format!("{key}[{at}].algorithms")], rule);
            }
        }
    }
}
