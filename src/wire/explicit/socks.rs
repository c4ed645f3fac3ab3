//! SOCKS version 5, without authentication.
//!
//! ```text
//! client  05 │ count │ methods …           greeting
//! server  05 │ 00                          no authentication
//! client  05 │ 01 │ 00 │ kind │ host │ port 2   CONNECT; kind 1 IPv4, 3 name, 4 IPv6
//! server  05 │ code │ 00 │ 01 │ 0 0 0 0 │ 0 0
//! ```
//!
//! Source: RFC 1928 §3 to §6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Target;

/// The first octet of everything that either side says.
pub const VERSION: u8 = 5;
/// The server's word that nobody need authenticate.
pub const NO_AUTHENTICATION: [u8; 2] = [VERSION, METHOD_NONE];
/// The server's word that it takes none of the methods offered; the client closes.
pub const NO_METHOD: [u8; 2] = [VERSION, 0xFF];

const METHOD_NONE: u8 = 0;
const COMMAND_CONNECT: u8 = 1;
const KIND_IPV4: u8 = 1;
const KIND_NAME: u8 = 3;
const KIND_IPV6: u8 = 4;

/// What a request's answer says (RFC 1928 §6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// The connection is there.
    Succeeded,
    /// Something else.
    Failed,
    /// The proxy does not want to.
    NotAllowed,
    /// Nobody answers.
    HostUnreachable,
    /// Somebody answers with a refusal.
    Refused,
    /// Neither BIND nor UDP ASSOCIATE.
    CommandUnsupported,
    /// Neither IPv4, IPv6 nor a name.
    KindUnsupported,
}

impl Code {
    const fn octet(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::NotAllowed => 2,
            Self::HostUnreachable => 4,
            Self::Refused => 5,
            Self::CommandUnsupported => 7,
            Self::KindUnsupported => 8,
        }
    }
}

/// Why octets are no SOCKS5 that is served. One cause, one variant.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SocksError {
    /// Another version, SOCKS4 perhaps.
    #[error("{found:#04x} is not version 5 of SOCKS")]
    Version {
        /// The first octet.
        found: u8,
    },
    /// The client insists on authentication.
    #[error("the client does not offer to go without authentication")]
    Method,
    /// BIND or UDP ASSOCIATE.
    #[error("command {found:#04x}: CONNECT alone is served")]
    Command {
        /// The second octet.
        found: u8,
    },
    /// An unknown kind of address.
    #[error("an address of kind {found:#04x}")]
    Kind {
        /// The fourth octet.
        found: u8,
    },
    /// A name that is none.
    #[error("the host is neither an address nor a name")]
    Host,
}

impl SocksError {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Version { .. } => "socks-version",
            Self::Method => "socks-authentication",
            Self::Command { .. } => "socks-command",
            Self::Kind { .. } | Self::Host => "socks-address",
        }
    }

    /// What the client is told; `None` before it has asked for anything that could be answered with a code.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Version { .. } | Self::Method => None,
            Self::Command { .. } => Some(Code::CommandUnsupported),
            Self::Kind { .. } => Some(Code::KindUnsupported),
            Self::Host => Some(Code::Failed),
        }
    }
}

/// Reads a greeting that allows to go without authentication; says how many octets it has, `None` while it is not whole.
///
/// # Errors
/// [`SocksError::Version`], [`SocksError::Method`].
pub fn greeting(octets: &[u8]) -> Result<Option<usize>, SocksError> {
    version(octets)?;
    let Some(&count) = octets.get(1) else { return Ok(None) };
    let length = 2 + usize::from(count);
    match octets.get(2..length) {
        None => Ok(None),
        Some(methods) if methods.contains(&METHOD_NONE) => Ok(Some(length)),
        Some(_) => Err(SocksError::Method),
    }
}

/// Reads a request; says where it leads and how many octets it has, `None` while it is not whole.
///
/// # Errors
/// [`SocksError`].
pub fn request(octets: &[u8]) -> Result<Option<(Target, usize)>, SocksError> {
    version(octets)?;
    match octets.get(1) {
        None | Some(&COMMAND_CONNECT) => {}
        Some(&found) => return Err(SocksError::Command { found }),
    }
    // The third octet is reserved: what stands there says nothing.
    let host = match octets.get(3) {
        None => return Ok(None),
        Some(&KIND_IPV4) => 4..8,
        Some(&KIND_IPV6) => 4..20,
        Some(&KIND_NAME) => match octets.get(4) {
            None => return Ok(None),
            Some(&length) => 5..5 + usize::from(length),
        },
        Some(&found) => return Err(SocksError::Kind { found }),
    };
    let length = host.end + 2;
    let (Some(text), Some(&[high, low])) =
        (octets.get(host.clone()), octets.get(host.end..length).and_then(|port| port.first_chunk::<2>()))
    else {
        return Ok(None);
    };
    let port = u16::from_be_bytes([high, low]);
    Ok(Some((target(text, host.start == 5, port)?, length)))
}

fn target(host: &[u8], is_name: bool, port: u16) -> Result<Target, SocksError> {
    let to = |address: IpAddr| Target::Address(SocketAddr::new(address.to_canonical(), port));
    if is_name {
        let text = std::str::from_utf8(host).map_err(|_| SocksError::Host)?;
        return Target::new(text, port).ok_or(SocksError::Host);
    }
    if let Ok(four) = <[u8; 4]>::try_from(host) {
        return Ok(to(Ipv4Addr::from(four).into()));
    }
    <[u8; 16]>::try_from(host).map(|six| to(Ipv6Addr::from(six).into())).map_err(|_| SocksError::Host)
}

fn version(octets: &[u8]) -> Result<(), SocksError> {
    match octets.first() {
        None | Some(&VERSION) => Ok(()),
        Some(&found) => Err(SocksError::Version { found }),
    }
}

/// The answer to a request. The address in it is left empty, as programs expect of a proxy that connects for them.
#[must_use]
pub fn reply(code: Code) -> [u8; 10] {
    [VERSION, code.octet(), 0, KIND_IPV4, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_taken_whole_and_only_without_authentication() {
        assert_eq!(greeting(b""), Ok(None));
        assert_eq!(greeting(b"\x05\x02\x02"), Ok(None));
        assert_eq!(greeting(b"\x05\x02\x02\x00more"), Ok(Some(4)));
        assert_eq!(greeting(b"\x05\x01\x02"), Err(SocksError::Method));
        assert_eq!(greeting(b"\x05\x00"), Err(SocksError::Method));
        assert_eq!(greeting(b"\x04\x01"), Err(SocksError::Version { found: 4 }));
    }

    #[test]
    fn a_request_is_read_for_each_kind_of_address_and_not_before_it_is_whole() {
        let address = |text: &str| Target::Address(text.parse().unwrap());
        let six = [b"\x05\x01\x00\x04".as_slice(), &[0x20, 1, 0x0d, 0xb8], &[0; 11], &[1], b"\x01\xbb"].concat();
        let cases = [
            (b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50".to_vec(), address("192.0.2.1:80")),
            (six, address("[2001:db8::1]:443")),
            (b"\x05\x01\x00\x03\x06a.peak\x1f\x90".to_vec(), Target::Name("a.peak".parse().unwrap(), 8080)),
            (b"\x05\x01\x00\x03\x09192.0.2.1\x00\x50".to_vec(), address("192.0.2.1:80")),
        ];
        for (octets, expected) in cases {
            for cut in 0..octets.len() {
                assert_eq!(request(&octets[..cut]), Ok(None), "{cut} of {octets:?}");
            }
            assert_eq!(request(&[&octets[..], b"more"].concat()), Ok(Some((expected, octets.len()))));
        }
    }

    #[test]
    fn what_is_not_served_is_refused_with_its_code() {
        let code = |octets: &[u8]| request(octets).unwrap_err().code();
        assert_eq!(code(b"\x05\x02"), Some(Code::CommandUnsupported));
        assert_eq!(code(b"\x05\x01\x00\x02"), Some(Code::KindUnsupported));
        assert_eq!(code(b"\x05\x01\x00\x03\x01\xff\x00\x50"), Some(Code::Failed));
        assert_eq!(code(b"\x05\x01\x00\x03\x00\x00\x50"), Some(Code::Failed));
        assert_eq!(code(b"\x04\x01"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_octets_are_read_past_their_end(octets: Vec<u8>) {
            let within = |taken: Option<usize>| taken.is_none_or(|taken| taken <= octets.len());
            proptest::prop_assert!(within(greeting(&octets).unwrap_or(None)));
            proptest::prop_assert!(within(request(&octets).unwrap_or(None).map(|(_, taken)| taken)));
        }
    }
}
