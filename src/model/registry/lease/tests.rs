//! What holds after any history of leases and handovers.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::UnixSeconds;
use crate::model::ssa::plan::{Block, Budget, Why};

const AT: UnixSeconds = UnixSeconds(1_000);

fn orders() -> Name {
    "orders.shop.peak".parse().unwrap()
}

fn registration(number: u64) -> Registration {
    Registration {
        holder: Holder(number.into()),
        workload: "spiffe://shop/ns/shop/sa/orders".into(),
        instance: format!("orders-{number}").into(),
        node: None,
        address: format!("[fd00::{number:x}]:15006").parse().unwrap(),
        weight: 1,
        services: BTreeSet::from([orders()]),
    }
}

/// A registry with one service of 2^`bits` slices.
fn vacant(bits: u8) -> Leases {
    let mut leases = Leases::default();
    let prefixes = vec!["2001:db8:5:1::/64".parse().unwrap()];
    let define = Command::Define { service: orders(), prefixes, slice_bits: bits };
    assert_eq!(leases.apply(&define), Outcome::Done);
    leases
}

fn register(leases: &mut Leases, number: u64) -> PodId {
    let Outcome::Registered(pod) = leases.apply(&Command::Register(registration(number))) else {
        panic!("a registration is answered with a lease")
    };
    pod
}

fn begin(leases: &mut Leases) -> u32 {
    let decision = decide(leases, &orders(), &BTreeMap::new(), &Budget::DUE);
    let Outcome::Counted(begun) = leases.apply(&Command::Begin { service: orders(), moves: decision.moves, at: AT })
    else {
        panic!("beginning is answered with a number")
    };
    begun
}

fn report(leases: &mut Leases, pod: PodId, id: HandoverId, reported: Reported) -> bool {
    leases.apply(&Command::Advance { service: orders(), reports: vec![(pod, id, reported)] }) == Outcome::Counted(1)
}

/// What would make a handover go on.
fn next(handover: &Handover) -> Option<(PodId, Reported)> {
    Some(match handover.step {
        Step::Planned => (handover.to, Reported::Ready),
        Step::Ready => (handover.to, Reported::Routed),
        Step::Routed => (handover.from?, Reported::Withdrawn),
        Step::Withdrawn => (handover.from?, Reported::Freed),
    })
}

/// Takes all that is under way to its end, and what is due after it.
fn settle(leases: &mut Leases) {
    for _ in 0..10_000 {
        begin(leases);
        let under_way: Vec<_> =
            leases.service(&orders()).unwrap().handovers().map(|(id, handover)| (id, handover.clone())).collect();
        if under_way.is_empty() {
            return;
        }
        for (id, handover) in under_way {
            let (pod, reported) = next(&handover).unwrap();
            report(leases, pod, id, reported);
        }
    }
    panic!("handovers never come to an end");
}

fn service(leases: &Leases) -> &Service {
    leases.service(&orders()).unwrap()
}

/// Who may route a slice.
fn routers(leases: &Leases, slice: u32) -> BTreeSet<PodId> {
    let service = service(leases);
    let mut routers: BTreeSet<PodId> = service.ownership().owner(slice).into_iter().collect();
    for (_, handover) in service.handovers() {
        if handover.blocks.iter().any(|block| block.range().contains(&slice)) {
            routers.extend(handover.from);
            routers.insert(handover.to);
        }
    }
    routers
}

#[test]
fn the_first_pods_have_their_slices_at_once_and_later_ones_by_handover() {
    let mut leases = vacant(4);
    let first = register(&mut leases, 1);
    assert_eq!(begin(&mut leases), 1);
    assert_eq!(service(&leases).ownership().runs().collect::<Vec<_>>(), [(0..16, Some(first))]);
    settle(&mut leases);
    let second = register(&mut leases, 2);
    begin(&mut leases);
    let (id, handover) = service(&leases).handovers().next().map(|(id, one)| (id, one.clone())).unwrap();
    assert_eq!((handover.from, handover.to, handover.slices()), (Some(first), second, 8));
    assert_eq!(service(&leases).ownership().holdings()[&first].slices, 16);
    assert!(report(&mut leases, second, id, Reported::Ready));
    assert_eq!(service(&leases).ownership().holdings()[&first].slices, 16);
    assert!(report(&mut leases, second, id, Reported::Routed));
    assert_eq!(service(&leases).ownership().holdings()[&first].slices, 8);
    assert!(report(&mut leases, first, id, Reported::Withdrawn));
    assert!(report(&mut leases, first, id, Reported::Freed));
    assert_eq!(service(&leases).handovers().count(), 0);
}

#[test]
fn a_step_is_taken_once_in_its_order_and_by_its_pod_alone() {
    let mut leases = vacant(4);
    let first = register(&mut leases, 1);
    settle(&mut leases);
    let second = register(&mut leases, 2);
    begin(&mut leases);
    let (id, _) = service(&leases).handovers().next().unwrap();
    assert!(!report(&mut leases, second, id, Reported::Routed), "before its turn");
    assert!(!report(&mut leases, first, id, Reported::Ready), "by the other pod");
    assert!(report(&mut leases, second, id, Reported::Ready));
    assert!(!report(&mut leases, second, id, Reported::Ready), "a second time");
    assert!(!report(&mut leases, second, HandoverId(99), Reported::Routed), "of nothing");
}

/// Two pods, and the first's slices so many steps on their way to the second.
fn on_the_way(steps: usize) -> (Leases, PodId, PodId) {
    let mut leases = vacant(4);
    let first = register(&mut leases, 1);
    settle(&mut leases);
    let second = register(&mut leases, 2);
    begin(&mut leases);
    for _ in 0..steps {
        let (id, handover) = service(&leases).handovers().next().map(|(id, one)| (id, one.clone())).unwrap();
        let (pod, reported) = next(&handover).unwrap();
        assert!(report(&mut leases, pod, id, reported));
    }
    (leases, first, second)
}

#[test]
fn what_moves_to_a_pod_that_dies_goes_back_to_who_gave_it() {
    for steps in [0, 1, 2, 3] {
        let (mut leases, first, second) = on_the_way(steps);
        leases.apply(&Command::End { pods: vec![second], why: Ended::Expired });
        assert_eq!(service(&leases).ownership().runs().collect::<Vec<_>>(), [(0..16, Some(first))], "{steps} steps");
        assert_eq!(service(&leases).handovers().count(), 0);
    }
}

#[test]
fn what_moves_from_a_pod_that_dies_goes_on_to_who_gets_it() {
    for steps in [0, 1, 2, 3] {
        let (mut leases, first, second) = on_the_way(steps);
        leases.apply(&Command::End { pods: vec![first], why: Ended::Expired });
        assert_eq!(service(&leases).ownership().holdings()[&second].slices, 8, "{steps} steps");
        assert!(service(&leases).handovers().all(|(_, handover)| handover.from.is_none()));
        begin(&mut leases);
        assert_eq!(service(&leases).ownership().holdings()[&second].slices, 16);
    }
}

#[test]
fn the_same_run_has_its_lease_again_and_a_new_run_of_the_same_pod_takes_its_place() {
    let mut leases = vacant(4);
    let pod = register(&mut leases, 1);
    settle(&mut leases);
    assert_eq!(register(&mut leases, 1), pod);
    let restarted = Registration { holder: Holder(77), ..registration(1) };
    assert_eq!(leases.apply(&Command::Register(restarted)), Outcome::Registered(pod));
    assert_eq!(leases.lease(pod).unwrap().holder, Holder(77));
    assert_eq!(service(&leases).ownership().holdings()[&pod].slices, 16);
    let elsewhere = Registration { address: "[fd00::9]:15006".parse().unwrap(), ..registration(1) };
    let another = Registration { holder: Holder(78), ..elsewhere };
    assert_ne!(leases.apply(&Command::Register(another)), Outcome::Registered(pod));
}

#[test]
fn a_pod_that_drains_hands_over_everything_and_one_that_is_alone_goes_on() {
    let mut leases = vacant(4);
    let (first, second) = (register(&mut leases, 1), register(&mut leases, 2));
    settle(&mut leases);
    leases.apply(&Command::Drain { pod: first, draining: true });
    settle(&mut leases);
    assert_eq!(service(&leases).ownership().runs().collect::<Vec<_>>(), [(0..16, Some(second))]);
    leases.apply(&Command::Drain { pod: second, draining: true });
    settle(&mut leases);
    assert!(service(&leases).ownership().runs().all(|(_, owner)| owner.is_some()));
    leases.apply(&Command::Drain { pod: second, draining: false });
    settle(&mut leases);
    assert_eq!(service(&leases).ownership().runs().collect::<Vec<_>>(), [(0..16, Some(second))]);
}

#[test]
fn pinned_slices_go_to_their_pod_and_stay_while_it_serves() {
    let mut leases = vacant(4);
    let (first, second) = (register(&mut leases, 1), register(&mut leases, 2));
    settle(&mut leases);
    let block = Block { first: 0, order: 1 };
    for pod in [first, second] {
        leases.apply(&Command::Pin { service: orders(), block, pod: Some(pod) });
        settle(&mut leases);
        assert!(service(&leases).ownership().owned_by(0..2, Some(pod)));
    }
    register(&mut leases, 3);
    settle(&mut leases);
    assert!(service(&leases).ownership().owned_by(0..2, Some(second)));
    leases.apply(&Command::End { pods: vec![second], why: Ended::Returned });
    settle(&mut leases);
    assert!(service(&leases).pins().is_empty());
    assert!(service(&leases).ownership().runs().all(|(_, owner)| owner.is_some_and(|owner| owner != second)));
}

#[test]
fn a_share_says_what_stays_what_comes_and_what_goes() {
    let mut leases = vacant(2);
    let first = register(&mut leases, 1);
    settle(&mut leases);
    let second = register(&mut leases, 2);
    begin(&mut leases);
    let shares = leases.shares(service(&leases));
    let text = |prefixes: &[ipnet::Ipv6Net]| prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text(&shares[&first].held), ["2001:db8:5:1::/65"]);
    assert_eq!(text(&shares[&first].leaving[0].prefixes), ["2001:db8:5:1:8000::/65"]);
    assert_eq!(shares[&first].leaving[0].to.address, registration(2).address);
    assert!(shares[&second].held.is_empty());
    let arriving = &shares[&second].arriving[0];
    assert_eq!((arriving.step, arriving.from.as_ref().unwrap().address), (Step::Planned, registration(1).address));
}

#[test]
fn a_prefix_of_the_space_is_a_block_and_back() {
    let mut leases = Leases::default();
    let prefixes = vec!["2001:db8:5:1::/64".parse().unwrap(), "2001:db8:6:1::/64".parse().unwrap()];
    leases.apply(&Command::Define { service: orders(), prefixes, slice_bits: 14 });
    let service = service(&leases);
    for block in
        [Block { first: 0, order: 14 }, Block { first: (1 << 14) + 12, order: 2 }, Block { first: 7, order: 0 }]
    {
        assert_eq!(service.block_of(service.prefix_of(block).unwrap()), Some(block));
    }
    assert_eq!(service.block_of("2001:db8:5:1::/79".parse().unwrap()), None, "less than a slice");
    assert_eq!(service.block_of("2001:db8::/48".parse().unwrap()), None, "more than the space");
}

#[test]
fn a_space_that_cannot_be_divided_is_refused() {
    let mut leases = Leases::default();
    for (prefix, slice_bits) in [("2001:db8::/120", 9), ("2001:db8::/64", 25), ("::/0", 200)] {
        let define = Command::Define { service: orders(), prefixes: vec![prefix.parse().unwrap()], slice_bits };
        assert_eq!(leases.apply(&define), Outcome::Undividable, "{prefix}");
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Comes(u64),
    Dies(u64),
    Drains(u64, bool),
    Plans,
    /// A handover goes on: which of those under way, and how often.
    GoesOn(usize, usize),
    /// Something is said of a handover that may not fit.
    Says(u64, u64, Reported),
}

fn event() -> impl Strategy<Value = Event> {
    let reported = prop::sample::select(vec![Reported::Ready, Reported::Routed, Reported::Withdrawn, Reported::Freed]);
    prop_oneof![
        3 => (0_u64..12).prop_map(Event::Comes),
        2 => (1_u64..20).prop_map(Event::Dies),
        1 => (1_u64..20, any::<bool>()).prop_map(|(pod, on)| Event::Drains(pod, on)),
        4 => Just(Event::Plans),
        8 => (0_usize..8, 1_usize..4).prop_map(|(which, often)| Event::GoesOn(which, often)),
        1 => (1_u64..20, 1_u64..60, reported).prop_map(|(pod, id, reported)| Event::Says(pod, id, reported)),
    ]
}

fn happens(leases: &mut Leases, event: &Event) {
    match *event {
        Event::Comes(number) => {
            register(leases, number);
        }
        // A leader plans for what a dead pod leaves in the same entry of the log.
        Event::Dies(pod) => {
            leases.apply(&Command::End { pods: vec![PodId(pod)], why: Ended::Expired });
            begin(leases);
        }
        Event::Drains(pod, draining) => {
            leases.apply(&Command::Drain { pod: PodId(pod), draining });
        }
        Event::Plans => {
            begin(leases);
        }
        Event::GoesOn(which, often) => {
            for _ in 0..often {
                let under_way = service(leases).handovers().nth(which).map(|(id, handover)| (id, handover.clone()));
                if let Some((id, handover)) = under_way {
                    let (pod, reported) = next(&handover).unwrap();
                    assert!(report(leases, pod, id, reported));
                }
            }
        }
        Event::Says(pod, id, reported) => {
            report(leases, PodId(pod), HandoverId(id), reported);
        }
    }
}

proptest! {
    #[test]
    fn after_any_history_a_slice_has_one_owner_that_lives_and_two_that_may_route_it_at_most(
        bits in 0_u8..7, history in prop::collection::vec(event(), 1..60),
    ) {
        let mut leases = vacant(bits);
        for event in &history {
            happens(&mut leases, event);
            let planned = matches!(event, Event::Plans | Event::Dies(_));
            let service = service(&leases);
            for slice in 0..1 << bits {
                let owner = service.ownership().owner(slice);
                prop_assert!(owner.is_none_or(|owner| leases.lease(owner).is_some()), "{event:?}: {slice} is {owner:?}'s");
                let served = leases.leases().next().is_some();
                prop_assert!(!planned || !served || owner.is_some(), "{event:?}: nobody owns {slice}");
                prop_assert!(routers(&leases, slice).len() <= 2);
                let around = service.handovers().filter(|(_, handover)| {
                    handover.blocks.iter().any(|block| block.range().contains(&slice))
                });
                prop_assert!(around.count() <= 1, "{event:?}: {slice} is in two handovers");
            }
            for (_, handover) in service.handovers() {
                prop_assert!(leases.lease(handover.to).is_some());
                prop_assert!(handover.from.is_none_or(|from| leases.lease(from).is_some() && from != handover.to));
            }
        }
        if leases.leases().next().is_some() {
            settle(&mut leases);
            let holdings = service(&leases).ownership().holdings();
            let serving = leases.leases().filter(|(_, lease)| !lease.draining).count() as u32;
            let (least, most) = ((1_u32 << bits) / serving.max(1), (1_u32 << bits).div_ceil(serving.max(1)));
            for (pod, lease) in leases.leases().filter(|(_, lease)| !lease.draining) {
                let slices = holdings.get(&pod).map_or(0, |holding| holding.slices);
                prop_assert!((least..=most).contains(&slices), "{pod} {lease:?} has {slices}");
            }
        }
    }

    #[test]
    fn shares_tell_of_every_slice_once_and_replicas_are_the_same_octets(
        bits in 0_u8..7, history in prop::collection::vec(event(), 1..40),
    ) {
        let (mut leases, mut other) = (vacant(bits), vacant(bits));
        for event in &history {
            happens(&mut leases, event);
            happens(&mut other, event);
        }
        let octets = postcard::to_stdvec(&leases).unwrap();
        prop_assert_eq!(&octets, &postcard::to_stdvec(&other).unwrap());
        prop_assert_eq!(&postcard::from_bytes::<Leases>(&octets).unwrap(), &leases);
        let service = service(&leases);
        let mut told = vec![0; 1 << bits];
        for share in leases.shares(service).values() {
            let of_one = share.held.iter().chain(share.arriving.iter().flat_map(|arriving| &arriving.prefixes));
            for &prefix in of_one {
                service.block_of(prefix).unwrap().range().for_each(|slice| told[slice as usize] += 1);
            }
        }
        let owned = (0..1 << bits).map(|slice| u32::from(service.ownership().owner(slice).is_some()));
        prop_assert_eq!(told, owned.collect::<Vec<_>>());
    }
}

#[test]
fn whoever_gives_back_a_lease_has_it_no_longer() {
    let mut leases = vacant(3);
    let pod = register(&mut leases, 1);
    settle(&mut leases);
    leases.apply(&Command::End { pods: vec![pod], why: Ended::Returned });
    assert_eq!(leases.lease(pod), None);
    assert!(service(&leases).ownership().runs().all(|(_, owner)| owner.is_none()));
    assert_ne!(register(&mut leases, 1), pod, "numbers are not used again");
    assert_eq!(begin(&mut leases), 1);
    let why: Vec<_> = service(&leases).handovers().map(|(_, handover)| handover.why).collect();
    assert_eq!(why, [Why::Orphaned]);
}
