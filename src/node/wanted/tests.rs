//! What is wanted of the kernel in each moment of a slice's life.

use super::*;
use crate::wire::agent::{Place, SpaceClaim};

const HERE: &str = "2001:db8:10::1";
const THERE: &str = "2001:db8:10::2";
const SPACE: &str = "2001:db8:5::/64";
const LOW: &str = "2001:db8:5::/65";
const HIGH: &str = "2001:db8:5:0:8000::/65";
const MARK: u32 = 0x4655_0000;

fn node() -> Node {
    Node {
        address: HERE.parse().unwrap(),
        spaces: vec![SPACE.parse().unwrap()],
        nodes: vec![],
        tunnel: "funicular0".into(),
        tunnel_port: 4790,
        mark: MARK,
    }
}

fn pod(number: u16, heard: u64) -> Pod {
    Pod {
        address: Ipv6Addr::new(0x2001, 0xdb8, 1, number, 0, 0, 0, 2),
        device: format!("veth{number}"),
        number,
        claim: None,
        heard,
        told: None,
        gone: None,
        connection: 1,
    }
}

fn claim(owned: &[&str], arriving: &[(&str, &str, &Pod)], leaving: &[&str]) -> Claim {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let arriving = arriving.iter().map(|(prefix, node, pod)| Arriving {
        prefixes: nets(&[prefix]),
        from: Place { node: node.parse().unwrap(), pod: pod.address },
    });
    let (arriving, space) = (arriving.collect(), SPACE.parse().unwrap());
    Claim { number: 1, spaces: vec![SpaceClaim { space, owned: nets(owned), arriving, leaving: nets(leaving) }] }
}

/// The routes of one table, and the marks that have rules.
fn of(pods: &[(&Pod, &Claim)], unreachable: &[&str]) -> (Vec<String>, Vec<String>, Vec<u32>, usize) {
    let pods: Vec<_> = pods.iter().map(|(pod, claim)| (u64::from(pod.number), *pod, *claim)).collect();
    let unreachable = unreachable.iter().map(|node| node.parse().unwrap()).collect();
    let (remembered, mesh, inherited) = (BTreeMap::new(), BTreeMap::new(), Inherited::default());
    let world =
        World { pods: &pods, remembered: &remembered, unreachable: &unreachable, mesh: &mesh, inherited: &inherited };
    let (wanted, waiting) = wanted(&node(), &world);
    let table = |number| {
        let routes = wanted.routes.values().filter(|route| route.table == number);
        routes.map(|route| route.to_string().split(" table").next().unwrap().to_owned()).collect()
    };
    let marks = wanted.rules.iter().filter_map(|rule| rule.mark).filter(|mark| *mark != MARK).collect();
    (table(SLICES), table(STRAYS), marks, waiting.len())
}

const NONE: [String; 0] = [];

#[test]
fn what_a_pod_owns_is_routed_to_it_and_nothing_is_carried() {
    let (one, owns) = (pod(1, 1), claim(&[LOW, HIGH], &[], &[]));
    let (slices, strays, marks, _) = of(&[(&one, &owns)], &[]);
    let way = "via 2001:db8:1:1::2 dev veth1";
    assert_eq!(slices, [format!("{LOW} {way}"), format!("{HIGH} {way}")]);
    assert_eq!((strays, marks), (NONE.to_vec(), vec![]));
}

#[test]
fn strays_of_a_slice_from_another_node_are_carried_there() {
    let (one, elder) = (pod(1, 1), pod(9, 0));
    let (slices, strays, marks, waiting) = of(&[(&one, &claim(&[LOW], &[(HIGH, THERE, &elder)], &[]))], &[]);
    assert_eq!(slices.len(), 2);
    assert_eq!(strays, [format!("{HIGH} encap ip6 id 70 dst {THERE} csum dev funicular0")]);
    assert_eq!((marks, waiting), (vec![], 0));
}

#[test]
fn a_slice_waits_as_long_as_its_strays_cannot_be_carried() {
    let (one, elder) = (pod(1, 1), pod(9, 0));
    let (slices, strays, _, waiting) = of(&[(&one, &claim(&[LOW], &[(HIGH, THERE, &elder)], &[]))], &[THERE]);
    assert_eq!(slices, [format!("{LOW} via 2001:db8:1:1::2 dev veth1")]);
    assert_eq!((strays, waiting), (NONE.to_vec(), 1));
}

#[test]
fn what_has_left_a_pod_is_not_routed_to_it_and_its_strays_are() {
    let one = pod(1, 1);
    let (slices, strays, marks, _) = of(&[(&one, &claim(&[LOW], &[], &[HIGH]))], &[]);
    assert_eq!(slices, [format!("{LOW} via 2001:db8:1:1::2 dev veth1")]);
    assert_eq!(strays, [format!("{HIGH} via 2001:db8:1:1::2 dev veth1")]);
    assert_eq!(marks, [MARK + 1]);
}

#[test]
fn between_two_pods_of_one_node_the_new_owner_wins_before_the_old_one_has_said_that_it_left() {
    let (old, new) = (pod(1, 5), pod(2, 4));
    let arrives = claim(&[], &[(LOW, HERE, &old)], &[]);
    for owned in [vec![LOW, HIGH], vec![LOW]] {
        // An old owner may own the slice in smaller pieces, and its claim may be the later one.
        let (slices, strays, marks, _) = of(&[(&new, &arrives), (&old, &claim(&owned, &[], &[]))], &[]);
        assert_eq!(slices[0], format!("{LOW} via 2001:db8:1:2::2 dev veth2"));
        assert_eq!(strays, [format!("{LOW} via 2001:db8:1:1::2 dev veth1")]);
        assert_eq!(marks, [MARK + 1]);
    }
    let pieces = claim(&["2001:db8:5::/66", "2001:db8:5:0:4000::/66"], &[], &[]);
    let (slices, ..) = of(&[(&new, &arrives), (&old, &pieces)], &[]);
    assert_eq!(slices, [format!("{LOW} via 2001:db8:1:2::2 dev veth2")]);
}

#[test]
fn a_slice_that_goes_back_and_forth_is_its_latest_claimant_s() {
    let (one, two) = (pod(1, 8), pod(2, 7));
    let (to_two, back_to_one) = (claim(&[], &[(LOW, HERE, &one)], &[]), claim(&[], &[(LOW, HERE, &two)], &[]));
    let (slices, _, marks, _) = of(&[(&two, &to_two), (&one, &back_to_one)], &[]);
    assert_eq!(slices, [format!("{LOW} via 2001:db8:1:1::2 dev veth1")]);
    assert_eq!(marks, [MARK + 1, MARK + 2]);
}

#[test]
fn strays_of_a_slice_that_only_passed_through_go_on_to_where_it_came_from() {
    let (passed, elder, next) = (pod(1, 1), pod(9, 0), pod(2, 2));
    // It came from another node, and has left for a pod of this one before the first move was over.
    let left = claim(&[], &[], &[LOW]);
    let arrives = claim(&[], &[(HIGH, THERE, &elder)], &[]);
    let (_, strays, ..) = of(&[(&passed, &left), (&next, &arrives)], &[]);
    assert_eq!(strays.len(), 2);
    let both = claim(&[], &[(LOW, THERE, &elder)], &[]);
    let (_, strays, ..) = of(&[(&passed, &left), (&next, &both)], &[]);
    assert_eq!(strays, [format!("{LOW} encap ip6 id 70 dst {THERE} csum dev funicular0")]);
}

#[test]
fn numbers_of_pods_and_of_their_tables_are_each_other_s_inverse() {
    let node = node();
    for number in [1, 255, u16::MAX] {
        assert_eq!(node.number_of(node.mark_of(number)), Some(number));
    }
    assert_eq!(node.number_of(MARK), None);
    assert_eq!(node.number_of(SLICES), None);
}
