//! Headers whole, cut, damaged and hostile.

use proptest::prelude::*;

use super::*;

fn header(token: &[u8]) -> ProxyHeader<'_> {
    ProxyHeader {
        source: "[2001:db8:1::10]:40000".parse().unwrap(),
        destination: "[2001:db8:5:1::7]:80".parse().unwrap(),
        authority: Some("orders.shop.peak".parse().unwrap()),
        token: Some(TokenOctets(token)),
        token_reference: None,
        generation: Some(7),
    }
}

fn encoded(header: &ProxyHeader<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode(&mut out).unwrap();
    out
}

/// A header of the two addresses and these TLVs.
fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    let mut octets = SIGNATURE.to_vec();
    octets.extend([VERSION_2_PROXY, TCP_OVER_IPV6]);
    octets.extend(((ADDRESS_OCTETS + tlvs.len()) as u16).to_be_bytes());
    octets.extend([0; ADDRESS_OCTETS]);
    octets.extend(tlvs);
    octets
}

#[test]
fn what_is_written_reads_back_and_the_bytes_after_it_are_left() {
    let written = header(b"a.b.c");
    let mut octets = encoded(&written);
    let length = octets.len();
    octets.extend(b"GET / HTTP/1.1");
    assert_eq!(parse(&octets).unwrap(), Some((written, length)));
}

#[test]
fn the_fixed_part_stands_on_the_wire_as_the_specification_draws_it() {
    let octets = encoded(&header(b"t"));
    assert_eq!(octets[..14], *b"\r\n\r\n\0\r\nQUIT\n\x21\x21");
    assert_eq!(usize::from(u16::from_be_bytes([octets[14], octets[15]])), octets.len() - 16);
    assert_eq!(octets[16..32], "2001:db8:1::10".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(octets[48..52], [0x9C, 0x40, 0, 80]);
    assert_eq!(octets[52..71], *b"\x02\x00\x10orders.shop.peak");
}

#[test]
fn a_header_that_is_not_whole_asks_for_more_at_every_length() {
    let octets = encoded(&header(b"a.b.c"));
    for cut in 0..octets.len() {
        assert_eq!(parse(&octets[..cut]), Ok(None), "{cut} octets");
    }
}

#[test]
fn another_protocol_is_refused_at_its_first_wrong_octet() {
    assert_eq!(parse(b"GET"), Err(ProxyHeaderError::Signature { at: 0 }));
    assert_eq!(parse(b"\r\n\r\n\0\r\nQUIT\r"), Err(ProxyHeaderError::Signature { at: 11 }));
    assert_eq!(parse(b"PROXY TCP6 ").unwrap_err().reason(), "proxy-header-missing");
}

#[test]
fn version_command_and_family_other_than_ours_are_refused_by_name() {
    let with = |at: usize, value: u8| {
        let mut octets = encoded(&header(b"t"));
        octets[at] = value;
        parse(&octets).unwrap_err()
    };
    assert_eq!(with(12, 0x20), ProxyHeaderError::Local);
    assert_eq!(with(12, 0x11), ProxyHeaderError::Version { found: 0x11 });
    assert_eq!(with(13, 0x11), ProxyHeaderError::Family { found: 0x11 });
    assert_eq!(with(13, 0x00), ProxyHeaderError::Family { found: 0 });
}

#[test]
fn a_header_may_have_exactly_the_longest_length_and_is_refused_one_octet_past_it() {
    let room = LONGEST - encoded(&header(b"")).len();
    let longest = vec![b'x'; room + 1];
    assert_eq!(encoded(&header(&longest[..room])).len(), LONGEST);
    let mut out = b"kept".to_vec();
    assert_eq!(header(&longest).encode(&mut out), Err(HeaderTooLong { octets: LONGEST + 1 }));
    assert_eq!(out, b"kept");

    let mut octets = encoded(&header(&longest[..room]));
    octets[14..16].copy_from_slice(&((LONGEST + 1 - PREFIX_OCTETS) as u16).to_be_bytes());
    assert_eq!(parse(&octets[..16]), Err(ProxyHeaderError::TooLong { octets: LONGEST + 1 }));
}

#[test]
fn a_header_without_room_for_its_addresses_is_refused() {
    let mut octets = with_tlvs(&[]);
    assert!(parse(&octets).unwrap().is_some());
    octets[15] -= 1;
    assert_eq!(parse(&octets), Err(ProxyHeaderError::NoAddresses { octets: 35 }));
}

#[test]
fn a_tlv_that_does_not_end_inside_the_header_is_refused_with_its_place() {
    let whole = [0x04, 0, 1, 9];
    assert!(parse(&with_tlvs(&whole)).unwrap().is_some());
    for cut in 1..whole.len() {
        assert_eq!(parse(&with_tlvs(&whole[..cut])), Err(ProxyHeaderError::TlvPastEnd { at: 52 }), "{cut}");
    }
}

#[test]
fn a_repeated_or_misshapen_tlv_is_refused_and_an_unknown_one_skipped() {
    let refused = |tlvs: &[u8]| parse(&with_tlvs(tlvs)).unwrap_err();
    assert_eq!(refused(b"\xE0\0\x01a\xE0\0\x01b"), ProxyHeaderError::Repeated { at: 56, kind: 0xE0 });
    assert_eq!(refused(b"\xE2\0\x03abc"), ProxyHeaderError::TlvLength { at: 52, kind: 0xE2, octets: 3 });
    assert_eq!(refused(b"\x02\0\x04a..b"), ProxyHeaderError::Authority { at: 52 });
    assert_eq!(refused(b"\x02\0\x01\xFF"), ProxyHeaderError::Authority { at: 52 });
    let octets = with_tlvs(b"\xEE\0\x02hi\xEE\0\x00\xE0\0\x01a");
    let (parsed, _) = parse(&octets).unwrap().unwrap();
    assert_eq!(parsed.token, Some(TokenOctets(b"a")));
}

#[test]
fn a_damaged_octet_is_found_by_the_checksum() {
    let mut octets = encoded(&header(b"a.b.c"));
    octets[20] ^= 1;
    assert_eq!(parse(&octets).unwrap_err().reason(), "proxy-header-checksum");
}

#[test]
fn a_token_is_never_printed() {
    assert!(!format!("{:?}", header(b"secret")).contains("secret"));
    assert!(!format!("{:?}", header(b"secret")).contains("115"));
}

proptest! {
    #[test]
    fn any_header_reads_back_as_it_was_written(
        source: [u8; 16], destination: [u8; 16], ports: (u16, u16),
        token in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..600)),
        reference: Option<u32>, generation: Option<u32>,
    ) {
        let written = ProxyHeader {
            source: SocketAddrV6::new(source.into(), ports.0, 0, 0),
            destination: SocketAddrV6::new(destination.into(), ports.1, 0, 0),
            authority: None,
            token: token.as_deref().map(TokenOctets),
            token_reference: reference,
            generation,
        };
        let octets = encoded(&written);
        prop_assert_eq!(parse(&octets).unwrap(), Some((written, octets.len())));
    }

    #[test]
    fn no_octets_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), signed: bool) {
        let mut octets = if signed { with_tlvs(&[])[..14].to_vec() } else { Vec::new() };
        octets.extend(tail);
        let _ = parse(&octets);
    }
}
