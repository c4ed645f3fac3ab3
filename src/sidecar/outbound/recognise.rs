//! Second phase: which service an intercepted destination belongs to, if any.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::model::Name;
use crate::sidecar::directory::Directory;
use crate::sidecar::resolve::{ResolveError, Service};
use crate::sidecar::stub::StandIns;

/// What an intercepted destination is.
#[derive(Clone, Debug)]
pub enum Recognised {
    /// A service with structured addresses.
    Service(Called),
    /// Anything else: it passes untouched.
    Legacy(SocketAddr),
    /// A name that is no service's, for others to look up, and a port.
    LegacyName(Name, u16),
}

/// A service, and how the application called it.
#[derive(Clone, Debug)]
pub struct Called {
    /// The service.
    pub service: Arc<Service>,
    /// The name the application looked up: the service's own, an alias, or a label below it.
    pub asked: Name,
    /// The address in the service's space that the application dialled itself, if it did.
    pub dialled: Option<Ipv6Addr>,
    /// The port to connect to: the service's, where it publishes one, else the application's (RFC 9460 §7.2).
    pub port: u16,
}

/// Why it cannot be said where the connection should go. It must not go the old way then: what was to be
/// authenticated and encrypted would travel in clear text.
#[derive(Debug, thiserror::Error)]
pub enum Unrecognised {
    /// An address that this sidecar's stub would give out, but has not.
    #[error("{address} is a stand-in that was given to no name: the application kept it from before a restart")]
    StandInUnknown {
        /// The stand-in.
        address: IpAddr,
    },
    /// The name behind the stand-in leads nowhere now.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Unrecognised {
    /// The stable label of metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::StandInUnknown { .. } => "stand-in-unknown",
            Self::Resolve(error) => error.reason(),
        }
    }
}

/// Finds out which service the destination belongs to: by its stand-in, or by its place in a known space.
///
/// # Errors
/// [`Unrecognised`]; never for a destination that has nothing to do with a service.
pub async fn recognise(
    destination: SocketAddr,
    stand_ins: &StandIns,
    directory: &dyn Directory,
) -> Result<Recognised, Unrecognised> {
    if stand_ins.is_stand_in(destination.ip()) {
        let unknown = Unrecognised::StandInUnknown { address: destination.ip() };
        let asked = stand_ins.name_of(destination.ip()).ok_or(unknown)?;
        let service = directory.lookup(&asked).await?;
        return Ok(Recognised::Service(called(service, asked, None, destination.port())));
    }
    let IpAddr::V6(address) = destination.ip() else { return Ok(Recognised::Legacy(destination)) };
    let Some(known) = directory.in_space(address) else { return Ok(Recognised::Legacy(destination)) };
    match directory.lookup(&known.name).await {
        Ok(service) if service.space.contains(address) => {
            let asked = service.name.clone();
            Ok(Recognised::Service(called(service, asked, Some(address), destination.port())))
        }
        // DNS itself says that the address is no longer the service's.
        Ok(_) => Ok(Recognised::Legacy(destination)),
        Err(error) if error.is_verdict() => Ok(Recognised::Legacy(destination)),
        Err(error) => Err(error.into()),
    }
}

/// Finds out which service a name belongs to that the application has asked for itself.
///
/// # Errors
/// [`Unrecognised::Resolve`] where Peak cannot be asked.
pub async fn recognise_name(name: &Name, port: u16, directory: &dyn Directory) -> Result<Recognised, Unrecognised> {
    match directory.lookup(name).await {
        Ok(service) => Ok(Recognised::Service(called(service, name.clone(), None, port))),
        Err(error) if error.is_verdict() => Ok(Recognised::LegacyName(name.clone(), port)),
        Err(error) => Err(error.into()),
    }
}

fn called(service: Arc<Service>, asked: Name, dialled: Option<Ipv6Addr>, port: u16) -> Called {
    let port = service.port.unwrap_or(port);
    Called { service, asked, dialled, port }
}
