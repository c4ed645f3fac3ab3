//! A running sidecar and its files.

use crate::bed::*;
use crate::life::Process;

const SETTINGS: &str = "inbound: { listen: \"127.0.0.1:0\" }\ndrain: 7s\n";

fn succeeded(metrics: &str) -> Option<&str> {
    metrics.lines().find_map(|line| line.strip_prefix("funicular_config_reload_success "))
}

#[tokio::test]
async fn a_new_configuration_takes_effect_and_a_bad_one_leaves_the_old() {
    let authority = Authority::new();
    let mut sidecar = Process::start(&authority, SETTINGS).await;
    let file = authority.path("sidecar.yaml");
    let first = std::fs::read_to_string(&file).unwrap();
    assert_eq!(succeeded(&sidecar.get("/metrics").await), Some("1"));

    std::fs::write(&file, first.replace("drain: 7s", "drain: 8s")).unwrap();
    within(async { while !sidecar.settings().await.contains("\"8s\"") {} }).await;

    std::fs::write(&file, first.replace("drain: 7s", "drian: 9s")).unwrap();
    within(async { while succeeded(&sidecar.get("/metrics").await) != Some("0") {} }).await;
    assert!(sidecar.settings().await.contains("\"8s\""));

    std::fs::write(&file, first).unwrap();
    within(async { while succeeded(&sidecar.get("/metrics").await) != Some("1") {} }).await;
    assert!(sidecar.settings().await.contains("\"7s\""));
    sidecar.terminate();
    assert!(within(sidecar.child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_certificate_that_went_bad_leaves_the_old_one_until_it_is_good_again() {
    let authority = Authority::new();
    let _ = authority.server(SERVICE);
    let more = format!("tls: {{ certificate: cert.pem, key: key.pem }}\n{SETTINGS}");
    let sidecar = Process::start(&authority, &more).await;

    std::fs::write(authority.path("cert.pem"), "nonsense").unwrap();
    within(async { while succeeded(&sidecar.get("/metrics").await) != Some("0") {} }).await;

    let _ = authority.server(SERVICE);
    within(async { while succeeded(&sidecar.get("/metrics").await) != Some("1") {} }).await;
}
