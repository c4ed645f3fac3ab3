//! The resolver against name servers on loopback.

use std::time::{Duration, Instant};

use funicular::model::ssa::TokenMode;
use funicular::net::dns_client::Transport;
use funicular::sidecar::resolve::ResolveError;
use funicular::wire::dns::{Message, Rcode, Type};

use crate::bed::{
    NameServer, SOA, authoritative, counted, encode, main_and_cluster, main_zone, name, pass, records, resolver,
    resolver_with_stale, shop_zone, zone,
};

const ORDERS: &str = "orders.shop.peak";

#[tokio::test]
async fn a_service_is_found_by_referral_with_nothing_known_but_the_main_server() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, _) = resolver(&[&main]);
    let service = resolver.lookup(&name(ORDERS)).await.unwrap();
    assert_eq!(service.name, name(ORDERS));
    assert_eq!(service.space.prefixes(), ["2001:db8:5:1::/64".parse().unwrap()]);
    assert_eq!(service.rules[0].text(), "v=ssa1 layout=source-hash:14/64,random:50 slices=14");
    assert_eq!(service.rules[0].token_mode(), TokenMode::Tunnel);
    assert_eq!(service.port, Some(8080));
    assert_eq!(cluster.times_asked(ORDERS, Type::APL), 1);
}

#[tokio::test]
async fn a_known_delegation_spares_the_main_server_the_next_question() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, _) = resolver(&[&main]);
    resolver.lookup(&name(ORDERS)).await.unwrap();
    let (asked_main, asked_cluster) = (main.questions(), cluster.questions());
    resolver.lookup(&name("legacy.shop.peak")).await.unwrap_err();
    assert!(cluster.questions() > asked_cluster);
    // Whether the name above is a service that reads labels is the cluster's to say as well.
    assert_eq!(main.questions(), asked_main);
}

#[tokio::test]
async fn an_answer_is_kept_as_long_as_its_shortest_ttl_and_no_longer() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, registry) = resolver(&[&main]);
    resolver.lookup(&name(ORDERS)).await.unwrap();
    pass(59).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();
    assert_eq!(cluster.times_asked("_ssa.orders.shop.peak", Type::SVCB), 1);
    assert_eq!(counted(&registry, "funicular_resolver_cache_hits_total"), 1);
    pass(2).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();
    assert_eq!(cluster.times_asked("_ssa.orders.shop.peak", Type::SVCB), 2);
    assert_eq!(cluster.times_asked(ORDERS, Type::APL), 1, "the APL record has 3,600 seconds");
}

#[tokio::test]
async fn a_negative_answer_is_kept_for_the_minimum_in_the_soa() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, _) = resolver(&[&main]);
    let missing = name("nobody.shop.peak");
    let error = resolver.lookup(&missing).await.unwrap_err();
    assert_eq!(error, ResolveError::NoName { name: missing.clone() });
    pass(29).await;
    resolver.lookup(&missing).await.unwrap_err();
    assert_eq!(cluster.times_asked("nobody.shop.peak", Type::APL), 1);
    pass(2).await;
    resolver.lookup(&missing).await.unwrap_err();
    assert_eq!(cluster.times_asked("nobody.shop.peak", Type::APL), 2);
}

#[tokio::test]
async fn a_negative_answer_without_soa_is_not_kept() {
    let main = NameServer::scripted("127.0.0.1:0", |asked, transport| {
        let mut answer = asked.response(Rcode::NXDOMAIN);
        answer.header.authoritative = true;
        Some(encode(&answer, asked, transport))
    })
    .await;
    let (resolver, _) = resolver(&[&main]);
    resolver.lookup(&name("nobody.peak")).await.unwrap_err();
    resolver.lookup(&name("nobody.peak")).await.unwrap_err();
    assert_eq!(main.times_asked("nobody.peak", Type::APL), 2);
}

#[tokio::test]
async fn a_name_without_apl_and_a_name_outside_peak_say_so() {
    let (main, _cluster) = main_and_cluster().await;
    let (resolver, _) = resolver(&[&main]);
    let legacy = resolver.lookup(&name("legacy.shop.peak")).await.unwrap_err();
    assert_eq!(legacy.reason(), "legacy-name");
    assert!(legacy.is_verdict());
    let outside = resolver.lookup(&name("www.example")).await.unwrap_err();
    assert_eq!(outside.reason(), "not-in-peak");
}

#[tokio::test]
async fn a_hundred_lookups_of_one_name_cost_one_question_of_each_kind() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, _) = resolver(&[&main]);
    let lookups: Vec<_> = (0..100)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolver.lookup(&name(ORDERS)).await })
        })
        .collect();
    for lookup in lookups {
        lookup.await.unwrap().unwrap();
    }
    assert_eq!(cluster.times_asked(ORDERS, Type::APL), 1);
    assert_eq!(cluster.times_asked("_ssa.orders.shop.peak", Type::SVCB), 1);
    assert_eq!(cluster.times_asked("_ssa.orders.shop.peak", Type::TXT), 1);
}

#[tokio::test]
async fn a_silent_server_costs_one_short_wait_and_is_asked_last_from_then_on() {
    let silent = NameServer::scripted("127.0.0.1:0", |_, _| None).await;
    let port = silent.addr.port();
    let live = NameServer::of_zone(&format!("127.0.0.2:{port}"), "peak", &format!("{SOA}{}", service_lines("a"))).await;
    let (resolver, registry) = resolver(&[&silent, &live]);
    let start = Instant::now();
    resolver.lookup(&name("a.peak")).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(counted(&registry, "funicular_resolver_failovers_total") > 0);
    let asked = silent.questions();
    let start = Instant::now();
    resolver.lookup(&name("b.peak")).await.unwrap_err();
    assert_eq!(silent.questions(), asked);
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_comes_back_is_noticed_without_anybody_waiting() {
    let flaky = NameServer::scripted("127.0.0.1:0", |_, _| None).await;
    let zone_text = format!("{SOA}{}", service_lines("a"));
    let live = NameServer::of_zone(&format!("127.0.0.2:{}", flaky.addr.port()), "peak", &zone_text).await;
    let (resolver, _) = resolver(&[&flaky, &live]);
    resolver.lookup(&name("a.peak")).await.unwrap();
    flaky.rescript(zone("peak", &zone_text));
    let asked = flaky.questions();
    pass(6).await;
    resolver.lookup(&name("b.peak")).await.unwrap_err();
    assert!(flaky.questions() > asked);
    live.fall_silent();
    let start = Instant::now();
    resolver.lookup(&name("c.peak")).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_that_fails_refuses_or_is_lame_is_passed_over() {
    let says = |rcode, authoritative| {
        move |asked: &Message, transport: Transport| {
            let mut answer = asked.response(rcode);
            answer.header.authoritative = authoritative;
            Some(encode(&answer, asked, transport))
        }
    };
    for (rcode, authoritative, reason) in
        [(Rcode::SERVFAIL, false, "servfail"), (Rcode::REFUSED, false, "refused"), (Rcode::NOERROR, false, "lame")]
    {
        let bad = NameServer::scripted("127.0.0.1:0", says(rcode, authoritative)).await;
        let at = format!("127.0.0.2:{}", bad.addr.port());
        let good = NameServer::of_zone(&at, "peak", &format!("{SOA}{}", service_lines("a"))).await;
        let (resolver, registry) = resolver(&[&bad, &good]);
        resolver.lookup(&name("a.peak")).await.unwrap();
        let metric = format!("funicular_resolver_unusable_answers_total{{reason=\"{reason}\"}}");
        assert!(counted(&registry, &metric) > 0, "{reason}");
    }
}

#[tokio::test]
async fn without_any_server_a_service_is_used_past_its_ttl_for_the_stated_time_and_not_longer() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, registry) = resolver_with_stale(&[&main], Duration::from_secs(100));
    resolver.lookup(&name(ORDERS)).await.unwrap();
    main.fall_silent();
    cluster.fall_silent();

    pass(61).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();
    assert_eq!(counted(&registry, "funicular_resolver_stale_total"), 1);
    // The main zone's own delegation has run out by then as well: nobody can be asked.
    pass(60).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();
    pass(60).await;
    let error = resolver.lookup(&name(ORDERS)).await.unwrap_err();
    assert_eq!(error.reason(), "name-servers-unreachable");
}

#[tokio::test]
async fn a_stale_service_gives_way_to_what_a_server_says_again() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, _) = resolver_with_stale(&[&main], Duration::from_secs(100));
    resolver.lookup(&name(ORDERS)).await.unwrap();
    main.fall_silent();
    cluster.fall_silent();
    pass(61).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();

    let without = shop_zone().replace("orders 3600 APL 2:2001:db8:5:1::/64\n", "");
    main.rescript(zone("peak", &main_zone()));
    cluster.rescript(zone("shop.peak", &without));
    pass(6).await;
    // What has a TTL of an hour is known until then, whatever the server says now.
    pass(3_600).await;
    assert!(resolver.lookup(&name(ORDERS)).await.unwrap_err().is_verdict());
}

#[tokio::test]
async fn without_any_server_known_services_go_on_to_their_end_and_then_fail_at_once() {
    let (main, cluster) = main_and_cluster().await;
    let (resolver, registry) = resolver(&[&main]);
    resolver.lookup(&name(ORDERS)).await.unwrap();
    main.fall_silent();
    cluster.fall_silent();
    pass(59).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();
    pass(2).await;
    let error = resolver.lookup(&name(ORDERS)).await.unwrap_err();
    assert_eq!(error.reason(), "name-servers-unreachable");
    assert!(!error.is_verdict());
    let start = Instant::now();
    for n in 0..50 {
        let error = resolver.lookup(&name(&format!("n{n}.shop.peak"))).await.unwrap_err();
        assert_eq!(error.reason(), "name-servers-unreachable");
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let metric = "funicular_resolver_lookups_total{outcome=\"name-servers-unreachable\"}";
    assert_eq!(counted(&registry, metric), 51);
    let inside = "2001:db8:5:1::9".parse().unwrap();
    assert_eq!(resolver.in_space(inside).unwrap().name, name(ORDERS), "nobody takes it for an ordinary address");
    main.rescript(zone("peak", &main_zone()));
    cluster.rescript(zone("shop.peak", &shop_zone()));
    pass(6).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_unreachable_within_milliseconds() {
    let gone = NameServer::scripted("127.0.0.1:0", |_, _| None).await;
    let (resolver, _) = resolver(&[&gone]);
    drop(gone);
    tokio::task::yield_now().await;
    let start = Instant::now();
    let error = resolver.lookup(&name("a.peak")).await.unwrap_err();
    assert_eq!(error.reason(), "name-servers-unreachable");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_cluster_that_moved_its_name_server_is_found_again_before_its_delegation_ends() {
    let (main, cluster) = main_and_cluster().await;
    let port = main.addr.port();
    let (resolver, _) = resolver(&[&main]);
    resolver.lookup(&name(ORDERS)).await.unwrap();
    drop(cluster);
    let moved = NameServer::of_zone(&format!("127.0.0.3:{port}"), "shop.peak", &shop_zone()).await;
    main.rescript(zone("peak", &main_zone().replace("127.0.0.2", "127.0.0.3")));
    pass(61).await;
    resolver.lookup(&name(ORDERS)).await.unwrap();
    assert!(moved.questions() > 0);
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_is_fetched_over_tcp() {
    let mut text = SOA.to_owned();
    for n in 0..100 {
        text += &format!("big 60 APL 2:2001:db8:{n:x}::/48\n");
    }
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let (resolver, _) = resolver(&[&main]);
    let service = resolver.lookup(&name("big.peak")).await.unwrap();
    assert_eq!(service.space.prefixes().len(), 100);
    assert_eq!(service.rules[0].text(), "v=ssa1");
    assert_eq!(main.questions_over_tcp(), 1);
}

#[tokio::test]
async fn glue_outside_the_zone_that_refers_is_not_believed() {
    let main = NameServer::scripted("127.0.0.1:0", |asked: &Message, transport| {
        let mut answer = asked.response(Rcode::NOERROR);
        answer.authorities = records("peak", "shop 600 NS ns.evil.example.\n");
        answer.additionals = records("example", "ns.evil 600 A 127.0.0.2\n");
        Some(encode(&answer, asked, transport))
    })
    .await;
    let evil = NameServer::of_zone(&format!("127.0.0.2:{}", main.addr.port()), "shop.peak", &shop_zone()).await;
    let (resolver, registry) = resolver(&[&main]);
    let error = resolver.lookup(&name(ORDERS)).await.unwrap_err();
    assert_eq!(error, ResolveError::Glueless { zone: name("shop.peak") });
    assert_eq!(evil.questions(), 0);
    assert!(counted(&registry, "funicular_resolver_refused_glue_total") > 0);
}

#[tokio::test]
async fn a_cluster_cannot_speak_for_another_one() {
    // The cluster's server claims the whole of peak and another cluster, in every section.
    let poison = "@ 9999 NS ns1.shop.peak.\nbank 9999 NS ns1.shop.peak.\nns1.shop 9999 A 127.0.0.2\n\
                  vault.bank 9999 APL 2:2001:db8:bad::/48\n_ssa.vault.bank 9999 TXT \"v=ssa1 token=none\"\n";
    let (main, cluster) = main_and_cluster().await;
    main.rescript(zone("peak", &format!("{}bank 600 NS ns1.bank.peak.\nns1.bank 600 A 127.0.0.3\n", main_zone())));
    cluster.rescript(move |asked, transport| {
        let mut answer = authoritative(asked, &name("shop.peak"), &records("shop.peak", &shop_zone()));
        let poison = records("peak", poison);
        answer.answers.extend(poison.clone());
        answer.authorities.extend(poison.clone());
        answer.additionals.extend(poison);
        Some(answer.encode(if transport == Transport::Tcp { 65_535 } else { 1232 }))
    });
    let bank_zone = format!("{SOA}vault 60 APL 2:2001:db8:9::/48\n");
    let bank = NameServer::of_zone(&format!("127.0.0.3:{}", main.addr.port()), "bank.peak", &bank_zone).await;
    let (resolver, _) = resolver(&[&main]);
    let orders = resolver.lookup(&name(ORDERS)).await.unwrap();
    assert_eq!(orders.space.prefixes(), ["2001:db8:5:1::/64".parse().unwrap()]);
    let vault = resolver.lookup(&name("vault.bank.peak")).await.unwrap();
    assert_eq!(vault.space.prefixes(), ["2001:db8:9::/48".parse().unwrap()]);
    assert_eq!(vault.rules[0].token_mode(), TokenMode::Tunnel);
    assert!(bank.questions() > 0);
}

#[tokio::test]
async fn a_referral_upwards_or_sideways_is_not_followed() {
    for owner in ["peak.", ".", "bank.peak.", "shop.peak."] {
        let (main, cluster) = main_and_cluster().await;
        let line = format!("{owner} 600 NS ns1.shop.peak.\n");
        cluster.rescript(move |asked, transport| {
            let mut answer = asked.response(Rcode::NOERROR);
            answer.authorities = records(".", &line);
            Some(encode(&answer, asked, transport))
        });
        let (resolver, _) = resolver(&[&main]);
        let error = resolver.lookup(&name(ORDERS)).await.unwrap_err();
        assert_eq!(error.reason(), "name-servers-failing", "{owner}");
        assert!(cluster.questions() <= 6, "{owner}: {}", cluster.questions());
    }
}

#[tokio::test]
async fn a_name_server_without_glue_is_looked_up_inside_peak() {
    let main = NameServer::of_zone(
        "127.0.0.1:0",
        "peak",
        &format!("{SOA}shop 600 NS ns.infra.peak.\ninfra 600 NS ns1.infra.peak.\nns1.infra 600 A 127.0.0.3\n"),
    )
    .await;
    let port = main.addr.port();
    let infra_zone = format!("{SOA}ns 600 A 127.0.0.2\n");
    let infra = NameServer::of_zone(&format!("127.0.0.3:{port}"), "infra.peak", &infra_zone).await;
    let cluster = NameServer::of_zone(&format!("127.0.0.2:{port}"), "shop.peak", &shop_zone()).await;
    let (resolver, _) = resolver(&[&main]);
    resolver.lookup(&name(ORDERS)).await.unwrap();
    assert!(infra.questions() > 0);
    assert!(cluster.questions() > 0);
}

#[tokio::test]
async fn name_servers_that_need_each_other_are_given_up_on() {
    let main = NameServer::of_zone(
        "127.0.0.1:0",
        "peak",
        &format!(
            "{SOA}a 600 NS ns.b.peak.\nb 600 NS ns.a.peak.\nc 600 NS ns1.c.peak.\nd 600 NS ns.elsewhere.example.\n"
        ),
    )
    .await;
    let (resolver, _) = resolver(&[&main]);
    let without_address = "delegation-without-address";
    for (lost, reasons) in [
        ("x.a.peak", &[without_address, "too-many-referrals"][..]),
        ("x.b.peak", &[without_address, "too-many-referrals"]),
        ("x.c.peak", &[without_address]),
        ("x.d.peak", &[without_address]),
    ] {
        let before = main.questions();
        let error = resolver.lookup(&name(lost)).await.unwrap_err();
        assert!(reasons.contains(&error.reason()), "{lost}: {error}");
        assert!(main.questions() - before < 60, "{lost}: {}", main.questions() - before);
    }
}

#[tokio::test]
async fn an_alias_leads_to_the_service_at_its_end() {
    let text = format!("{SOA}{}www 60 CNAME front.peak.\nfront 60 CNAME a.peak.\n", service_lines("a"));
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let (resolver, _) = resolver(&[&main]);
    let service = resolver.lookup(&name("www.peak")).await.unwrap();
    assert_eq!(service.name, name("a.peak"));
}

#[tokio::test]
async fn aliases_in_a_circle_end_with_an_error() {
    let text = format!("{SOA}a 60 CNAME b.peak.\nb 60 CNAME a.peak.\n");
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let (resolver, _) = resolver(&[&main]);
    let error = resolver.lookup(&name("a.peak")).await.unwrap_err();
    assert_eq!(error, ResolveError::AliasLoop { name: name("a.peak") });
}

#[tokio::test]
async fn rules_come_from_the_first_source_that_has_one() {
    let text = format!(
        "{SOA}both 60 APL 2:2001:db8:1::/64\n\
         _ssa.both 60 SVCB 1 both.peak. key65400=\"v=ssa1 gen=1\"\n_ssa.both 60 TXT \"v=ssa1 gen=2\"\n\
         text 60 APL 2:2001:db8:2::/64\n_ssa.text 60 TXT \"v=ssa1 \" \"gen=3\"\n_ssa.text 60 SVCB 1 text.peak. port=81\n\
         none 60 APL 2:2001:db8:3::/64\n"
    );
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let (resolver, _) = resolver(&[&main]);
    for (host, rule, port) in
        [("both.peak", "v=ssa1 gen=1", None), ("text.peak", "v=ssa1 gen=3", Some(81)), ("none.peak", "v=ssa1", None)]
    {
        let service = resolver.lookup(&name(host)).await.unwrap();
        assert_eq!(service.rules.iter().map(|rule| rule.text()).collect::<Vec<_>>(), [rule], "{host}");
        assert_eq!(service.port, port, "{host}");
    }
}

#[tokio::test]
async fn a_malformed_rule_is_left_out_and_counted_and_alone_makes_a_legacy_name() {
    let text = format!(
        "{SOA}some 60 APL 2:2001:db8:1::/64\n_ssa.some 60 TXT \"v=ssa2\"\n_ssa.some 60 TXT \"v=ssa1 gen=4\"\n\
         all 60 APL 2:2001:db8:2::/64\n_ssa.all 60 TXT \"v=ssa1 layout=nonsense:3\"\n"
    );
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let (resolver, registry) = resolver(&[&main]);
    let service = resolver.lookup(&name("some.peak")).await.unwrap();
    assert_eq!(service.rules.len(), 1);
    assert_eq!(service.rules[0].generation(), 4);
    let error = resolver.lookup(&name("all.peak")).await.unwrap_err();
    assert_eq!(error.reason(), "legacy-name");
    assert_eq!(counted(&registry, "funicular_resolver_malformed_rules_total"), 2);
}

#[tokio::test]
async fn when_the_rules_cannot_be_learned_no_default_is_assumed() {
    let main = NameServer::scripted("127.0.0.1:0", |asked: &Message, transport| {
        let text = format!("{SOA}a 60 APL 2:2001:db8:1::/64\n_ssa.a 60 TXT \"v=ssa1\"\n");
        let answer = match asked.questions[0].rtype {
            Type::SVCB => asked.response(Rcode::SERVFAIL),
            _ => authoritative(asked, &name("peak"), &records("peak", &text)),
        };
        Some(encode(&answer, asked, transport))
    })
    .await;
    let (resolver, _) = resolver(&[&main]);
    let error = resolver.lookup(&name("a.peak")).await.unwrap_err();
    assert_eq!(error.reason(), "name-servers-failing");
}

#[tokio::test]
async fn the_labels_below_a_service_that_reads_them_lead_to_it_and_only_one_deep() {
    let text = format!(
        "{SOA}files 60 APL 2:2001:db8:1::/64\n_ssa.files 60 TXT \"v=ssa1 layout=content-hash:14 content=label\"\n\
         own.files 60 APL 2:2001:db8:2::/64\n_ssa.own.files 60 TXT \"v=ssa1 gen=7\"\n{}",
        service_lines("plain"),
    );
    let main = NameServer::of_zone("127.0.0.1:0", "peak", &text).await;
    let (resolver, _) = resolver(&[&main]);
    assert_eq!(resolver.lookup(&name("photo7.files.peak")).await.unwrap().name, name("files.peak"));
    assert_eq!(resolver.lookup(&name("own.files.peak")).await.unwrap().name, name("own.files.peak"));
    for not_below in ["a.photo7.files.peak", "_ssa.files.peak", "x.plain.peak"] {
        assert!(resolver.lookup(&name(not_below)).await.is_err(), "{not_below}");
    }
}

#[tokio::test]
async fn an_answer_with_another_question_or_id_is_ignored() {
    let main = NameServer::scripted("127.0.0.1:0", |asked: &Message, transport| {
        let mut answer = authoritative(asked, &name("peak"), &records("peak", &format!("{SOA}{}", service_lines("a"))));
        answer.header.id ^= 1;
        if transport == Transport::Udp { Some(answer.encode(1232)) } else { None }
    })
    .await;
    let (resolver, _) = resolver(&[&main]);
    let error = resolver.lookup(&name("a.peak")).await.unwrap_err();
    assert_eq!(error.reason(), "name-servers-unreachable");
}

/// A service with a rule, in a zone file.
fn service_lines(host: &str) -> String {
    format!("{host} 60 APL 2:2001:db8:a::/64\n_ssa.{host} 60 TXT \"v=ssa1 layout=random:64\"\n")
}
