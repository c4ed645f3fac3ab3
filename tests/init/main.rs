//! `funicular init` in network namespaces: what is turned to the sidecar, what is not, and what is left behind.
//!
//! Every test has a pod of its own and the world outside it. They need CAP_NET_ADMIN, as root or inside
//! `unshare -Urnm`, where one user and one group are all there is: so "the sidecar's user" is the test's own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod bed;

use std::io::ErrorKind;
use std::io::Write as _;
use std::process::{Command, Stdio};

use futures_util::future::join_all;

use bed::{Bed, DUAL, POD4, POD6, SERVICE, Shape, dial, run, succeeded};

const MARK: &str = "--mark 0x46554e";
const OURS: Option<u32> = Some(0x0046_554e);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_call_of_the_pod_reaches_the_sidecar_which_learns_where_it_was_going() {
    let bed = Bed::new().await;
    bed.populate();
    assert_eq!(bed.call("198.51.100.7:80").unwrap(), "outside", "before init");
    bed.init_ok(MARK);
    for to in ["198.51.100.7:80", "[2001:db8:f::7]:80", "10.0.0.1:80", "203.0.113.9:81"] {
        assert_eq!(bed.call(to).unwrap(), format!("outbound {to}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn the_sidecar_s_own_calls_pass_by_mark_by_user_and_by_group() {
    let bed = Bed::new().await;
    bed.populate();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for to in ["198.51.100.7:80", "[2001:db8:f::7]:80"] {
        bed.init_ok(MARK);
        assert_eq!(bed.call_marked(to, OURS).unwrap(), "outside");
        assert_eq!(bed.call_marked(to, OURS.map(|mark| mark + 1)).unwrap(), format!("outbound {to}"));
        bed.init_ok(&format!("--uid {user}"));
        assert_eq!(bed.call(to).unwrap(), "outside");
        bed.init_ok(&format!("--uid {}", user + 1));
        assert_eq!(bed.call(to).unwrap(), format!("outbound {to}"));
        bed.init_ok(&format!("--gid {group}"));
        assert_eq!(bed.call(to).unwrap(), "outside");
        bed.init_ok(&format!("--gid {}", group + 1));
        assert_eq!(bed.call(to).unwrap(), format!("outbound {to}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn every_question_goes_to_the_stub_except_the_sidecar_s_own() {
    let bed = Bed::new().await;
    bed.populate();
    bed.init_ok(&format!("{MARK} --skip-subnets 0.0.0.0/0,::/0 --skip-outbound-ports 53"));
    let resolvers = ["10.0.0.1:53", "[2001:db8:1::1]:53", "127.0.0.53:53", "127.0.0.11:53", "[::1]:53", "192.0.2.1:53"];
    for resolver in resolvers {
        assert_eq!(bed.send(resolver, None).unwrap(), "stub", "UDP to {resolver}");
        assert_eq!(bed.call(resolver).unwrap(), format!("stub {resolver}"), "TCP to {resolver}");
    }
    for resolver in ["10.0.0.1:53", "[2001:db8:1::1]:53"] {
        assert_eq!(bed.send(resolver, OURS).unwrap(), "outside", "UDP to {resolver}");
        assert_eq!(bed.call_marked(resolver, OURS).unwrap(), "outside", "TCP to {resolver}");
    }
    let own = bed.send("127.0.0.53:53", OURS).unwrap_err();
    assert_eq!(own.kind(), ErrorKind::ConnectionRefused, "nobody listens there, and the stub must not answer itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_call_from_outside_reaches_the_sidecar_at_any_address_of_the_service() {
    let bed = Bed::new().await;
    bed.populate();
    bed.init_ok(&format!("{MARK} --service-prefix {SERVICE} --device eth0"));
    let pod = [format!("{POD4}:80"), format!("[{POD6}]:80")];
    let service = ["[2001:db8:5::1]:80", "[2001:db8:5:0:ffff:ffff:ffff:ffff]:80", "[2001:db8:5::42]:15001"];
    for to in pod.iter().map(String::as_str).chain(service) {
        assert_eq!(bed.call_in(to).unwrap(), format!("inbound {to}"));
    }
    assert!(bed.call_in(&format!("{POD4}:15053")).unwrap().starts_with("inbound"), "the stub over TCP");
    assert_eq!(bed.call_in(&format!("[{POD6}]:15020")).unwrap(), "app", "metrics");
    assert_eq!(bed.call("[2001:db8:5::1]:80").unwrap(), "outbound [2001:db8:5::1]:80", "its own service's address");
    for own in ["127.0.0.1:80".to_owned(), "[::1]:80".to_owned(), format!("{POD4}:80"), format!("[{POD6}]:80")] {
        assert_eq!(bed.call(&own).unwrap(), "app", "the pod's call to itself at {own}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn what_is_skipped_is_left_alone_up_to_its_edges() {
    let bed = Bed::new().await;
    bed.populate();
    bed.init_ok(&format!(
        "{MARK} --skip-outbound-ports 8000-8010 --skip-inbound-ports 9000-9010 --skip-subnets 10.9.0.0/16,2001:db8:9::/48"
    ));
    for (to, skipped) in [
        ("198.51.100.7:7999", false),
        ("198.51.100.7:8000", true),
        ("[2001:db8:f::7]:8010", true),
        ("198.51.100.7:8011", false),
        ("10.9.255.255:80", true),
        ("10.10.0.0:80", false),
        ("[2001:db8:9:ffff::1]:80", true),
        ("[2001:db8:a::1]:80", false),
    ] {
        let expected = if skipped { "outside".to_owned() } else { format!("outbound {to}") };
        assert_eq!(bed.call(to).unwrap(), expected);
    }
    for (port, expected) in [(9000, "app"), (9010, "app"), (9011, "inbound 10.0.0.2:9011"), (15020, "app")] {
        assert_eq!(bed.call_in(&format!("{POD4}:{port}")).unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_skipped_user_is_left_alone_dns_included() {
    let bed = Bed::new().await;
    bed.populate();
    let user = rustix::process::geteuid().as_raw();
    bed.init_ok(&format!("{MARK} --skip-uids {user}-{}", user + 5));
    assert_eq!(bed.call("198.51.100.7:80").unwrap(), "outside");
    assert_eq!(bed.send("10.0.0.1:53", None).unwrap(), "outside");
    bed.init_ok(&format!("{MARK} --skip-uids {}-{}", user + 1, user + 5));
    assert_eq!(bed.call("198.51.100.7:80").unwrap(), "outbound 198.51.100.7:80");
    assert_eq!(bed.send("10.0.0.1:53", None).unwrap(), "stub");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn stand_ins_can_be_dialled_from_any_pod_with_the_pod_s_own_address() {
    let shapes = [
        (DUAL, POD4, POD6),
        (Shape { default_routes: false, ..DUAL }, POD4, POD6),
        (Shape { ipv6: false, ..DUAL }, POD4, "::1"),
        (Shape { ipv6: false, default_routes: false, ..DUAL }, POD4, "::1"),
        (Shape { ipv4: false, ..DUAL }, "127.0.0.1", POD6),
        (Shape { ipv4: false, ipv6: false, default_routes: false }, "127.0.0.1", "::1"),
    ];
    let beds = join_all(shapes.map(|(shape, ..)| Bed::shaped(shape))).await;
    for (bed, (_, source4, source6)) in beds.into_iter().zip(shapes) {
        bed.populate();
        // Even where everything is skipped: a stand-in has no other way.
        bed.init_ok(&format!("{MARK} --skip-subnets 0.0.0.0/0,::/0 --skip-outbound-ports 1-65535"));
        for (to, source) in [
            ("240.0.0.1:80", source4),
            ("255.255.255.254:80", source4),
            ("[fd46:554e:1c00::1]:443", source6),
            ("[fd46:554e:1c00:0:ffff:ffff:ffff:ffff]:443", source6),
        ] {
            let (said, from) = bed.pod.run(|| dial(to.parse().unwrap(), None)).unwrap().unwrap();
            assert_eq!((said, from.ip().to_string()), (format!("outbound {to}"), source.to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_stand_in_refuses_at_once_what_it_cannot_carry() {
    let bed = Bed::new().await;
    bed.populate();
    bed.init_ok(MARK);
    for to in ["240.0.0.1:443", "[fd46:554e:1c00::1]:443"] {
        let quic = bed.send(to, None).unwrap_err();
        assert_eq!(quic.kind(), ErrorKind::PermissionDenied, "UDP to {to}: the sender learns in its own call");
        let own = bed.call_marked(to, OURS).unwrap_err();
        assert_eq!(own.kind(), ErrorKind::ConnectionRefused, "the sidecar's own call to {to} leads nowhere");
    }
    let route = bed.shell("ip route get 255.255.255.255", "");
    assert!(route.contains("dev eth0"), "broadcast is no stand-in: {route}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn datagrams_from_outside_reach_declared_ports_alone_and_never_the_stub() {
    let bed = Bed::new().await;
    bed.populate();
    for port in [443, 444] {
        bed.app_echo(port);
    }
    let to = |port: u16| [format!("{POD4}:{port}"), format!("[{POD6}]:{port}")];
    bed.init_ok(&format!("{MARK} --inbound-udp-ports 443,15053"));
    // The link keeps datagrams in order: what was sent before the one that is answered has been judged by then.
    let counted = "nft add table inet seen; nft add chain inet seen in '{ type filter hook input priority 10; }'; \
                   nft add rule inet seen in iif eth0 udp dport '{ 444, 15053 }' counter";
    bed.shell(counted, "");
    for at in to(444).into_iter().chain(to(15053)) {
        bed.send_in_blindly(&at);
    }
    for at in to(443) {
        assert_eq!(bed.send_in(&at).unwrap(), "app", "{at}");
    }
    let counted = bed.shell("nft list chain inet seen in", "");
    assert!(counted.contains("counter packets 0 "), "{counted}");
    assert_eq!(bed.send("10.0.0.1:53", OURS).unwrap(), "outside", "an answer to the pod's own datagram");
    bed.init_ok(&format!("{MARK} --inbound-udp-ports 444"));
    for at in to(444) {
        assert_eq!(bed.send_in(&at).unwrap(), "app", "{at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn quic_falls_back_at_once_where_it_is_refused_and_other_datagrams_pass() {
    let bed = Bed::new().await;
    bed.populate();
    for at in ["[2001:db8:f::7]:443", "[2001:db8:f::7]:444", "[2001:db8:a::1]:443", "198.51.100.7:443"] {
        bed.outside_echo(at);
    }
    bed.init_ok(&format!("{MARK} --refuse-quic 2001:db8:f::/48,198.51.100.0/24"));
    for to in ["[2001:db8:f::7]:443", "198.51.100.7:443"] {
        assert_eq!(bed.send(to, None).unwrap_err().kind(), ErrorKind::PermissionDenied, "{to}");
    }
    for to in ["[2001:db8:f::7]:444", "[2001:db8:a::1]:443"] {
        assert_eq!(bed.send(to, None).unwrap(), "outside", "{to}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_second_run_changes_nothing_and_removing_leaves_nothing() {
    let bed = Bed::new().await;
    bed.shell("nft add table inet other; nft add chain inet other c '{ type nat hook output priority -100; }'", "");
    let before = bed.snapshot();
    let flags = format!(
        "{MARK} --uid 7 --service-prefix {SERVICE} --skip-uids 1,5-9 --skip-subnets 10.9.0.0/16,10.8.0.0/16,2001:db8:9::/48 \
         --skip-outbound-ports 25,26,8000-8010 --skip-inbound-ports 65535 --inbound-udp-ports 443,5000-5010 \
         --refuse-quic ::/0,198.51.100.0/24"
    );
    assert!(!bed.init("--validate-only --mark 1").status.success());

    bed.init_ok(&flags);
    let after = bed.snapshot();
    assert_ne!(before, after);
    assert!(bed.init_ok(&flags).starts_with("in place already"));
    assert_eq!(bed.snapshot(), after, "handles included: nothing was made anew");
    bed.init_ok(&format!("{flags} --validate-only"));
    assert_eq!(bed.init_ok(&format!("{flags} --dry-run")), "# in place already: nothing to do\n");

    bed.init_ok("--remove");
    assert_eq!(bed.snapshot(), before);
    assert_eq!(bed.init_ok("--remove"), "nothing to remove\n");
    assert_eq!(bed.init("--remove --validate-only").status.code(), Some(2), "which of the two?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_new_plan_takes_the_place_of_the_old() {
    let bed = Bed::new().await;
    let (old, new) = ("--mark 7 --service-prefix 2001:db8:4::/64 --stand-in4 10.128.0.0/16", format!("{MARK} --uid 8"));
    bed.init_ok(&new);
    let fresh =
        bed.shell("nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all", "");
    bed.init_ok(old);
    assert!(bed.snapshot().contains("2001:db8:4::/64"));
    bed.init_ok(&new);
    let again =
        bed.shell("nft list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all", "");
    assert_eq!(again, fresh);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn validation_finds_every_kind_of_meddling() {
    let bed = Bed::new().await;
    let flags = format!("{MARK} --service-prefix {SERVICE} --skip-outbound-ports 25");
    let validate = format!("{flags} --validate-only");
    for meddling in [
        "nft delete table inet funicular",
        "nft insert rule inet funicular outbound tcp dport 80 accept",
        "nft add rule inet funicular inbound counter",
        "nft add element inet funicular skip_outbound_ports '{ 443 }'",
        "nft flush chain inet funicular datagrams",
        "nft 'add chain inet funicular more { type filter hook input priority 0; policy drop; }'",
        "ip -6 rule delete pref 15006",
        "ip -6 route delete local 2001:db8:5::/64 table 15006",
        "ip -4 route delete 240.0.0.0/4 table 15001",
    ] {
        bed.init_ok(&flags);
        bed.init_ok(&validate);
        bed.shell(meddling, "");
        let found = bed.init(&validate);
        assert_eq!(found.status.code(), Some(1), "{meddling}");
        assert!(String::from_utf8_lossy(&found.stdout).starts_with("missing: "), "{meddling}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn a_dry_run_changes_nothing_and_prints_a_script_that_does_the_same() {
    let (bed, by_hand) = (Bed::new().await, Bed::new().await);
    let flags = format!(
        "{MARK} --uid 7 --gid 9 --service-prefix {SERVICE} --skip-uids 1,5-9 --skip-outbound-ports 25,8000-8010 \
         --skip-subnets 10.9.0.0/16,10.9.3.0/24,2001:db8:9::/48 --stand-in4 100.64.0.0/10 --stand-in6 fd00:1:2::/60 \
         --inbound-udp-ports 443,5000-5010 --refuse-quic ::/0,198.51.100.0/24"
    );
    let before = by_hand.snapshot();
    let script = by_hand.init_ok(&format!("{flags} --dry-run"));
    assert_eq!(by_hand.snapshot(), before);

    let table = script.split_once("<<'END'\n").unwrap().1.strip_suffix("END\n").unwrap();
    by_hand.shell("nft -c -f -", table);
    by_hand.shell("sh -e", &script);
    bed.init_ok(&flags);
    by_hand.init_ok(&format!("{flags} --validate-only"));

    assert_eq!(bed.init_ok("--remove --dry-run"), by_hand.init_ok("--remove --dry-run"));
    let undo = by_hand.init_ok("--remove --dry-run");
    by_hand.shell("sh -e", &undo);
    assert_eq!(by_hand.snapshot(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn the_iptables_backend_writes_input_for_both_programs_that_does_the_same() {
    let bed = Bed::new().await;
    bed.populate();
    // iptables, unlike nft, takes only ids that the user namespace maps, so none here.
    let flags = format!(
        "{MARK} --skip-outbound-ports 25,8000-8010 --skip-inbound-ports 9000 --inbound-udp-ports 443 \
         --refuse-quic 2001:db8:f::/48 \
         --skip-subnets 10.9.0.0/16,2001:db8:9::/48 --service-prefix {SERVICE}"
    );
    let before = bed.shell("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all", "");
    let input = bed.init_ok(&format!("{flags} --backend iptables"));
    for program in ["iptables-restore", "ip6tables-restore"] {
        bed.shell(&format!("{program} --noflush --test"), &input);
        bed.shell(&format!("{program} --noflush"), &input);
    }
    let routes: String =
        input.lines().filter_map(|line| line.strip_prefix("#   ")).map(|line| format!("{line}\n")).collect();
    bed.shell("sh -e", &routes);

    assert_eq!(bed.call("198.51.100.7:80").unwrap(), "outbound 198.51.100.7:80");
    assert_eq!(bed.call("[2001:db8:f::7]:80").unwrap(), "outbound [2001:db8:f::7]:80");
    assert_eq!(bed.call_marked("[2001:db8:f::7]:80", OURS).unwrap(), "outside");
    assert_eq!(bed.call("198.51.100.7:8010").unwrap(), "outside");
    assert_eq!(bed.call("[2001:db8:9:ffff::1]:80").unwrap(), "outside");
    assert_eq!(bed.call("240.0.0.1:80").unwrap(), "outbound 240.0.0.1:80");
    assert_eq!(bed.send("127.0.0.53:53", None).unwrap(), "stub");
    assert_eq!(bed.call_in("[2001:db8:5::9]:80").unwrap(), "inbound [2001:db8:5::9]:80");
    assert_eq!(bed.call_in("10.0.0.2:9000").unwrap(), "app");
    assert!(bed.send("[fd46:554e:1c00::1]:443", None).is_err());
    bed.app_echo(443);
    assert_eq!(bed.send_in("10.0.0.2:443").unwrap(), "app");
    assert!(bed.send("[2001:db8:f::7]:443", None).is_err());

    let undo = bed.init_ok("--remove --backend iptables");
    for program in ["iptables", "ip6tables"] {
        bed.shell(&format!("{program}-restore --noflush"), &undo);
        let left = bed.shell(&format!("{program}-save"), "");
        assert!(!left.contains("FUNICULAR"), "{left}");
    }
    bed.init_ok("--remove");
    assert_eq!(bed.shell("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all", ""), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn when_packet_rules_are_refused_the_routes_go_back_to_what_they_were() {
    let bed = Bed::new().await;
    let before = bed.shell("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all", "");
    // A table that belongs to a living program is nobody else's to replace.
    let mut owner = Command::new("nft");
    owner.arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut owner = bed.pod.spawn(&mut owner, &[]).unwrap();
    let mut commands = owner.stdin.take().unwrap();
    writeln!(commands, "add table inet funicular {{ flags owner; }}\nlist tables").unwrap();
    let mut heard = std::io::BufReader::new(owner.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("table inet funicular") {
        assert_ne!(std::io::BufRead::read_line(&mut heard, &mut line).unwrap(), 0, "{line}");
    }

    let refused = bed.init(&format!("{MARK} --service-prefix {SERVICE}"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("the kernel refuses to") && said.contains("table inet funicular"), "{said}");
    assert_eq!(bed.shell("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all", ""), before);
    drop(commands);
    owner.wait().unwrap();
    bed.init_ok(&format!("{MARK} --service-prefix {SERVICE}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs CAP_NET_ADMIN"]
async fn an_error_says_who_can_act() {
    let bed = Bed::new().await;
    let said = |flags: &str| {
        let output = bed.init(flags);
        assert_eq!(output.status.code(), Some(1), "{flags}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let device = said(&format!("{MARK} --service-prefix {SERVICE} --device eth7"));
    assert!(device.contains("no network device eth7; there are lo, eth0"), "{device}");
    let faults = said(&format!("{MARK} --inbound-port 15001 --service-prefix fe80::/64"));
    assert!(faults.contains("2 faults"), "{faults}");

    let mut weak = Command::new("setpriv");
    weak.args([
        "--inh-caps=-net_admin",
        "--bounding-set=-net_admin",
        env!("CARGO_BIN_EXE_funicular"),
        "init",
        "--uid",
        "7",
    ]);
    let weak_said = String::from_utf8_lossy(&run(&bed.pod, &mut weak, "").stderr).into_owned();
    assert!(weak_said.contains("CAP_NET_ADMIN is missing"), "{weak_said}");
    let shown = succeeded(&run(&bed.pod, weak.arg("--dry-run"), ""));
    assert!(shown.contains("table inet funicular {"), "whoever may not, may look: {shown}");

    bed.shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6", "");
    let six = said(&format!("{MARK} --service-prefix {SERVICE}"));
    assert!(six.contains("IPv6 is off in this pod"), "{six}");
    bed.init_ok(MARK);
    bed.init_ok("--remove");
    bed.shell("ip link set lo down", "");
    assert!(said(MARK).contains("the loopback device is down"));
    assert_eq!(bed.shell("nft list ruleset", ""), "");
}
