//! Server cookies (RFC 7873) in the one form that servers of different makers agree on (RFC 9018 §4), so that
//! several of them may stand behind one address with one secret.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use super::query::QueryCookie;
use crate::model::UnixSeconds;

/// Octets of a client's cookie and a server's together.
pub const COOKIE: usize = 24;

const VERSION: u8 = 1;
/// RFC 9018 §4.3: an older cookie is good for nothing.
const OLDEST: u32 = 3600;
/// RFC 9018 §4.3: one from further ahead was not made by any of us.
const NEWEST: u32 = 300;
/// RFC 9018 §4.3: an older one is renewed.
const RENEWED: u32 = 1800;

/// What server cookies are made with.
#[derive(Clone)]
pub struct CookieSecret([u8; 16]);

impl CookieSecret {
    /// A secret of these octets, drawn by this process or shared by all that answer at one address.
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The cookie for an asker at `peer` now.
    #[must_use]
    pub fn make(&self, client: [u8; 8], peer: IpAddr, now: UnixSeconds) -> [u8; 16] {
        let mut cookie = [0; 16];
        cookie[0] = VERSION;
        // RFC 9018 §4.3: serial arithmetic, so that the year 2106 is no event.
        cookie[4..8].copy_from_slice(&(now.0 as u32).to_be_bytes());
        self.seal(&mut cookie, client, peer);
        cookie
    }

    /// Writes the hash over version, reserved octets and time as they stand.
    fn seal(&self, cookie: &mut [u8; 16], client: [u8; 8], peer: IpAddr) {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&client);
        hasher.write(&cookie[..8]);
        match peer.to_canonical() {
            IpAddr::V4(addr) => hasher.write(&addr.octets()),
            IpAddr::V6(addr) => hasher.write(&addr.octets()),
        }
        // The hash's octets stand in the order in which its authors write them (RFC 9018 §4.4, appendix A).
        cookie[8..].copy_from_slice(&hasher.finish().to_le_bytes());
    }

    /// The server cookie to answer with, and whether the asker has shown one that this secret made for it: then it
    /// is at the address it claims.
    #[must_use]
    pub fn answer(&self, cookie: &QueryCookie, peer: IpAddr, now: UnixSeconds) -> ([u8; 16], bool) {
        let Some(shown) = cookie.server else { return (self.make(cookie.client, peer, now), false) };
        let time = u32::from_be_bytes([shown[4], shown[5], shown[6], shown[7]]);
        let age = (now.0 as u32).wrapping_sub(time);
        let in_time = age <= OLDEST || age >= NEWEST.wrapping_neg();
        let mut sealed = shown;
        self.seal(&mut sealed, cookie.client, peer);
        let genuine = shown[0] == VERSION && in_time && same(&shown, &sealed);
        let fresh = age < RENEWED || age >= NEWEST.wrapping_neg();
        if genuine && fresh { (shown, true) } else { (self.make(cookie.client, peer, now), genuine) }
    }
}

/// The secrets that count at a time. One makes cookies; those made with the others, before a change or at a server that is
/// ahead of it, are good as well until they are renewed (RFC 9018 §5).
#[derive(Clone, Debug)]
pub struct CookieSecrets {
    makes: CookieSecret,
    accepted: Vec<CookieSecret>,
}

impl CookieSecrets {
    /// The secret that makes cookies, and the others that count.
    #[must_use]
    pub fn new(makes: CookieSecret, accepted: impl IntoIterator<Item = CookieSecret>) -> Self {
        Self { makes, accepted: accepted.into_iter().collect() }
    }

    /// The same after a change: `makes` takes the place of the one that made cookies, which is accepted on.
    #[must_use]
    pub fn followed_by(&self, makes: CookieSecret) -> Self {
        Self { makes, accepted: vec![self.makes.clone()] }
    }

    /// The server cookie to answer with, and whether the asker has shown one that any of the secrets made for it.
    #[must_use]
    pub fn answer(&self, cookie: &QueryCookie, peer: IpAddr, now: UnixSeconds) -> ([u8; 16], bool) {
        let (server, genuine) = self.makes.answer(cookie, peer, now);
        let by_another = || self.accepted.iter().any(|secret| secret.answer(cookie, peer, now).1);
        (server, genuine || by_another())
    }
}

/// Why a text holds no secrets.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CookieError {
    /// There is nothing in it.
    #[error("there is no secret: expected one a line, of 32 hexadecimal digits")]
    Empty,
    /// The line is not told: it may be a secret with a mistake in it.
    #[error("line {0} is no secret: expected 32 hexadecimal digits and nothing else")]
    Line(usize),
}

impl std::str::FromStr for CookieSecrets {
    type Err = CookieError;

    /// One secret a line, in hexadecimal, as other servers write them: the first makes cookies, the others are accepted.
    fn from_str(text: &str) -> Result<Self, CookieError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let secrets =
            lines.map(|(at, line)| octets(line.trim()).map(CookieSecret::new).ok_or(CookieError::Line(at + 1)));
        let mut secrets = secrets.collect::<Result<Vec<_>, _>>()?.into_iter();
        let makes = secrets.next().ok_or(CookieError::Empty)?;
        Ok(Self::new(makes, secrets))
    }
}

fn octets(hex: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(hex, 16).ok();
    number.filter(|_| hex.len() == 32 && !hex.starts_with('+')).map(u128::to_be_bytes)
}

/// Equality in a time that tells nothing of where the difference is.
fn same(one: &[u8; 16], other: &[u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

impl fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(hex: &str) -> [u8; N] {
        let digits: Vec<u8> = hex.bytes().map(|digit| char::from(digit).to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect::<Vec<_>>().try_into().unwrap()
    }

    fn secret() -> CookieSecret {
        CookieSecret::new(octets("e5e973e5a6b2a43f48e7dc849e37bfcf"))
    }

    #[test]
    fn a_secret_that_was_followed_by_another_is_accepted_until_the_next_change() {
        let (client, peer, now) = ([7; 8], PEER.parse().unwrap(), UnixSeconds(5_000));
        let secrets = |number: u8| CookieSecret::new([number; 16]);
        let first = CookieSecrets::new(secrets(1), []);
        let second = first.followed_by(secrets(2));
        let third = second.followed_by(secrets(3));
        let shown =
            QueryCookie { client, server: Some(first.answer(&QueryCookie { client, server: None }, peer, now).0) };
        assert_eq!(first.answer(&shown, peer, now), (shown.server.unwrap(), true));
        assert_eq!(second.answer(&shown, peer, now), (secrets(2).make(client, peer, now), true));
        assert_eq!(third.answer(&shown, peer, now), (secrets(3).make(client, peer, now), false));
    }

    #[test]
    fn a_text_has_a_secret_a_line_of_which_the_first_makes_cookies() {
        let (new, old) = ("e5e973e5a6b2a43f48e7dc849e37bfcf", "445536BCD2513298075A5D379663C962");
        let (client, peer, now) = ([7; 8], PEER.parse().unwrap(), UnixSeconds(5_000));
        let both: CookieSecrets = format!("\n{new}\n {old}\r\n").parse().unwrap();
        let by =
            |hex: &str| QueryCookie { client, server: Some(CookieSecret::new(octets(hex)).make(client, peer, now)) };
        assert_eq!(both.answer(&by(new), peer, now), (by(new).server.unwrap(), true));
        assert_eq!(both.answer(&by(&old.to_lowercase()), peer, now), (by(new).server.unwrap(), true));
        for (wrong, line) in [(&new[1..], 1), ("+5e973e5a6b2a43f48e7dc849e37bfcf", 1), (&format!("{new}\nkey")[..], 2)]
        {
            assert_eq!(wrong.parse::<CookieSecrets>().unwrap_err(), CookieError::Line(line), "{wrong}");
        }
        assert_eq!("\n".parse::<CookieSecrets>().unwrap_err(), CookieError::Empty);
    }

    const PEER: &str = "198.51.100.100";

    #[test]
    fn the_cookies_of_rfc_9018_appendix_a_come_out() {
        // A.1 to A.4: what the server answers.
        for (secret, client, peer, time, cookie) in [
            (secret(), "2464c4abcf10c957", PEER, 1_559_731_985, "010000005cf79f111f8130c3eee29480"),
            (secret(), "2464c4abcf10c957", PEER, 1_559_734_385, "010000005cf7a871d4a564a1442aca77"),
            (secret(), "fc93fc62807ddb86", "203.0.113.203", 1_559_734_700, "010000005cf7a9acf73a7810aca2381e"),
            (
                CookieSecret::new(octets("445536bcd2513298075a5d379663c962")),
                "22681ab97d52c298",
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                1_559_741_961,
                "010000005cf7c609a6bb79d16625507a",
            ),
        ] {
            let made = secret.make(octets(client), peer.parse().unwrap(), UnixSeconds(time));
            assert_eq!(made, octets(cookie), "{client}");
        }
    }

    #[test]
    fn the_reserved_octets_may_be_anything_and_are_sealed() {
        // RFC 9018 A.3: another maker's.
        let (client, peer) = (octets("fc93fc62807ddb86"), "203.0.113.203".parse().unwrap());
        let genuine = |shown| {
            let cookie = QueryCookie { client, server: Some(octets(shown)) };
            secret().answer(&cookie, peer, UnixSeconds(1_559_727_985)).1
        };
        assert!(genuine("01abcdef5cf78f71a314227b6679ebf5"));
        assert!(!genuine("010000005cf78f71a314227b6679ebf5"));
    }

    fn judged(age: i64) -> (bool, bool) {
        let (client, peer) = ([7; 8], PEER.parse().unwrap());
        let shown = secret().make(client, peer, UnixSeconds(1_000_000));
        let now = UnixSeconds((1_000_000 + age) as u64);
        let (answered, genuine) = secret().answer(&QueryCookie { client, server: Some(shown) }, peer, now);
        (genuine, answered == shown)
    }

    #[test]
    fn a_cookie_is_good_for_an_hour_and_renewed_after_half_of_one() {
        assert_eq!(
            [judged(0), judged(1799), judged(1800), judged(3600)],
            [(true, true), (true, true), (true, false), (true, false)]
        );
        assert_eq!(judged(3601), (false, false));
    }

    #[test]
    fn a_cookie_from_five_minutes_ahead_is_good_and_from_further_is_not() {
        assert!(judged(-300).0);
        assert!(!judged(-301).0);
    }

    #[test]
    fn a_cookie_serves_one_client_at_one_address_only() {
        let (peer, now) = (PEER.parse().unwrap(), UnixSeconds(5_000));
        let server = Some(secret().make([7; 8], peer, now));
        let genuine =
            |client, peer: &str| secret().answer(&QueryCookie { client, server }, peer.parse().unwrap(), now).1;
        assert!(genuine([7; 8], PEER));
        assert!(genuine([7; 8], "::ffff:198.51.100.100"));
        assert!(!genuine([8; 8], PEER));
        assert!(!genuine([7; 8], "198.51.100.101"));
    }
}
