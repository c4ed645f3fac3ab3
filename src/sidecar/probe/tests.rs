//! Probes of real listeners on loopback.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use hyper::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;

use super::*;

fn probe(kind: ProbeKind, port: u16) -> Probe {
    Probe {
        kind,
        port,
        path: "/healthz?full".to_owned(),
        headers: BTreeMap::from([("X-Probe".to_owned(), "yes".to_owned())]),
        service: Some("orders".to_owned()),
        timeout: Duration::from_secs(5),
    }
}

fn forward() -> Forward {
    Forward { mark: None, reserved: BTreeSet::new() }
}

/// Answers every HTTP request with `answer`, over HTTP/1.1 or HTTP/2.
async fn application<B>(answer: fn(Request<Incoming>) -> Response<B>) -> u16
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request)) });
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    port
}

fn status(code: u16) -> Response<Empty<Bytes>> {
    Response::builder().status(code).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn an_http_probe_asks_the_declared_path_and_fields() {
    let port = application(|request| {
        let right = *request.uri() == *"/healthz?full" && request.headers()["x-probe"] == "yes";
        status(if right { 204 } else { 404 })
    })
    .await;
    judge(&probe(ProbeKind::Http, port), &forward()).await.unwrap();
}

#[tokio::test]
async fn a_status_from_200_to_399_is_good_and_no_other() {
    async fn judged(application_port: u16) -> bool {
        judge(&probe(ProbeKind::Http, application_port), &forward()).await.is_ok()
    }
    assert!(judged(application(|_| status(399)).await).await);
    assert!(!judged(application(|_| status(400)).await).await);
    assert!(!judged(application(|_| status(503)).await).await);
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_unwell_in_every_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    judge(&probe(ProbeKind::Tcp, port), &forward()).await.unwrap();
    drop(listener);
    for kind in [ProbeKind::Tcp, ProbeKind::Http, ProbeKind::Https, ProbeKind::Grpc] {
        assert!(judge(&probe(kind, port), &forward()).await.is_err(), "{kind:?}");
    }
}

#[tokio::test]
async fn an_application_that_is_silent_is_unwell_at_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Probe { timeout: Duration::from_millis(50), ..probe(ProbeKind::Http, port) };
    assert!(matches!(judge(&asked, &forward()).await, Err(Unwell::Late(_))));
}

fn healthy(message: &'static [u8]) -> Response<Full<Bytes>> {
    let mut frame = vec![0, 0, 0, 0, message.len() as u8];
    frame.extend(message);
    Response::builder().header("grpc-status", "0").body(Full::new(frame.into())).unwrap()
}

#[tokio::test]
async fn a_grpc_probe_wants_serving_and_nothing_else() {
    async fn judged(application_port: u16) -> Result<(), Unwell> {
        judge(&probe(ProbeKind::Grpc, application_port), &forward()).await
    }
    let serving = application(|request| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        healthy(&[8, 1])
    });
    judged(serving.await).await.unwrap();
    assert!(judged(application(|_| healthy(&[8, 2])).await).await.is_err());
    assert!(judged(application(|_| healthy(&[])).await).await.is_err());
    let unknown = |_: Request<Incoming>| Response::builder().header("grpc-status", "5").body(Empty::new()).unwrap();
    assert!(matches!(judged(application(unknown).await).await, Err(Unwell::Health(_))));
}

#[test]
fn the_question_of_a_health_check_is_framed_as_grpc_frames_it() {
    assert_eq!(&health_question("")[..], [0, 0, 0, 0, 0]);
    assert_eq!(&health_question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
}
