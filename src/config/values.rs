//! Kinds of values: how each is written, read and shown.

use std::net::SocketAddr;

/// Address of a name server; written `IP:port`, or `IP` alone for port 53.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NameServer(pub SocketAddr);
