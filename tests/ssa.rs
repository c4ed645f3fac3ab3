//! Structured Service Addressing as people and programs meet it: the test vectors, what computing costs, and the
//! `funicular ssa` commands.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;
use std::process::{Command, Output};

use funicular::model::UnixSeconds;
use funicular::model::ssa::{self, AplItem, Inputs, Known, Rule, Secret, Space};
use serde_json::Value;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/ssa.json");
const APL: &str = "2:2001:db8:5:1::/64";
const RULE: &str = "v=ssa1 layout=source-hash:14/64,fixed:50/1 slices=14";
const SOURCE: &str = "2001:db8:77:1::9";

fn funicular(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_funicular")).arg("ssa").args(arguments).output().unwrap()
}

/// Exit code, standard output, standard error.
fn outcome(arguments: &[&str]) -> (i32, String, String) {
    let output = funicular(arguments);
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn answer(arguments: &[&str]) -> String {
    let (code, answer, error) = outcome(arguments);
    assert_eq!((code, error.as_str()), (0, ""), "{arguments:?}");
    answer
}

mod vectors {
    use super::*;

    fn run(file: &Path) -> (i32, String) {
        let (code, answer, _) = outcome(&["vectors", file.to_str().unwrap()]);
        (code, answer)
    }

    /// The outcome for the vectors after `change`.
    fn changed(change: impl FnOnce(&mut Value)) -> (i32, String) {
        let mut vectors = serde_json::from_str(&std::fs::read_to_string(VECTORS).unwrap()).unwrap();
        change(&mut vectors);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("changed.json");
        std::fs::write(&file, vectors.to_string()).unwrap();
        run(&file)
    }

    #[test]
    fn every_vector_passes() {
        assert_eq!(run(Path::new(VECTORS)), (0, "3463 passed, 0 failed\n".into()));
    }

    #[test]
    fn a_vector_that_does_not_hold_is_counted_and_named() {
        let (code, answer) = changed(|vectors| {
            vectors["cases"][0]["compute"]["value"] = "::".into();
            vectors["cases"][0]["checks"][2]["wrong"] = Value::Null;
            vectors["cases"][0]["checks"][3]["wrong"] = "hop".into();
            vectors["malformed"][1]["rule"] = "v=ssa1".into();
            vectors["wellformed"][2]["rule"] = "v=ssa9".into();
        });
        let starts: Vec<_> = answer.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(
            starts,
            [
                "FAILED cases[0].compute",
                "FAILED cases[0].checks[2]",
                "FAILED cases[0].checks[3]",
                "FAILED malformed[1]",
                "FAILED wellformed[2]",
                "3458 passed, 5 failed",
            ],
        );
        assert!(answer.contains("FAILED cases[0].checks[3]: expected hop, found right\n"), "{answer}");
        assert_eq!(code, 1);
    }

    #[test]
    fn all_assertions_of_a_case_with_an_unreadable_rule_fail() {
        let (_, answer) = changed(|vectors| vectors["cases"][0]["rule"] = "v=ssa9".into());
        assert!(answer.ends_with("3447 passed, 16 failed\n"), "{answer}");
    }

    #[test]
    fn an_address_where_none_is_possible_and_none_where_one_is_are_failures() {
        let (_, answer) = changed(|vectors| {
            let cases = vectors["cases"].as_array_mut().unwrap();
            let fails = cases.iter().position(|case| case["compute"] == "fails").unwrap();
            let given = cases.iter().position(|case| case["compute"].is_object()).unwrap();
            let (one, other) = (cases[fails]["compute"].clone(), cases[given]["compute"].clone());
            cases[fails]["compute"] = other;
            cases[given]["compute"] = one;
        });
        assert!(answer.ends_with("3461 passed, 2 failed\n"), "{answer}");
        assert!(answer.contains("expected no address, found ") && answer.contains("expected an address, found: "));
    }

    #[test]
    fn the_outcome_is_there_for_programs_too() {
        let outcome: Value = serde_json::from_str(&answer(&["vectors", VECTORS, "-o", "json"])).unwrap();
        assert_eq!(outcome, serde_json::json!({ "passed": 3463, "failed": 0, "failures": [] }));
    }
}

mod cost {
    use super::*;

    /// Every field, several prefixes, cut-outs, replicas and epochs: the whole of both directions.
    const RULES: [(&str, &str); 6] = [
        ("2:2001:db8:5:1::/64", "v=ssa1"),
        ("2:2001:db8:5:1::/64", "v=ssa1 layout=source-hash:14/64,random:50"),
        (
            "2:2001:db8:5:1::/64 2:2001:db8:6::/56 !2:2001:db8:6::/72",
            "v=ssa1 secret=s replicas=3 \
             layout=source:0-4,fixed:4/a,source-hash:8/48,content:8,content-hash:8,hop:8,work:12/3,random:8",
        ),
        ("2:2001:db8:5:1::/64 2:2001:db8:6::/64", "v=ssa1 layout=content-hash:32,content-hash:32 replicas=256"),
        ("2:2001:db8:5:1::/64 !2:2001:db8:5:1::/64", "v=ssa1"),
        ("2:2001:db8:5:1::/64", "v=ssa1 layout=content:8"),
    ];

    #[test]
    fn computing_and_checking_allocate_nothing_whatever_the_outcome() {
        let secret = Secret::new([1; 16]);
        for (items, text) in RULES {
            let space = AplItem::list(items).and_then(|items| Space::new(&items)).unwrap();
            let rules =
                [Rule::parse(text, &space).unwrap(), Rule::parse("v=ssa1 gen=1 layout=fixed:8/ff", &space).unwrap()];
            for (content, secret) in [(b"0123".as_slice(), Some(&secret)), (b"/key", Some(&secret)), (b"0123", None)] {
                let source = SOURCE.parse().unwrap();
                let inputs = Inputs { source, content, secret, now: UnixSeconds(1_700_000_000) };
                let known = Known { source: Some(source), content: Some(content), secret, now: Some(inputs.now) };
                let destination = "2001:db8:6::1".parse().unwrap();
                let mut draws = 0_u128;
                let used = allocation_counter::measure(|| {
                    let mut draw = || {
                        draws = draws.wrapping_add(u128::MAX / 7);
                        draws
                    };
                    let computed = rules[0].compute(&space, &inputs, 0, &mut draw);
                    for destination in [computed.unwrap_or(destination), destination] {
                        std::hint::black_box(rules[0].check(&space, destination, &known)).ok();
                        std::hint::black_box(ssa::check_any(&rules, &space, destination, &known)).ok();
                    }
                    std::hint::black_box(ssa::current(&rules, inputs.now));
                });
                assert_eq!(used.count_total, 0, "{text}");
            }
        }
    }

    #[test]
    fn the_counter_of_allocations_counts() {
        assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
    }
}

mod computing {
    use super::*;

    #[test]
    fn the_address_alone_is_printed() {
        let given = ["compute", "--apl", APL, "--rule", RULE, "--source", SOURCE];
        assert_eq!(answer(&given), "2001:db8:5:1:4118::1\n");
    }

    #[test]
    fn without_a_rule_the_default_one_is_used() {
        let address = answer(&["compute", "--apl", APL]);
        assert!(address.starts_with("2001:db8:5:1:"), "{address}");
    }

    #[test]
    fn items_may_be_several_arguments_several_flags_or_one_text() {
        let several = ["check", "--destination", "2001:db8:9::1", "--apl", "2:2001:db8:8::/64", "2:2001:db8:9::/64"];
        let flags =
            ["check", "--destination", "2001:db8:9::1", "--apl", "2:2001:db8:8::/64", "--apl", "2:2001:db8:9::/64"];
        let one =
            ["check", "--destination", "2001:db8:9::1", "--apl", "1:192.0.2.0/24 2:2001:db8:8::/64 2:2001:db8:9::/64"];
        for given in [several.as_slice(), &flags, &one] {
            assert_eq!(answer(given), "right\n");
        }
    }

    #[test]
    fn json_says_where_the_address_lies() {
        let given = ["compute", "--apl", APL, "--rule", RULE, "--source", SOURCE, "--now", "7", "-o", "json"];
        let expected = serde_json::json!({
            "address": "2001:db8:5:1:4118::1", "replica": 0, "rule": RULE, "now": 7,
            "prefix": "2001:db8:5:1::/64", "slice": "2001:db8:5:1:4118::/78",
        });
        assert_eq!(serde_json::from_str::<Value>(&answer(&given)).unwrap(), expected);
    }

    #[test]
    fn of_several_rules_the_one_in_use_is_computed_with() {
        let rules = ["--rule", "v=ssa1 layout=fixed:64/1", "--rule", "v=ssa1 gen=1 from=100 layout=fixed:64/2"];
        let at = |now| answer(&[["compute", "--apl", APL, "--now", now].as_slice(), &rules].concat());
        assert_eq!((at("99"), at("100")), ("2001:db8:5:1::1\n".into(), "2001:db8:5:1::2\n".into()));
    }

    #[test]
    fn an_address_that_cannot_be_had_is_exit_code_1() {
        let (code, _, error) = outcome(&["compute", "--apl", "2:2001:db8::/64", "!2:2001:db8::/64"]);
        assert_eq!(code, 1);
        assert!(error.contains("none of the draws gave an address inside the space"), "{error}");
        let (code, _, error) = outcome(&["compute", "--apl", APL, "--rule", "v=ssa1 from=100", "--now", "99"]);
        assert_eq!((code, error.as_str()), (1, "funicular: no rule is in use at 99: the earliest begins at 100\n"));
    }
}

mod checking {
    use super::*;

    #[test]
    fn a_computed_address_is_right() {
        for (rule, more) in [
            ("v=ssa1 layout=content-hash:32,random:8 replicas=3", ["--content", "/orders", "--replica", "2"]),
            ("v=ssa1 layout=content:16", ["--content-hex", "6162", "--replica", "0"]),
            (
                "v=ssa1 layout=hop:16,work:16/4 secret=s",
                ["--secret", "000102030405060708090a0b0c0d0e0f", "--replica", "0"],
            ),
        ] {
            let given = ["--apl", APL, "--rule", rule, "--source", SOURCE, "--now", "1700000000", more[0], more[1]];
            let address = answer(&[["compute"].as_slice(), &given, &more[2..]].concat());
            let checked = answer(&[["check", "--destination", address.trim()].as_slice(), &given].concat());
            assert_eq!(checked, "right\n", "{rule}");
        }
    }

    #[test]
    fn a_wrong_address_is_exit_code_1_with_the_field_and_what_was_expected() {
        let given = ["check", "--apl", APL, "--rule", RULE, "--source", SOURCE, "--destination", "2001:db8:5:1::1"];
        let (code, answer, _) = outcome(&given);
        assert_eq!(code, 1);
        assert_eq!(
            answer,
            "wrong: source-hash\n  \
               field     source-hash:14/64, bits 64-77 of the address\n  \
               found     0x0000\n  \
               expected  0x1046\n  \
               from      H(salt, first 64 bits of the source)\n"
        );
    }

    #[test]
    fn a_wrong_prefix_is_told_with_the_right_one() {
        let two = "2:2001:db8:5:1::/64 2:2001:db8:9::/64";
        let check = |destination| {
            outcome(&["check", "--apl", two, "--rule", RULE, "--source", SOURCE, "--destination", destination])
        };
        assert_eq!(
            check("2001:db8:5:1:4118::1").1,
            "wrong: prefix\n  \
               found     2001:db8:5:1::/64\n  \
               expected  2001:db8:9::/64\n  \
               because   the best of 2 by H(salt, prefix, first 64 bits of the source)\n"
        );
        assert_eq!(
            check("2001:db8:7::1").1,
            "wrong: prefix\n  \
               found     none\n  \
               expected  2001:db8:5:1::/64\n            \
                         2001:db8:9::/64\n  \
               because   no prefix of the space holds this address\n"
        );
    }

    #[test]
    fn what_could_not_be_checked_is_said() {
        let given = ["check", "--apl", APL, "--rule", RULE, "--destination", "2001:db8:5:1::1"];
        assert_eq!(answer(&given), "right\n  source-hash:14/64 is not checked: no --source\n");
    }

    #[test]
    fn fitting_any_of_several_rules_is_right() {
        let given =
            ["check", "--apl", APL, "--rule", "v=ssa1 layout=fixed:8/1", "--rule", "v=ssa1 gen=1 layout=fixed:8/2"];
        let check = |destination| outcome(&[given.as_slice(), &["--destination", destination]].concat());
        assert_eq!(check("2001:db8:5:1:100::").0, 0);
        assert_eq!(check("2001:db8:5:1:200::").0, 0);
        let (code, answer, _) = check("2001:db8:5:1:300::");
        assert!(code == 1 && answer.contains("expected  0x02\n"), "judged by the rule in use: {answer}");
    }

    #[test]
    fn json_has_the_verdict_and_the_explanation() {
        let given = [
            "check",
            "--apl",
            APL,
            "--rule",
            RULE,
            "--source",
            SOURCE,
            "--destination",
            "2001:db8:5:1::1",
            "-o",
            "json",
        ];
        let (code, answer, _) = outcome(&given);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((code, &answer["right"], &answer["wrong"]), (1, &false.into(), &"source-hash".into()));
        assert_eq!(answer["explanation"]["fields"][0]["expected"][0]["value"], "0x1046");
        assert_eq!(answer["explanation"]["fields"][0]["verdict"], "wrong");
    }
}

mod explaining {
    use super::*;

    #[test]
    fn every_field_is_shown_with_its_bits_value_and_origin() {
        let given = ["explain", "--apl", APL, "--rule", RULE, "--source", SOURCE];
        assert_eq!(
            answer(&given),
            "\
address  2001:db8:5:1:4118::1
rule     v=ssa1 layout=source-hash:14/64,fixed:50/1 slices=14
source   2001:db8:77:1::9
slice    2001:db8:5:1:4118::/78

         2001:0db8:0005:0001:4118:0000:0000:0001
         pppp pppp pppp pppp aaa* bbbb bbbb bbbb

   bits     verdict    field              value
p  0-63     fits       prefix             2001:db8:5:1::/64
                       the only prefix of the space
a  64-77    fits       source-hash:14/64  0x1046
                       H(salt, first 64 bits of the source)
b  78-127   fits       fixed:50/1         0x0000000000001
                       the number in the rule
*  a digit that several fields share
"
        );
    }

    #[test]
    fn an_address_that_is_wrong_is_explained_to_its_end() {
        let rule = "v=ssa1 layout=fixed:16/aaaa,content-hash:16,source:0-16,hop:8 replicas=2 secret=s";
        let given = ["--apl", APL, "--rule", rule, "--content", "k", "--now", "1700000000"];
        let answer = answer(&[["explain", "--destination", "2001:db8:5:1::"].as_slice(), &given].concat());
        for line in [
            "time     1700000000, which is in epoch 56666666 (of 30 s)",
            "a  64-79    WRONG      fixed:16/aaaa    0x0000",
            "                       expected 0xaaaa",
            "c  96-111   unchecked  source:0-16      0x0000",
            "                       not checked: no --source",
            "e  120-127  free       random:8         0x00",
            "                       drawn at random, as no field fills these bits",
        ] {
            assert!(answer.lines().any(|found| found == line), "{line}\n{answer}");
        }
        assert!(answer.contains("(replica 0)\n") && answer.contains("(replica 1)\n"), "{answer}");
    }

    #[test]
    fn an_address_outside_the_space_has_no_fields() {
        let answer = answer(&["explain", "--apl", APL, "--destination", "2001:db8:9::"]);
        assert!(answer.ends_with("                       expected 2001:db8:5:1::/64\n"), "{answer}");
        assert!(answer.contains("p  -        WRONG      prefix  none\n"), "{answer}");
    }

    #[test]
    fn no_line_is_wider_than_80_columns() {
        let one_bit_each = vec!["random:1"; 128].join(",");
        let long = format!("v=ssa1 secret={} layout=hop:3,fixed:64/ffffffffffffffff,source:0-60", "s".repeat(20));
        for (apl, rule) in
            [("2:::/0", format!("v=ssa1 layout={one_bit_each}")), ("2:::/0", long), ("2:::/0", "v=ssa1".into())]
        {
            let given = ["--apl", apl, "--rule", &rule, "--source", SOURCE];
            let answer = answer(&[["explain", "--destination", &"ffff:".repeat(8)[..39]].as_slice(), &given].concat());
            let widest = answer.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(widest.chars().count() <= 80, "{widest}");
        }
    }

    #[test]
    fn json_has_every_field() {
        let given = ["explain", "--apl", APL, "--rule", RULE, "--source", SOURCE, "-o", "json"];
        let answer: Value = serde_json::from_str(&answer(&given)).unwrap();
        assert_eq!(answer["prefix"]["found"], "2001:db8:5:1::/64");
        assert_eq!(answer["wrong"], Value::Null);
        let field = &answer["fields"][0];
        assert_eq!((&field["first_bit"], &field["bits"], &field["value"]), (&64.into(), &14.into(), &"0x1046".into()));
    }
}

mod bad_input {
    use super::*;

    #[test]
    fn each_fault_is_one_line_with_flag_value_and_expectation_and_exit_code_2() {
        let hop = "v=ssa1 layout=hop:8 secret=blue";
        for (more, message) in [
            (["--apl", "2001:db8::/32"], r#"--apl: "2001:db8::/32" is no APL item of the form [!]2:prefix/len"#),
            (["--apl", "2:2001:db8::1/64"], "--apl: 2001:db8::1/64 has bits past its length, expected 2001:db8::/64"),
            (["--rule", "v=ssa1 step=0"], r#"--rule "v=ssa1 step=0": expected step=1 to 4294967295 at "0""#),
            (["--source", "10.0.0.1"], r#"--source "10.0.0.1": expected an IPv6 address such as 2001:db8::1"#),
            (["--now", "-5"], r#"--now "-5": expected whole seconds since 1970"#),
            (["--now", "noon"], r#"--now "noon": expected whole seconds since 1970"#),
            (["--replica", "1"], r#"--replica "1": expected 0, as the rule has one replica"#),
            (["--replica", "256"], r#"--replica "256": expected a number from 0 to 255"#),
            (["--content-hex", "abc"], r#"--content-hex "abc": expected two hexadecimal digits for each octet"#),
            (["--content-hex", "é"], r#"--content-hex "é": expected two hexadecimal digits for each octet"#),
            (["--rule", hop], "--source is missing: the rule reads the caller's address"),
            (
                ["--rule", "v=ssa1 layout=content-hash:8"],
                "--content is missing: the rule reads a content key (the empty key is --content '')",
            ),
        ] {
            let (code, answer, error) = outcome(&[["compute", "--apl", APL].as_slice(), &more].concat());
            assert_eq!((code, answer.as_str(), error), (2, "", format!("error: {message}\n")));
        }
    }

    #[test]
    fn a_missing_secret_is_named_and_a_wrong_one_is_not_repeated() {
        let given = ["compute", "--apl", APL, "--rule", "v=ssa1 layout=hop:8 secret=blue", "--source", SOURCE];
        let missing = "error: --secret is missing: the rule hops with the secret \"blue\"\n";
        assert_eq!(outcome(&given).2, missing);
        let (code, _, error) = outcome(&[given.as_slice(), &["--secret", "c0ffee"]].concat());
        assert_eq!(
            (code, error.as_str()),
            (2, "error: --secret: expected 32 hexadecimal digits, found 6 characters\n")
        );
    }

    #[test]
    fn a_file_that_holds_no_vectors_is_named_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("other.json");
        std::fs::write(&file, "{\n  \"cases\": 7\n}").unwrap();
        let (code, _, error) = outcome(&["vectors", file.to_str().unwrap()]);
        assert_eq!(code, 2);
        assert!(error.contains("other.json") && error.contains("line 2 column 12"), "{error}");
        let (code, _, error) = outcome(&["vectors", "/nonexistent/vectors.json"]);
        assert_eq!(code, 2);
        assert!(error.contains("\"/nonexistent/vectors.json\": No such file"), "{error}");
    }
}

/// The examples of the manual's chapter on addressing.
mod manual {
    use super::*;

    const CHAPTER: &str = include_str!("../src/manual/addressing.md");

    /// Each command line of the chapter with the answer that the chapter gives.
    fn examples() -> Vec<(String, String)> {
        let consoles = CHAPTER.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let parts = consoles.flat_map(|console| console.split("$ funicular ssa ").skip(1));
        parts
            .map(|part| {
                let joined = part.replace("\\\n", " ");
                let (command, answer) = joined.split_once('\n').unwrap();
                (command.into(), answer.into())
            })
            .collect()
    }

    /// Words at spaces, except inside single quotes.
    fn words(command: &str) -> Vec<String> {
        let pieces = command.split('\'').enumerate();
        pieces
            .flat_map(|(at, piece)| match at % 2 {
                0 => piece.split_whitespace().map(Into::into).collect(),
                _ => vec![piece.to_owned()],
            })
            .collect()
    }

    #[test]
    fn every_example_answers_as_the_chapter_says() {
        let examples = examples();
        assert_eq!(examples.len(), 7);
        for (command, expected) in examples {
            let words = words(&command);
            let (_, answer, error) = outcome(&words.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(answer + &error, expected, "{command}");
        }
    }
}
