//! Reverse names: from `….in-addr.arpa` and `….ip6.arpa` back to the address (RFC 1035 §3.5, RFC 3596 §2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Name;

/// The whole address that a reverse name stands for; none for any other name, and for those of prefixes.
pub(super) fn address(name: &Name) -> Option<IpAddr> {
    let name = name.to_lowercase();
    let labels: Vec<&[u8]> = name.labels().collect();
    match labels.as_slice() {
        [octets @ .., b"in-addr", b"arpa"] if octets.len() == 4 => ipv4(octets),
        [digits @ .., b"ip6", b"arpa"] if digits.len() == 32 => ipv6(digits),
        _ => None,
    }
}

fn ipv4(labels: &[&[u8]]) -> Option<IpAddr> {
    let mut octets = [0; 4];
    for (octet, label) in octets.iter_mut().rev().zip(labels) {
        let text = std::str::from_utf8(label).ok()?;
        *octet = text.parse().ok()?;
        // One spelling each: neither `+1` nor `01` is what a resolver asks.
        if octet.to_string() != text {
            return None;
        }
    }
    Some(Ipv4Addr::from(octets).into())
}

fn ipv6(labels: &[&[u8]]) -> Option<IpAddr> {
    let mut bits = 0_u128;
    for label in labels.iter().rev() {
        let [digit] = label else { return None };
        bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<String> {
        address(&name.parse().unwrap()).map(|addr| addr.to_string())
    }

    #[test]
    fn a_reverse_name_leads_to_its_address_in_any_case() {
        assert_eq!(of("7.2.1.240.in-addr.arpa").as_deref(), Some("240.1.2.7"));
        let ipv6 = "F.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.c.1.e.4.5.5.6.4.d.f.IP6.arpa";
        assert_eq!(of(ipv6).as_deref(), Some("fd46:554e:1c00::f"));
    }

    #[test]
    fn any_other_name_leads_to_none() {
        for name in [
            "in-addr.arpa",
            "1.240.in-addr.arpa",
            "1.2.3.256.in-addr.arpa",
            "01.2.3.4.in-addr.arpa",
            "+1.2.3.4.in-addr.arpa",
            "x.2.3.4.in-addr.arpa",
            "5.1.2.3.4.in-addr.arpa",
            "f.0.ip6.arpa",
            "00.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.c.1.e.4.5.5.6.4.d.f.ip6.arpa",
            "orders.shop.peak",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
