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

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};

use super::cursor::{HEADER_OCTETS, Reader};
use super::{Class, Rcode, Type, WireError};
use crate::model::{Name, UnixSeconds};

/// How far apart the clocks of both sides may be, in seconds (RFC 8945 §10).
const FUDGE: u16 = 300;

/// The fewest octets of a secret that is no invitation to guess.
pub const LEAST_SECRET: usize = 16;

/// How many messages of a transfer may come without a signature in a row (RFC 8945 §5.3.1).
const MOST_UNSIGNED: usize = 99;

/// What computes the signature.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// `hmac-sha256`.
    Sha256,
    /// `hmac-sha384`.
    Sha384,
    /// `hmac-sha512`.
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Its name without the final dot (RFC 8945 §6).
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    /// Its name in wire form.
    fn wire(self) -> Vec<u8> {
        let text = self.text().as_bytes();
        [&[text.len() as u8], text, &[0]].concat()
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    /// Octets of a signature.
    const fn octets(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Algorithm {
    type Err = TsigError;

    fn from_str(text: &str) -> Result<Self, TsigError> {
        Self::ALL.into_iter().find(|one| one.text().eq_ignore_ascii_case(text)).ok_or(TsigError::Algorithm)
    }
}

/// A shared key.
pub struct Key {
    /// In lower case, as it is signed (RFC 8945 §4.3.3).
    name: Name,
    algorithm: Algorithm,
    hmac: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.algorithm)
    }
}

impl Key {
    /// The key `name`.
    ///
    /// # Errors
    /// [`TsigError::Secret`] when the secret is shorter than [`LEAST_SECRET`].
    pub fn new(name: &Name, algorithm: Algorithm, secret: &[u8]) -> Result<Self, TsigError> {
        if secret.len() < LEAST_SECRET {
            return Err(TsigError::Secret);
        }
        Ok(Self { name: name.to_lowercase(), algorithm, hmac: hmac::Key::new(algorithm.hmac(), secret) })
    }

    /// Its name, in lower case.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Octets that a signature with this key adds to a message, at most.
    #[must_use]
    pub fn octets(&self) -> usize {
        // Owner, type, class, TTL, length; algorithm, time, fudge, MAC, id, error, time of a BADTIME.
        self.name.wire().len() + 10 + self.algorithm.wire().len() + 16 + self.algorithm.octets() + 6
    }
}

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

/// What a TSIG record says (RFC 8945 §4.2).
#[derive(Clone, Debug, Eq, PartialEq)]
struct Tsig {
    key: Name,
    algorithm: Name,
    /// Seconds since 1970, 48 bits.
    time: u64,
    fudge: u16,
    mac: Vec<u8>,
    original_id: u16,
    code: Rcode,
    other: Vec<u8>,
}

impl Tsig {
    fn read(reader: &mut Reader<'_>) -> Result<Self, TsigError> {
        let key = reader.name()?;
        let (_, class, ttl, length) = (reader.u16()?, reader.u16()?, reader.u32()?, reader.u16()?);
        let mut data = reader.window(usize::from(length))?;
        let algorithm = data.uncompressed_name()?;
        let time = u64::from(data.u16()?) << 32 | u64::from(data.u32()?);
        let fudge = data.u16()?;
        let mac_octets = usize::from(data.u16()?);
        let mac = data.take(mac_octets)?.to_vec();
        let (original_id, code) = (data.u16()?, Rcode(data.u16()?));
        let other_octets = usize::from(data.u16()?);
        let other = data.take(other_octets)?.to_vec();
        if class != Class::ANY.0 || ttl != 0 || !data.is_empty() {
            return Err(TsigError::Form);
        }
        Ok(Self { key, algorithm, time, fudge, mac, original_id, code, other })
    }

    /// Adds the record to a message that has none.
    fn append(&self, message: &mut Vec<u8>) {
        let (time, mac_octets, other_octets) =
            (self.time.to_be_bytes(), self.mac.len() as u16, self.other.len() as u16);
        let rdata = [
            self.algorithm.wire(),
            &time[2..],
            &self.fudge.to_be_bytes(),
            &mac_octets.to_be_bytes(),
            &self.mac,
            &self.original_id.to_be_bytes(),
            &self.code.0.to_be_bytes(),
            &other_octets.to_be_bytes(),
            &self.other,
        ]
        .concat();
        message.extend_from_slice(self.key.wire());
        message.extend_from_slice(&Type::TSIG.0.to_be_bytes());
        message.extend_from_slice(&Class::ANY.0.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        message.extend_from_slice(&rdata);
        count_additional(message, u16::wrapping_add);
    }

    /// What is signed besides the message: all of it for a lone message, the times alone for a later one of several
    /// (RFC 8945 §4.3.3, §5.3.1).
    fn variables(&self, later: bool) -> Vec<u8> {
        let time = self.time.to_be_bytes();
        let timers = [&time[2..], &self.fudge.to_be_bytes()].concat();
        if later {
            return timers;
        }
        let (key, algorithm) = (self.key.to_lowercase(), self.algorithm.to_lowercase());
        let mut variables = key.wire().to_vec();
        variables.extend_from_slice(&Class::ANY.0.to_be_bytes());
        variables.extend_from_slice(&[0; 4]);
        variables.extend_from_slice(algorithm.wire());
        variables.extend_from_slice(&timers);
        variables.extend_from_slice(&self.code.0.to_be_bytes());
        variables.extend_from_slice(&(self.other.len() as u16).to_be_bytes());
        variables.extend_from_slice(&self.other);
        variables
    }

    fn check_time(&self, now: UnixSeconds) -> Result<(), TsigError> {
        let off = now.0.abs_diff(self.time);
        if off > u64::from(self.fudge) { Err(TsigError::Time { off, fudge: self.fudge }) } else { Ok(()) }
    }
}

/// Changes ARCOUNT by one.
fn count_additional(message: &mut [u8], change: fn(u16, u16) -> u16) {
    if let Some(count) = message.get_mut(10..HEADER_OCTETS) {
        let changed = change(u16::from_be_bytes([count[0], count[1]]), 1);
        count.copy_from_slice(&changed.to_be_bytes());
    }
}

/// A message taken apart: without its signature, as it was when it was signed; and the signature.
fn split(message: &[u8]) -> Result<(Vec<u8>, Option<Tsig>), TsigError> {
    let mut reader = Reader::new(message);
    reader.take(4)?;
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    let (authorities, additionals) = (reader.u16()?, reader.u16()?);
    for _ in 0..questions {
        reader.name()?;
        reader.take(4)?;
    }
    let before = u32::from(answers) + u32::from(authorities);
    let total = before + u32::from(additionals);
    for index in 0..total {
        let start = reader.clone();
        reader.name()?;
        let rtype = Type(reader.u16()?);
        reader.take(6)?;
        let length = usize::from(reader.u16()?);
        reader.take(length)?;
        if rtype != Type::TSIG {
            continue;
        }
        // RFC 8945 §5.2: the last record of the additional section, and the only one of its kind.
        if index + 1 < total || index < before || !reader.is_empty() {
            return Err(TsigError::Form);
        }
        let at = start.at();
        let tsig = Tsig::read(&mut start.clone())?;
        let mut unsigned = message[..at].to_vec();
        unsigned[..2].copy_from_slice(&tsig.original_id.to_be_bytes());
        count_additional(&mut unsigned, u16::wrapping_sub);
        return Ok((unsigned, Some(tsig)));
    }
    Ok((message.to_vec(), None))
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
            algorithm: algorithm_name(self.key.algorithm),
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
        self.key.name == tsig.key && algorithm_name(self.key.algorithm) == tsig.algorithm
    }
}

#[allow(clippy::expect_used, reason = "the names are constants, and a test reads them all")]
fn algorithm_name(algorithm: Algorithm) -> Name {
    Name::from_wire(&algorithm.wire()).expect("an algorithm's name is a domain name")
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

#[cfg(test)]
#[path = "tsig_tests.rs"]
mod tests;
