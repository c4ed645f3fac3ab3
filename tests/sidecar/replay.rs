//! Everything that a caller has said once, said again by somebody who heard it pass.

use std::sync::Arc;

use funicular::ops::drain::Drain;
use funicular::ops::metrics::Registry;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::bed::*;

/// A place on the way to `to`, which keeps the octets of the first caller that comes by.
async fn overhearing(to: &Running) -> (Running, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let on_the_way =
        Running { address: listener.local_addr().unwrap(), registry: Registry::new(), drain: Drain::new() };
    let (heard, mut server) = (Arc::<Mutex<Vec<u8>>>::default(), to.connect().await);
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let asking = async {
            let mut piece = vec![0; 16_384];
            while let Ok(octets @ 1..) = from_client.read(&mut piece).await {
                kept.lock().extend_from_slice(&piece[..octets]);
                to_server.write_all(&piece[..octets]).await.unwrap();
            }
        };
        tokio::select! {
            () = asking => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    });
    (on_the_way, heard)
}

#[tokio::test]
async fn a_conversation_that_is_said_again_octet_for_octet_reaches_no_application() {
    let authority = Authority::new();
    let token = authority.token();
    let mut application = Application::start().await;
    let inbound = InboundBed::new(&authority, application.port).start().await;
    let caller = Caller::with(&authority, token.as_bytes());
    let (on_the_way, heard) = overhearing(&inbound).await;
    let mut stream = caller.connect(&on_the_way).await.unwrap();
    let mut server = application.accept().await;
    hears(&mut stream, &mut server, "pay one coin").await;
    hears(&mut server, &mut stream, "paid").await;

    let said = heard.lock().clone();
    let mut again = inbound.connect().await;
    again.write_all(&said).await.unwrap();

    let mut answer = Vec::new();
    // The server answers with a hello of its own, which the keys of the old one do not fit.
    let _ = within(again.read_to_end(&mut answer)).await;
    inbound.refused("inbound", "handshake-failed", 1).await;
    assert!(application.is_untouched());
    hears(&mut stream, &mut server, "pay another").await;
}
