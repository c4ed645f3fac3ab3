//! Which service an application calls that went to an address of no service, by what it says first: Host, or the server
//! name of TLS.
//!
//! ```text
//! connect to where it was going ─┬─ server speaks ───────────────▶ carried there
//! listen to the application ─────┼─ names a service ─────────────▶ carried to the service
//!                                └─ names nobody, or is too slow ▶ carried there
//! ```
//!
//! Nothing that is heard is consumed, and nobody is kept waiting: the connection to where it was going is made meanwhile,
//! and given up if a service is named. A protocol in which the server speaks first goes on as soon as it does.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::recognise::{Called, Recognised, recognise_name};
use super::{Connected, OutboundError};
use crate::model::Name;
use crate::net::copy;
use crate::sidecar::directory::Directory;
use crate::wire::first_words::{MOST, Words, said};

/// How long after its first octet an application may take to name somebody.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long to wait before looking again at words that are not finished.
const MOMENT: Duration = Duration::from_millis(1);

/// What becomes of a connection to an address of no service.
pub(super) enum Overheard {
    /// It is for this service, which the application named.
    Service(Called),
    /// It is carried to where it was going, or not.
    Nobody(Box<Result<Connected, OutboundError>>),
}

/// Connects, and listens meanwhile.
///
/// # Errors
/// The name is one of Peak's, and Peak cannot be asked; or the application broke off, which the server is to see too.
pub(super) async fn listen(
    app: &TcpStream,
    connecting: impl Future<Output = Result<Connected, OutboundError>>,
    port: u16,
    directory: &dyn Directory,
) -> Result<Overheard, OutboundError> {
    let mut connecting = pin!(connecting);
    let mut called = pin!(called(app, port, directory));
    let connected = tokio::select! {
        biased;
        called = &mut called => return Ok(match called? {
            Some(called) => Overheard::Service(called),
            None => Overheard::Nobody(Box::new(connecting.await)),
        }),
        connected = &mut connecting => connected,
    };
    let called = match &connected {
        Ok(Connected::Legacy(server)) => tokio::select! {
            biased;
            // Words, or an end: either is for the application.
            _ = server.readable() => None,
            called = called => match called {
                Err(gone @ OutboundError::Gone(_)) => {
                    copy::reset_on_drop(server);
                    return Err(gone);
                }
                called => called?,
            },
        },
        // An address where nobody is may still be called by a name that is somebody's.
        Ok(_) | Err(_) => timeout(PATIENCE, called).await.unwrap_or(Ok(None))?,
    };
    Ok(called.map_or_else(|| Overheard::Nobody(Box::new(connected)), Overheard::Service))
}

/// The service that the application names, if any.
async fn called(app: &TcpStream, port: u16, directory: &dyn Directory) -> Result<Option<Called>, OutboundError> {
    let Some(name) = name(app).await.map_err(OutboundError::Gone)? else { return Ok(None) };
    match recognise_name(&name, port, directory).await? {
        Recognised::Service(called) => Ok(Some(called)),
        Recognised::Legacy(_) | Recognised::LegacyName(..) => Ok(None),
    }
}

/// The name that the application says first. Waits for its first octet as long as need be. A failure is told once by the
/// kernel: whoever reads after that finds an end in good order.
async fn name(app: &TcpStream) -> io::Result<Option<Name>> {
    let mut octets = vec![0; 1024];
    let mut until = None;
    loop {
        let come = app.peek(&mut octets).await?;
        if come == 0 {
            return Ok(None);
        }
        match said(&octets[..come]) {
            Words::Name(name) => return Ok(name.parse().ok()),
            Words::Nobody => return Ok(None),
            Words::Unfinished if come == octets.len() && come < MOST => octets.resize(MOST, 0),
            Words::Unfinished => {
                if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + PATIENCE) {
                    return Ok(None);
                }
                sleep(MOMENT).await;
            }
        }
    }
}
