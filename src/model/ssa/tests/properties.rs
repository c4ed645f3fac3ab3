//! What holds for every space, rule and input.

use proptest::prelude::*;

use super::*;

/// One to four prefixes, most of them disjoint, some with a piece cut out and an island in the cut.
fn spaces() -> impl Strategy<Value = String> {
    let piece = (any::<u128>(), 8_u8..=128, any::<bool>(), any::<bool>());
    prop::collection::vec(piece, 1..=4).prop_map(|pieces| {
        let item = |negated: &str, at: u128, length: u8| {
            let first = Ipv6Addr::from_bits(at & bits::leading_ones(length));
            format!("{negated}2:{first}/{length}")
        };
        let mut items = Vec::new();
        for (at, length, cut, island) in pieces {
            items.push(item("", at, length));
            if cut && length <= 122 {
                items.push(item("!", at, length + 3));
                if island {
                    items.push(item("", at, length + 6));
                }
            }
        }
        items.join(" ")
    })
}

/// One field of about the given width, or less.
fn field(kind: u8, width: u8, number: u128, from: u8) -> String {
    let short = width.min(64);
    match kind {
        0 => format!("random:{width}"),
        1 => format!("fixed:{width}/{:x}", bits::down(number, 128 - width)),
        2 => format!("source:{0}-{1}", from % (129 - width), from % (129 - width) + width),
        3 => format!("source-hash:{short}/{}", from % 128 + 1),
        4 => format!("content:{width}"),
        5 => format!("content-hash:{short}"),
        6 => format!("hop:{short}"),
        _ => format!("work:{width}/{}", from % 6),
    }
}

/// A rule whose layout fits into `host_bits`.
fn rules(host_bits: u8) -> impl Strategy<Value = String> {
    let field_choice = (0_u8..8, 1_u8..=40, any::<u128>(), any::<u8>());
    let settings = (1_u16..=256, 0_u8..=16, 1_u32..=4_000, any::<u128>());
    (prop::collection::vec(field_choice, 0..7), settings).prop_map(move |(choices, settings)| {
        let (replicas, skew, step, salt) = settings;
        let (mut left, mut worked, mut fields) = (host_bits, false, Vec::new());
        for (kind, width, number, from) in choices {
            let width = width.min(left);
            if width == 0 || (kind == 7 && worked) {
                continue;
            }
            worked |= kind == 7;
            fields.push(field(kind, width, number, from));
            left -= width;
        }
        let layout = if fields.is_empty() { String::new() } else { format!(" layout={}", fields.join(",")) };
        format!("v=ssa1 secret=s replicas={replicas} skew={skew} step={step} salt={salt:032x}{layout}")
    })
}

fn spaces_and_rules() -> impl Strategy<Value = (Space, Rule)> {
    spaces().prop_flat_map(|items| {
        let space = space(&items);
        let longest = space.prefixes().iter().map(Ipv6Net::prefix_len).max().unwrap();
        rules(128 - longest).prop_map(move |text| (space.clone(), rule(&text, &space)))
    })
}

#[derive(Clone, Debug)]
struct Given {
    source: Ipv6Addr,
    content: Vec<u8>,
    secret: Secret,
    now: UnixSeconds,
    replica: u8,
    draws: Vec<u128>,
}

fn given() -> impl Strategy<Value = Given> {
    let content = prop_oneof!["[0-9a-fA-F]{1,40}".prop_map(String::into_bytes), any::<Vec<u8>>()];
    let draws = prop::collection::vec(any::<u128>(), 32);
    (any::<u128>(), content, any::<[u8; 16]>(), any::<u64>(), any::<u8>(), draws).prop_map(
        |(source, content, secret, now, replica, draws)| Given {
            source: Ipv6Addr::from_bits(source),
            content,
            secret: Secret::new(secret),
            now: UnixSeconds(now),
            replica,
            draws,
        },
    )
}

impl Given {
    fn inputs(&self) -> Inputs<'_> {
        Inputs { source: self.source, content: &self.content, secret: Some(&self.secret), now: self.now }
    }

    fn compute(&self, rule: &Rule, space: &Space) -> Result<Ipv6Addr, ComputeError> {
        let mut draws = self.draws.iter().copied();
        let replica = (u16::from(self.replica) % rule.replicas()) as u8;
        rule.compute(space, &self.inputs(), replica, &mut || draws.next().unwrap())
    }

    /// What a checker knows that knows only some of the inputs.
    fn known(&self, which: u8) -> Known<'_> {
        Known {
            source: (which & 1 != 0).then_some(self.source),
            content: (which & 2 != 0).then_some(&self.content),
            secret: (which & 4 != 0).then_some(&self.secret),
            now: (which & 8 != 0).then_some(self.now),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_compute_gives_check_accepts_however_little_is_known(
        (space, rule) in spaces_and_rules(), given in given(),
    ) {
        if let Ok(address) = given.compute(&rule, &space) {
            prop_assert!(space.contains(address));
            for which in 0..16 {
                prop_assert_eq!(rule.check(&space, address, &given.known(which)), Ok(()), "knowing {:b}", which);
            }
        }
    }

    #[test]
    fn a_changed_fixed_bit_is_refused(
        (space, rule) in spaces_and_rules(), given in given(), which in any::<prop::sample::Index>(),
    ) {
        let Ok(address) = given.compute(&rule, &space) else { return Ok(()) };
        let explanation = rule.explain(&space, address, &Known::default());
        let fixed: Vec<u8> =
            explanation.fields.iter().filter(|field| field.name == "fixed").flat_map(|field| field.bits.clone()).collect();
        if !fixed.is_empty() {
            let changed = Ipv6Addr::from_bits(address.to_bits() ^ 1 << (127 - fixed[which.index(fixed.len())]));
            prop_assert!(rule.check(&space, changed, &Known::default()).is_err());
        }
    }

    #[test]
    fn knowing_less_never_refuses_what_knowing_more_accepts(
        (space, rule) in spaces_and_rules(), given in given(), flip in 0_u8..128,
    ) {
        let Ok(address) = given.compute(&rule, &space) else { return Ok(()) };
        let near = Ipv6Addr::from_bits(address.to_bits() ^ 1 << flip);
        for more in 0..16 {
            for less in (0..16).filter(|less| less & more == *less) {
                let accepted = rule.check(&space, near, &given.known(more)).is_ok();
                prop_assert!(!accepted || rule.check(&space, near, &given.known(less)).is_ok());
            }
        }
    }

    #[test]
    fn an_explanation_comes_to_the_same_verdict_as_the_check(
        (space, rule) in spaces_and_rules(), given in given(), flip in 0_u8..=128, which in 0_u8..16, any: u128,
    ) {
        let address = given.compute(&rule, &space).map_or(any, Ipv6Addr::to_bits);
        for destination in [any, address ^ bits::up(1, flip)].map(Ipv6Addr::from_bits) {
            let known = given.known(which);
            let explanation = rule.explain(&space, destination, &known);
            prop_assert_eq!(explanation.verdict(), rule.check(&space, destination, &known));
        }
    }

    #[test]
    fn an_expected_number_in_its_place_is_accepted((space, rule) in spaces_and_rules(), given in given(), any: u128) {
        let Ok(address) = given.compute(&rule, &space) else { return Ok(()) };
        let explanation = rule.explain(&space, Ipv6Addr::from_bits(any & 0xffff | address.to_bits()), &given.known(15));
        for field in &explanation.fields {
            let fits = field.expected.iter().any(|expected| expected.value == field.value);
            let wrong = field.verdict == Verdict::Wrong;
            prop_assert!(field.expected.is_empty() || fits != wrong, "{field:?}");
        }
    }

    #[test]
    fn a_space_holds_what_its_definition_says(items in spaces(), any: u128, near in any::<prop::sample::Index>()) {
        let space = space(&items);
        let items = AplItem::list(&items).unwrap();
        let inside = items[near.index(items.len())].prefix.network().to_bits() ^ any >> 120;
        for address in [any, inside].map(Ipv6Addr::from_bits) {
            let matching: Vec<_> = items.iter().filter(|item| item.prefix.contains(&address)).collect();
            let longest = matching.iter().map(|item| item.prefix.prefix_len()).max();
            let mut longest = matching.iter().filter(|item| Some(item.prefix.prefix_len()) == longest);
            let expected = !matching.is_empty() && longest.all(|item| !item.negated);
            prop_assert_eq!(space.contains(address), expected);
        }
    }
}
