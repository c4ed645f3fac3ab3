//! The configuration of Peak's API: where it listens, how it proves itself, and who may do what.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Check;
use super::common::Trust;
use super::section::{choice, section};
use crate::model::Name;
use crate::model::token::CallerPattern;

section! {
    /// Peak's API: records, zones, status and backup over HTTP.
    pub struct Api {
        /// Where requests arrive. On a loopback address without `tls`, everybody on this machine may do everything;
        /// anywhere else `tls` is required, and only `callers` may do anything.
        listen: SocketAddr = "127.0.0.1:7443",
        /// What proves this node to its callers. None: plain HTTP, on a loopback address alone.
        tls: Option<ApiTls>,
        /// The issuers whose tokens callers may show (`Authorization: Bearer`).
        trust: Vec<Trust>,
        /// The `aud` of those tokens. Required with `trust`.
        audience: Option<Name>,
        /// Who may do what; who is not listed, nothing.
        callers: Vec<ApiCaller>,
    }
}

section! {
    /// What proves this node to callers of the API, and them to it.
    pub struct ApiTls {
        /// File with the certificate chain (PEM), the node's own first.
        certificate: PathBuf,
        /// File with its private key (PEM).
        key: PathBuf,
        /// File with the certificates (PEM) of the authorities that vouch for callers. None: callers have no
        /// certificates, only tokens.
        client_ca: Option<PathBuf>,
    }
}

section! {
    /// Somebody who may use the API: known by certificate or by token.
    pub struct ApiCaller {
        /// A name in the caller's certificate, which an authority of `tls.client_ca` has signed.
        certificate: Option<Name>,
        /// The workload's name in the caller's token, in which `*` stands for any one part.
        workload: Option<CallerPattern>,
        /// What the caller may do; each allows what those before it do.
        may: ApiRight = "read",
        /// The zones whose records the caller may change. None: all.
        zones: Vec<Name>,
    }
}

choice! {
    /// What a caller of the API may do.
    pub enum ApiRight, "read, write or admin" {
        /// Look at zones, records and status.
        Read = "read",
        /// Change records as well.
        Write = "write",
        /// Take zones in and let them go, fetch backups, and change the group of nodes.
        Admin = "admin",
    }
}

impl Api {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        let proven = self.tls.is_some();
        if !proven && !self.listen.ip().is_loopback() {
            check.fault(
                &["api.listen", "api.tls"],
                "without tls it is a loopback address: what changes zones is proven",
            );
        }
        if proven && self.callers.is_empty() {
            check.fault(&["api.callers", "api.tls"], "lists none, so nobody could use the API");
        }
        if !proven && !self.callers.is_empty() {
            let rule = "callers are told apart only with tls: without, everybody on this machine may do everything";
            check.fault(&["api.callers", "api.tls"], rule);
        }
        if self.trust.is_empty() != self.audience.is_none() {
            check.fault(&["api.trust", "api.audience"], "belong together: a token is of an issuer, and for somebody");
        }
        Trust::check_all(&self.trust, "api.trust", check);
        let has_authorities = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        for (index, caller) in self.callers.iter().enumerate() {
            let key = |name: &str| format!("api.callers[{index}].{name}");
            if caller.certificate.is_some() == caller.workload.is_some() {
                check.fault(&[&key("certificate"), &key("workload")], "a caller has one of the two");
            }
            if caller.certificate.is_some() && proven && !has_authorities {
                check.fault(&[&key("certificate"), "api.tls.client_ca"], "needs the authorities of callers");
            }
            if caller.workload.is_some() && self.trust.is_empty() {
                check.fault(&[&key("workload"), "api.trust"], "needs an issuer whose tokens are accepted");
            }
            if caller.may == ApiRight::Admin && !caller.zones.is_empty() {
                check.fault(&[&key("zones"), &key("may")], "admin is for all zones");
            }
        }
    }
}
