//! Programs that know nothing of any of it: HTTP, Redis, and a protocol in which the server speaks first.

use std::net::SocketAddr;
use std::path::PathBuf;

use funicular::demo::plan::{self, CACHE, LEGACY, MAIL, PODS};
use funicular::demo::site::{LEGACY_PORT, accepts};

use crate::support::{FAMILIES, Town, curl, fetch, program, script, town};

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn curl_reaches_every_pod_over_both_families_and_names_that_are_no_services_too() {
    let Town { site, .. } = &town(false);

    let (six, four) = (fetch(site, 40, &["-6"]), fetch(site, 10, &["-4"]));
    let legacy = curl(site.client(), &[&format!("http://{LEGACY}:{LEGACY_PORT}/")]).run().unwrap();

    assert_eq!((six.len(), four.len()), (40, 10));
    for index in 0..PODS {
        let name = plan::pod(index).name;
        assert!(six.iter().any(|pod| pod == name), "{name} served none of 40, odds of one in ten million");
    }
    assert_eq!(legacy.trim(), LEGACY);
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn redis_works_unmodified_and_a_megabyte_comes_back_whole() {
    let Town { site, .. } = &mut town(false);
    let index = CACHE.pods[0];
    let server = site.pod(index).command(program("redis-server"));
    let server = server.args(["--port", "6379", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let server = server.current_dir(site.folder());
    let local = SocketAddr::from(([127, 0, 0, 1], 6379));
    site.run("redis", server, |site, _| accepts(site.pod(index), local)).unwrap();
    for (family, rides) in FAMILIES.into_iter().zip(["50", "100"]) {
        let address = family.stand_in(site, CACHE.name).to_string();
        let cli = |arguments: &[&str]| {
            let command = site.client().command(program("redis-cli")).args(["-h", &address]).args(arguments);
            command.run().unwrap().trim_end().to_owned()
        };

        assert_eq!(cli(&["PING"]), "PONG");
        assert_eq!(cli(&["EVAL", "return redis.call('SET', 'big', string.rep('x', 1000000))", "0"]), "OK");
        assert_eq!(cli(&["GET", "big"]), "x".repeat(1_000_000));
        assert_eq!(cli(&["-r", "50", "INCR", "rides"]).lines().last(), Some(rides));
    }
    let by_pp2 = [("direction", "outbound"), ("mode", "pp2")];
    assert_eq!(site.counted(site.client(), "funicular_connections_total", &by_pp2).unwrap(), 8.0);
}

const SMTP_CLIENT: &str = r#"
import smtplib, sys
with smtplib.SMTP(sys.argv[1], 25, local_hostname="client", timeout=20) as smtp:
    smtp.sendmail("web@shop.example", ["orders@shop.example"], "Subject: up\r\n\r\nthe funicular runs\r\n")
"#;

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_server_that_speaks_first_is_heard() {
    let Town { site, .. } = &mut town(false);
    let index = MAIL.pods[0];
    // Debian's, which has the module.
    let python = PathBuf::from("/usr/bin/python3");
    let mailbox = site.folder().join("mailbox");
    let client = script(site, "smtp-client.py", SMTP_CLIENT);
    let server = site.pod(index).command(&python).args(["-m", "aiosmtpd", "-n", "-l", "127.0.0.1:25"]);
    let server = server.args(["-c", "aiosmtpd.handlers.Mailbox"]).arg(&mailbox);
    let local = SocketAddr::from(([127, 0, 0, 1], 25));
    site.run("smtp", server, |site, _| accepts(site.pod(index), local)).unwrap();

    for family in FAMILIES {
        let address = family.stand_in(site, MAIL.name).to_string();
        site.client().command(&python).arg(&client).arg(address).run().unwrap();
    }
    let letter = script(site, "letter", "Subject: up\r\n\r\nthe funicular runs\r\n");
    let url = format!("smtp://{}", MAIL.name);
    let upload = ["--mail-from", "web@shop.example", "--mail-rcpt", "orders@shop.example", "--upload-file"];
    curl(site.client(), &upload).arg(letter).arg(url).run().unwrap();

    let kept = std::fs::read_dir(mailbox.join("new")).unwrap().map(|letter| letter.unwrap().path());
    let kept: Vec<_> = kept.map(|letter| std::fs::read_to_string(letter).unwrap()).collect();
    assert_eq!(kept.iter().filter(|letter| letter.contains("the funicular runs")).count(), 3, "{kept:?}");
    let streams = |how| site.counted(site.client(), "funicular_tunnel_streams_total", &[("how", how)]).unwrap();
    assert_eq!((streams("fresh"), streams("reused")), (1.0, 2.0), "one handshake serves three calls");
}
