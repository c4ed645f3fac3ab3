//! Programs that know nothing of any of it: HTTP, Redis, and a protocol in which the server speaks first.

use std::net::SocketAddr;

use funicular::demo::plan::{self, CACHE, LEGACY, MAIL, PODS};
use funicular::demo::site::{LEGACY_PORT, accepts};

use crate::support::{Town, curl, fetch, program, script, town};

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
    let cli = |arguments: &[&str]| {
        let command = site.client().command(program("redis-cli")).args(["-h", CACHE.name]).args(arguments);
        command.run().unwrap().trim_end().to_owned()
    };

    assert_eq!(cli(&["PING"]), "PONG");
    assert_eq!(cli(&["EVAL", "return redis.call('SET', 'big', string.rep('x', 1000000))", "0"]), "OK");
    assert_eq!(cli(&["GET", "big"]), "x".repeat(1_000_000));
    assert_eq!(cli(&["-r", "50", "INCR", "rides"]).lines().last(), Some("50"));
    let by_pp2 = [("direction", "outbound"), ("mode", "pp2")];
    assert_eq!(site.counted(site.client(), "funicular_connections_total", &by_pp2).unwrap(), 4.0);
}

const SMTP_SERVER: &str = r#"
import socketserver, sys

class Session(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 mail.shop.peak ready")
        data = False
        with open(sys.argv[1], "ab", buffering=0) as mailbox:
            for line in self.rfile:
                if data:
                    data = line != b".\r\n"
                    mailbox.write(line)
                    if not data:
                        self.say("250 kept")
                    continue
                verb = line.split()[0].upper()
                if verb == b"DATA":
                    data = True
                    self.say("354 go on")
                elif verb == b"QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 fine")

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 25), Session).serve_forever()
"#;

const SMTP_CLIENT: &str = r#"
import smtplib
with smtplib.SMTP("mail.shop.peak", 25, local_hostname="client", timeout=20) as smtp:
    smtp.sendmail("web@shop.example", ["orders@shop.example"], "Subject: up\r\n\r\nthe funicular runs\r\n")
"#;

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_server_that_speaks_first_is_heard() {
    let Town { site, .. } = &mut town(false);
    let index = MAIL.pods[0];
    let python = program("python3");
    let mailbox = site.folder().join("mailbox");
    let (server, client) = (script(site, "smtp-server.py", SMTP_SERVER), script(site, "smtp-client.py", SMTP_CLIENT));
    let server = site.pod(index).command(&python).arg(server).arg(&mailbox);
    let local = SocketAddr::from(([127, 0, 0, 1], 25));
    site.run("smtp", server, |site, _| accepts(site.pod(index), local)).unwrap();

    for _ in 0..3 {
        site.client().command(&python).arg(&client).run().unwrap();
    }

    assert_eq!(std::fs::read_to_string(mailbox).unwrap().matches("the funicular runs").count(), 3);
    let streams = |how| site.counted(site.client(), "funicular_tunnel_streams_total", &[("how", how)]).unwrap();
    assert_eq!((streams("fresh"), streams("reused")), (1.0, 2.0), "one handshake serves three calls");
}
