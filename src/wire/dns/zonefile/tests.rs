//! Zone files, good and bad.

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The records of a good zone file as lines.
fn lines(text: &str) -> Vec<String> {
    let records = parse(text, &name("shop.peak.")).unwrap_or_else(|errors| panic!("{errors:?}"));
    records.iter().map(ToString::to_string).collect()
}

/// The faults of a bad one.
fn faults(text: &str) -> Vec<String> {
    match parse(text, &name("shop.peak.")) {
        Ok(records) => panic!("{text} was read as {records:?}"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_zone_with_every_type_is_read() {
    let text = r#"
$TTL 1h
@           IN SOA ns1 hostmaster (
                   2024010101 ; serial
                   2h 15m     ; refresh, retry
                   2w 60 )    ; expire, negative answers
            NS     ns1
            MX     10 mail.example.
ns1         A      192.0.2.53
            AAAA   2001:db8::53
www     300 CNAME  orders
orders      AAAA   2001:db8:5:1::1
            APL    2:2001:db8:5:1::/64
_ssa.orders 60 IN SVCB ( 1 orders.shop.peak. port=8080
                   key65400="v=ssa1 layout=source-hash:14/64,random:50 slices=14" )
            IN 60 TXT "v=ssa1 layout=source-hash:14/64,random:50 slices=14"
_http._tcp  SRV    0 0 80 orders
1.0         PTR    orders
web         HTTPS  1 . alpn=h2
odd         TYPE65280 \# 2 0102
"#;
    assert_eq!(
        lines(text),
        [
            "shop.peak. 3600 IN SOA ns1.shop.peak. hostmaster.shop.peak. 2024010101 7200 900 1209600 60",
            "shop.peak. 3600 IN NS ns1.shop.peak.",
            "shop.peak. 3600 IN MX 10 mail.example.",
            "ns1.shop.peak. 3600 IN A 192.0.2.53",
            "ns1.shop.peak. 3600 IN AAAA 2001:db8::53",
            "www.shop.peak. 300 IN CNAME orders.shop.peak.",
            "orders.shop.peak. 3600 IN AAAA 2001:db8:5:1::1",
            "orders.shop.peak. 3600 IN APL 2:2001:db8:5:1::/64",
            "_ssa.orders.shop.peak. 60 IN SVCB 1 orders.shop.peak. port=8080 \
             key65400=\"v=ssa1 layout=source-hash:14/64,random:50 slices=14\"",
            "_ssa.orders.shop.peak. 60 IN TXT \"v=ssa1 layout=source-hash:14/64,random:50 slices=14\"",
            "_http._tcp.shop.peak. 3600 IN SRV 0 0 80 orders.shop.peak.",
            "1.0.shop.peak. 3600 IN PTR orders.shop.peak.",
            "web.shop.peak. 3600 IN HTTPS 1 . alpn=\"h2\"",
            "odd.shop.peak. 3600 IN TYPE65280 \\# 2 0102",
        ]
    );
}

#[test]
fn what_is_written_reads_back() {
    let text = "$TTL 5\na.b A 192.0.2.1\n\\$x\\@\\.\\\"\\;\\(y TXT \"; ( \\\" \\001\"\n* APL !2:::/0\n";
    let once = lines(text);
    assert_eq!(lines(&once.join("\n")), once);
    assert_eq!(once[1], "\\$x\\@\\.\\\"\\;\\(y.shop.peak. 5 IN TXT \"; ( \\\" \\001\"");
}

#[test]
fn origin_completes_names_from_its_line_on_and_may_itself_be_relative() {
    let text = "$TTL 5\na CNAME @\n$ORIGIN sub\nb CNAME a\n@ NS @\n$ORIGIN other.\nc CNAME d.\n";
    assert_eq!(
        lines(text),
        [
            "a.shop.peak. 5 IN CNAME shop.peak.",
            "b.sub.shop.peak. 5 IN CNAME a.sub.shop.peak.",
            "sub.shop.peak. 5 IN NS sub.shop.peak.",
            "c.other. 5 IN CNAME d.",
        ]
    );
}

#[test]
fn ttl_and_class_stand_in_either_order_and_letters_in_either_case() {
    let text = "a 7 in a 192.0.2.1\na IN 7 A 192.0.2.1\na class1 7 TYPE1 192.0.2.1\na 7 A 192.0.2.1\n";
    assert_eq!(lines(text), ["a.shop.peak. 7 IN A 192.0.2.1"; 4]);
}

#[test]
fn a_ttl_is_taken_from_the_record_then_the_directive_then_the_record_before() {
    assert_eq!(
        lines("a 7 NS a\nb NS b\n$TTL 9\nc NS c\nd 3 NS d\ne NS e\n").join("\n"),
        "\
a.shop.peak. 7 IN NS a.shop.peak.
b.shop.peak. 7 IN NS b.shop.peak.
c.shop.peak. 9 IN NS c.shop.peak.
d.shop.peak. 3 IN NS d.shop.peak.
e.shop.peak. 9 IN NS e.shop.peak."
    );
}

#[test]
fn an_soa_without_any_ttl_takes_its_minimum_and_gives_it_on() {
    let text = "@ SOA a b 1 2 3 4 77\n@ NS a\n";
    assert_eq!(lines(text)[0], "shop.peak. 77 IN SOA a.shop.peak. b.shop.peak. 1 2 3 4 77");
    assert_eq!(lines(text)[1], "shop.peak. 77 IN NS a.shop.peak.");
}

#[test]
fn times_have_units_as_in_bind() {
    for (time, seconds) in
        [("0", 0), ("1w2d3h4m5s", 788_645), ("1H30M", 5400), ("90m", 5400), ("2147483647", 2_147_483_647)]
    {
        assert_eq!(lines(&format!("a {time} NS b")), [format!("a.shop.peak. {seconds} IN NS b.shop.peak.")]);
    }
    for time in ["1h30", "1x", "1hh", "1.5h"] {
        assert_eq!(
            faults(&format!("a {time} NS b")),
            [format!("line 1, column 3: expected a TTL such as 3600 or 1h, found {time:?}")]
        );
    }
    for (time, seconds) in [("2147483648", 2_147_483_648_u32), ("24856d", 2_147_558_400)] {
        assert_eq!(
            faults(&format!("a {time} NS b")),
            [format!("line 1, column 3: a TTL of {seconds} seconds: the longest is 2147483647")]
        );
    }
}

#[test]
fn comments_blank_lines_and_other_line_ends_mean_nothing() {
    let text =
        "\u{feff}; a comment\r\n\r\n   \r\n$TTL 5 ; five\r\na A 192.0.2.1;no space\r\n  A ( 192.0.2.2 ; \"(\r\n )\r\n";
    assert_eq!(lines(text), ["a.shop.peak. 5 IN A 192.0.2.1", "a.shop.peak. 5 IN A 192.0.2.2"]);
    assert_eq!(lines(""), [""; 0]);
    assert_eq!(lines("$TTL 5\na A 192.0.2.1"), ["a.shop.peak. 5 IN A 192.0.2.1"]);
}

#[test]
fn a_record_knows_where_its_entry_begins() {
    let located = parse_located("$TTL 5\n\n a A 192.0.2.1\n".replace("\n a", "\na").as_str(), &name("peak.")).unwrap();
    assert_eq!((located[0].line, located[0].column), (3, 1));
    let located = parse_located("$TTL 5\na A 192.0.2.1\n   A (\n192.0.2.2 )\n", &name("peak.")).unwrap();
    assert_eq!((located[1].line, located[1].column), (3, 4));
}

/// Each bad line below `$TTL 5` and a good record, and what is said about it.
#[test]
fn a_fault_is_said_with_its_place_its_cause_and_what_was_expected() {
    let long_label = format!("{} A 192.0.2.1", "x".repeat(64));
    let cases = [
        (
            "$INCLUDE other.zone",
            "column 1: $INCLUDE is not supported: a zone is one file, so put the included records here",
        ),
        (
            "$include other.zone",
            "column 1: $INCLUDE is not supported: a zone is one file, so put the included records here",
        ),
        (
            "$GENERATE 1-9 a$ A 192.0.2.$",
            "column 1: unknown directive \"$GENERATE\": expected $ORIGIN or $TTL, or \\$ for a name that begins so",
        ),
        ("$TTL", "column 5: expected a TTL such as 3600 or 1h, but the entry ends here"),
        ("$TTL soon", "column 6: expected a TTL such as 3600 or 1h, found \"soon\""),
        ("$TTL 5 6", "column 8: expected the end of the line, found \"6\""),
        ("$ORIGIN", "column 8: expected the name that completes the names that follow, but the entry ends here"),
        ("$ORIGIN a..b.", "column 9: \"a..b.\" is no domain name: a label is empty"),
        (
            "a DNAME b",
            "column 3: DNAME is not supported: write a CNAME for each name, or delegate the names below to a zone of their own",
        ),
        (
            "a TYPE39 \\# 1 00",
            "column 3: DNAME is not supported: write a CNAME for each name, or delegate the names below to a zone of their own",
        ),
        ("a OPT \\# 0", "column 3: no zone can hold a record of type OPT"),
        ("a TYPE250 \\# 0", "column 3: no zone can hold a record of type TSIG"),
        ("a ANY", "column 3: no zone can hold a record of type ANY"),
        ("a CH A 192.0.2.1", "column 3: class CH: zones here are of class IN alone"),
        ("a CLASS3 A 192.0.2.1", "column 3: class CH: zones here are of class IN alone"),
        (
            "a AAA 192.0.2.1",
            "column 3: expected a TTL, the class IN or a record type (or TYPEn for one by number), found \"AAA\"",
        ),
        (
            "a IN IN A 192.0.2.1",
            "column 6: expected a TTL, the class IN or a record type (or TYPEn for one by number), found \"IN\"",
        ),
        (
            "a 5 6 A 192.0.2.1",
            "column 5: expected a TTL, the class IN or a record type (or TYPEn for one by number), found \"6\"",
        ),
        ("a", "column 2: expected a TTL, the class IN or a record type, but the entry ends here"),
        ("a \"A\" 192.0.2.1", "column 3: expected a TTL, the class IN or a record type, without quotation marks"),
        ("\"a\" A 192.0.2.1", "column 1: expected the owner's name, without quotation marks"),
        (".a A 192.0.2.1", "column 1: \".a\" is no domain name: a label is empty"),
        (
            &long_label,
            "column 1: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\" is no domain name: a label is longer than 63 octets",
        ),
        (
            "a\\256 A 192.0.2.1",
            "column 1: \"a\\\\256\" is no domain name: a backslash must be followed by three digits up to 255 or by one other character",
        ),
        (
            "a A 192.0.2.1 192.0.2.2",
            "column 15: \"192.0.2.2\" is too much: the data of a A record is complete before it",
        ),
        ("a TXT \"never closed", "column 7: this quotation mark is not closed on its line"),
        ("a A 192.0.2.1 )", "column 15: this parenthesis was never opened"),
        ("a SOA b ( c", "column 9: this parenthesis is never closed"),
        ("a AAAA 2001:db8::g", "column 8: expected an IPv6 address such as 2001:db8::1, found \"2001:db8::g\""),
        (
            "a APL 2:2001:db8::1/32",
            "column 7: \"2:2001:db8::1/32\" has bits set behind its prefix length: write 2001:db8::/32",
        ),
        ("a SVCB 1 . port=http", "column 12: the value of parameter port is not a port, 0 to 65535"),
        (
            "a CAA 0 issue ca",
            "column 7: data of type CAA is read in the generic form alone: \\# LENGTH HEX (RFC 3597 §5)",
        ),
    ];
    for (line, message) in cases {
        assert_eq!(faults(&format!("$TTL 5\ngood A 192.0.2.1\n{line}\n")), [format!("line 3, {message}")], "{line}");
    }
}

#[test]
fn a_record_needs_an_owner_and_a_ttl() {
    assert_eq!(
        faults(" A 192.0.2.1"),
        ["line 1, column 2: a line that begins with a space continues the owner before it, and there is none yet"]
    );
    assert_eq!(faults("a A 192.0.2.1"), ["line 1, column 1: no TTL: write one before the type, or $TTL above"]);
}

#[test]
fn all_faults_are_listed_in_order_and_none_causes_another() {
    let text = "\
$TTL never
a..b A 192.0.2.1
     A 192.0.2.2
good A 192.0.2.3
bad  A 192.0.2
txt  TXT \"open
also A ( 192.0.2.4
     ) ) more ( words
still A 300.0.2.1
$INCLUDE more
end SOA ( a
";
    let lines: Vec<(u32, u32)> =
        parse(text, &name("peak.")).unwrap_err().iter().map(|it| (it.line, it.column)).collect();
    assert_eq!(lines, [(1, 6), (2, 1), (5, 8), (6, 10), (8, 8), (9, 9), (10, 1), (11, 9)]);
}

#[test]
fn a_fault_inside_parentheses_does_not_hide_the_next_line() {
    let errors = parse("a 5 TXT ( \"open\nb 5 A 192.0.2\n", &name("peak.")).unwrap_err();
    assert_eq!(errors.iter().map(|it| (it.line, it.column)).collect::<Vec<_>>(), [(1, 11), (2, 7)]);
}

#[test]
fn a_name_as_long_as_names_can_be_is_read_and_one_octet_more_is_not() {
    let label = "x".repeat(63);
    let zone = format!("{label}.{label}.{label}.");
    let line = |label: usize| format!("{} 5 A 192.0.2.1", "y".repeat(label));
    assert_eq!(parse(&line(61), &name(&zone)).unwrap()[0].name.wire().len(), 255);
    let errors = parse(&line(62), &name(&zone)).unwrap_err();
    assert!(errors[0].to_string().ends_with("the name is longer than 255 octets"), "{errors:?}");
}
