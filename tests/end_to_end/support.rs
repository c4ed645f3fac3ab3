//! A running site for a test, and what tests do with it over and over.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use funicular::demo::bed::Pod;
use funicular::demo::plan::{CLIENT, ORDERS, Service};
use funicular::demo::probe::{self, Attempt};
use funicular::demo::process::PodCommand;
use funicular::demo::programs;
use funicular::demo::site::{METRICS_PORT, Options, Site, http_get};
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

/// A site with its folder, which goes after it.
pub(crate) struct Town {
    pub(crate) site: Site,
    _folder: TempDir,
}

/// Builds a site; `second_peak` gives the apex zone two name servers.
pub(crate) fn town(second_peak: bool) -> Town {
    let folder = tempfile::tempdir().unwrap();
    let exe = PathBuf::from(env!("CARGO_BIN_EXE_funicular"));
    let options = Options { exe, folder: folder.path().to_owned(), second_peak };
    let site = Site::build(&options, &mut |_| ()).unwrap_or_else(|error| panic!("{error}: {error:?}"));
    Town { site, _folder: folder }
}

/// Where a program is; a missing one fails the test, since tests/run installs them all.
pub(crate) fn program(name: &str) -> PathBuf {
    programs::find(name).unwrap_or_else(|| panic!("{name} is not installed; tests/run installs it"))
}

/// curl with none of the user's settings.
pub(crate) fn curl(pod: &Pod, arguments: &[&str]) -> PodCommand {
    pod.command(program("curl")).args(["-q", "-sS", "--noproxy", "*", "-m", "20"]).args(arguments)
}

/// Starts a pod's sidecar anew, its configuration changed.
pub(crate) fn restart(site: &mut Site, pod: impl Fn(&Site) -> &Pod, change: impl FnOnce(&str) -> String) {
    let name = pod(site).name();
    let file = site.folder().join(format!("{name}.yaml"));
    let before = std::fs::read_to_string(&file).unwrap();
    let after = change(&before);
    assert_ne!(before, after);
    std::fs::write(&file, after).unwrap();
    let sidecar = format!("{name}/sidecar");
    site.kill(&sidecar);
    let command = pod(site).funicular("sidecar").arg("--config").arg(file);
    let ready = |site: &Site, _: &str| http_get(pod(site), METRICS_PORT, "/ready").is_ok_and(|page| page.is_some());
    site.run(&sidecar, command, ready).unwrap();
}

/// What a program knows of the Internet Protocol: the programs of these tests know one version each.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    Six,
    Four,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::Six, Family::Four];

impl Family {
    /// The flag by which many programs are told.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Six => "-6",
            Self::Four => "-4",
        }
    }

    /// What programs of this family find for a service in the client's pod.
    pub(crate) fn stand_in(self, site: &Site, name: &str) -> IpAddr {
        let kind = match self {
            Self::Six => "AAAA",
            Self::Four => "A",
        };
        let found = site.client().command(program("dig")).args(["+short", name, kind]).run().unwrap();
        found.trim_end().parse().unwrap()
    }
}

/// What the client's own sidecar would send to a pod, by hand.
pub(crate) fn honest(site: &Site, service: &Service, pod: usize, token: &str) -> Attempt {
    let destination = probe::address_at(service, CLIENT.address(), pod).expect("each pod owns a third of the space");
    Attempt::honest(service, destination, site.ca(), token.to_owned())
}

/// Waits until `holds`; what is waited for happens in another process, which gives no other sign.
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true within {} s", limit.as_secs());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Writes a script into the site's folder.
pub(crate) fn script(site: &Site, name: &str, text: &str) -> PathBuf {
    let path: &Path = site.folder();
    let path = path.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The pods that answered, one word each; everything must have been answered with 200.
pub(crate) fn answers(output: &str) -> Vec<String> {
    let words: Vec<&str> = output.split_whitespace().collect();
    let pairs = words.chunks(2).map(|pair| match pair {
        [pod, "200"] => (*pod).to_owned(),
        other => panic!("{other:?} in {output}"),
    });
    pairs.collect()
}

const EACH_ITS_CONNECTION: [&str; 4] = ["-H", "Connection: close", "-w", " %{http_code}\\n"];

/// The pods that answered `count` requests to the service, a connection each; all must be answered.
pub(crate) fn fetch(site: &Site, count: usize, extra: &[&str]) -> Vec<String> {
    let url = format!("http://{}/?[1-{count}]", ORDERS.name);
    let output = curl(site.client(), &EACH_ITS_CONNECTION).args(extra).arg(&url).run().unwrap();
    answers(&output)
}

/// Everything that passes a pod's devices, from its start on.
pub(crate) struct Capture {
    octets: Arc<Mutex<Vec<u8>>>,
}

impl Capture {
    /// Listens on a packet socket, which sees every frame of every device of the pod, in and out.
    pub(crate) fn start(pod: &Pod) -> Self {
        const EVERY_PROTOCOL: i32 = 0x0003_u16.to_be() as i32;
        let protocol = Some(Protocol::from(EVERY_PROTOCOL));
        let mut socket = pod.within(move |_| Socket::new(Domain::PACKET, Type::RAW, protocol)).unwrap().unwrap();
        socket.set_recv_buffer_size(8 << 20).unwrap();
        let octets = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::downgrade(&octets);
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        std::thread::spawn(move || {
            let mut frame = vec![0; 1 << 17];
            // Ends with the last who wants to know.
            while let Some(kept) = kept.upgrade() {
                if let Ok(length) = socket.read(&mut frame) {
                    kept.lock().unwrap().extend_from_slice(&frame[..length]);
                }
            }
        });
        Self { octets }
    }

    /// Whether these octets were seen, one after the other in one frame.
    pub(crate) fn holds(&self, needle: &[u8]) -> bool {
        self.octets.lock().unwrap().windows(needle.len()).any(|window| window == needle)
    }
}
