//! Record data: exact octets, text there and back, and what is refused.

use super::*;
use crate::wire::dns::rdata::svcb::{Key, SvcbError, SvcbFault};
use crate::wire::dns::text::Place;

fn origin() -> Name {
    "peak.".parse().unwrap()
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn wire(rtype: Type, text: &str) -> Vec<u8> {
    from_text(rtype, text, &origin()).unwrap_or_else(|error| panic!("{text}: {error}")).into()
}

fn refused(rtype: Type, text: &str) -> String {
    match from_text(rtype, text, &origin()) {
        Ok(rdata) => panic!("{text} was read as {rdata:?}"),
        Err(error) => error.to_string(),
    }
}

/// Each text, the octets it stands for, and the text that is written for them.
#[test]
fn every_type_reads_and_writes_its_own_form() {
    let cases = [
        (Type::A, "192.0.2.1", "c0000201", "192.0.2.1"),
        (Type::AAAA, "2001:DB8:0::1", "20010db8000000000000000000000001", "2001:db8::1"),
        (Type::NS, "ns1", "036e7331 047065616b 00", "ns1.peak."),
        (Type::CNAME, "@", "047065616b 00", "peak."),
        (Type::PTR, ".", "00", "."),
        (Type::MX, "10 mail.shop.", "000a 046d61696c 0473686f70 00", "10 mail.shop."),
        (Type::SRV, "1 2 65535 .", "0001 0002 ffff 00", "1 2 65535 ."),
        (
            Type::SOA,
            "ns1 host\\.master 4294967295 2h 15M 2w 1h30m5s",
            "036e7331047065616b00 0b686f73742e6d6173746572047065616b00 ffffffff 00001c20 00000384 00127500 0000151d",
            "ns1.peak. host\\.master.peak. 4294967295 7200 900 1209600 5405",
        ),
        (
            Type::TXT,
            r#"plain "with space" "" "q\"\\\007;""#,
            "05706c61696e 0a77697468207370616365 00 0571225c073b",
            r#""plain" "with space" "" "q\"\\\007;""#,
        ),
        (
            Type::APL,
            "2:2001:db8:5:1::/64 !1:192.0.2.0/24",
            "0002 40 08 20010db800050001 0001 18 83 c00002",
            "2:2001:db8:5:1::/64 !1:192.0.2.0/24",
        ),
        (Type::APL, "", "", ""),
        (Type(65280), r"\# 3 0A0b 0C", "0a0b0c", r"\# 3 0A0B0C"),
        (Type(65280), r"\# 0", "", r"\# 0"),
        (Type::A, r"\# 4 c0000201", "c0000201", "192.0.2.1"),
        (Type::CAA, r"\# 2 0000", "0000", r"\# 2 0000"),
    ];
    for (rtype, text, hex, written) in cases {
        let rdata = wire(rtype, text);
        assert_eq!(rdata, octets(hex), "{rtype} {text}");
        assert_eq!(to_text(rtype, &rdata), written, "{rtype} {text}");
        assert!(is_well_formed(rtype, &rdata), "{rtype} {text}");
        assert_eq!(wire(rtype, written), rdata, "{rtype} {written}");
    }
}

#[test]
fn what_is_wrong_with_a_text_is_said_with_its_place() {
    let long = "x".repeat(256);
    let cases = [
        (Type::A, "192.0.2", "column 1: expected an IPv4 address such as 192.0.2.1, found \"192.0.2\""),
        (Type::A, "192.0.2.01", "column 1: expected an IPv4 address such as 192.0.2.1, found \"192.0.2.01\""),
        (Type::A, "", "column 1: expected an IPv4 address such as 192.0.2.1, but the entry ends here"),
        (Type::A, "192.0.2.1 x", "column 11: \"x\" is too much: the data of a A record is complete before it"),
        (Type::A, "\"192.0.2.1\"", "column 1: expected an IPv4 address such as 192.0.2.1, without quotation marks"),
        (Type::AAAA, "fe80::1%eth0", "column 1: expected an IPv6 address such as 2001:db8::1, found \"fe80::1%eth0\""),
        (Type::NS, "a..b", "column 1: \"a..b\" is no domain name: a label is empty"),
        (Type::MX, "+1 mail", "column 1: expected a preference, 0 to 65535, found \"+1\""),
        (Type::MX, "65536 mail", "column 1: expected a preference, 0 to 65535, found \"65536\""),
        (Type::MX, "1", "column 2: expected the name of the mail exchange, but the entry ends here"),
        (
            Type::SOA,
            "ns1 admin@peak 1 2 3 4 5",
            "column 5: \"admin@peak\" has an @: write the mailbox as a name, \
            hostmaster.example.net. for hostmaster@example.net",
        ),
        (Type::SOA, "ns1 admin 1 2x 3 4 5", "column 13: expected the refresh time, such as 7200 or 2h, found \"2x\""),
        (Type::SOA, "ns1 admin 1 4294967296 3 4 5", "column 13: a time of more than 4294967295 seconds"),
        (Type::TXT, "", "column 1: expected a string, but the entry ends here"),
        (
            Type::TXT,
            "a\"b\"",
            "column 2: a quotation mark inside a word: quote the whole of it, or write \\\" for the character",
        ),
        (
            Type::TXT,
            "a=\"b\"",
            "column 1: a quotation mark inside a word: quote the whole of it, or write \\\" for the character",
        ),
        (Type::TXT, "\"a\"b", "column 4: a space must follow the closing quotation mark"),
        (Type::TXT, "\"a", "column 1: this quotation mark is not closed on its line"),
        (
            Type::TXT,
            r"\25",
            r#"column 1: in "\\25" a backslash is not followed by three digits up to 255 or by one other character"#,
        ),
        (
            Type::TXT,
            r"\256",
            r#"column 1: in "\\256" a backslash is not followed by three digits up to 255 or by one other character"#,
        ),
        (Type::TXT, &long, "column 1: a string of 256 octets: one may have 255, so write it as several"),
        (
            Type::CAA,
            "0 issue \"ca\"",
            "column 1: data of type CAA is read in the generic form alone: \\# LENGTH HEX (RFC 3597 §5)",
        ),
        (Type(9), r"\# 2 00", "column 1: \\# announces 2 octets and 1 follow"),
        (Type(9), r"\# 1 0", "column 6: expected an even number of hexadecimal digits, found \"0\""),
        (Type(9), r"\# 1 0g", "column 6: expected an even number of hexadecimal digits, found \"0g\""),
        (Type(9), r"\# x", "column 4: expected the number of octets, 0 to 65535, found \"x\""),
        (Type::A, r"\# 3 000000", "column 1: these octets are not the data of type A"),
        (Type::SVCB, "1 . (", "column 5: this parenthesis is never closed"),
        (Type::SVCB, "1 . )", "column 5: this parenthesis was never opened"),
    ];
    for (rtype, text, message) in cases {
        assert_eq!(refused(rtype, text), format!("line 1, {message}"), "{rtype} {text}");
    }
}

#[test]
fn a_string_may_have_255_octets_and_data_65535() {
    assert_eq!(wire(Type::TXT, &"x".repeat(255)).len(), 256);
    let most = format!("{} {}", format!("{} ", "x".repeat(255)).repeat(255), "x".repeat(254));
    assert_eq!(wire(Type::TXT, &most).len(), 65_535);
    assert_eq!(
        refused(Type::TXT, &format!("{most} \"\"")),
        "line 1, column 1: data of 65536 octets: a record may have 65535"
    );
}

#[test]
fn places_count_lines_and_characters_and_not_octets() {
    let error = from_text(Type::TXT, "\"größe\"\n  \"ü\" \"", &origin()).unwrap_err();
    assert_eq!((error.place, error.fault), (Place { line: 2, column: 7 }, TextFault::UnclosedQuote));
}

#[test]
fn apl_has_the_octets_that_other_programs_make() {
    let cases = [
        (
            "2:2001:db8:0:1:8000::/66 !2:2001:db8:0:1:8000::/72",
            "0002 42 09 20010db80000000180 0002 48 89 20010db80000000180",
        ),
        ("2:::/0", "0002 00 00"),
        ("!2:::/128", "0002 80 80"),
        ("2:2001:db8::1/128", "0002 80 10 20010db8000000000000000000000001"),
        ("1:0.0.0.0/0 1:10.0.0.0/8", "0001 00 00 0001 08 01 0a"),
    ];
    for (text, hex) in cases {
        assert_eq!(wire(Type::APL, text), octets(hex), "{text}");
        assert_eq!(to_text(Type::APL, &octets(hex)), text);
    }
}

#[test]
fn apl_items_of_ipv6_are_read_and_those_of_other_families_passed_over() {
    let rdata = octets("0001 18 03 c00002 0002 40 88 20010db800050001 0007 ff 02 0000 0002 00 00");
    let items: Vec<String> = apl::decode(&rdata).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(items, ["!2:2001:db8:5:1::/64", "2:::/0"]);
    assert!(is_well_formed(Type::APL, &rdata));
    assert!(to_text(Type::APL, &rdata).starts_with("\\# "));
}

#[test]
fn a_malformed_apl_item_refuses_the_record() {
    use apl::AplError::{HostBits, Short, TooLong, TrailingZero};
    let cases = [
        ("0002 40 09 20010db80005000100", TrailingZero { item: 1 }),
        ("0002 00 01 00", TrailingZero { item: 1 }),
        ("0002 3f 08 20010db800050001", HostBits { item: 1, prefix_bits: 63 }),
        ("0002 00 00 0002 40 09 20010db80005000180", HostBits { item: 2, prefix_bits: 64 }),
        ("0002 81 00", TooLong { item: 1, prefix_bits: 129 }),
        ("0002 80 11 20010db8000000000000000000000001ff", TooLong { item: 1, prefix_bits: 128 }),
        ("0002 40 08 20010db8000500", Short { item: 1 }),
        ("0002 00 00 00", Short { item: 2 }),
        ("0009 40", Short { item: 1 }),
    ];
    for (hex, error) in cases {
        assert_eq!(apl::decode(&octets(hex)), Err(error), "{hex}");
        assert!(!is_well_formed(Type::APL, &octets(hex)), "{hex}");
    }
}

#[test]
fn an_apl_item_in_text_must_say_exactly_what_it_means() {
    let expected = "expected an item [!]2:prefix/length, such as 2:2001:db8::/32, or [!]1:prefix/length";
    for text in
        ["2001:db8::/32", "2:2001:db8::", "2:2001:db8::/129", "1:192.0.2.0/33", "3:ab/8", "!!2:::/0", "2:192.0.2.0/24"]
    {
        assert_eq!(refused(Type::APL, text), format!("line 1, column 1: {expected}, found {text:?}"));
    }
    assert_eq!(
        refused(Type::APL, "2:::/0 !2:2001:db8::1/64"),
        "line 1, column 8: \"!2:2001:db8::1/64\" has bits set behind its prefix length: write 2001:db8::/64"
    );
}

#[test]
fn apl_items_encode_as_their_text_does() {
    let items = apl::decode(&wire(Type::APL, "2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/65")).unwrap();
    assert_eq!(apl::encode(&items), wire(Type::APL, "2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/65"));
}

/// RFC 9460 appendix D.1 and D.2: the texts and the octets that it gives for them.
#[test]
fn svcb_has_the_octets_of_the_standard_s_vectors() {
    let foo_com = "03666f6f076578616d706c6503636f6d00";
    let foo_org = "03666f6f076578616d706c65036f726700";
    let escaped = "0001 000c 08 665c6f6f2c626172 02 6832";
    let cases = [
        ("0 foo.example.com.", format!("0000 {foo_com}")),
        ("1 .", "0001 00".to_owned()),
        ("16 foo.example.com. port=53", format!("0010 {foo_com} 0003 0002 0035")),
        ("1 foo.example.com. key667=hello", format!("0001 {foo_com} 029b 0005 68656c6c6f")),
        (r#"1 foo.example.com. key667="hello\210qoo""#, format!("0001 {foo_com} 029b 0009 68656c6c6fd2716f6f")),
        (
            "1 foo.example.com. (\nipv6hint=\"2001:db8::1,2001:db8::53:1\"\n)",
            format!("0001 {foo_com} 0006 0020 20010db8000000000000000000000001 20010db8000000000000000000530001"),
        ),
        (
            "1 example.com. (\nipv6hint=\"2001:db8:122:344::192.0.2.33\"\n)",
            "0001 076578616d706c6503636f6d00 0006 0010 20010db8012203440000 0000c0000221".to_owned(),
        ),
        (
            "16 foo.example.org. (\nalpn=h2,h3-19 mandatory=ipv4hint,alpn\nipv4hint=192.0.2.1\n)",
            format!("0010 {foo_org} 0000 0004 0001 0004 0001 0009 02 6832 05 68332d3139 0004 0004 c0000201"),
        ),
        (r#"16 foo.example.org. alpn="f\\\\oo\\,bar,h2""#, format!("0010 {foo_org} {escaped}")),
        (r"16 foo.example.org. alpn=f\\\092oo\092,bar,h2", format!("0010 {foo_org} {escaped}")),
    ];
    for (text, hex) in cases {
        assert_eq!(wire(Type::SVCB, text), octets(&hex), "{text}");
        assert_eq!(wire(Type::HTTPS, &to_text(Type::HTTPS, &octets(&hex))), octets(&hex), "{text}");
    }
}

/// RFC 9460 appendix D.3, and more of its kind.
#[test]
fn svcb_parameters_that_break_the_standard_are_refused() {
    let cases = [
        ("key123=abc key123=def", "column 16: parameter key123 comes twice, or out of order"),
        ("key3=\\000\\001 port=1", "column 19: parameter port comes twice, or out of order"),
        ("mandatory", "column 5: the value of parameter mandatory is not a list of other keys, each once"),
        ("alpn", "column 5: the value of parameter alpn is not a list of protocols of 1 to 255 octets"),
        ("port", "column 5: the value of parameter port is not a port, 0 to 65535"),
        ("ipv4hint", "column 5: the value of parameter ipv4hint is not a list of IPv4 addresses"),
        ("ipv6hint=", "column 5: the value of parameter ipv6hint is not a list of IPv6 addresses"),
        ("ech=\"\"", "column 5: the value of parameter ech is not a list of configurations in base64"),
        ("no-default-alpn=abc", "column 5: the value of parameter no-default-alpn is not empty, as it must be"),
        ("no-default-alpn", "column 1: parameter no-default-alpn needs alpn beside it"),
        ("mandatory=key123", "column 1: parameter key123 is mandatory, and missing"),
        ("mandatory=mandatory", "column 5: the value of parameter mandatory is not a list of other keys, each once"),
        (
            "mandatory=key123,key123 key123=abc",
            "column 5: the value of parameter mandatory is not a list of other keys, each once",
        ),
        ("port=65536", "column 5: the value of parameter port is not a port, 0 to 65535"),
        ("port=+1", "column 5: the value of parameter port is not a port, 0 to 65535"),
        ("key3=1", "column 5: the value of parameter port is not a port, 0 to 65535"),
        ("alpn=h2,,h3", "column 5: the value of parameter alpn is not a list of protocols of 1 to 255 octets"),
        ("alpn=h2\\\\x", "column 5: the value of parameter alpn is not a list of protocols of 1 to 255 octets"),
        ("ipv4hint=192.0.2.1,", "column 5: the value of parameter ipv4hint is not a list of IPv4 addresses"),
        ("ech=*", "column 5: the value of parameter ech is not a list of configurations in base64"),
    ];
    for (params, message) in cases {
        assert_eq!(refused(Type::SVCB, &format!("1 . {params}")), format!("line 1, {message}"), "{params}");
    }
    for word in ["Port=1", "key03=a", "key65536=a", "colour=red", "=a", "\"port=1\"", "a=b=\"c\""] {
        let message = refused(Type::SVCB, &format!("1 . {word}"));
        assert!(message.starts_with("line 1, column 5: "), "{word}: {message}");
    }
}

#[test]
fn svcb_prints_every_parameter_in_the_form_that_reads_back() {
    let text = concat!(
        r#"1 orders.shop.peak. mandatory=alpn,port alpn="h2,h3" no-default-alpn port=8080 ipv4hint=192.0.2.1,192.0.2.2 "#,
        r#"ech=AAEC ipv6hint=2001:db8::1 key7 key65400="v=ssa1 layout=source-hash:14/64,random:50 slices=14""#
    );
    let rdata = wire(Type::SVCB, text);
    assert_eq!(to_text(Type::SVCB, &rdata), text);
    let svcb = Svcb::decode(&rdata).unwrap();
    assert_eq!(svcb.encode(), rdata);
    assert_eq!((svcb.priority(), svcb.port()), (1, Some(8080)));
    assert_eq!(svcb.rule(), Some(&b"v=ssa1 layout=source-hash:14/64,random:50 slices=14"[..]));
    assert_eq!(svcb.mandatory().collect::<Vec<_>>(), [Key::ALPN, Key::PORT]);
}

#[test]
fn svcb_octets_out_of_order_cut_short_or_compressed_are_refused() {
    let order = |key| SvcbError::Params(SvcbFault::Order(Key(key)));
    assert_eq!(Svcb::decode(&octets("0001 00 0003 0002 0035 0001 0003 026832")), Err(order(1)));
    assert_eq!(Svcb::decode(&octets("0001 00 0003 0002 0035 0003 0002 0035")), Err(order(3)));
    let whole = octets("0001 0161 00 0003 0002 0035 0004 0004 c0000201");
    assert!(Svcb::decode(&whole).is_ok());
    for end in 0..whole.len() {
        // A record may end behind its target, and behind a parameter.
        assert_eq!(Svcb::decode(&whole[..end]).is_ok(), matches!(end, 5 | 11), "{end}");
    }
    assert!(matches!(Svcb::decode(&octets("0001 c00c")), Err(SvcbError::Data(_))));
}

#[test]
fn data_that_is_not_of_its_type_prints_in_the_generic_form() {
    let cases = [
        (Type::A, "0a0000"),
        (Type::AAAA, "00"),
        (Type::NS, "0161"),
        (Type::MX, "000a"),
        (Type::SOA, "0000"),
        (Type::TXT, ""),
        (Type::TXT, "0261"),
        (Type::APL, "0002400920010db80005000100"),
        (Type::SVCB, "0001"),
        (Type::SRV, "000000000000"),
    ];
    for (rtype, hex) in cases {
        let rdata = octets(hex);
        assert!(!is_well_formed(rtype, &rdata), "{rtype} {hex}");
        assert_eq!(to_text(rtype, &rdata), format!(r"\# {} {}", rdata.len(), hex.to_uppercase()).trim_end());
    }
}

#[test]
fn the_host_that_a_record_points_to_is_found_in_every_type_that_has_one() {
    let host: Name = "a.peak.".parse().unwrap();
    for (rtype, text) in [
        (Type::NS, "a.peak."),
        (Type::MX, "1 a.peak."),
        (Type::SRV, "1 2 3 a.peak."),
        (Type::SVCB, "1 a.peak. port=1"),
        (Type::HTTPS, "0 a.peak."),
    ] {
        assert_eq!(target(rtype, &wire(rtype, text)), Some(host.clone()), "{rtype}");
        assert_eq!(target(rtype, &[]), None, "{rtype}");
    }
    assert_eq!(target(Type::TXT, &wire(Type::TXT, "a.peak.")), None);
}

#[test]
fn long_text_is_cut_into_strings_and_joins_again() {
    for length in [0, 1, 255, 256, 700] {
        let text = vec![b'x'; length];
        assert_eq!(txt::strings(&txt::encode(&text)).unwrap().concat(), text);
    }
    assert_eq!(txt::encode(b""), [0]);
}
