//! Which of this pod's services a connection is for: by the name that it asks for, or by where it arrived.

use super::accept::Arrived;
use super::admit::{self, Fitting, Misaddressed, OwnService};
use super::{Inbound, InboundError};
use crate::model::Name;
use crate::model::ssa::TokenMode;
use crate::net::tls::Hello;
use crate::ops::clock;

impl Inbound {
    /// The service of this pod that the ClientHello asks for.
    pub(super) fn asked_for(&self, hello: &Hello) -> Result<&OwnService, InboundError> {
        let asked = hello.server_name();
        let name = asked.as_ref().and_then(|text| text.parse::<Name>().ok());
        let own = name.and_then(|name| self.services.iter().find(|own| own.name == name));
        own.ok_or_else(|| InboundError::UnknownService { asked: asked.map(Into::into) })
    }

    /// Whether HTTP behind TLS is ours: it may as well be the application's own, except where a rule of the service says so.
    pub(super) async fn speaks_http(&self, hello: &Hello) -> bool {
        let Ok(own) = self.asked_for(hello) else { return false };
        let service = self.directory.lookup(&own.name).await;
        service.is_ok_and(|service| service.rules.iter().any(|rule| rule.token_mode() == TokenMode::Header))
    }

    /// Why a connection is not meant for this pod, if it arrived in the space of a service that is not its own.
    pub(super) async fn strays(&self, arrived: &Arrived) -> Option<InboundError> {
        let (_, destination) = arrived.addresses()?;
        let service = self.directory.in_space(destination)?;
        // Spaces may overlap: what lies in one of our own is ours.
        for own in &self.services {
            if own.name == service.name
                || self.directory.lookup(&own.name).await.is_ok_and(|own| own.space.contains(destination))
            {
                return None;
            }
        }
        Some(InboundError::NotOurs { destination, service: service.name.clone() })
    }

    /// The service of this pod in whose space the connection arrived, as far as it is known.
    pub(super) fn own_at(&self, arrived: &Arrived) -> Option<&OwnService> {
        let (_, destination) = arrived.addresses()?;
        let service = self.directory.in_space(destination)?;
        self.services.iter().find(|own| own.name == service.name)
    }

    /// The service in whose space the connection arrived when none of its rules asks for a token, and whether the
    /// destination fits. Such a connection may be one in which the server speaks first: nothing is read of it.
    pub(super) async fn needs_no_token(
        &self,
        arrived: &Arrived,
    ) -> Option<(&OwnService, Result<Fitting, Misaddressed>)> {
        let own = self.own_at(arrived)?;
        let (client, destination) = arrived.addresses()?;
        let service = self.directory.lookup(&own.name).await.ok()?;
        let fits = admit::fits_without_token(&service, destination, client, &self.secrets, clock::now())?;
        Some((own, fits))
    }
}
