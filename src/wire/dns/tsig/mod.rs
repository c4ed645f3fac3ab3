//! Signatures of messages with shared keys: TSIG (RFC 8945).
//!
//! Owns the record's form, what is signed, and what a signature that does not hold is answered with. Keys come from the
//! configuration, the time as an argument.
//!
//! ```text
//!  asker                                          server
//!  Asking::sign ── request, MAC ────────────────► Keys::receive ─► Session
//!  Asking::verify ◄─ reply, MAC over request's ── Session::sign
//!  Asking::verify ◄─ more, MAC over the last ──── Session::sign      (transfers, RFC 8945 §5.3.1)
//! ```

mod key;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};

pub use key::{Algorithm, Key, LEAST_SECRET};
use record::{Tsig, split};

use super::{Rcode, WireError};
use crate::model::{Name, UnixSeconds};

/// How far apart the clocks of both sides may be, in seconds (RFC 8945 §10).
const FUDGE: u16 = 300;

/// How many messages of a transfer may come without a signature in a row (RFC 8945 §5.3.1).
const MOST_UNSIGNED: usize = 99;

/// Why a message's signature is none, or does not hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TsigError {
    /// Octets that are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A TSIG that is not the last record, one of several, or not of the form of RFC 8945 §4.2.
    #[error("the signature record is not the only one, at the end, and of the form of RFC 8945")]
    Form,
    /// No such key here.
    #[error("the key is not known: compare name and algorithm on both sides")]
    Key,
    /// The octets are not those that were signed, or were signed with another secret.
    #[error("the signature does not hold: compare the secret on both sides")]
    Signature,
    /// Signed too long ago, or in the future.
    #[error("the signature's time is off by {off} s, and {fudge} s are allowed: compare the clocks")]
    Time {
        /// Seconds between the two clocks.
        off: u64,
        /// Seconds allowed.
        fudge: u16,
    },
    /// A signature shorter than the algorithm's, which is not accepted here.
    #[error("the signature is cut short")]
    Truncated,
    /// A reply without a signature to a signed request, or too many messages of a transfer without.
    #[error("a signature is missing")]
    Missing,
    /// The other side found fault with our signature.
    #[error("the other side refuses our signature: {}", peer_error(*.0))]
    Peer(Rcode),
    /// A secret of less than 16 octets.
    #[error("the secret has fewer than {LEAST_SECRET} octets")]
    Secret,
    /// No such algorithm here.
    #[error("the algorithms are hmac-sha256, hmac-sha384 and hmac-sha512")]
    Algorithm,
}

/// The same number means BADVERS elsewhere (RFC 8945 §3).
fn peer_error(code: Rcode) -> String {
    if code == BADSIG { "BADSIG".to_owned() } else { code.to_string() }
}

const BADSIG: Rcode = Rcode::BADVERS;

impl TsigError {
    /// A stable label for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Wire(error) => error.reason(),
            Self::Form => "tsig-form",
            Self::Key => "tsig-key",
            Self::Signature => "tsig-signature",
            Self::Time { .. } => "tsig-time",
            Self::Truncated => "tsig-truncated",
            Self::Missing => "tsig-missing",
            Self::Peer(_) => "tsig-peer",
            Self::Secret => "tsig-secret",
            Self::Algorithm => "tsig-algorithm",
        }
    }
}

/// One side of a signed exchange: the key, and the signature that the next one builds on.
#[derive(Clone)]
struct Chain {
    key: Arc<Key>,
    /// The last signature; for the first reply the request's.
    prior: Vec<u8>,
    /// Whether a reply was signed or checked already.
    later: bool,
}

impl Chain {
    fn mac(&self, messages: &[&[u8]], tsig: &Tsig) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key.hmac);
        if !self.prior.is_empty() {
            context.update(&(self.prior.len() as u16).to_be_bytes());
            context.update(&self.prior);
        }
        messages.iter().for_each(|message| context.update(message));
        context.update(&tsig.variables(self.later));
        context.sign()
    }

    fn sign(&mut self, message: &mut Vec<u8>, now: UnixSeconds, code: Rcode, other: Vec<u8>) {
        let mut tsig = Tsig {
            key: self.key.name.clone(),
            algorithm: self.key.algorithm.name(),
            time: now.0,
            fudge: FUDGE,
            mac: Vec::new(),
            original_id: message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id)),
            code,
            other,
        };
        tsig.mac = self.mac(&[message], &tsig).as_ref().to_vec();
        self.prior.clone_from(&tsig.mac);
        self.later = true;
        tsig.append(message);
    }

    /// Checks a signature over `messages` (RFC 8945 §5.2): signature, then time, then length.
    fn check(&self, messages: &[&[u8]], tsig: &Tsig, now: UnixSeconds) -> Result<(), TsigError> {
        let whole = self.key.algorithm.octets();
        // RFC 8945 §5.2.2.1.
        if tsig.mac.len() > whole || tsig.mac.len() < (whole / 2).max(10) {
            return Err(TsigError::Form);
        }
        let expected = self.mac(messages, tsig);
        constant_time::verify_slices_are_equal(&expected.as_ref()[..tsig.mac.len()], &tsig.mac)
            .map_err(|_| TsigError::Signature)?;
        tsig.check_time(now)?;
        if tsig.mac.len() < whole { Err(TsigError::Truncated) } else { Ok(()) }
    }

    fn fits(&self, tsig: &Tsig) -> bool {
        self.key.name == tsig.key && self.key.algorithm.name() == tsig.algorithm
    }
}

/// The keys a server knows.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Arc<Key>>);

impl FromIterator<Arc<Key>> for Keys {
    fn from_iter<I: IntoIterator<Item = Arc<Key>>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// A request whose signature was looked at.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request without its signature.
    pub message: Vec<u8>,
    /// What signs the replies; none for a request without a signature.
    pub session: Option<Session>,
}

/// What signs the replies to a signed request.
#[derive(Clone)]
pub struct Session(Chain);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.0.key)
    }
}

impl Session {
    /// Who signed the request.
    #[must_use]
    pub fn key(&self) -> &Arc<Key> {
        &self.0.key
    }

    /// Signs the next reply.
    pub fn sign(&mut self, reply: &mut Vec<u8>, now: UnixSeconds) {
        self.0.sign(reply, now, Rcode::NOERROR, Vec::new());
    }
}

/// A request whose signature does not hold, and what its refusal must carry.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub cause: TsigError,
    /// The request without its signature, where there is one to answer.
    pub message: Vec<u8>,
    tsig: Option<Tsig>,
    chain: Option<Session>,
}

impl Refused {
    /// The response code (RFC 8945 §5.2).
    #[must_use]
    pub const fn rcode(&self) -> Rcode {
        if self.tsig.is_some() { Rcode::NOTAUTH } else { Rcode::FORMERR }
    }

    /// Puts the record that says why onto the refusal, signed where the request's signature held (RFC 8945 §5.3.2).
    pub fn sign(&mut self, reply: &mut Vec<u8>, now: UnixSeconds) {
        let Some(tsig) = &self.tsig else { return };
        let (code, other) = match self.cause {
            TsigError::Key => (Rcode::BADKEY, Vec::new()),
            TsigError::Time { .. } => (Rcode::BADTIME, now.0.to_be_bytes()[2..].to_vec()),
            TsigError::Truncated => (Rcode::BADTRUNC, Vec::new()),
            TsigError::Wire(_)
            | TsigError::Form
            | TsigError::Signature
            | TsigError::Missing
            | TsigError::Peer(_)
            | TsigError::Secret
            | TsigError::Algorithm => (BADSIG, Vec::new()),
        };
        match &mut self.chain {
            // RFC 8945 §5.2.3: the asker's own time, so that it can check the signature.
            Some(session) => session.0.sign(reply, UnixSeconds(tsig.time), code, other),
            None => Tsig { mac: Vec::new(), code, other, ..tsig.clone() }.append(reply),
        }
    }
}

impl Keys {
    /// The key with this name.
    #[must_use]
    pub fn find(&self, name: &Name) -> Option<&Arc<Key>> {
        self.0.iter().find(|key| key.name == *name)
    }

    /// Looks at a request's signature.
    ///
    /// # Errors
    /// A signature that does not hold, with what is needed to say so.
    pub fn receive(&self, message: &[u8], now: UnixSeconds) -> Result<Received, Box<Refused>> {
        let refused = |cause, message, tsig, chain| Box::new(Refused { cause, message, tsig, chain });
        let (message, tsig) = split(message).map_err(|cause| refused(cause, message.to_vec(), None, None))?;
        let Some(tsig) = tsig else { return Ok(Received { message, session: None }) };
        let Some(key) = self.find(&tsig.key) else { return Err(refused(TsigError::Key, message, Some(tsig), None)) };
        let mut chain = Chain { key: Arc::clone(key), prior: Vec::new(), later: false };
        if !chain.fits(&tsig) {
            return Err(refused(TsigError::Key, message, Some(tsig), None));
        }
        let outcome = chain.check(&[&message], &tsig, now);
        chain.prior.clone_from(&tsig.mac);
        match outcome {
            Ok(()) => Ok(Received { message, session: Some(Session(chain)) }),
            Err(cause @ (TsigError::Time { .. } | TsigError::Truncated)) => {
                Err(refused(cause, message, Some(tsig), Some(Session(chain))))
            }
            Err(TsigError::Form) => Err(refused(TsigError::Form, message, None, None)),
            Err(cause) => Err(refused(cause, message, Some(tsig), None)),
        }
    }
}

/// A signed request on its way, and the replies to it.
pub struct Asking {
    chain: Chain,
    /// Messages since the last signature.
    pending: Vec<Vec<u8>>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asking({:?})", self.chain.key)
    }
}

impl Asking {
    /// Signs a request.
    #[must_use]
    pub fn sign(key: &Arc<Key>, request: &mut Vec<u8>, now: UnixSeconds) -> Self {
        let mut chain = Chain { key: Arc::clone(key), prior: Vec::new(), later: false };
        chain.sign(request, now, Rcode::NOERROR, Vec::new());
        chain.later = false;
        Self { chain, pending: Vec::new() }
    }

    /// Checks the next reply and gives it without its signature. Of a transfer, messages after the first may come
    /// without one; [`Asking::finish`] tells whether the last had it.
    ///
    /// # Errors
    /// When the signature is missing where it must be, or does not hold.
    pub fn verify(&mut self, reply: &[u8], now: UnixSeconds) -> Result<Vec<u8>, TsigError> {
        let (message, tsig) = split(reply)?;
        let Some(tsig) = tsig else {
            if !self.chain.later || self.pending.len() >= MOST_UNSIGNED {
                return Err(TsigError::Missing);
            }
            self.pending.push(message.clone());
            return Ok(message);
        };
        if tsig.code != Rcode::NOERROR && tsig.mac.is_empty() {
            return Err(TsigError::Peer(tsig.code));
        }
        if !self.chain.fits(&tsig) {
            return Err(TsigError::Key);
        }
        let messages: Vec<&[u8]> = self.pending.iter().map(Vec::as_slice).chain([&message[..]]).collect();
        self.chain.check(&messages, &tsig, now)?;
        if tsig.code != Rcode::NOERROR {
            return Err(TsigError::Peer(tsig.code));
        }
        self.pending.clear();
        self.chain.prior = tsig.mac;
        self.chain.later = true;
        Ok(message)
    }

    /// Ends a transfer.
    ///
    /// # Errors
    /// [`TsigError::Missing`] when the last message had no signature (RFC 8945 §5.3.1).
    pub fn finish(&self) -> Result<(), TsigError> {
        if self.pending.is_empty() { Ok(()) } else { Err(TsigError::Missing) }
    }
}
