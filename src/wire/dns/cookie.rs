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
