//! `dns.answers: computed`: a program that speaks UDP calls addresses of the service itself.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use funicular::demo::plan::{self, MARK, ORDERS};
use funicular::demo::site::Site;

use crate::support::{Town, program, restart, script, town};

/// Where the pods' programs hear UDP.
const PORT: &str = "5400";

/// A name server for a name that says which pod it is: a program that speaks UDP.
fn answer_by_udp(site: &mut Site, index: usize) {
    let name = plan::pod(index).name;
    let pod = site.pod(index);
    let init =
        pod.funicular("init").args(["--mark", &MARK.to_string(), "--device", "eth0", "--inbound-udp-ports", PORT]);
    init.args(["--service-prefix", &ORDERS.prefix().to_string()]).run().unwrap();
    let zone = format!(
        "$ORIGIN who.example.\n$TTL 60\n@ SOA ns admin 1 3600 600 86400 5\n@ NS ns\nns AAAA ::1\n@ TXT {name}\n"
    );
    let file = script(site, &format!("{name}.who"), &zone);
    let server = site.pod(index).funicular("peak").args(["--listen", &format!("[::]:{PORT}")]);
    let server = server.args(["--zone", &format!("who.example={}", file.display())]);
    site.run(&format!("{name}/udp"), server, |_, said| said.contains("listening")).unwrap();
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_program_that_speaks_udp_reaches_the_pod_to_which_its_computed_address_belongs() {
    let Town { site, .. } = &mut town(false);
    restart(site, Site::client, |text| text.replacen("dns:\n", "dns:\n  answers: computed\n", 1));
    for &index in ORDERS.pods {
        answer_by_udp(site, index);
    }

    let mut heard = BTreeSet::new();
    for _ in 0..40 {
        let asked = ["-p", PORT, "who.example", "TXT", "+tries=2", "+time=10", "+noall", "+answer", "+stats"];
        let said = site.client().command(program("dig")).arg(format!("@{}", ORDERS.name)).args(asked).run().unwrap();
        let after = |mark: &str, end: char| said.split(mark).nth(1).and_then(|rest| rest.split(end).next());
        let address: Ipv6Addr = after(";; SERVER: ", '#').unwrap().parse().unwrap();
        let owner = ORDERS.owner(address).map(|index| plan::pod(index).name);
        assert_eq!(after("TXT\t\"", '"'), owner, "{said}");
        heard.extend(owner);
    }

    assert_eq!(heard.len(), ORDERS.pods.len(), "{heard:?}: odds of one in ten million");
}
