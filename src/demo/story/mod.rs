//! The story: what the demo shows, in order, and what must hold at each step.
//!
//! Each step is a function that does something to the running site and tells what it saw. A step that cannot be
//! carried out is a claim that failed; the story goes on.

mod calls;
mod names;
mod refusals;

use std::path::PathBuf;

use super::bed::BedError;
use super::plan::{self, CLIENT, CLUSTER_PEAK, LEGACY, MAIN_PEAK, ORDERS};
use super::process::PodCommand;
use super::programs;
use super::render::{Claim, Evidence, Stage, Step};
use super::site::{LEGACY_PORT, METRICS_PORT, Site, http_get};

/// What a step tells.
struct Told {
    explanation: String,
    evidence: Vec<Evidence>,
    claims: Vec<Claim>,
}

/// Why a step could not be carried out.
#[derive(Debug, thiserror::Error)]
enum StoryError {
    /// Pods and processes.
    #[error(transparent)]
    Bed(#[from] BedError),
    /// A name server did not answer, or nothing that can be read.
    #[error(transparent)]
    Names(#[from] names::LookupError),
    /// A token could not be signed.
    #[error(transparent)]
    Sign(#[from] crate::wire::jwt::SignError),
    /// The caller of the plan has no identity.
    #[error(transparent)]
    Caller(#[from] crate::model::token::BadWorkloadId),
    /// The rule gave no address for the pod that was wanted.
    #[error("the rule gave no address of {pod} in 200 draws")]
    NoAddress {
        /// The pod.
        pod: &'static str,
    },
}

/// One step: its name for machines, its title, what to say while it runs, and what it does.
struct Scene {
    id: &'static str,
    title: &'static str,
    doing: &'static str,
    play: fn(&mut Site, &Tools) -> Result<Told, StoryError>,
}

const SCENES: [Scene; 9] = [
    Scene { id: "site", title: "A small data centre", doing: "asking every sidecar whether it is ready", play: site },
    Scene {
        id: "names",
        title: "DNS says where the mountain is",
        doing: "asking the name servers",
        play: names::published,
    },
    Scene { id: "rule", title: "The rule, explained", doing: "explaining the rule", play: names::rule },
    Scene {
        id: "spread",
        title: "200 requests of one client, spread over three pods",
        doing: "sending 200 requests",
        play: calls::spread,
    },
    Scene {
        id: "addresses",
        title: "Which address landed where",
        doing: "reading the access logs",
        play: calls::addresses,
    },
    Scene { id: "ipv4", title: "A program that speaks only IPv4", doing: "calling over IPv4", play: calls::ipv4 },
    Scene {
        id: "token",
        title: "Without a good token: refused",
        doing: "knocking without a token",
        play: refusals::token,
    },
    Scene {
        id: "source",
        title: "With a wrong source address: refused",
        doing: "knocking with a made-up source",
        play: refusals::source,
    },
    Scene {
        id: "programs",
        title: "Other programs, and names that are no services",
        doing: "running other programs",
        play: calls::others,
    },
];

/// Plays all steps.
pub(super) fn tell(site: &mut Site, stage: &mut Stage) {
    let tools = Tools::find();
    for Scene { id, title, doing, play } in SCENES {
        stage.doing(doing);
        let told = play(site, &tools).unwrap_or_else(|error| Told {
            explanation: String::from("This step could not be carried out."),
            evidence: Vec::new(),
            claims: vec![Claim::new("the step can be carried out", false, error_chain(&error))],
        });
        let Told { explanation, evidence, claims } = told;
        stage.show(Step { id, title, explanation, evidence, claims });
    }
}

/// An error with everything that caused it.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// The real programs that this machine has.
struct Tools {
    curl: Option<PathBuf>,
    getent: Option<PathBuf>,
    redis: Option<(PathBuf, PathBuf)>,
}

impl Tools {
    fn find() -> Self {
        Self {
            curl: programs::find("curl"),
            getent: programs::find("getent"),
            redis: programs::find("redis-server").zip(programs::find("redis-cli")),
        }
    }

    /// An HTTP client in the client pod that fetches `url` and prints the body, then the status; a connection for each
    /// of `count` requests.
    fn http(&self, site: &Site, url: &str, count: usize, ipv4: bool) -> PodCommand {
        let family = ipv4.then_some("-4");
        let Some(curl) = &self.curl else {
            let fetch = site.client().funicular("demo").args(["fetch", "--count", &count.to_string()]);
            return fetch.args(family).arg(url);
        };
        let url = if count > 1 { format!("{url}?[1-{count}]") } else { url.to_owned() };
        // -q: no settings of the user's; curl itself makes one request per number in the brackets.
        let curl = site.client().command(curl).args(["-q", "-sS", "--noproxy", "*", "-m", "20"]).args(family);
        curl.args(["-H", "Connection: close", "-w", r" %{http_code}\n"]).arg(url)
    }
}

/// What is there.
fn site(site: &mut Site, _tools: &Tools) -> Result<Told, StoryError> {
    let row = |left: &str, host: plan::Host, what: &str| {
        format!("{left:<21}+-- {:<12} {:<17}  {what}", host.name, host.address())
    };
    let mut picture =
        vec![row("", MAIN_PEAK, "zone peak."), row("", CLUSTER_PEAK, "zone shop.peak."), format!("{:<21}|", "")];
    let left = ["client --- router ---", &CLIENT.address().to_string(), "sidecar + program"];
    for (index, left) in left.into_iter().enumerate() {
        picture.push(row(left, plan::pod(index), "sidecar + program"));
    }
    let mut unready = Vec::new();
    for pod in (0..plan::PODS).map(|index| site.pod(index)).chain([site.client()]) {
        if http_get(pod, METRICS_PORT, "/ready")?.is_none() {
            unready.push(pod.name());
        }
    }
    let count = site.process_names().count();
    Ok(Told {
        explanation: format!(
            "Every box is a network namespace of this machine, every line a cable of its own; nothing outside sees \
             them. {count} processes run: two name servers, a sidecar in each pod, and programs that know nothing of \
             any of it. In each pod, `funicular init` has redirected the traffic to the sidecar. The service {} owns \
             the whole prefix {}; the router sends a third of it to each pod.",
            ORDERS.name,
            ORDERS.prefix(),
        ),
        evidence: vec![Evidence::Lines { caption: String::new(), lines: picture }],
        claims: vec![Claim::new("all four sidecars are ready", unready.is_empty(), unready.join(", "))],
    })
}

/// Commands that look around in a site that is kept running: what each is for, and the line to paste.
pub(super) fn commands(site: &Site, rootless: bool) -> Vec<(&'static str, String)> {
    let enter = |task: &str| {
        let user = if rootless { " -U --preserve-credentials" } else { "" };
        format!("nsenter -t {task}{user} -n -m")
    };
    let (client, server) = (enter(site.client().task()), enter(site.pod(0).task()));
    let tools = Tools::find();
    let fetch = match &tools.curl {
        Some(_) => String::from("curl -qsS --noproxy '*'"),
        None => format!("{} demo fetch", site.exe().display()),
    };
    let mut commands = vec![
        ("call the service as any program would", format!("{client} {fetch} http://{}/", ORDERS.name)),
        ("call a name that is no service", format!("{client} {fetch} http://{LEGACY}:{LEGACY_PORT}/")),
        ("a shell in the client pod", client.clone()),
        ("who comes to pod s1", format!("{server} tail -f {}/s1-sidecar.log", site.folder().display())),
    ];
    if let Some(getent) = &tools.getent {
        let getent = getent.display();
        commands.insert(1, ("what a program is told", format!("{client} {getent} ahosts {}", ORDERS.name)));
    }
    if tools.curl.is_some() {
        let metrics = format!("{client} {fetch} 'http://[::1]:{METRICS_PORT}/metrics'");
        commands.push(("what the client's sidecar counts", metrics));
    }
    if let Some(nft) = programs::find("nft") {
        commands.push(("the redirect rules of pod s1", format!("{server} {} list ruleset", nft.display())));
    }
    commands
}
