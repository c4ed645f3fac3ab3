//! `routes: mesh`: the agents tell each other where slices are, and no routing daemon is needed.

use std::net::SocketAddr;

use funicular::demo::material::Authority;

use super::bed::{Bed, HIGH, LOW, SPACE, namespace, net, shell, until};
use super::load::Load;

/// A bed whose agents know each other; the client is at the last node.
async fn meshed(nodes: u16) -> Bed {
    let mut bed = Bed::new(nodes);
    let authority = Authority::generate().unwrap();
    let ca = bed.folder.path().join("ca.crt");
    std::fs::write(&ca, authority.pem()).unwrap();
    for number in 1..=nodes {
        let name = format!("node-{number}.example");
        let tls = authority.certify(&[&name], bed.folder.path(), &format!("n{number}")).unwrap();
        let others = (1..=nodes).filter(|other| *other != number).map(|other| {
            let address = SocketAddr::from((bed.node(other).address(), 7247));
            format!("    - {{ address: \"{address}\", name: node-{other}.example }}\n")
        });
        let (certificate, key, ca) = (tls.certificate.display(), tls.key.display(), ca.display());
        let mesh = format!(
            "routes: mesh\nmesh:\n  certificate: {certificate}\n  key: {key}\n  ca: {ca}\n  nodes:\n{}",
            others.collect::<String>()
        );
        bed.start_agent(number, &mesh).await;
    }
    bed
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn slices_are_known_on_every_node_and_move_under_load_and_outlive_an_agent() {
    let mut bed = meshed(3).await;
    let (one, two, caller) = (bed.add_pod(1), bed.add_pod(2), bed.add_pod(3));
    bed.servers[one].claim(&[SPACE], &[], &[]).await;
    until("the way at the caller's node", || bed.table(3, "15070").len() == 1).await;
    // Routers between the nodes know nothing of slices.
    assert!(bed.table(3, "15070")[0].contains("encap ip6"), "{:?}", bed.table(3, "15070"));

    // The caller's pod would take its own calls to the space for its own.
    shell(&bed.servers[caller].pod, "ip -6 rule del iif eth0 lookup 100");
    let load = Load::start(&namespace(&bed.servers[caller].pod), net(SPACE), 200, 20);
    load.standing(20).await;
    let from = bed.place(one);
    bed.servers[two].claim(&[], &[(HIGH, from)], &[]).await;
    until("the new way", || bed.table(3, "15070").len() == 2).await;
    bed.servers[one].claim(&[LOW], &[], &[HIGH]).await;
    load.pass(50).await;
    load.turn_page();
    load.pass(100).await;
    assert!(load.so_far().answers.contains_key(bed.servers[two].name()));

    for node in [1, 2, 3] {
        bed.kill_agent(node);
        load.pass(30).await;
        bed.start_agent_again(node).await;
    }
    load.pass(50).await;
    let counted = load.finish();
    counted.assert_whole();
    assert_eq!(counted.pulses.keys().collect::<Vec<_>>(), [bed.servers[one].name()]);

    // A node that is gone for good: its slices are given to another, which says so later than the dead one did.
    bed.node(2).pod.set_down("eth0").unwrap();
    bed.servers[one].claim(&[LOW, HIGH], &[], &[]).await;
    until("the way past the dead node", || {
        bed.table(3, "15070").iter().filter(|route| route.contains("2001:db8:a:1::2")).count() == 2
    })
    .await;
}
