//! What an agent writes, repairs and leaves alone; who is heard; and what its end and its return mean for connections.

use funicular::net::agent::AgentLink;
use funicular::wire::agent::{SpaceClaim, State};

use super::bed::{Bed, HIGH, LOW, SPACE, namespace, net, shell, spaces, until, within};
use super::load::Load;

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn what_others_change_is_put_right_and_what_others_have_is_left_alone() {
    let mut bed = Bed::with_agents(1).await;
    let one = bed.add_pod(1);
    bed.servers[one].claim(&[LOW], &[], &[HIGH]).await;
    let pod = bed.servers[one].address();
    let in_place = [format!("{LOW} via {pod} dev {} proto 70 metric 1024 pref medium", bed.servers[one].name())];
    assert_eq!(bed.table(1, "15070"), in_place);
    let node = &bed.node(1).pod;
    let others = "ip -6 route show table 77; ip -6 rule show pref 77; nft list table inet others";
    shell(
        node,
        "ip -6 route add 2001:db8:77::/64 dev lo table 77 proto 70; ip -6 rule add pref 77 lookup 77 protocol 70; \
         nft add table inet others",
    );
    let before = shell(node, others);
    let rules = shell(node, "ip -6 rule show");

    // A route is deleted, one is replaced, a strange one added; rules go; packet rules go; the tunnel goes.
    shell(
        node,
        &format!(
            "ip -6 route del {LOW} table 15070; ip -6 route add unreachable {HIGH} table 15070 proto 70; \
             ip -6 route flush table 15071; ip -6 rule del pref 15070; ip link del funicular0"
        ),
    );
    until("the routes", || bed.table(1, "15070") == in_place).await;
    until("the rules", || shell(&bed.node(1).pod, "ip -6 rule show") == rules).await;
    until("the strays", || bed.table(1, "15071").len() == 1).await;
    until("the tunnel", || shell(&bed.node(1).pod, "ip -o link show").contains("funicular0")).await;
    assert!(bed.counted(1, "funicular_node_repairs_total") >= 4.0);
    shell(&bed.node(1).pod, "nft delete table inet funicular-node");
    until("the packet rules", || shell(&bed.node(1).pod, "nft list tables").contains("funicular-node")).await;

    bed.kill_agent(1);
    let node = bed.node(1);
    node.pod.funicular("node").arg("--config").arg(&node.config).arg("--remove").run().unwrap();
    assert_eq!(shell(&node.pod, others), before, "what others have is as it was");
    let left = shell(&node.pod, "ip -6 route show table 15070; ip -6 rule show; nft list tables; ip -o link show");
    assert!(!left.contains("15070") && !left.contains("funicular"), "{left}");
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn an_agent_is_killed_and_comes_back_under_load_and_no_request_fails() {
    let mut bed = Bed::with_agents(2).await;
    let (one, two) = (bed.add_pod(1), bed.add_pod(2));
    bed.servers[one].claim(&[SPACE], &[], &[]).await;
    bed.announce(SPACE, 1);
    let load = Load::start(&namespace(&bed.client), net(SPACE), 300, 20);
    load.standing(20).await;
    let from = bed.place(one);
    bed.servers[two].claim(&[], &[(HIGH, from)], &[]).await;
    bed.announce(HIGH, 2);
    bed.servers[one].claim(&[LOW], &[], &[HIGH]).await;

    // Both agents, one after the other, while strays are carried: a rolling restart without mercy.
    for node in [2, 1] {
        bed.kill_agent(node);
        load.pass(50).await;
        bed.start_agent_again(node).await;
        load.pass(50).await;
    }
    for server in [one, two] {
        let mut seen = bed.servers[server].link.seen();
        within("the sidecar's return", seen.wait_for(|seen| seen.connected)).await.unwrap();
    }
    // What an earlier agent left is kept for a while for those who do not come back; everybody has.
    until("the end of what was left", || [1, 2].iter().all(|node| bed.inherited(*node) == Some(0))).await;
    load.pass(50).await;
    let counted = load.finish();
    counted.assert_whole();
    assert_eq!(counted.pulses.keys().collect::<Vec<_>>(), [bed.servers[one].name()]);
    assert_eq!(bed.table(2, "15070").len(), 1);
    assert_eq!(bed.table(2, "15069").len(), 1);
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn the_routes_of_a_sidecar_that_is_gone_stay_for_a_while_and_of_one_that_says_so_go_at_once() {
    let mut bed = Bed::with_agents(1).await;
    let (crashes, leaves) = (bed.add_pod(1), bed.add_pod(1));
    bed.servers[crashes].claim(&[LOW], &[], &[]).await;
    bed.servers[leaves].claim(&[HIGH], &[], &[]).await;
    let number = bed.servers[leaves].link.claim(vec![]);
    within("a report", bed.servers[leaves].link.report_on(number)).await;
    assert_eq!(bed.table(1, "15070").len(), 1);

    let gone = bed.servers.remove(crashes);
    drop(gone.link);
    assert_eq!(bed.table(1, "15070").len(), 1, "a sidecar may come back");
    until("the end of its routes", || bed.table(1, "15070").is_empty()).await;
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn only_pods_are_heard_and_only_about_spaces_that_the_node_routes() {
    let mut bed = Bed::with_agents(1).await;
    let one = bed.add_pod(1);
    let space = net("2001:db8:6::/64");
    let foreign = SpaceClaim { space, owned: vec![space], arriving: vec![], leaving: vec![] };
    bed.servers[one].claim(&[LOW], &[], &[]).await;
    let number = bed.servers[one].link.claim(vec![foreign]);
    let State::Refused { reason, .. } = within("a report", bed.servers[one].link.report_on(number)).await.state else {
        panic!("another service's space was routed")
    };
    assert_eq!(reason, "space-not-allowed");
    assert_eq!(bed.table(1, "15070").len(), 1, "what was claimed before stays");

    // This process is in no pod of the node's.
    let mut stranger = AgentLink::open(bed.socket(1), 0);
    stranger.claim(spaces(&[HIGH], &[], &[]));
    until("the refusal", || bed.counted(1, "funicular_node_refusals_total{reason=\"pod-not-here\"}") >= 1.0).await;
    assert!(!stranger.seen().borrow().connected);

    let config = std::fs::read_to_string(&bed.node(1).config).unwrap();
    let strict =
        [("users: [7246]", "user-not-allowed"), ("users: [0], cgroup: kubepods-of-nobody", "cgroup-not-allowed")];
    for (pods, reason) in strict {
        bed.kill_agent(1);
        std::fs::write(&bed.node(1).config, config.replace("users: [0]", pods)).unwrap();
        bed.start_agent_again(1).await;
        let counter = format!("funicular_node_refusals_total{{reason=\"{reason}\"}}");
        until("the refusal", || bed.counted(1, &counter) >= 1.0).await;
    }
}
