//! A sidecar's beginning and end.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use funicular::ops::drain::Drained;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::bed::*;

#[tokio::test]
async fn a_graceful_stop_takes_nothing_new_and_lets_what_is_under_way_finish() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let mut stream = Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap();
    let mut server = application.accept().await;
    inbound.drain.begin();
    within(async { while TcpStream::connect(inbound.address).await.is_ok() {} }).await;
    hears(&mut stream, &mut server, "not done yet").await;
    let finishing = async {
        stream.shutdown().await.unwrap();
        drop(server);
    };
    let (drained, ()) = tokio::join!(inbound.drain.drain(Duration::from_secs(20)), finishing);
    assert_eq!(drained, Drained::Finished);
}

#[tokio::test]
async fn a_forced_end_resets_what_is_left() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let stream = Caller::with(&authority, token.as_bytes()).connect(&inbound).await.unwrap();
    let server = application.accept().await;
    inbound.drain.force();
    ends_by_reset(server).await;
    ends_by_reset(stream).await;
}

/// A `funicular sidecar` of this build, killed with the value.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Its own, and of those that it starts.
    group: rustix::process::Pid,
    admin: SocketAddr,
    health: SocketAddr,
    pub(crate) outbound: SocketAddr,
    /// Where programs ask for their connections.
    pub(crate) explicit: Option<SocketAddr>,
    log: mpsc::UnboundedReceiver<serde_json::Value>,
}

impl Process {
    /// Starts one on free ports and waits until it says that it listens.
    pub(crate) async fn start(authority: &Authority, more: &str) -> Self {
        // As most systems start programs: few descriptors, and leave to take more.
        Self::run("ulimit -Sn 64", "", authority, more).await
    }

    /// The same, with a port where programs ask for their connections.
    pub(crate) async fn start_explicit(authority: &Authority, more: &str) -> Self {
        Self::run("ulimit -Sn 64", ", explicit: \"127.0.0.1:0\"", authority, more).await
    }

    /// The same, with so many descriptors and no more.
    pub(crate) async fn with_descriptors(most: u64, authority: &Authority, explicit: &str, more: &str) -> Self {
        Self::run(&format!("ulimit -n {most}"), &format!(", explicit: \"{explicit}\""), authority, more).await
    }

    /// The same, as the first process of a container; `child` is the one that made the container.
    async fn first_of_a_container(authority: &Authority, more: &str) -> Self {
        let contained = "exec unshare --pid --fork --kill-child \"$0\" sidecar --config \"$1\"";
        Self::by(contained, "", authority, more).await
    }

    async fn run(limit: &str, outbound: &str, authority: &Authority, more: &str) -> Self {
        let start = format!("{limit} && exec \"$0\" sidecar --config \"$1\"");
        Self::by(&start, outbound, authority, more).await
    }

    async fn by(start: &str, outbound: &str, authority: &Authority, more: &str) -> Self {
        let config = authority.path("sidecar.yaml");
        let free = "127.0.0.1:0";
        let text = format!(
            "dns: {{ listen: \"{free}\", upstream: [\"127.0.0.1:9\"] }}\n\
             outbound: {{ listen: \"{free}\"{outbound} }}\n\
             admin: {{ listen: \"{free}\", metrics: \"{free}\" }}\n\
             log: {{ format: json }}\n{more}"
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", start, env!("CARGO_BIN_EXE_funicular")])
            .arg(&config)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, mut log) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = tell.send(serde_json::from_str(&line).unwrap_or(serde_json::Value::String(line)));
            }
        });
        let listening = next_that_says(&mut log, "listening").await;
        let port = |name: &str| listening[name].as_str().map(|at| at.parse().unwrap());
        let [admin, health, outbound] = ["admin", "metrics", "outbound"].map(|name| port(name).unwrap());
        let group = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        Self { child, group, admin, health, outbound, explicit: port("explicit"), log }
    }

    /// Waits until it logs a message that begins so.
    pub(crate) async fn says(&mut self, message: &str) -> serde_json::Value {
        next_that_says(&mut self.log, message).await
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        self.group
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.get_from(self.health, path).await
    }

    /// The settings in effect.
    pub(crate) async fn settings(&self) -> String {
        self.get_from(self.admin, "/config").await
    }

    /// What the admin port says at a path.
    pub(crate) async fn admin(&self, path: &str) -> serde_json::Value {
        let reply = self.get_from(self.admin, path).await;
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    async fn get_from(&self, port: SocketAddr, path: &str) -> String {
        let mut tcp = TcpStream::connect(port).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {port}\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        within(tcp.read_to_string(&mut reply)).await.unwrap();
        reply
    }

    pub(crate) fn terminate(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
    }
}

impl Drop for Process {
    /// Ends it, and whoever came after it.
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(self.group, rustix::process::Signal::KILL);
    }
}

async fn next_that_says(log: &mut mpsc::UnboundedReceiver<serde_json::Value>, message: &str) -> serde_json::Value {
    let mut seen = Vec::new();
    let line = within(async {
        loop {
            let Some(line) = log.recv().await else { panic!("it ended: {seen:?}") };
            if line["message"].as_str().is_some_and(|said| said.starts_with(message)) {
                return line;
            }
            seen.push(line);
        }
    });
    line.await
}

#[tokio::test]
async fn a_sidecar_listens_then_is_ready_and_ends_in_order_when_it_is_told_to() {
    let authority = Authority::new();
    let mut sidecar = Process::start(&authority, "inbound: { listen: \"127.0.0.1:0\" }\n").await;
    within(async { while !sidecar.get("/ready").await.starts_with("HTTP/1.1 200") {} }).await;
    assert!(sidecar.get("/metrics").await.contains("funicular_connect_seconds_count 0"));
    sidecar.terminate();
    assert!(within(sidecar.child.wait()).await.unwrap().success());
}

/// The children of a process, those that have ended and wait for it to notice as well.
fn children(process: &str) -> Vec<String> {
    let listed = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    listed.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "needs CAP_SYS_ADMIN"]
async fn as_the_first_process_of_a_container_it_reaps_what_others_leave_behind_and_ends_when_it_is_told_to() {
    let authority = Authority::new();
    let mut sidecar = Process::first_of_a_container(&authority, "inbound: { listen: \"127.0.0.1:0\" }\n").await;
    let first = children(&sidecar.child.id().unwrap().to_string()).remove(0);
    let pipe = authority.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();

    // A process whose parent goes, and which ends when we say so.
    let orphan = "cat <\"$0\" >/dev/null 2>&1 &";
    let mut parent = Command::new("nsenter");
    let parent = parent.args(["--target", &first, "--pid", "--", "sh", "-c", orphan]).arg(&pipe).status();
    assert!(within(parent).await.unwrap().success());
    within(async {
        while children(&first).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
    within(async {
        while !children(&first).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    let first = rustix::process::Pid::from_raw(first.parse().unwrap()).unwrap();
    rustix::process::kill_process(first, rustix::process::Signal::TERM).unwrap();
    assert!(within(sidecar.child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_sidecar_takes_all_the_descriptors_that_it_may_have() {
    let authority = Authority::new();
    let sidecar = Process::start(&authority, "inbound: { listen: \"127.0.0.1:0\" }\n").await;
    let metrics = sidecar.get("/metrics").await;
    let most = metrics.lines().find_map(|line| line.strip_prefix("funicular_process_max_descriptors "));
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap();
    assert_eq!(most.unwrap().parse::<f64>().unwrap(), allowed as f64);
}

#[tokio::test]
async fn a_sidecar_that_does_not_know_its_own_rules_is_not_ready() {
    let authority = Authority::new();
    let _ = authority.server(SERVICE);
    std::fs::write(authority.path("jwks.json"), funicular::wire::jwks::to_jwks(&[&authority.key])).unwrap();
    let more = format!(
        "tls: {{ certificate: cert.pem, key: key.pem }}\n\
         trust: [{{ issuer: {ISSUER}, jwks: jwks.json }}]\n\
         inbound: {{ listen: \"127.0.0.1:0\", services: [{{ name: {SERVICE} }}] }}\n"
    );
    let sidecar = Process::start(&authority, &more).await;
    within(async { while !sidecar.get("/ready").await.ends_with("pending: own-rules\n") {} }).await;
    assert!(sidecar.get("/ready").await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn a_key_file_that_does_not_serve_is_named_and_the_sidecar_does_not_start() {
    let authority = Authority::new();
    std::fs::write(authority.path("caller.pem"), "nonsense").unwrap();
    let config = authority.path("sidecar.yaml");
    let text = format!(
        "identity: {{ id: {WEB}, issuer: {ISSUER}, signing_key: caller.pem, key_id: k1, ca: ca.pem }}\n\
         dns: {{ listen: \"127.0.0.1:0\", upstream: [\"127.0.0.1:9\"] }}\n\
         outbound: {{ listen: \"127.0.0.1:0\" }}\n\
         inbound: {{ listen: \"127.0.0.1:0\" }}\n\
         admin: {{ listen: \"127.0.0.1:0\", metrics: \"127.0.0.1:0\" }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    let output = within(command.args(["sidecar", "--config"]).arg(&config).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("caller.pem: no PKCS#8 PEM of an Ed25519 or P-256 private key"), "{said}");
}

#[tokio::test]
async fn an_operator_sees_rules_claims_and_connections_as_they_end_and_changes_what_is_logged() {
    let authority = Authority::new();
    let _ = authority.server(SERVICE);
    let mut sidecar = Process::start(&authority, "inbound: { listen: \"127.0.0.1:0\" }\n").await;
    assert_eq!(sidecar.admin("/rules").await, serde_json::json!({ "services": [] }));
    assert_eq!(sidecar.admin("/tokens").await, serde_json::json!({ "own": [], "callers": [], "not_shown": 0 }));

    // A connection straight to its port is a loop; the command beside it tells of it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_funicular"));
    let port = sidecar.admin.port().to_string();
    let tapping = command.args(["sidecar", "tap", "--port", &port, "--count", "1", "--direction", "outbound"]).output();
    let calling = async {
        loop {
            // It may be closed before it is seen to be open.
            if let Ok(mut tcp) = TcpStream::connect(sidecar.outbound).await {
                assert!(tcp.read_u8().await.is_err());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::select! { told = within(tapping) => told.unwrap(), () = calling => unreachable!() };
    assert!(told.status.success());
    let line: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&line["outcome"], &line["direction"]), (&"loop".into(), &"outbound".into()));

    let mut tcp = TcpStream::connect(sidecar.admin).await.unwrap();
    let post = "POST /logging?level=debug HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    tcp.write_all(post.as_bytes()).await.unwrap();
    let mut reply = String::new();
    tcp.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("debug\n"), "{reply}");
    sidecar.terminate();
    assert!(within(sidecar.child.wait()).await.unwrap().success());
}
