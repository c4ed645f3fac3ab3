//! The frames of a tunnel: what `token=tunnel` puts inside TLS.
//!
//! ```text
//! a stream, client to server:  PROXY v2 header │ DATA │ DATA │ TOKEN │ DATA │ END
//! a stream, server to client:                    DATA │ DATA │ END
//!
//! a frame:  kind 1 │ length 3, big-endian │ content
//! ```
//!
//! Owns the bytes alone, and does no input or output: [`Decoder`] is fed whatever came and says what it means. Content
//! is never gathered, so a frame may be as long as its length field can say; only a token is, up to
//! [`LONGEST_TOKEN`]. What follows an END is the next stream's and is left where it is.
//!
//! The framing is written down in [`crate::manual::tunnel`].

pub mod fuzz;
#[cfg(test)]
mod tests;

use std::ops::Range;

/// The ALPN protocol of `token=tunnel`.
pub const ALPN: &str = "funicular/1";
/// Octets before a frame's content.
pub const HEADER_OCTETS: usize = 4;
/// The most octets that one DATA frame carries.
pub const LONGEST_DATA: usize = 0xFF_FFFF;
/// The most octets of a token in a TOKEN frame.
pub const LONGEST_TOKEN: usize = 8 * 1024;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const END: u8 = 1;
    pub(super) const TOKEN: u8 = 2;
}

/// The header of a DATA frame; `octets` of content follow it, at most [`LONGEST_DATA`].
///
/// # Panics
/// When `octets` is none or more than that: the one who cuts the data knows the bounds.
#[must_use]
pub fn data(octets: usize) -> [u8; HEADER_OCTETS] {
    assert!((1..=LONGEST_DATA).contains(&octets), "a DATA frame of {octets} octets");
    header(kind::DATA, octets)
}

/// The frame that ends its direction of a stream.
#[must_use]
pub fn end() -> [u8; HEADER_OCTETS] {
    header(kind::END, 0)
}

/// A token is too long to be renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the token has {octets} octets, at most {LONGEST_TOKEN} are read")]
pub struct TokenTooLong {
    /// Its length.
    pub octets: usize,
}

/// Writes the frame that renews the caller's token behind whatever `out` holds.
///
/// # Errors
/// [`TokenTooLong`]; `out` is as it was.
pub fn token(token: &[u8], out: &mut Vec<u8>) -> Result<(), TokenTooLong> {
    if token.len() > LONGEST_TOKEN {
        return Err(TokenTooLong { octets: token.len() });
    }
    out.extend_from_slice(&header(kind::TOKEN, token.len()));
    out.extend_from_slice(token);
    Ok(())
}

fn header(kind: u8, octets: usize) -> [u8; HEADER_OCTETS] {
    let [.., high, middle, low] = octets.to_be_bytes();
    [kind, high, middle, low]
}

/// What a piece of what came means.
#[derive(Debug, Eq, PartialEq)]
pub enum Event {
    /// Content, at these places of the octets that were given.
    Data(Range<usize>),
    /// The caller renews its token.
    Token(Renewed),
    /// This direction has ended.
    End,
}

/// A token from a TOKEN frame. Never printed.
#[derive(Eq, PartialEq)]
pub struct Renewed(pub Box<[u8]>);

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Renewed(… {} octets)", self.0.len())
    }
}

/// Why octets are no frames. Nothing after them can be told apart, so the tunnel ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// No such kind.
    #[error("{found:#04x} is no kind of frame")]
    Kind {
        /// The first octet.
        found: u8,
    },
    /// A DATA frame without content would be one to spin on, and END has no content.
    #[error("a frame of kind {kind:#04x} has {octets} octets of content")]
    Length {
        /// Its kind.
        kind: u8,
        /// Its length.
        octets: usize,
    },
    /// A token that is longer than any.
    #[error("a token of {octets} octets, at most {LONGEST_TOKEN} are read")]
    TokenTooLong {
        /// Its length.
        octets: usize,
    },
}

impl FrameError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kind { .. } => "frame-kind-unknown",
            Self::Length { .. } => "frame-length-wrong",
            Self::TokenTooLong { .. } => "token-too-long",
        }
    }
}

/// Takes one direction of one stream apart.
///
/// ```text
/// Header ──DATA──▶ Data ──all of it──▶ Header     Header ──TOKEN──▶ Token ──all of it──▶ Header
/// Header ──END──▶ Ended
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// So much of a frame's header has come.
    Header([u8; HEADER_OCTETS], usize),
    /// So much content is still to come.
    Data(usize),
    /// A token, and how much of it is still to come.
    Token(Vec<u8>, usize),
    Ended,
}

impl Default for State {
    fn default() -> Self {
        Self::Header([0; HEADER_OCTETS], 0)
    }
}

impl Decoder {
    /// Whether this direction has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// How much content of the present frame is still to come.
    #[must_use]
    pub fn expects_data(&self) -> usize {
        match self.state {
            State::Data(left) => left,
            State::Header(..) | State::Token(..) | State::Ended => 0,
        }
    }

    /// What the octets from `*at` on mean; moves `at` past what was understood. `None` when more must come, or when this
    /// direction has ended: then what is left is the next stream's.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn next(&mut self, octets: &[u8], at: &mut usize) -> Result<Option<Event>, FrameError> {
        loop {
            let rest = &octets[*at..];
            match &mut self.state {
                State::Ended => return Ok(None),
                _ if rest.is_empty() => return Ok(None),
                State::Header(header, come) => {
                    let taken = rest.len().min(HEADER_OCTETS - *come);
                    header[*come..*come + taken].copy_from_slice(&rest[..taken]);
                    *come += taken;
                    *at += taken;
                    if *come == HEADER_OCTETS {
                        self.state = after(*header)?;
                        if self.has_ended() {
                            return Ok(Some(Event::End));
                        }
                    }
                }
                State::Data(left) => {
                    let taken = rest.len().min(*left);
                    let content = *at..*at + taken;
                    *left -= taken;
                    *at += taken;
                    if *left == 0 {
                        self.state = State::default();
                    }
                    return Ok(Some(Event::Data(content)));
                }
                State::Token(token, left) => {
                    let taken = rest.len().min(*left);
                    token.extend_from_slice(&rest[..taken]);
                    *left -= taken;
                    *at += taken;
                    if *left == 0 {
                        let token = std::mem::take(token).into();
                        self.state = State::default();
                        return Ok(Some(Event::Token(Renewed(token))));
                    }
                }
            }
        }
    }
}

/// The state after a whole header.
fn after([kind, high, middle, low]: [u8; HEADER_OCTETS]) -> Result<State, FrameError> {
    let octets = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    match (kind, octets) {
        (kind::DATA, 1..) => Ok(State::Data(octets)),
        (kind::END, 0) => Ok(State::Ended),
        (kind::TOKEN, 1..=LONGEST_TOKEN) => Ok(State::Token(Vec::new(), octets)),
        (kind::TOKEN, 1..) => Err(FrameError::TokenTooLong { octets }),
        (kind::DATA | kind::END | kind::TOKEN, _) => Err(FrameError::Length { kind, octets }),
        (found, _) => Err(FrameError::Kind { found }),
    }
}
