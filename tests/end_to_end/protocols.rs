//! Programs of every kind over a pair of sidecars, as they are: HTTP by requests, everything else by tunnels; each over IPv6,
//! and as a program that knows IPv4 alone.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use funicular::demo::plan::{self, MAIL, PAGES, PODS, WEB};
use funicular::demo::site::{Site, accepts};

use crate::support::{FAMILIES, Family, Town, curl, program, script, town, until};

/// Debian's own Python, for which Debian's modules are.
const PYTHON: &str = "/usr/bin/python3";

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Runs a Python program beside a pod's sidecar until it listens on this port.
fn serve(site: &mut Site, pod: usize, port: u16, name: &str, text: &str) {
    let script = script(site, &format!("{name}.py"), text);
    let command = site.pod(pod).command(PathBuf::from(PYTHON)).arg(script).arg(port.to_string());
    site.run(name, command, |site, _| accepts(site.pod(pod), local(port))).unwrap();
}

/// What Python knows of addresses, from here on: those of one family.
fn of_family(family: Family) -> String {
    let word = match family {
        Family::Six => "AF_INET6",
        Family::Four => "AF_INET",
    };
    format!(
        "import socket\nall_kinds = socket.getaddrinfo\n\
         socket.getaddrinfo = lambda *a, **k: [one for one in all_kinds(*a, **k) if one[0] == socket.{word}]\n"
    )
}

/// What a Python program in the client's pod prints that knows one family.
fn ask(site: &Site, family: Family, name: &str, text: &str, arguments: &[&str]) -> String {
    let script = script(site, &format!("{name}.py"), &(of_family(family) + text));
    let command = site.client().command(PathBuf::from(PYTHON)).arg(script).args(arguments);
    command.run().unwrap().trim_end().to_owned()
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_page_is_fetched_from_the_pod_that_its_path_leads_to_whoever_asks() {
    let Town { site, .. } = &town(false);
    // One connection for all, so that nothing but the path can make the difference.
    let paths: Vec<String> = (0..30).map(|number| format!("http://{}/{number}", PAGES.name)).collect();
    let fetch = |family: &str| {
        let command = curl(site.client(), &[family]);
        command.args(paths.iter().map(String::as_str)).run().unwrap()
    };
    // Two pods say their name; Python's server, on the third, knows no such page and says so in many words.
    let pods_of = |output: &str| -> Vec<String> {
        let says = |line: &&str| line.starts_with('s') || line.contains("<title>");
        output.lines().filter(says).map(str::to_owned).collect()
    };

    let (first, again) = (fetch("-6"), fetch("-4"));

    assert_eq!(pods_of(&first).len(), 30, "{first}");
    assert_eq!(pods_of(&first), pods_of(&again));
    for index in [0, 2] {
        let name = plan::pod(index).name;
        assert!(pods_of(&first).iter().any(|pod| pod == name), "{name} served none of 30: {first}");
    }
    assert!(pods_of(&first).iter().any(|pod| pod.contains("<title>")), "{first}");
    for index in 0..PODS {
        assert_eq!(site.refusals(site.pod(index)).unwrap().get("address-wrong"), None);
    }
}

const NGINX: &str = "
daemon off; master_process off; user root; error_log stderr; pid PLACE/nginx.pid;
events { worker_connections 100; }
http {
    access_log off;
    client_body_temp_path PLACE/t1; proxy_temp_path PLACE/t2; fastcgi_temp_path PLACE/t3;
    uwsgi_temp_path PLACE/t4; scgi_temp_path PLACE/t5;
    server { listen 127.0.0.1:80; root PLACE; }
    server { listen 127.0.0.1:81 http2; root PLACE; }
}
";

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn curl_and_nginx_talk_http_1_and_2_with_ranges_over_both_families() {
    let Town { site, .. } = &mut town(false);
    let (pod, place) = (WEB.pods[0], site.folder().join("nginx"));
    std::fs::create_dir(&place).unwrap();
    let content: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    std::fs::write(place.join("big"), &content).unwrap();
    let config = script(site, "nginx.conf", &NGINX.replace("PLACE", &place.to_string_lossy()));
    let nginx = site.pod(pod).command(program("nginx")).arg("-c").arg(config);
    site.run("nginx", nginx, |site, _| [80, 81].iter().all(|&port| accepts(site.pod(pod), local(port)))).unwrap();
    let web = |port: u16| format!("http://{}:{port}/big", WEB.name);
    let fetch = |arguments: &[&str]| curl(site.client(), arguments).run().unwrap();

    for family in FAMILIES.map(Family::flag) {
        assert!(fetch(&[family, &web(80)]) == content);
        assert!(fetch(&[family, "--http2-prior-knowledge", &web(81)]) == content);
        assert_eq!(fetch(&[family, "-r", "1000-1999", &web(80)]), content[1_000..2_000]);
        let versions =
            fetch(&[family, "-o", "/dev/null", "-w", "%{http_version}", "--http2-prior-knowledge", &web(81)]);
        assert_eq!(versions, "2");
    }
    let head = fetch(&["-I", &web(80)]);
    assert!(head.contains(&format!("content-length: {}\r\n", content.len())), "{head}");
    let missing = fetch(&["-o", "/dev/null", "-w", "%{http_code} %header{peak-refusal}", &format!("{}er", web(80))]);
    assert_eq!(missing.trim_end(), "404", "it is nginx that says so");
    let nobody = fetch(&["-o", "/dev/null", "-w", "%{http_code} %header{peak-refusal}", &web(83)]);
    assert_eq!(nobody, "503 application-unreachable");
}

const UPLOADS: &str = r#"
import hashlib, http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(" ".join(sorted(name.lower() for name in self.headers)))

    def do_PUT(self):
        digest = hashlib.sha256()
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                digest.update(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        else:
            digest.update(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(digest.hexdigest())

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

const PUT: &str = "
import sys, urllib.request as r
print(r.urlopen(r.Request(sys.argv[1], data=open(sys.argv[2], 'rb').read(), method='PUT')).read().decode())
";

const FETCH_BY_NODE: &str = r#"
const [, , url] = process.argv;
(async () => {
    for (let turn = 0; turn < 3; turn++) console.log((await (await fetch(url)).text()));
})();
"#;

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn uploads_arrive_whole_from_curl_python_and_node_and_bring_nothing_of_ours() {
    let Town { site, .. } = &mut town(false);
    serve(site, WEB.pods[0], 82, "uploads", UPLOADS);
    let big = site.folder().join("upload");
    std::fs::write(&big, vec![b'u'; 5_000_000]).unwrap();
    let sum = site.client().command(program("sha256sum")).arg(&big).run().unwrap()[..64].to_owned();
    let (url, path) = (format!("http://{}:82/", WEB.name), big.to_string_lossy().into_owned());
    let fetch = script(site, "fetch.js", FETCH_BY_NODE);

    for family in FAMILIES {
        // curl asks before it sends as much as that.
        assert_eq!(curl(site.client(), &[family.flag(), "-T", &path, &url]).run().unwrap(), sum);
        let chunked = [family.flag(), "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-T", &path, &url];
        assert_eq!(curl(site.client(), &chunked).run().unwrap(), sum);
        assert_eq!(ask(site, family, "put", PUT, &[&url, &path]), sum);
        let order = match family {
            Family::Six => "--dns-result-order=verbatim",
            Family::Four => "--dns-result-order=ipv4first",
        };
        let node = site.client().command(program("node")).arg(order).arg(&fetch).arg(&url).run().unwrap();
        assert_eq!(node.lines().count(), 3);
        assert!(node.contains("host") && !node.contains("peak-"), "{node}");
    }
}

const SOCKET_SERVER: &str = r#"
import asyncio, sys, websockets

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None):
        await asyncio.Future()

asyncio.run(main())
"#;

const SOCKET_CLIENT: &str = r#"
import asyncio, sys, websockets

async def main():
    async with websockets.connect(sys.argv[1], max_size=None, open_timeout=20) as socket:
        for message in ["up", "x" * 1_000_000, b"\0\1\2"]:
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.wait_for(await socket.ping(), 20)
    print("echoed")

asyncio.run(main())
"#;

const GRPC_SERVER: &str = r#"
import sys, concurrent.futures, grpc

class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/Echo/One":
            return grpc.unary_unary_rpc_method_handler(lambda asked, _: asked)
        if call.method == "/Echo/Many":
            return grpc.stream_stream_rpc_method_handler(self.many)
        return None

    def many(self, asked, context):
        count = 0
        for one in asked:
            count += 1
            yield one
        context.set_trailing_metadata((("count", str(count)),))

server = grpc.server(concurrent.futures.ThreadPoolExecutor())
server.add_generic_rpc_handlers((Echo(),))
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
"#;

const GRPC_CLIENT: &str = r#"
import sys, grpc

with grpc.insecure_channel(sys.argv[1]) as channel:
    one, many = channel.unary_unary("/Echo/One"), channel.stream_stream("/Echo/Many")
    assert one(b"up", timeout=20) == b"up"
    big = b"x" * 2_000_000
    assert one(big, timeout=20) == big
    calls = [one.future(str(n).encode(), timeout=20) for n in range(100)]
    assert [call.result() for call in calls] == [str(n).encode() for n in range(100)]
    call = many((str(n).encode() for n in range(50)), timeout=20)
    assert len(list(call)) == 50
    assert ("count", "50") in [tuple(pair) for pair in call.trailing_metadata()], call.trailing_metadata()
    try:
        channel.unary_unary("/Echo/None")(b"", timeout=20)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    print("served")
"#;

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn websockets_and_grpc_work_unmodified() {
    let Town { site, .. } = &mut town(false);
    serve(site, WEB.pods[0], 84, "socket-server", SOCKET_SERVER);
    serve(site, WEB.pods[0], 85, "grpc-server", GRPC_SERVER);

    for family in FAMILIES {
        let socket = ask(site, family, "socket-client", SOCKET_CLIENT, &[&format!("ws://{}:84/chat", WEB.name)]);
        // It has a resolver of its own.
        let server = match family.stand_in(site, WEB.name) {
            IpAddr::V6(stand_in) => format!("ipv6:[{stand_in}]:85"),
            IpAddr::V4(stand_in) => format!("ipv4:{stand_in}:85"),
        };
        let grpc = ask(site, family, "grpc-client", GRPC_CLIENT, &[&server]);

        assert_eq!((socket.as_str(), grpc.as_str()), ("echoed", "served"));
    }
    let by_header = [("direction", "outbound"), ("mode", "header")];
    assert_eq!(site.counted(site.client(), "funicular_connections_total", &by_header).unwrap(), 4.0);
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn postgresql_changes_to_tls_inside_and_answers() {
    let Town { site, .. } = &mut town(false);
    let pod = MAIL.pods[0];
    let bin = postgres_folder();
    // The server refuses to run as root, and its user may not see the site's folder.
    let place = tempfile::Builder::new().prefix("funicular-pg-").tempdir().unwrap();
    let (data, name) = (place.path().join("data"), plan::pod(pod).name);
    for (from, to) in [(format!("{name}.crt"), "server.crt"), (format!("{name}.key"), "server.key")] {
        std::fs::copy(site.folder().join(from), place.path().join(to)).unwrap();
    }
    let prepare = format!(
        "set -e; chown -R postgres {0}; chmod 600 {0}/server.key\n\
         runuser -u postgres -- {1}/initdb -D {0}/data -A trust -N >/dev/null",
        place.path().display(),
        bin.display()
    );
    site.pod(pod).command(program("sh")).args(["-c", &prepare]).run().unwrap();
    let option = |key: &str, value: &Path| format!("-c{key}={}", value.display());
    let server = site.pod(pod).command(program("runuser")).args(["-u", "postgres", "--"]);
    let server = server.arg(bin.join("postgres")).arg("-D").arg(&data).args(["-h", "127.0.0.1", "-c", "ssl=on"]);
    let server = server.arg(option("ssl_cert_file", &place.path().join("server.crt")));
    let server = server.arg(option("ssl_key_file", &place.path().join("server.key")));
    let server = server.arg(option("unix_socket_directories", place.path()));
    site.run("postgres", server, |site, _| accepts(site.pod(pod), local(5432))).unwrap();

    let query =
        "select ssl, sum(n) from pg_stat_ssl, generate_series(1, 100000) n where pid = pg_backend_pid() group by 1";
    for family in FAMILIES {
        let (name, address) = (MAIL.name, family.stand_in(site, MAIL.name));
        let at =
            format!("host={name} hostaddr={address} user=postgres dbname=postgres sslmode=require connect_timeout=20");
        let answer = site.client().command(program("psql")).args([&at, "-Atc", query]).run().unwrap();

        assert_eq!(answer.trim_end(), "t|5000050000");
    }
    site.kill("postgres");
}

fn postgres_folder() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").map(|versions| versions.flatten().collect::<Vec<_>>());
    let mut folders: Vec<PathBuf> =
        versions.unwrap_or_default().iter().map(|version| version.path().join("bin")).collect();
    folders.retain(|folder| folder.join("initdb").exists());
    folders.sort();
    folders.pop().expect("postgresql is not installed; tests/run installs it")
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn ssh_logs_in_and_iperf3_measures() {
    let Town { site, .. } = &mut town(false);
    let pod = MAIL.pods[0];
    let folder = site.folder().to_owned();
    let at = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for key in ["host", "user"] {
        site.client()
            .command(program("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)])
            .run()
            .unwrap();
    }
    let config = format!(
        "Port 22\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PidFile none\nPermitRootLogin prohibit-password\n",
        at("host"),
        at("user.pub")
    );
    let config = script(site, "sshd_config", &config);
    std::fs::create_dir_all("/run/sshd").unwrap();
    let sshd = site.pod(pod).command(PathBuf::from("/usr/sbin/sshd")).args(["-D", "-e", "-f"]).arg(config);
    site.run("sshd", sshd, |site, _| accepts(site.pod(pod), local(22))).unwrap();
    let iperf = site.pod(pod).command(program("iperf3")).args(["-s", "-B", "127.0.0.1"]);
    site.run("iperf3", iperf, |site, _| accepts(site.pod(pod), local(5201))).unwrap();

    let (user, known) = (at("user"), format!("UserKnownHostsFile={}", at("known")));
    let options =
        ["-F", "none", "-i", &user, "-o", &known, "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=20"];
    for family in FAMILIES.map(Family::flag) {
        let ssh = site.client().command(program("ssh")).args(options).arg(family);
        let work = "head -c 3000000 /dev/zero | wc -c; echo $SSH_CONNECTION";
        let said = ssh.args([&format!("root@{}", MAIL.name), work]).run().unwrap();
        assert!(said.starts_with("3000000\n127.0.0.1 "), "{said}");

        // It has several connections at once, of which the server speaks first on some.
        let iperf = site.client().command(program("iperf3"));
        let report = iperf.args(["-c", MAIL.name, family, "-t", "1", "-P", "2", "-R", "-J"]).run().unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert!(report["end"]["sum_received"]["bytes"].as_f64().unwrap() > 1e6, "{report}");
    }
    until("the connections have ended", Duration::from_secs(20), || {
        site.counted(site.client(), "funicular_connections_open", &[("direction", "outbound")]).unwrap() == 0.0
    });
}
