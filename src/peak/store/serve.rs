//! Connections from other nodes: who makes one proves that it belongs here, says which cluster it means, and is
//! answered.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::link::{HANDSHAKE, Hello, PROTOCOL, Security, Stream, Welcome, prepare, read_frame, write_all, write_frame};
use super::message::{Ask, Lane, No, Tell};
use super::node::Node;
use crate::model::registry::SCHEMA;
use crate::net::tls::{First, first_octets, proves};

/// Questions of one connection that are answered at once; the next waits to be read.
const ABREAST: usize = 4096;
/// How long to wait after a connection could not be taken: descriptors have run out.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes connections and answers what comes on them, until the node stops.
pub async fn serve(listener: TcpListener, security: Option<Security>, node: Arc<Node>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = node.stopped() => return,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let (security, node) = (security.clone(), Arc::clone(&node));
                tokio::spawn(async move {
                    if let Err(cause) = take(tcp, security, node).await {
                        tracing::info!(%peer, cause, "a node's connection was refused");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a node's connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Gives a reason when the connection is refused.
async fn take(tcp: TcpStream, security: Option<Security>, node: Arc<Node>) -> Result<(), Box<str>> {
    let text = |error: &dyn std::fmt::Display| Box::from(error.to_string());
    let introduced = async {
        prepare(&tcp).map_err(|error| text(&error))?;
        let mut stream = secured(tcp, security).await?;
        let (_, octets) = read_frame(&mut stream).await.map_err(|error| text(&error))?;
        let hello: Hello = postcard::from_bytes(&octets).map_err(|error| text(&error))?;
        let ours = node.cluster();
        // A node that belongs to no cluster may ask to join one, and nothing else is done for it.
        let taken = hello.cluster == ours || (hello.cluster == 0 && hello.lane == Lane::Forward);
        let welcome = Welcome { taken, schema: SCHEMA };
        write_frame(&mut stream, 0, &welcome).await.map_err(|error| text(&error))?;
        if !taken {
            return Err(Box::from(format!("node {} is of another cluster", hello.node)));
        }
        Ok((stream, hello))
    };
    let (stream, hello) = timeout(HANDSHAKE, introduced).await.unwrap_or_else(|_| Err("too slow".into()))?;
    let (from, lane) = (hello.node, hello.lane);
    tokio::select! {
        () = answer(stream, hello, Arc::clone(&node)) => {}
        () = node.stopped() => return Ok(()),
    }
    if lane == Lane::Pulse {
        node.lost(from).await;
    }
    Ok(())
}

async fn secured(tcp: TcpStream, security: Option<Security>) -> Result<Box<dyn Stream>, Box<str>> {
    let text = |error: &dyn std::fmt::Display| Box::from(error.to_string());
    let Some(security) = security else { return Ok(Box::new(tcp)) };
    let First::Tls(hello) = first_octets(tcp).await.map_err(|error| text(&error))? else {
        return Err("it speaks no TLS".into());
    };
    let stream = security.proofs().server.accept(hello, PROTOCOL).await.map_err(|error| text(&error))?;
    if !proves(&stream, &security.host) {
        return Err(Box::from(format!("its certificate is not one for {}", security.host)));
    }
    Ok(Box::new(stream))
}

/// Answers all questions of a connection until it ends.
async fn answer(stream: Box<dyn Stream>, hello: Hello, node: Arc<Node>) {
    let (mut reading, writing) = tokio::io::split(stream);
    let (outgoing, queue) = mpsc::unbounded_channel();
    let writer = tokio::spawn(write_all(writing, queue));
    let abreast = Arc::new(Semaphore::new(ABREAST));
    while let Ok((number, octets)) = read_frame(&mut reading).await {
        let Ok(ask) = postcard::from_bytes::<Ask>(&octets) else {
            // Of a newer program, which has to do without.
            tracing::warn!(node = hello.node, schema = hello.schema, "a node asks what this program does not know");
            if let Ok(no) = postcard::to_stdvec(&Tell::No(No::Unknown)) {
                drop(outgoing.send((number, no)));
            }
            continue;
        };
        let stranger = hello.cluster == 0 && !matches!(ask, Ask::Status | Ask::Join { .. });
        if stranger {
            break;
        }
        let Ok(place) = Arc::clone(&abreast).acquire_owned().await else { break };
        let (node, outgoing) = (Arc::clone(&node), outgoing.clone());
        tokio::spawn(async move {
            let tell = node.answer(ask).await;
            match postcard::to_stdvec(&tell) {
                // The connection may have ended meanwhile.
                Ok(octets) => drop(outgoing.send((number, octets))),
                Err(error) => tracing::error!(%error, "an answer cannot be written"),
            }
            drop(place);
        });
    }
    drop(outgoing);
    // Answers that are still being made would come too late.
    writer.abort();
}
