//! Updates that a secondary passes on to the zone's primaries (RFC 2136 §6).
//!
//! What was signed with a key of ours was checked here, and goes on with the signature that the primary knows us by; its
//! outcome is signed for the asker. What was signed with a key that only the primary knows goes on as it came, and so
//! does its reply (RFC 8945 §5.5).

use std::time::Duration;

use crate::model::{Name, UnixSeconds};
use crate::peak::exchange::{Connection, ExchangeError, Peer, Request};
use crate::wire::dns::tsig::Session;
use crate::wire::dns::{Message, Rcode};

/// How long a connection to a primary may take, and its reply: it writes to its disk.
const CONNECT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

/// The least that everybody takes over UDP (RFC 1035 §4.2.1).
const LEAST: usize = 512;

/// An update that may be passed on.
#[derive(Debug)]
pub(in crate::peak) struct Forward {
    pub(in crate::peak) apex: Name,
    pub(in crate::peak) primaries: Vec<Peer>,
    pub(in crate::peak) form: Form,
}

/// How it goes on.
#[derive(Debug)]
pub(in crate::peak) enum Form {
    /// Octet by octet.
    AsItCame(Vec<u8>),
    /// With our own signature, and its reply with the one that the asker knows.
    Ours { request: Message, session: Option<Session> },
}

impl Forward {
    /// Passes it on; gives the reply, which is the first primary's that can be reached.
    pub(in crate::peak) async fn send(self, now: impl Fn() -> UnixSeconds) -> Vec<u8> {
        let Self { apex, primaries, form } = self;
        let mut reply = None;
        for primary in &primaries {
            match outcome(primary, &form).await {
                Ok(outcome) => {
                    tracing::info!(zone = %apex, primary = %primary.address, "update passed on");
                    reply = Some(outcome);
                    break;
                }
                Err(error) => {
                    let reason = error.reason();
                    tracing::warn!(zone = %apex, primary = %primary.address, %error, reason, "an update was not passed on");
                }
            }
        }
        match (form, reply) {
            (Form::AsItCame(_), Some(Outcome::Octets(octets))) => octets,
            (Form::Ours { request, session }, reply) => {
                let rcode = match reply {
                    Some(Outcome::Code(rcode)) => rcode,
                    Some(Outcome::Octets(_)) | None => Rcode::SERVFAIL,
                };
                let mut reply = request.response(rcode).encode(LEAST);
                if let Some(mut session) = session {
                    session.sign(&mut reply, now());
                }
                reply
            }
            // Nobody here can sign that it failed, and what is not signed is not believed.
            (Form::AsItCame(_), Some(Outcome::Code(_)) | None) => Vec::new(),
        }
    }
}

/// What a primary said.
enum Outcome {
    Octets(Vec<u8>),
    Code(Rcode),
}

async fn outcome(primary: &Peer, form: &Form) -> Result<Outcome, ExchangeError> {
    let mut connection = Connection::open(primary.address, primary.source, CONNECT, PATIENCE).await?;
    match form {
        Form::AsItCame(octets) => {
            connection.send(octets).await?;
            Ok(Outcome::Octets(connection.receive().await?))
        }
        Form::Ours { request, .. } => {
            let mut request = Request::to(primary, request.clone());
            connection.send(&request.octets).await?;
            let reply = connection.receive().await?;
            Ok(Outcome::Code(request.read(&reply)?.header.rcode))
        }
    }
}
