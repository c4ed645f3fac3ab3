//! One netlink conversation with nf_tables.
//!
//! The kernel handles a request while it is being sent, so all answers to a change are there when sending returns:
//! nothing here waits. A list comes in pieces, the next one made when the last is read.

use std::collections::VecDeque;
use std::io;

use netlink_sys::{Socket, SocketAddr, protocols};
use socket2::SockRef;

use super::NftError;
use super::attributes::Attributes;
use super::lower::Lowered;
use super::message::{self, HEADER, Request, Verb};

/// Types of messages that netlink itself sends: NLMSG_ERROR, which also confirms, and NLMSG_DONE.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Tries at a reading that nobody's change falls into.
const READINGS: usize = 10;

/// Room for answers: one to each message of a batch that is wrong throughout.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A received message.
struct Message {
    kind: u16,
    number: u32,
    body: Vec<u8>,
}

/// A conversation, in the namespace of the thread that opened it.
pub(super) struct Nfnetlink {
    socket: Socket,
    received: VecDeque<Message>,
    last_number: u32,
}

impl Nfnetlink {
    pub(super) fn open() -> Result<Self, NftError> {
        let open = || {
            let mut socket = Socket::new(protocols::NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_rx_buf_sz(i32::try_from(RECEIVE_BUFFER).unwrap_or(i32::MAX))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT) => NftError::NoNfTables(error),
            _ => NftError::Socket(error),
        })?;
        Ok(Self { socket, received: VecDeque::new(), last_number: 0 })
    }

    /// Sends a batch; the kernel has taken all of it, or nothing.
    pub(super) fn transact(&mut self, batch: Vec<Request>) -> Result<(), NftError> {
        let first = self.send(&batch)?;
        let mut confirmed = false;
        while let Some(message) = self.receive()? {
            if message.kind != ERROR {
                continue;
            }
            let Some(error) = failure(&message) else {
                confirmed = true;
                continue;
            };
            let index = usize::try_from(message.number.wrapping_sub(first)).unwrap_or(usize::MAX);
            return Err(refused(error, batch.get(index).or(batch.first())));
        }
        if confirmed { Ok(()) } else { Err(NftError::Truncated) }
    }

    /// Whether there is a table called `name`.
    pub(super) fn has_table(&mut self, name: &str) -> Result<bool, NftError> {
        let asked = [Request::one(Verb::GetTable, message::table_named(name))];
        self.send(&asked)?;
        let mut found = false;
        while let Some(message) = self.receive()? {
            match failure(&message) {
                Some(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
                Some(error) => return Err(refused(error, asked.first())),
                None => found = true,
            }
        }
        Ok(found)
    }

    /// What stands in the table called `name`, at one moment; nothing when there is no such table.
    pub(super) fn read(&mut self, name: &str) -> Result<Option<Lowered>, NftError> {
        for _ in 0..READINGS {
            let before = self.generation()?;
            let found = if self.has_table(name)? { Some(self.content(name)) } else { None };
            if self.generation()? == before {
                return found.transpose();
            }
        }
        Err(NftError::Unsettled)
    }

    fn content(&mut self, name: &str) -> Result<Lowered, NftError> {
        let mut content = Lowered::default();
        for message in self.list(Verb::GetChain, Attributes::default())? {
            content.chains.extend(message::read_chain(name, &message.body));
        }
        for message in self.list(Verb::GetRule, message::table_named(name))? {
            if let Some((chain, rule)) = message::read_rule(name, &message.body)
                && let Some(chain) = content.chains.get_mut(&chain)
            {
                chain.rules.push(rule);
            }
        }
        for message in self.list(Verb::GetSet, message::table_named(name))? {
            content.sets.extend(message::read_set(name, &message.body));
        }
        for (set, found) in &mut content.sets {
            for message in self.list(Verb::GetElements, message::set_named(name, set))? {
                found.edges.extend(message::read_elements(&message.body));
            }
            found.edges.sort_unstable();
        }
        Ok(content)
    }

    /// Changes with every transaction, whoever's.
    fn generation(&mut self) -> Result<u32, NftError> {
        let asked = [Request::one(Verb::GetGeneration, Attributes::default())];
        self.send(&asked)?;
        let mut generation = None;
        while let Some(message) = self.receive()? {
            if let Some(error) = failure(&message) {
                return Err(refused(error, asked.first()));
            }
            generation = generation.or_else(|| message::read_generation(&message.body));
        }
        generation.ok_or(NftError::Truncated)
    }

    fn list(&mut self, verb: Verb, attributes: Attributes) -> Result<Vec<Message>, NftError> {
        let asked = [Request::list(verb, attributes)];
        self.send(&asked)?;
        let mut listed = Vec::new();
        while let Some(message) = self.receive()? {
            if let Some(error) = failure(&message) {
                return Err(refused(error, asked.first()));
            }
            if message.kind == DONE {
                return Ok(listed);
            }
            listed.push(message);
        }
        Err(NftError::Truncated)
    }

    /// Sends `requests` in one piece; says the number of the first.
    fn send(&mut self, requests: &[Request]) -> Result<u32, NftError> {
        self.received.clear();
        let first = self.last_number.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.last_number = self.last_number.wrapping_add(1);
            bytes.extend(request.encode(self.last_number));
        }
        // The whole batch is one datagram, and must fit the buffer with the kernel's own overhead.
        SockRef::from(&self.socket).set_send_buffer_size(bytes.len() * 2 + (1 << 16)).map_err(NftError::Socket)?;
        self.socket.send(&bytes, 0).map_err(NftError::Socket)?;
        Ok(first)
    }

    /// The next message, or nothing when there is no more.
    fn receive(&mut self) -> Result<Option<Message>, NftError> {
        while self.received.is_empty() {
            match self.socket.recv_from_full() {
                Ok((bytes, _)) => self.received.extend(messages(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NftError::Socket(error)),
            }
        }
        Ok(self.received.pop_front())
    }
}

/// The messages of one datagram; ends at the first that is cut short.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let len = usize::try_from(u32::from_ne_bytes(*header.first_chunk()?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            number: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: bytes.get(HEADER..len)?.to_vec(),
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// What an NLMSG_ERROR says, unless it confirms.
fn failure(message: &Message) -> Option<io::Error> {
    if message.kind != ERROR {
        return None;
    }
    let code = message.body.first_chunk().map_or(-libc::EBADMSG, |code| i32::from_ne_bytes(*code));
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

/// Whose fault `error` is.
fn refused(error: io::Error, request: Option<&Request>) -> NftError {
    let attempted = request.map(|request| request.attempted.clone()).unwrap_or_default();
    let first_contact = request.is_none_or(Request::only_reaches_out);
    match error.raw_os_error() {
        Some(libc::EPERM) if first_contact => NftError::NotPermitted,
        Some(libc::EOPNOTSUPP | libc::EINVAL) if first_contact => NftError::NoNfTables(error),
        Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EAFNOSUPPORT) => {
            NftError::Unsupported { attempted, answer: error }
        }
        _ => NftError::Refused { attempted, answer: error },
    }
}
