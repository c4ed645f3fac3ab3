//! A running sidecar and its files.

use std::sync::Arc;

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

#[tokio::test]
async fn a_connection_outlasts_the_certificate_that_it_began_with_and_the_next_one_sees_the_new_one() {
    let (old, new) = (Authority::new(), Authority::new());
    let token = old.token();
    let mut application = Application::start().await;
    let (inbound, settings) = InboundBed::new(&old, application.port).start_replaceable().await;
    let believes_the_old = Caller::with(&old, token.as_bytes());
    let mut open = believes_the_old.connect(&inbound).await.unwrap();
    let mut server = application.accept().await;

    let mut renewed = InboundBed::new(&old, application.port);
    renewed.inbound.tls = Some(new.server(SERVICE));
    settings.store(Arc::new(renewed.inbound));

    assert!(believes_the_old.connect(&inbound).await.is_err());
    assert!(application.is_untouched());
    let believes_the_new = Caller { authority: &new, ..believes_the_old };
    let mut next = believes_the_new.connect(&inbound).await.unwrap();
    hears(&mut next, &mut application.accept().await, "by the new one").await;
    hears(&mut open, &mut server, "by the old one").await;
    hears(&mut server, &mut open, "both ways").await;
}
