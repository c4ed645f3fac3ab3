//! Routes and rules as text, and made, listed and removed in namespaces.

use super::*;

const TABLE: u32 = 15006;
const PROTOCOL: u8 = 70;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn local(destination: &str) -> Route {
    Route {
        destination: net(destination),
        action: Action::Local { device: LOOPBACK.to_owned() },
        source: None,
        table: TABLE,
        protocol: PROTOCOL,
    }
}

fn from(device: &str) -> Rule {
    Rule {
        family: Family::V6,
        priority: 15006,
        input: Some(device.to_owned()),
        to: None,
        mark: None,
        table: TABLE,
        protocol: PROTOCOL,
    }
}

/// Two fresh namespaces with `eth0` in each, joined, up.
async fn pair() -> (NetNs, Netlink, NetNs, Netlink) {
    let (one, other) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let (here, there) = (Netlink::inside(&one).unwrap(), Netlink::inside(&other).unwrap());
    here.add_veth("eth0", "eth0", other.fd()).await.unwrap();
    for netlink in [&here, &there] {
        netlink.set_up(LOOPBACK).await.unwrap();
        netlink.set_up("eth0").await.unwrap();
    }
    (one, here, other, there)
}

#[test]
fn routes_and_rules_print_as_the_command_that_makes_them() {
    let unicast = Action::Unicast { via: Some("10.0.0.1".parse().unwrap()), device: Some("eth0".into()) };
    let routed =
        Route { action: unicast, source: Some("10.0.0.2".parse().unwrap()), table: MAIN, ..local("0.0.0.0/0") };
    assert_eq!(local("2001:db8::/64").to_string(), "local 2001:db8::/64 dev lo table 15006 proto 70");
    assert_eq!(routed.to_string(), "0.0.0.0/0 via 10.0.0.1 dev eth0 src 10.0.0.2 table 254 proto 70");
    assert_eq!(from("eth0").to_string(), "pref 15006 iif eth0 lookup 15006 proto 70");
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_missing_device_is_named_with_those_there_are() {
    let netlink = Netlink::inside(&NetNs::create().unwrap()).unwrap();
    let error = netlink.set_up("eth7").await.unwrap_err().to_string();
    assert_eq!(error, "there is no network device eth7; there is lo: name one of them");
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn what_is_added_is_listed_and_what_is_removed_is_gone() {
    let (_one, here, _other, _there) = pair().await;
    here.add_address("eth0", net("10.0.0.2/24")).await.unwrap();
    here.add_address("eth0", net("2001:db8:1::2/64")).await.unwrap();
    let via = |gateway: &str| Action::Unicast { via: Some(gateway.parse().unwrap()), device: Some("eth0".into()) };
    let straight = Action::Unicast { via: None, device: Some(LOOPBACK.into()) };
    let source = Some("10.0.0.2".parse().unwrap());
    let routes = [
        local("2001:db8:5::/64"),
        Route { table: MAIN, action: via("2001:db8:1::1"), ..local("::/0") },
        Route { action: Action::Unreachable, ..local("2001:db8:6::/64") },
        local("10.9.0.0/16"),
        Route { table: MAIN, action: via("10.0.0.1"), ..local("0.0.0.0/0") },
        Route { action: straight, source, ..local("240.0.0.0/4") },
        Route { action: Action::Throw, ..local("255.255.255.255/32") },
    ];
    let rules = [from("eth0"), Rule { mark: Some(7), to: Some(net("fd00::/8")), ..from(LOOPBACK) }];

    for route in &routes {
        here.add_route(route).await.unwrap();
    }
    for rule in &rules {
        here.add_rule(rule).await.unwrap();
    }
    let mut listed = here.routes(Family::V6, PROTOCOL).await.unwrap();
    listed.extend(here.routes(Family::V4, PROTOCOL).await.unwrap());
    assert_eq!(listed.len(), routes.len(), "{listed:?}");
    assert!(routes.iter().all(|route| listed.contains(route)), "{listed:?}");
    assert_eq!(here.rules(Family::V6, PROTOCOL).await.unwrap(), rules);
    assert!(here.add_route(&routes[0]).await.unwrap_err().already_exists());
    assert!(here.add_rule(&rules[0]).await.unwrap_err().already_exists());

    for route in &listed {
        here.delete_route(route).await.unwrap();
    }
    for rule in &rules {
        here.delete_rule(rule).await.unwrap();
    }
    assert_eq!(here.routes(Family::V6, PROTOCOL).await.unwrap(), []);
    assert_eq!(here.routes(Family::V4, PROTOCOL).await.unwrap(), []);
    assert_eq!(here.rules(Family::V6, PROTOCOL).await.unwrap(), []);
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_batch_puts_and_removes_thousands_and_names_what_the_kernel_refuses() {
    let (one, here, _other, _there) = pair().await;
    here.add_address("eth0", net("2001:db8:1::1/64")).await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    let mut batch = one
        .run(|| {
            let _runtime = runtime.enter();
            Batch::here().unwrap()
        })
        .unwrap();
    let via = |gateway: &str| Action::Unicast { via: Some(gateway.parse().unwrap()), device: None };
    let slice = |number: u16, gateway: &str| Route {
        destination: net(&format!("2001:db8:5:0:{number:x}::/80")),
        action: via(gateway),
        ..local("::/0")
    };
    let mut changes: Vec<_> = (0..1_000).map(|number| Change::Put(slice(number, "2001:db8:1::2"))).collect();
    changes[500] = Change::Put(slice(500, "2001:db8:77::2"));
    changes[501] = Change::Remove(slice(3_000, "2001:db8:1::2"));
    let refused = batch.perform(&changes).await.unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let (at, error) = &refused[0];
    assert_eq!(*at, 500);
    assert!(error.to_string().contains("2001:db8:5:0:1f4::/80 via 2001:db8:77::2"), "{error}");
    assert_eq!(here.routes(Family::V6, PROTOCOL).await.unwrap().len(), 998);

    // A second way to the same place replaces the first.
    assert!(batch.perform(&[Change::Put(slice(7, "2001:db8:1::3"))]).await.unwrap().is_empty());
    let listed = here.routes(Family::V6, PROTOCOL).await.unwrap();
    assert_eq!(listed.len(), 998);
    let removed: Vec<_> = listed.into_iter().map(Change::Remove).collect();
    assert!(batch.perform(&removed).await.unwrap().is_empty());
    assert_eq!(here.routes(Family::V6, PROTOCOL).await.unwrap(), []);
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_route_through_a_tunnel_is_listed_as_it_was_made_and_its_coming_and_going_are_told() {
    let (one, here, _other, _there) = pair().await;
    let runtime = tokio::runtime::Handle::current();
    let mut events = one
        .run(|| {
            let _runtime = runtime.enter();
            Events::here().unwrap()
        })
        .unwrap();
    here.add_tunnel("funicular0", 4790, 1_400).await.unwrap();
    assert!(here.add_tunnel("funicular0", 4790, 1_400).await.unwrap_err().already_exists());
    assert_eq!(here.link("funicular0").await.unwrap().mtu, 1_400);
    let action = Action::Tunnel { device: "funicular0".into(), remote: "2001:db8:9::2".parse().unwrap() };
    let carried = Route { action, ..local("2001:db8:5::/64") };
    assert_eq!(
        carried.to_string(),
        "2001:db8:5::/64 encap ip6 id 70 dst 2001:db8:9::2 csum dev funicular0 table 15006 proto 70"
    );
    here.add_route(&carried).await.unwrap();
    assert_eq!(here.routes(Family::V6, PROTOCOL).await.unwrap(), std::slice::from_ref(&carried));
    here.delete_route(&carried).await.unwrap();
    let changed = Changed { destination: carried.destination, table: TABLE, protocol: PROTOCOL };
    let mut told = Vec::new();
    while !told.contains(&Event::Removed(changed)) {
        told.push(events.next().await);
    }
    assert!(told.contains(&Event::Added(changed)) && told.contains(&Event::Link), "{told:?}");
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn the_way_to_an_address_says_whether_it_is_on_the_link() {
    let (_one, here, _other, _there) = pair().await;
    here.add_address("eth0", net("2001:db8:1::1/64")).await.unwrap();
    here.settled("eth0").await.unwrap();
    let via = Action::Unicast { via: Some("2001:db8:1::2".parse().unwrap()), device: None };
    here.add_route(&Route { action: via, table: MAIN, ..local("2001:db8:2::/64") }).await.unwrap();
    let way = async |to: &str| here.way_to(to.parse().unwrap()).await.unwrap();
    let (link, gateway) = way("2001:db8:1::9").await.unwrap();
    assert_eq!((link.name.as_str(), gateway), ("eth0", None));
    assert_eq!(way("2001:db8:2::9").await.unwrap().1, Some("2001:db8:1::2".parse().unwrap()));
    assert!(way("2001:db8:3::9").await.is_none());
    assert!(way("2001:db8:1::1").await.is_none());
}

#[tokio::test]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_whole_prefix_is_local_for_what_comes_in_and_not_for_what_goes_out() {
    let (client, client_net, server, server_net) = pair().await;
    client_net.add_address("eth0", net("2001:db8:1::1/64")).await.unwrap();
    server_net.add_address("eth0", net("2001:db8:1::2/64")).await.unwrap();
    let via = Action::Unicast { via: Some("2001:db8:1::2".parse().unwrap()), device: None };
    client_net.add_route(&Route { action: via, table: MAIN, ..local("2001:db8:5::/64") }).await.unwrap();
    server_net.add_rule(&from("eth0")).await.unwrap();
    server_net.add_route(&local("2001:db8:5::/64")).await.unwrap();
    let any: std::net::SocketAddr = "[2001:db8:5::1234]:80".parse().unwrap();

    let listener = server.run(|| std::net::TcpListener::bind("[::]:80").unwrap()).unwrap();
    let accepted = std::thread::spawn(move || listener.accept().unwrap().0.local_addr().unwrap());
    client.run(|| std::net::TcpStream::connect(any).unwrap()).unwrap();
    assert_eq!(accepted.join().unwrap(), any);
    let own = server.run(|| std::net::TcpStream::connect(any)).unwrap();
    assert!(own.is_err(), "the server's own call to the prefix must leave it, and finds no way");
}
