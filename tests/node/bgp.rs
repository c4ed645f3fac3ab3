//! `routes: bgp` with BIRD: it learns the agent's table and announces it, as the sample in deploy/ says.

use std::time::{Duration, Instant};

use funicular::demo::process::Process;
use funicular::demo::programs;

use super::bed::{Bed, HIGH, LOW, SPACE, namespace, net, shell, spaces, until, within};
use super::load::Load;

const SAMPLE: &str = include_str!("../../deploy/overlays/bgp/bird.conf");

/// A BIRD in every node, configured by the sample, and one in the router.
pub(crate) fn birds(bed: &Bed) -> Vec<Process> {
    let nodes = bed.nodes.len() as u16;
    let mut birds = Vec::new();
    for number in 1..=nodes {
        let text = SAMPLE
            .replace("192.0.2.1", &format!("192.0.2.{number}"))
            .replace("2001:db8:10::fffe", &format!("2001:db8:a:{number}::1"))
            .replace("2001:db8:5::/48", SPACE)
            .replace("64500", "65000");
        birds.push(bird(bed, &bed.node(number).pod, &format!("n{number}"), &text));
    }
    let mut router = String::from(
        "router id 192.0.2.254;\nprotocol device { scan time 10; }\n\
         protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; merge paths on; \
         netlink rx buffer 16777216; }\n",
    );
    for number in 1..=nodes {
        router.push_str(&format!(
            "protocol bgp n{number} {{ local 2001:db8:a:{number}::1 as 65000; neighbor 2001:db8:a:{number}::2 as 65000; \
             connect delay time 1; connect retry time 2; error wait time 1, 5; ipv6 {{ import all; export none; }}; }}\n",
        ));
    }
    router.push_str("protocol direct { ipv6; }\n");
    birds.push(bird(bed, &bed.router, "router", &router));
    birds
}

fn bird(bed: &Bed, pod: &funicular::demo::bed::Pod, name: &str, text: &str) -> Process {
    let at = |end: &str| bed.folder.path().join(format!("bird-{name}{end}"));
    std::fs::write(at(".conf"), text).unwrap();
    let bird = programs::find("bird").expect("tests/run installs bird2");
    pod.command(bird).arg("-f").arg("-c").arg(at(".conf")).arg("-s").arg(at(".ctl")).spawn(&at(".log")).unwrap()
}

/// How many routes of slices a pod's main table has.
fn slices(pod: &funicular::demo::bed::Pod) -> usize {
    let listed = shell(pod, "ip -6 route show table main");
    let space = net(SPACE);
    let of_space = |line: &&str| {
        let prefix = line.split(' ').next().and_then(|word| word.parse::<ipnet::Ipv6Net>().ok());
        prefix.is_some_and(|prefix| space.contains(&prefix))
    };
    listed.lines().filter(of_space).count()
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn bird_announces_a_slice_as_it_moves_and_no_connection_notices() {
    let mut bed = Bed::with_agents(2).await;
    let (one, two) = (bed.add_pod(1), bed.add_pod(2));
    let _birds = birds(&bed);
    bed.servers[one].claim(&[SPACE], &[], &[]).await;
    until("the first announcement", || slices(&bed.router) == 1).await;
    let load = Load::start(&namespace(&bed.client), net(SPACE), 300, 40);
    load.standing(40).await;

    // Half the space goes over, and comes back, and goes again: nobody waits for anything but the agents.
    for _ in 0..2 {
        let from = bed.place(one);
        bed.servers[two].claim(&[], &[(HIGH, from)], &[]).await;
        until("the announcement", || slices(&bed.router) == 2).await;
        bed.servers[one].claim(&[LOW], &[], &[HIGH]).await;
        until("the withdrawal", || slices(&bed.router) == 2).await;
        load.pass(150).await;
        let from = bed.place(two);
        bed.servers[one].claim(&[LOW], &[(HIGH, from)], &[]).await;
        bed.servers[two].claim(&[], &[], &[HIGH]).await;
        load.pass(150).await;
    }
    let counted = load.finish();
    counted.assert_whole();
    assert!(counted.answers.contains_key(bed.servers[two].name()));
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn thousands_of_slices_are_announced_and_withdrawn_in_a_fraction_of_a_second_and_none_is_dropped() {
    const SLICES: usize = 4_096;
    let mut bed = Bed::with_agents(1).await;
    let one = bed.add_pod(1);
    let birds = birds(&bed);
    bed.servers[one].claim(&[LOW], &[], &[]).await;
    until("the first announcement", || slices(&bed.router) == 1).await;
    // Every second of 8,192, so that none can be joined with another.
    let many: Vec<String> = (0..SLICES).map(|at| format!("2001:db8:5:0:{:x}::/77", at << 4)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();

    let mut times = Vec::new();
    for (wanted, claim) in [(SLICES, spaces(&many, &[], &[])), (0, spaces(&[], &[], &[]))] {
        let began = Instant::now();
        let number = bed.servers[one].link.claim(claim);
        within("a report", bed.servers[one].link.report_on(number)).await;
        let in_kernel = began.elapsed();
        until("the announcements", || slices(&bed.router) == wanted).await;
        times.push((in_kernel, began.elapsed()));
    }
    eprintln!("{SLICES} routes in the node's kernel and through BIRD: {times:?}");
    let said: String = birds.iter().map(Process::said).collect();
    assert!(!said.contains("dropped some netlink messages"), "{said}");
    // How long it takes is the machine's as well; a socket that overflowed would wait for BIRD's next scan, ten seconds.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 200 });
    assert!(times.iter().all(|(_, all)| *all < most), "{times:?}");
}
