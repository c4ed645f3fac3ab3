//! Questions to the sidecar that runs beside, over its admin ports: for commands where there is neither shell nor curl.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Asks for a path; the status and the whole answer.
///
/// # Errors
/// Whatever became of the connection, [`io::ErrorKind::InvalidData`] for what is no answer of HTTP/1.1.
pub(super) fn get(at: SocketAddr, path: &str, patience: Duration) -> io::Result<(u16, String)> {
    exchange(at, "GET", path, patience)
}

/// Has something done; the status and what was said of it.
///
/// # Errors
/// As [`get`].
pub(super) fn post(at: SocketAddr, path: &str, patience: Duration) -> io::Result<(u16, String)> {
    exchange(at, "POST", path, patience)
}

fn exchange(at: SocketAddr, method: &str, path: &str, patience: Duration) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&at, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}
