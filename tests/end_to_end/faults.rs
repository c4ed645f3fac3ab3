//! Pods and name servers that are gone.

use std::time::{Duration, Instant};

use funicular::demo::plan::{BRIEF, ORDERS};
use funicular::demo::site::Site;

use crate::support::{Capture, Family, Town, answers, curl, fetch, program, town, until};

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_request_that_meets_a_dead_pod_goes_to_the_next_candidate() {
    let Town { site, .. } = &mut town(false);
    let alive = |pods: &[String]| pods.iter().all(|pod| pod != "s3");

    // The host answers, nobody listens: refused at once.
    site.kill("s3/sidecar");
    let without_sidecar = fetch(site, 30, &[]);
    // The host is gone: nothing comes back at all.
    site.pod(2).set_down("eth0").unwrap();
    let begun = Instant::now();
    let without_host = fetch(site, 6, &[]);

    assert!(without_sidecar.len() == 30 && alive(&without_sidecar), "{without_sidecar:?}");
    assert!(without_host.len() == 6 && alive(&without_host), "{without_host:?}");
    assert!(begun.elapsed() < Duration::from_secs(6 * 5), "each within the connect deadline");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn without_peak_a_known_name_lives_for_its_ttl_and_then_fails_fast_and_counted() {
    const UNREACHABLE: &str = "name-servers-unreachable";
    let Town { site, .. } = &mut town(false);
    let stand_in = Family::Six.stand_in(site, BRIEF.name);
    let url = format!("http://[{stand_in}]/?not-for-strangers");
    let capture = Capture::start(site.router());
    let once = |site: &Site| curl(site.client(), &["-o", "/dev/null", "-w", "%{http_code}", &url]).output().unwrap();
    let served = |site: &Site| once(site).stdout == b"200";
    let refused = |site: &Site| {
        let labels = [("direction", "outbound"), ("reason", UNREACHABLE)];
        site.counted(site.client(), "funicular_refusals_total", &labels).unwrap()
    };
    assert!(served(site));

    site.kill("peak-main/peak");
    site.kill("peak-cluster/peak");
    let stopped = Instant::now();
    let still = served(site);
    let so_far = stopped.elapsed();
    let patience = Duration::from_secs(u64::from(BRIEF.ttl) + 10);
    until("the client's sidecar gives up on the name", patience, || !served(site) && refused(site) > 0.0);
    let before = refused(site);
    let begun = Instant::now();
    let again = served(site);
    let took = begun.elapsed();
    let lookup = site.client().command(program("getent")).args(["ahostsv6", BRIEF.name]).output().unwrap();

    assert!(still || so_far >= Duration::from_secs(u64::from(BRIEF.ttl)), "it failed before its TTL was over");
    assert!(!again && took < Duration::from_secs(6), "it fails fast: {took:?}");
    assert_eq!(refused(site) - before, 1.0, "{:?}", site.refusals(site.client()).unwrap());
    assert!(capture.holds(b"\x16\x03\x01") && !capture.holds(b"not-for-strangers"), "it leaks in clear text");
    assert!(!lookup.status.success(), "no stand-in is given for a service that cannot be found");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn one_of_two_main_name_servers_is_enough() {
    let Town { site, .. } = &mut town(true);
    let first = curl(site.client(), &["-o", "/dev/null", "-w", "%{http_code}", &format!("http://{}/", ORDERS.name)])
        .run()
        .unwrap();
    assert_eq!(first, "200");

    site.kill("peak-main/peak");
    // Names that the sidecar has not met: it must ask from the top.
    let output = curl(site.client(), &["-w", " %{http_code}", &format!("http://{}/", BRIEF.name)]).run().unwrap();

    assert_eq!(answers(&output).len(), 1);
}
