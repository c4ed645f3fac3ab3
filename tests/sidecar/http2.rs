//! `header` mode in HTTP/2, with prior knowledge: what gRPC speaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Barrier;

use crate::bed::*;
use crate::http::Pair;

type Content = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

fn text(words: &str) -> Content {
    Full::new(Bytes::copy_from_slice(words.as_bytes())).map_err(|never| match never {}).boxed()
}

/// A pair whose application serves HTTP/2 by `answer`, and a client of it.
async fn serving<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> (SendRequest<Content>, Running, Running)
where
    F: Future<Output = Response<Content>> + Send + 'static,
{
    let Pair { outbound, inbound, mut application, .. } = Pair::start().await;
    let client = TokioIo::new(outbound.connect().await);
    tokio::spawn(async move {
        loop {
            let (io, answer) = (TokioIo::new(application.accept().await), answer.clone());
            let service = service_fn(move |request| {
                let answered = answer(request);
                async { Ok::<_, std::convert::Infallible>(answered.await) }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.enable_connect_protocol();
            tokio::spawn(async move { builder.serve_connection(io, service).await });
        }
    });
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), client).await.unwrap();
    tokio::spawn(connection);
    (sender, outbound, inbound)
}

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder().method(method).uri(format!("http://orders.shop.peak{path}"))
}

#[tokio::test]
async fn requests_of_http_2_arrive_as_http_2_many_at_once_on_one_connection() {
    const AT_ONCE: usize = 50;
    let together = Arc::new(Barrier::new(AT_ONCE));
    let (client, outbound, inbound) = serving({
        move |request: Request<Incoming>| {
            let together = Arc::clone(&together);
            async move {
                assert_eq!(request.version(), Version::HTTP_2);
                assert_eq!(request.uri().authority().unwrap(), "orders.shop.peak");
                assert!(!request.headers().contains_key("peak-authorization"));
                // Nobody is answered before all have asked.
                together.wait().await;
                Response::new(text(request.uri().path()))
            }
        }
    })
    .await;
    let asking = (0..AT_ONCE).map(|number| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let path = format!("/{number}");
            let answer = client.send_request(request(Method::GET, &path).body(text("")).unwrap()).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), path);
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        within(asked).await.unwrap();
    }
    inbound.says("funicular_connections_total{direction=\"inbound\",mode=\"header\"} 1").await;
    outbound.says("funicular_connections_total{direction=\"outbound\",mode=\"header\"} 1").await;
    inbound.says("funicular_token_verdicts_total{how=\"checked\"} 1").await;
}

#[tokio::test]
async fn streams_of_both_sides_go_on_beside_each_other_and_end_in_trailers() {
    let (mut client, _outbound, _inbound) = serving(|request: Request<Incoming>| async move {
        // An echo that answers before the request has ended, with the number of its frames at the end.
        let (give, take) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, hyper::Error>>();
        tokio::spawn(async move {
            let (mut body, mut frames) = (request.into_body(), 0);
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    frames += data.len();
                    let _ = give.send(Ok(Frame::data(data)));
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("x-octets", HeaderValue::from(frames as u64));
            trailers.insert("peak-caller", HeaderValue::from_static("forged"));
            let _ = give.send(Ok(Frame::trailers(trailers)));
        });
        let stream = futures_util::stream::unfold(take, async |mut take| take.recv().await.map(|frame| (frame, take)));
        Response::new(StreamBody::new(stream).boxed())
    })
    .await;
    let (give, take) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(take, async |mut take| take.recv().await.map(|frame| (frame, take)));
    let asking = request(Method::POST, "/echo").header("te", "trailers").body(StreamBody::new(stream).boxed()).unwrap();
    let mut body = within(client.send_request(asking)).await.unwrap().into_body();
    for words in ["one", "two", "three"] {
        give.send(Ok(Frame::data(Bytes::from_static(words.as_bytes())))).unwrap();
        let frame = within(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), words);
    }
    drop(give);
    let trailers = within(body.frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!((&trailers["grpc-status"], &trailers["x-octets"]), (&"0".parse().unwrap(), &"11".parse().unwrap()));
    assert!(!trailers.contains_key("peak-caller"));
}

#[tokio::test]
async fn a_refused_request_leaves_the_others_of_its_connection_alone() {
    let (mut client, _outbound, _inbound) = serving(async |_: Request<Incoming>| Response::new(text("fine"))).await;
    let long = HeaderValue::from_str(&"x".repeat(33_000)).unwrap();
    let refused = request(Method::GET, "/").header("x-long", long).body(text("")).unwrap();
    let wrong_host = request(Method::GET, "/").header("host", "other.example").body(text("")).unwrap();
    for (asked, status) in [(refused, 431), (wrong_host, 400)] {
        let answer = within(client.send_request(asked)).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert!(answer.headers().contains_key("peak-refusal"));
    }
    let answer = within(client.send_request(request(Method::GET, "/").body(text("")).unwrap())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stream_that_its_client_resets_is_ended_at_the_application_too() {
    let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (mut client, outbound, _inbound) = serving({
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        move |_| {
            struct Ends(Arc<AtomicU32>);
            impl Drop for Ends {
                fn drop(&mut self) {
                    self.0.fetch_add(1, Ordering::Relaxed);
                }
            }
            let ends = Ends(Arc::clone(&ended));
            begun.fetch_add(1, Ordering::Relaxed);
            async move {
                let _ends = ends;
                std::future::pending().await
            }
        }
    })
    .await;
    let asking =
        tokio::spawn(async move { client.send_request(request(Method::GET, "/").body(text("")).unwrap()).await });
    let comes_to_one = async |count: &AtomicU32| {
        while count.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    within(comes_to_one(&begun)).await;
    asking.abort();
    within(comes_to_one(&ended)).await;
    outbound.says("funicular_requests_open{direction=\"outbound\",service=\"orders.shop.peak\"} 0").await;
}

#[tokio::test]
async fn an_extended_connect_becomes_a_way_for_octets() {
    let (mut client, _outbound, _inbound) = serving(async |request: Request<Incoming>| {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.extensions().get::<hyper::ext::Protocol>().unwrap().as_str(), "websocket");
        tokio::spawn(async move {
            let mut upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut words = [0; 4];
            upgraded.read_exact(&mut words).await.unwrap();
            upgraded.write_all(&words).await.unwrap();
            upgraded.flush().await.unwrap();
        });
        Response::new(Empty::new().map_err(|never| match never {}).boxed())
    })
    .await;
    let mut asking = request(Method::CONNECT, "/chat").body(text("")).unwrap();
    asking.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let answer = within(client.send_request(asking)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut upgraded = TokioIo::new(within(hyper::upgrade::on(answer)).await.unwrap());
    upgraded.write_all(b"echo").await.unwrap();
    let mut heard = [0; 4];
    within(upgraded.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"echo");
}

#[tokio::test]
async fn fields_of_http_2_cannot_hold_what_would_end_a_line() {
    for value in ["a\r\nX: y", "a\nb", "a\0b"] {
        assert!(HeaderValue::from_str(value).is_err(), "the type itself refuses it");
    }
    assert!("x\r\ny".parse::<HeaderName>().is_err());
}
