//! Sections that several roles share.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::section::{choice, section};
use crate::model::token::Algorithm;

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
        /// File with its public keys, a JSON Web Key Set (RFC 7517 §5).
        jwks: PathBuf,
        /// The signature algorithms it may use; a token signed with any other is refused whatever its header says.
        algorithms: Vec<Algorithm> = "[EdDSA]",
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
