//! What goes wrong in a run, and when.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::network::Weather;
use super::random::{below, between, chance, jump};
use super::{World, Wrong};

/// How often the world is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A week.
const WEEK: i64 = 7 * 24 * 3_600 * 1_000;

/// Lets things happen for so long.
pub(super) async fn strike(world: &mut World, life: Duration) -> Result<(), Wrong> {
    let end = Instant::now() + life;
    let mut next = Instant::now() + Duration::from_millis(between(50, 300));
    let mut flapping = 0_u32;
    while Instant::now() < end {
        sleep(LOOK).await;
        world.look()?;
        world.find_stopped().await;
        if flapping > 0 {
            flapping -= 1;
            flap(world, flapping);
        }
        if Instant::now() >= next {
            next = Instant::now() + Duration::from_millis(between(50, 400));
            flapping = misfortune(world).await?;
        }
    }
    Ok(())
}

/// One of them happens; gives how often the network is to flap from here on.
async fn misfortune(world: &mut World) -> Result<u32, Wrong> {
    let machines = world.machines.len();
    let one = below(machines as u64) as usize;
    let victim = world.leader().filter(|_| chance(500)).unwrap_or(one);
    match below(16) {
        0 => {
            world.tell(|| format!("node {victim} is cut off"));
            world.wire.cut(|from, to| from == victim || to == victim);
        }
        1 => {
            world.tell(|| format!("nothing gets to node {victim}"));
            world.wire.cut(|_, to| to == victim);
        }
        2 => {
            world.tell(|| format!("nothing gets away from node {victim}"));
            world.wire.cut(|from, _| from == victim);
        }
        3 => {
            // No side has a majority of three; of five, one has.
            world.tell(|| format!("node {victim} and its neighbour are cut off"));
            let inside = |at: usize| at == victim || at == (victim + 1) % machines;
            world.wire.cut(|from, to| inside(from) != inside(to) || machines == 3 && from != to);
        }
        4 => return Ok(between(5, 25) as u32),
        5 | 6 => {
            world.tell(|| "the network is whole".to_owned());
            world.wire.cut(|_, _| false);
        }
        7 | 8 => world.kill(victim).await,
        9 => {
            world.tell(|| format!("node {victim} will stop in the middle of a write"));
            world.machines[victim].platter.light_fuse();
        }
        10..=12 => start_all(world).await?,
        13 => {
            let full = chance(500);
            world.tell(|| format!("the disk of node {victim} {}", if full { "is full" } else { "has room" }));
            world.machines[victim].platter.fill(full);
        }
        14 => {
            let by = [WEEK, -WEEK, 60_000, -60_000, 500, -500][below(6) as usize];
            world.tell(|| format!("the clocks jump by {by} ms"));
            jump(by);
        }
        _ => {
            let weather = Weather { lost: below(250), doubled: below(250), slowest: between(2, 150) };
            let weather = if chance(300) { Weather::FAIR } else { weather };
            world.tell(|| format!("the weather: {weather:?}"));
            world.wire.set_weather(weather);
        }
    }
    Ok(0)
}

/// Whoever is off is started.
async fn start_all(world: &mut World) -> Result<(), Wrong> {
    for at in 0..world.machines.len() {
        if !world.is_running(at) {
            world.start(at).await?;
        }
    }
    Ok(())
}

fn flap(world: &World, left: u32) {
    let between = (left as usize % world.machines.len(), (left as usize + 1) % world.machines.len());
    let is_cut = left % 2 == 1;
    world.wire.cut(|from, to| is_cut && ((from, to) == between || (to, from) == between));
}
