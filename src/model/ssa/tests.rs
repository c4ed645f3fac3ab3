//! How computing, checking, choosing a rule and explaining behave together.

use std::hash::Hasher as _;

use ipnet::Ipv6Net;
use siphasher::sip::SipHasher24;

use super::*;

mod properties;

const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 1, 2, 3, 4, 5);
const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

fn space(items: &str) -> Space {
    Space::new(&AplItem::list(items).unwrap()).unwrap()
}

fn one_prefix() -> Space {
    space("2:2001:db8:5:1::/64")
}

fn rule(text: &str, space: &Space) -> Rule {
    Rule::parse(text, space).unwrap()
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn secret() -> Secret {
    Secret::new([9; 16])
}

/// The rest of the tests' inputs; content and time vary.
fn inputs<'a>(content: &'a [u8], secret: &'a Secret, now: UnixSeconds) -> Inputs<'a> {
    Inputs { source: SOURCE, content, secret: Some(secret), now }
}

fn known<'a>(inputs: &Inputs<'a>) -> Known<'a> {
    Known { source: Some(inputs.source), content: Some(inputs.content), secret: inputs.secret, now: Some(inputs.now) }
}

/// An address by a rule in which nothing is random, or whatever is random is zero.
fn computed(rule: &Rule, space: &Space, content: &[u8], now: UnixSeconds, replica: u8) -> Ipv6Addr {
    rule.compute(space, &inputs(content, &secret(), now), replica, &mut || 0).unwrap()
}

fn verdict(rule: &Rule, space: &Space, destination: Ipv6Addr, content: &[u8], now: UnixSeconds) -> Result<(), Wrong> {
    rule.check(space, destination, &known(&inputs(content, &secret(), now)))
}

fn h(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&[0; 16]);
    hasher.write(&parts.concat());
    hasher.finish()
}

/// With how many zeros the hash of `work` begins.
fn zeros(destination: Ipv6Addr, epoch: u64) -> u32 {
    h(&[&[4], &SOURCE.octets(), &destination.octets(), &epoch.to_be_bytes()]).leading_zeros()
}

/// `one` where `mask` has zeros, `other` where it has ones.
fn mixed(one: Ipv6Addr, other: Ipv6Addr, mask: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits((one.to_bits() & !mask) | (other.to_bits() & mask))
}

mod draws {
    use super::*;

    #[test]
    fn random_bits_come_from_the_first_bits_of_the_draw_and_fill_only_the_random_fields() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=fixed:8/ab,random:8,fixed:8/cd", &space);
        let found = rule.compute(&space, &inputs(b"", &secret(), NOW), 0, &mut || u128::MAX).unwrap();
        assert_eq!(found, address("2001:db8:5:1:abff:cdff:ffff:ffff"));
    }

    #[test]
    fn the_sixteenth_draw_may_succeed_and_there_is_no_seventeenth() {
        let space = space("2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/65");
        let rule = rule("v=ssa1", &space);
        for (bad, expected) in [(15, Ok(address("2001:db8:5:1::"))), (16, Err(ComputeError::NoDraw))] {
            let mut draws = 0;
            let mut draw = || {
                draws += 1;
                if draws <= bad { u128::MAX } else { 0 }
            };
            assert_eq!(rule.compute(&space, &inputs(b"", &secret(), NOW), 0, &mut draw), expected);
            assert_eq!(draws, 16);
        }
    }

    #[test]
    fn with_nothing_random_nothing_is_drawn_and_there_is_one_try() {
        let space = space("2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/65");
        let undrawn = &mut || panic!("nothing is random");
        let wrong = rule("v=ssa1 layout=fixed:64/8000000000000000", &space);
        assert_eq!(wrong.compute(&space, &inputs(b"", &secret(), NOW), 0, undrawn), Err(ComputeError::NoDraw));
        let right = rule("v=ssa1 layout=fixed:64/7000000000000000", &space);
        assert_eq!(right.compute(&space, &inputs(b"", &secret(), NOW), 0, undrawn), Ok(address("2001:db8:5:1:7000::")),);
    }

    #[test]
    fn a_random_prefix_is_drawn_again_even_when_no_bit_is_random() {
        let space = space("2:2001:db8:5::/112 2:2001:db8:9::/112 !2:2001:db8:5::/112");
        let rule = rule("v=ssa1 layout=fixed:16/7", &space);
        let mut draws = [0, 0, u128::MAX].into_iter();
        let found = rule.compute(&space, &inputs(b"", &secret(), NOW), 0, &mut || draws.next().unwrap());
        assert_eq!(found, Ok(address("2001:db8:9::7")));
    }

    #[test]
    fn a_random_prefix_is_each_of_them_in_turn_of_the_draw() {
        let space = space("2:2001:db8:1::/64 2:2001:db8:2::/64 2:2001:db8:3::/64");
        let rule = rule("v=ssa1 layout=hop:8 secret=s", &space);
        let third = u128::MAX / 3;
        for (draw, prefix) in [
            (0, "2001:db8:1::/64"),
            (third - (1 << 64), "2001:db8:1::/64"),
            (third + (1 << 64), "2001:db8:2::/64"),
            (u128::MAX, "2001:db8:3::/64"),
        ] {
            let found = rule.compute(&space, &inputs(b"", &secret(), NOW), 0, &mut || draw).unwrap();
            assert_eq!(space.prefix_of(found).unwrap().to_string(), prefix);
            assert_eq!(verdict(&rule, &space, found, b"", NOW), Ok(()), "a random choice is always right");
        }
    }
}

mod prefixes {
    use super::*;

    const THREE: &str = "2:2001:db8:1::/64 2:2001:db8:2::/72 2:2001:db8:3::/64";

    /// The prefix with the largest score by the words of SSA.md §2.
    fn best(space: &Space, a: &[u8]) -> Ipv6Net {
        let score = |prefix: &&Ipv6Net| h(&[&[5], &prefix.network().octets(), &[prefix.prefix_len()], a]);
        *space.prefixes().iter().max_by_key(score).unwrap()
    }

    fn source_of(low: u64, high: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
    }

    #[test]
    fn the_largest_hash_with_the_first_p_bits_of_the_source_decides() {
        let space = space(THREE);
        let mut picked = std::collections::BTreeSet::new();
        for high in 0..64 {
            let source = source_of(high * 7, high << 40);
            for (layout, bits) in [("source:0-8,content:4", 64), ("source-hash:8/24", 24), ("source-hash:8/128", 128)] {
                let rule = rule(&format!("v=ssa1 layout={layout}"), &space);
                let cut = source.to_bits() & bits::leading_ones(bits);
                let expected = best(&space, &[&[1], cut.to_be_bytes().as_slice()].concat());
                let found = rule.compute(&space, &Inputs { source, ..inputs(b"a", &secret(), NOW) }, 0, &mut || 0);
                assert_eq!(space.prefix_of(found.unwrap()), Some(expected));
                picked.insert(expected);
            }
        }
        assert_eq!(picked.len(), 3, "every prefix has its share");
    }

    #[test]
    fn a_content_field_decides_by_replica_and_whole_key_whatever_the_keys_form() {
        let space = space(THREE);
        for layout in ["content:4", "content-hash:8", "hop:3,content:8,source:0-3"] {
            let rule = rule(&format!("v=ssa1 secret=s replicas=256 layout={layout}"), &space);
            for replica in [0, 1, 2, 3, 255] {
                let key = b"0123456789abcdef0123456789abcdef0123";
                let expected = best(&space, &[&[2, replica], key.as_slice()].concat());
                let found = computed(&rule, &space, key, NOW, replica);
                assert_eq!(space.prefix_of(found), Some(expected));
            }
        }
    }

    #[test]
    fn an_address_in_another_prefix_than_the_rule_picks_is_wrong_in_its_prefix() {
        let space = space("2:2001:db8:1::/64 2:2001:db8:2::/64");
        let rule = rule("v=ssa1 layout=source-hash:14/64", &space);
        let right = computed(&rule, &space, b"", NOW, 0);
        let other = space.prefixes().iter().find(|prefix| !prefix.contains(&right)).unwrap();
        let wrong = mixed(other.network(), right, u128::from(u64::MAX));
        assert_eq!(verdict(&rule, &space, wrong, b"", NOW), Err(Wrong("prefix")));
        assert_eq!(rule.check(&space, wrong, &Known::default()), Ok(()), "without a source it cannot be known");
    }

    #[test]
    fn an_address_outside_the_space_is_wrong_in_its_prefix_even_when_nothing_is_known() {
        let space = space("2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/65");
        let rule = rule("v=ssa1", &space);
        for outside in ["2001:db8:5:2::", "2001:db8:5:1:8000::"] {
            assert_eq!(rule.check(&space, address(outside), &Known::default()), Err(Wrong("prefix")));
        }
        assert_eq!(rule.check(&space, address("2001:db8:5:1:7fff::"), &Known::default()), Ok(()));
    }
}

mod fields {
    use super::*;

    #[test]
    fn bits_of_the_source_are_those_from_a_up_to_not_including_b() {
        let space = one_prefix();
        let whole = rule("v=ssa1 layout=source:0-64", &space);
        assert_eq!(computed(&whole, &space, b"", NOW, 0), address("2001:db8:5:1:2001:db8:77:1"));
        let part = rule("v=ssa1 layout=source:112-128,fixed:48/0", &space);
        assert_eq!(computed(&part, &space, b"", NOW, 0), address("2001:db8:5:1:5::"));
    }

    #[test]
    fn a_source_hash_takes_the_first_bits_of_the_hash() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=source-hash:64/48", &space);
        let hash = h(&[&[1], &SOURCE.octets()[..6], &[0; 10]]);
        let expected = Ipv6Addr::from_bits(address("2001:db8:5:1::").to_bits() | u128::from(hash));
        assert_eq!(computed(&rule, &space, b"", NOW, 0), expected);
    }

    #[test]
    fn a_hop_hashes_the_epoch_and_the_first_64_bits_of_the_source_under_the_secret() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=hop:64 secret=s", &space);
        let source = Ipv6Addr::from_bits(u128::MAX);
        let found = rule.compute(&space, &Inputs { source, ..inputs(b"", &secret(), NOW) }, 0, &mut || 0).unwrap();
        let mut hasher = SipHasher24::new_with_key(&[9; 16]);
        hasher.write(&[[3].as_slice(), &(NOW.0 / 30).to_be_bytes(), &[0xff; 8], &[0; 8]].concat());
        assert_eq!(found.to_bits() as u64, hasher.finish());
    }

    #[test]
    fn content_digits_are_padded_with_zeros_on_the_right() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=content:60,fixed:4/f", &space);
        assert_eq!(computed(&rule, &space, b"Ab3", NOW, 0), address("2001:db8:5:1:ab30::f"));
        assert_eq!(computed(&rule, &space, &[b'e'; 100], NOW, 0), address("2001:db8:5:1:eeee:eeee:eeee:eeef"));
    }

    #[test]
    fn a_key_that_is_no_number_has_no_address_and_is_wrong_in_content() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=content:8", &space);
        for key in [b"".as_slice(), b"xyz", b"00000000000000000000000000000000000g"] {
            let none = rule.compute(&space, &inputs(key, &secret(), NOW), 0, &mut || 0);
            assert_eq!(none, Err(ComputeError::ContentNotHex));
            assert_eq!(verdict(&rule, &space, address("2001:db8:5:1::"), key, NOW), Err(Wrong("content")));
        }
        assert_eq!(rule.check(&space, address("2001:db8:5:1::"), &Known::default()), Ok(()));
    }

    #[test]
    fn a_client_without_the_secret_is_told_which_one() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=hop:8 secret=blue", &space);
        let error = rule.compute(&space, &Inputs { secret: None, ..inputs(b"", &secret(), NOW) }, 0, &mut || 0);
        assert_eq!(error, Err(ComputeError::NoSecret { id: "blue".into() }));
    }

    #[test]
    fn a_replica_that_the_rule_does_not_have_has_no_address() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=content-hash:8 replicas=3", &space);
        let compute = |replica| rule.compute(&space, &inputs(b"k", &secret(), NOW), replica, &mut || 0);
        assert!(compute(2).is_ok());
        let error = compute(3).unwrap_err();
        assert_eq!(error.to_string(), "there is no replica 3: the rule has replicas 0 to 2");
    }

    #[test]
    fn the_first_wrong_field_in_layout_order_is_named() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=random:8,fixed:8/1,source:0-8,fixed:8/2", &space);
        let right = address("2001:db8:5:1:ff01:2002::");
        assert_eq!(verdict(&rule, &space, right, b"", NOW), Ok(()));
        assert_eq!(verdict(&rule, &space, address("2001:db8:5:1:ff01:2102::"), b"", NOW), Err(Wrong("source")));
        assert_eq!(verdict(&rule, &space, address("2001:db8:5:1:ff01:2103::"), b"", NOW), Err(Wrong("source")));
        assert_eq!(verdict(&rule, &space, address("2001:db8:5:1:ff00:2103::"), b"", NOW), Err(Wrong("fixed")));
    }
}

mod work {
    use super::*;

    #[test]
    fn the_number_is_the_smallest_that_does_the_work() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=fixed:24/1,work:16/9,fixed:24/2", &space);
        let found = computed(&rule, &space, b"", NOW, 0);
        let number = (found.to_bits() >> 24) as u16;
        let with = |number: u16| mixed(found, Ipv6Addr::from_bits(u128::from(number) << 24), 0xffff << 24);
        let epoch = NOW.0 / 30;
        assert!(zeros(found, epoch) >= 9);
        assert!((0..number).all(|smaller| zeros(with(smaller), epoch) < 9));
    }

    #[test]
    fn a_number_of_zero_bits_may_be_zero_and_then_zero_does_the_work() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=work:64/0", &space);
        assert_eq!(computed(&rule, &space, b"", NOW, 0), address("2001:db8:5:1::"));
    }

    #[test]
    fn an_address_without_the_work_is_wrong_and_unknown_time_skips_the_test() {
        let space = one_prefix();
        let rule = rule("v=ssa1 skew=0 layout=fixed:48/0,work:16/5", &space);
        let lazy =
            (0..=u16::MAX).map(|number| mixed(address("2001:db8:5:1::"), Ipv6Addr::from_bits(number.into()), 0xffff));
        let lazy = lazy.into_iter().find(|&destination| zeros(destination, NOW.0 / 30) == 4).unwrap();
        assert_eq!(verdict(&rule, &space, lazy, b"", NOW), Err(Wrong("work")));
        assert_eq!(rule.check(&space, lazy, &Known { source: Some(SOURCE), ..Known::default() }), Ok(()));
    }

    #[test]
    fn when_no_number_does_the_work_the_draw_fails() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=work:1/64,random:63", &space);
        let mut draws = 0;
        let mut draw = || {
            draws += 1;
            draws
        };
        let failed = rule.compute(&space, &inputs(b"", &secret(), NOW), 0, &mut draw);
        assert_eq!((failed, draws), (Err(ComputeError::NoDraw), 16));
    }
}

mod replicas {
    use super::*;

    const LOW: u128 = 0xffff_ffff;

    #[test]
    fn every_replica_is_right() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=content-hash:64 replicas=256", &space);
        for replica in [0, 1, 63, 64, 200, 255] {
            let found = computed(&rule, &space, b"/k", NOW, replica);
            assert_eq!(verdict(&rule, &space, found, b"/k", NOW), Ok(()));
        }
    }

    #[test]
    fn two_content_hashes_must_be_of_the_same_replica() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=content-hash:32,content-hash:32 replicas=2", &space);
        let one = computed(&rule, &space, b"/k", NOW, 0);
        let other = computed(&rule, &space, b"/k", NOW, 1);
        assert_eq!(verdict(&rule, &space, mixed(one, other, LOW), b"/k", NOW), Err(Wrong("content-hash")));
    }

    #[test]
    fn a_content_hash_must_be_of_a_replica_that_the_prefix_leaves() {
        let space = space("2:2001:db8:1::/64 2:2001:db8:2::/64");
        let rule = rule("v=ssa1 layout=content-hash:64 replicas=2", &space);
        let in_two_prefixes = (0..64_u8).map(|key| [key]).find_map(|key| {
            let [one, other] = [0, 1].map(|replica| computed(&rule, &space, &key, NOW, replica));
            (space.prefix_of(one) != space.prefix_of(other)).then_some((key, one, other))
        });
        let (key, one, other) = in_two_prefixes.unwrap();
        let crossed = mixed(one, other, u128::from(u64::MAX));
        assert_eq!(verdict(&rule, &space, one, &key, NOW), Ok(()));
        assert_eq!(verdict(&rule, &space, crossed, &key, NOW), Err(Wrong("content-hash")));
    }
}

mod epochs {
    use super::*;

    const LOW: u128 = 0xffff_ffff;

    #[test]
    fn a_checker_accepts_skew_epochs_on_either_side_and_no_more() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=hop:64 secret=s step=10 skew=2", &space);
        let found = computed(&rule, &space, b"", UnixSeconds(1_005), 0);
        for (now, expected) in
            [(979, Err(Wrong("hop"))), (980, Ok(())), (1_000, Ok(())), (1_029, Ok(())), (1_030, Err(Wrong("hop")))]
        {
            assert_eq!(verdict(&rule, &space, found, b"", UnixSeconds(now)), expected, "at {now}");
        }
    }

    #[test]
    fn two_hops_must_be_of_the_same_epoch() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=hop:32,hop:32 secret=s", &space);
        let [before, after] = [0, 30].map(|later| computed(&rule, &space, b"", UnixSeconds(NOW.0 + later), 0));
        assert_eq!(verdict(&rule, &space, after, b"", NOW), Ok(()));
        assert_eq!(verdict(&rule, &space, mixed(before, after, LOW), b"", NOW), Err(Wrong("hop")));
    }

    #[test]
    fn work_must_be_of_an_epoch_that_the_hop_leaves() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=hop:32,work:32/8 secret=s", &space);
        let hop = computed(&rule, &space, b"", NOW, 0);
        let epoch = NOW.0 / 30;
        let numbered = |number: u32| mixed(hop, Ipv6Addr::from_bits(number.into()), LOW);
        let worked_for = |destination: &Ipv6Addr, epoch| zeros(*destination, epoch) >= 8;
        let only_for_the_next = (0..=u32::MAX).map(numbered).find(|destination| {
            let [before, present, after] = [epoch - 1, epoch, epoch + 1].map(|epoch| worked_for(destination, epoch));
            !before && !present && after
        });
        let crossed = only_for_the_next.unwrap();
        assert_eq!(verdict(&rule, &space, crossed, b"", NOW), Err(Wrong("work")));
        let unused = secret();
        let without_secret = Known { secret: None, ..known(&inputs(b"", &unused, NOW)) };
        assert_eq!(rule.check(&space, crossed, &without_secret), Ok(()), "an unchecked hop leaves every epoch");
    }
}

mod several_rules {
    use super::*;

    fn texts(rules: &[Rule], now: u64) -> Option<&str> {
        current(rules, UnixSeconds(now)).map(Rule::text)
    }

    #[test]
    fn the_largest_generation_that_has_begun_is_used() {
        let space = one_prefix();
        let rules = ["v=ssa1", "v=ssa1 gen=2 from=100", "v=ssa1 gen=1"].map(|text| rule(text, &space));
        assert_eq!(texts(&rules, 99), Some("v=ssa1 gen=1"));
        assert_eq!(texts(&rules, 100), Some("v=ssa1 gen=2 from=100"));
    }

    #[test]
    fn of_equal_generations_the_later_then_the_larger_text_is_used() {
        let space = one_prefix();
        let rules =
            ["v=ssa1 from=10 slices=9", "v=ssa1 from=20", "v=ssa1 from=10 slices=90", "v=ssa1 from=10 slices=10"]
                .map(|text| rule(text, &space));
        assert_eq!(texts(&rules, 20), Some("v=ssa1 from=20"));
        assert_eq!(texts(&rules, 19), Some("v=ssa1 from=10 slices=90"));
        assert_eq!(texts(&rules, 9), None);
        assert_eq!(texts(&[], 9), None);
    }

    #[test]
    fn an_address_may_fit_any_rule_and_is_judged_by_the_one_in_use() {
        let space = one_prefix();
        let rules = [
            "v=ssa1 layout=fixed:8/1",
            "v=ssa1 gen=1 layout=random:8,fixed:8/2,source:0-8",
            "v=ssa1 gen=2 from=99 layout=content-hash:8",
        ]
        .map(|text| rule(text, &space));
        let known = Known { source: Some(SOURCE), content: Some(b"k"), now: Some(UnixSeconds(50)), secret: None };
        let check = |text, known: &Known<'_>| check_any(&rules, &space, address(text), known);
        assert_eq!(check("2001:db8:5:1:0100::", &known), Ok(()));
        assert_eq!(check("2001:db8:5:1:0202:2000::", &known), Ok(()));
        assert_eq!(check("2001:db8:5:1:0202:2100::", &known), Err(Wrong("source")));
        let later = Known { now: Some(UnixSeconds(99)), ..known };
        assert_eq!(check("2001:db8:5:1:0202:2100::", &later), Err(Wrong("content-hash")));
        let no_time = Known { now: None, ..known };
        assert_eq!(check("2001:db8:5:1:0202:2100::", &no_time), Err(Wrong("content-hash")));
    }

    #[test]
    fn a_rule_that_is_not_in_use_yet_is_checked_already_and_no_rule_fits_nothing() {
        let space = one_prefix();
        let future = [rule("v=ssa1 from=99 layout=fixed:8/1", &space)];
        let known = Known { now: Some(UnixSeconds(1)), ..Known::default() };
        assert_eq!(check_any(&future, &space, address("2001:db8:5:1:100::"), &known), Ok(()));
        assert_eq!(check_any(&future, &space, address("2001:db8:5:1:200::"), &known), Err(Wrong("fixed")));
        assert_eq!(check_any(&[], &space, address("2001:db8:5:1::"), &known), Err(Wrong("rule")));
    }
}

mod explaining {
    use super::*;

    #[test]
    fn every_bit_of_the_address_is_in_exactly_one_part() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=fixed:3/5,source-hash:14/64,random:8", &space);
        let explanation = rule.explain(&space, address("2001:db8:5:1:a000::1"), &Known::default());
        let bits: Vec<_> = explanation.fields.iter().map(|field| field.bits.clone()).collect();
        assert_eq!(bits, [64..67, 67..81, 81..89, 89..128]);
        assert_eq!(explanation.prefix.found, Some("2001:db8:5:1::/64".parse().unwrap()));
        assert_eq!((explanation.fields[0].value, explanation.fields[3].value), (5, 1));
    }

    #[test]
    fn what_was_expected_is_said_for_each_replica_and_epoch_that_was_left() {
        let space = one_prefix();
        let rule = rule("v=ssa1 layout=content-hash:32,hop:32 replicas=2 secret=s skew=1", &space);
        let secret = secret();
        let inputs = inputs(b"k", &secret, NOW);
        let explanation = rule.explain(&space, address("2001:db8:5:1::"), &known(&inputs));
        let computed = |replica, now| computed(&rule, &space, b"k", now, replica).to_bits();
        let replicas: Vec<_> = explanation.fields[0].expected.iter().map(|one| (one.replica, one.value)).collect();
        assert_eq!(replicas, [0, 1].map(|replica| (Some(replica), computed(replica, NOW) >> 32 & 0xffff_ffff)));
        let epochs: Vec<_> = explanation.fields[1].expected.iter().map(|one| (one.epoch, one.value)).collect();
        let epoch = |at: u64| (Some(at), computed(0, UnixSeconds(at * 30)) & 0xffff_ffff);
        let now = NOW.0 / 30;
        assert_eq!(epochs, [epoch(now - 1), epoch(now), epoch(now + 1)]);
    }

    #[test]
    fn an_address_cut_out_of_its_prefix_is_told_from_one_outside() {
        let space = space("2:2001:db8:5:1::/64 !2:2001:db8:5:1:8000::/65");
        let rule = rule("v=ssa1", &space);
        let explain = |text| rule.explain(&space, address(text), &Known::default()).prefix;
        assert_eq!(explain("2001:db8:5:1:8000::").found, Some("2001:db8:5:1::/64".parse().unwrap()));
        assert_eq!(explain("2001:db8:5:1:8000::").verdict, Verdict::Wrong);
        assert_eq!(explain("2001:db8:5:2::").found, None);
    }
}
