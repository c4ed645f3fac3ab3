//! Many routes at once: messages go to the kernel in pieces of 256, and only the last of a piece asks for a word back.
//!
//! One message at a time costs a round trip each, and thousands of routes then take a noticeable time in which a move
//! is half done. The kernel answers a message that fails whether it was asked or not, and handles all of a piece while
//! it is being sent, so when sending returns every answer is there.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols};
use socket2::SockRef;

use super::wanted::{Link, Route};
use super::{Netlink, RouteError, message};

/// Messages in one piece.
const PIECE: usize = 256;

/// Room for the answers to a piece that is wrong throughout: each repeats the message, and the kernel counts its own
/// overhead.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What is to become of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is there, in place of one with the same destination in the same table if there is one.
    Put(Route),
    /// It is not there; that it was not there before is fine.
    Remove(Route),
}

impl Change {
    const fn route(&self) -> &Route {
        match self {
            Self::Put(route) | Self::Remove(route) => route,
        }
    }

    /// The `ip` command that would do the same.
    fn attempted(&self) -> String {
        let (verb, route) = match self {
            Self::Put(route) => ("replace", route),
            Self::Remove(route) => ("delete", route),
        };
        format!("ip {} route {verb} {route}", route.family())
    }
}

/// A conversation in which routes are changed, in the namespace of the thread that opened it.
pub struct Batch {
    netlink: Netlink,
    socket: Socket,
    last_number: u32,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batch")
    }
}

impl Batch {
    /// Opens it.
    ///
    /// # Errors
    /// [`RouteError::Socket`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn here() -> Result<Self, RouteError> {
        let open = || {
            let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_rx_buf_sz(i32::try_from(RECEIVE_BUFFER).unwrap_or(i32::MAX))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(RouteError::Socket)?;
        Ok(Self { netlink: Netlink::here()?, socket, last_number: 0 })
    }

    /// Makes all `changes`, in their order; gives what the kernel refused of them, each with its index among them. One
    /// that is refused keeps no other from being made.
    ///
    /// # Errors
    /// [`RouteError`] when the conversation itself fails; some changes may have been made then.
    pub async fn perform(&mut self, changes: &[Change]) -> Result<Vec<(usize, RouteError)>, RouteError> {
        let links = if changes.is_empty() { Vec::new() } else { self.netlink.links().await? };
        let mut refused = Vec::new();
        for (number, piece) in changes.chunks(PIECE).enumerate() {
            let of_piece = self.send(piece, &links)?;
            refused.extend(of_piece.into_iter().map(|(at, error)| (number * PIECE + at, error)));
            // Thousands of routes take the kernel a while, and others have work to do.
            tokio::task::yield_now().await;
        }
        Ok(refused)
    }

    fn send(&mut self, piece: &[Change], links: &[Link]) -> Result<Vec<(usize, RouteError)>, RouteError> {
        let mut sent = Vec::with_capacity(piece.len());
        let (mut bytes, mut refused) = (Vec::new(), Vec::new());
        for (at, change) in piece.iter().enumerate() {
            let device = change.route().device().map(|name| (name, links.iter().find(|link| link.name == name)));
            let index = match device {
                Some((name, None)) => {
                    let known = links.iter().map(|link| link.name.clone()).collect();
                    // Its routes went with the device.
                    if matches!(change, Change::Put(_)) {
                        refused.push((at, RouteError::NoSuchDevice { name: name.to_owned(), known }));
                    }
                    continue;
                }
                Some((_, Some(link))) => Some(link.index),
                None => None,
            };
            sent.push((at, change, index));
        }
        let first = self.last_number.wrapping_add(1);
        let last = sent.len().saturating_sub(1);
        for (order, (_, change, index)) in sent.iter().enumerate() {
            self.last_number = self.last_number.wrapping_add(1);
            bytes.extend(encode(change, *index, self.last_number, order == last));
        }
        if sent.is_empty() {
            return Ok(refused);
        }
        // A piece is one datagram, and must fit the buffer with the kernel's own overhead.
        let sized = SockRef::from(&self.socket).set_send_buffer_size(bytes.len() * 2 + (1 << 16));
        sized.and_then(|()| self.socket.send(&bytes, 0)).map_err(RouteError::Socket)?;
        for (number, answer) in self.answers()? {
            let order = usize::try_from(number.wrapping_sub(first)).unwrap_or(usize::MAX);
            let Some((at, change, _)) = sent.get(order) else { continue };
            refused.extend(refusal(change, answer).map(|error| (*at, error)));
        }
        Ok(refused)
    }

    /// What the kernel has said no to: numbers of messages, and why.
    fn answers(&mut self) -> Result<Vec<(u32, io::Error)>, RouteError> {
        let mut answers = Vec::new();
        loop {
            let bytes = match self.socket.recv_from_full() {
                Ok((bytes, _)) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(RouteError::Socket(error)),
            };
            let mut rest = bytes.as_slice();
            while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
                if let NetlinkPayload::Error(error) = &message.payload
                    && error.code.is_some()
                {
                    answers.push((message.header.sequence_number, error.to_io()));
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

fn encode(change: &Change, device: Option<u32>, number: u32, confirmed: bool) -> Vec<u8> {
    let route = message::from_route(change.route(), device);
    let (message, flags) = match change {
        Change::Put(_) => (RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE),
        Change::Remove(_) => (RouteNetlinkMessage::DelRoute(route), 0),
    };
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags | if confirmed { NLM_F_ACK } else { 0 };
    message.header.sequence_number = number;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

/// What a refusal means; nothing when what was to go is gone.
fn refusal(change: &Change, answer: io::Error) -> Option<RouteError> {
    let gone = matches!(answer.raw_os_error(), Some(libc::ESRCH | libc::ENODEV));
    if gone && matches!(change, Change::Remove(_)) {
        return None;
    }
    Some(match answer.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => RouteError::NotPermitted { attempted: change.attempted() },
        _ => RouteError::Refused { attempted: change.attempted(), answer },
    })
}
