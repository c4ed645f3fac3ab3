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
