//! The whole of it: Peak leases slices, sidecars hold them, agents route them, BIRD announces them. A service scales, its
//! pods come, go and die, so do agents and Peak's nodes, and nobody who calls notices.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::bed::{namespace, shell, until};
use super::callers::Callers;
use super::town::{LIFE, Town};

/// Requests a second: what a debug build and two cores have room for beside everything else.
const RATE: u32 = 60;

/// For what dies at once.
fn now() -> RangeInclusive<Instant> {
    let now = Instant::now();
    now..=now
}

async fn town_of(pods: usize) -> (Town, Callers) {
    let mut town = Town::build().await;
    town.grow(pods).await;
    town.settled().await;
    let callers = Callers::start(namespace(&town.bed.client), town.stand_in, RATE);
    callers.pass(60).await;
    (town, callers)
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_service_goes_from_three_pods_to_twelve_and_to_five_and_two_die_and_nobody_who_calls_notices() {
    let (mut town, callers) = town_of(3).await;

    town.grow(12).await;
    town.settled().await;
    let orphans = town.addresses_of(4);
    let mut deaths = vec![now()];
    town.kill(4);
    town.served(orphans).await;
    let took = deaths[0].start().elapsed();
    eprintln!("a killed pod's slices are served by others {took:?} later; a lease lasts {LIFE:?}");
    // In a debug build, two cores are busy with twelve pods; the soak's build has time.
    let more = if cfg!(debug_assertions) { 3_000 } else { 200 };
    assert!(took < LIFE + Duration::from_millis(more), "{took:?}");
    town.bed.kill_agent(2);
    callers.pass(60).await;
    town.bed.start_agent_again(2).await;
    town.settled().await;
    deaths.push(now());
    town.kill(0);
    town.settled().await;
    callers.pass(60).await;
    town.shrink(5).await;
    town.settled().await;
    callers.hear_from(5).await;
    callers.finish().assert_whole(&deaths);
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn all_pods_all_agents_and_all_of_peak_are_replaced_one_by_one_and_no_request_fails() {
    let (mut town, callers) = town_of(3).await;
    for index in 0..town.peaks() {
        let (before, _) = town.shares();
        town.kill_peak(index);
        town.led().await;
        callers.pass(60).await;
        town.start_peak_again(index).await;
        town.settled().await;
        assert_eq!(town.shares().0, before, "who leads changes, and nobody's slices do");
    }
    for node in 1..=3 {
        town.bed.kill_agent(node);
        callers.pass(30).await;
        town.bed.start_agent_again(node).await;
        callers.pass(30).await;
    }
    for _ in 0..3 {
        town.grow(4).await;
        town.settled().await;
        let oldest = town.members.remove(0);
        town.leave(oldest).await;
        callers.pass(30).await;
    }
    town.settled().await;
    callers.finish().assert_whole(&[]);
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn without_peak_everything_goes_on_and_every_lease_is_taken_up_again() {
    let (mut town, callers) = town_of(4).await;
    let (before, _) = town.shares();
    (0..town.peaks()).for_each(|index| town.kill_peak(index));
    let since = Instant::now();
    while since.elapsed() < 2 * LIFE {
        callers.pass(30).await;
    }
    for index in 0..town.peaks() {
        town.start_peak_again(index).await;
    }
    town.led().await;
    town.settled().await;
    assert_eq!(town.shares().0, before, "every lease is taken up again");

    callers.finish().assert_whole(&[]);
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_node_that_is_cut_off_is_done_without_and_serves_again_when_it_is_back() {
    let (mut town, callers) = town_of(3).await;
    let third = town.members.iter().position(|member| member.node == 3).unwrap();
    let orphans = town.addresses_of(third);
    let cut = Instant::now();
    let beyond = town.cut(3);
    town.settled().await;
    // Peak has decided; routers lead to the new owners a moment later.
    town.served(orphans).await;
    let without = cut..=Instant::now();
    callers.pass(60).await;
    // Its routing daemon announces what its agent last knew until Peak has told its pod that its lease has ended.
    let back = Instant::now();
    town.mend(3, beyond);
    town.settled().await;
    let until_told = back..=Instant::now();
    callers.hear_from(3).await;
    callers.pass(60).await;
    callers.finish().assert_whole(&[without, until_told]);
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn slices_wait_where_strays_cannot_be_carried_and_say_why_and_move_when_they_can() {
    let (mut town, callers) = town_of(2).await;
    // Somebody else takes the port of the tunnel, whose device the agent would make again at once.
    let stranger = "ip link del funicular0; ip link add stranger up type vxlan external gpe dstport 4790";
    town.bed.behind_the_back_of_the_agent(3, stranger);
    town.grow(3).await;
    until("the reason", || town.waits().iter().any(|why| why.contains("dstport 4790"))).await;
    let (shares, _) = town.shares();
    assert_eq!(shares["orders-3"], 0, "nothing has moved: {shares:?}");
    callers.pass(30).await;
    shell(&town.bed.node(3).pod, "ip link del stranger");
    town.settled().await;
    assert!(town.waits().is_empty());
    callers.pass(60).await;
    callers.finish().assert_whole(&[]);
}
