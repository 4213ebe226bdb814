//! The origins of Cloud Run services that are named without project and region.

use super::CredentialProvider;
use crate::destination::{Destination, Origin};
use crate::error::{Error, ErrorKind};
use crate::policy::{InvalidService, ServiceName};

impl CredentialProvider {
    /// Resolves a destination whose host may be a service name.
    ///
    /// # Errors
    ///
    /// The name is not a valid service name, or the location of the service cannot be determined.
    pub(crate) async fn resolve_service(
        &self,
        destination: Destination,
    ) -> Result<Destination, Error> {
        let origin = match self.policy.service(&destination) {
            None => return Ok(destination),
            Some(service) => {
                self.fetch_location(&service.map_err(|error| invalid(&error))?)
                    .await?
            }
        };
        Ok(Destination {
            origin,
            ..destination
        })
    }

    /// Returns the origin of a service. Fetches the project number and region if they are not known yet.
    ///
    /// # Errors
    ///
    /// Fails if a fact cannot be fetched, or if the name and the project number are too long for one label.
    pub(crate) async fn fetch_location(&self, service: &ServiceName) -> Result<Origin, Error> {
        if let Some(located) = self.known_location(service) {
            return located;
        }
        self.facts.project_number().await?;
        if service.region().is_none() {
            self.facts.region().await?;
        }
        service
            .at(&self.facts.location_if_known())
            .map_err(|error| invalid(&error))
    }

    /// Returns the origin of a service, if nothing must be fetched for it.
    pub(crate) fn known_location(&self, service: &ServiceName) -> Option<Result<Origin, Error>> {
        let home = self.facts.location_if_known();
        let known =
            home.project_number.is_some() && (home.region.is_some() || service.region().is_some());
        known.then(|| service.at(&home).map_err(|error| invalid(&error)))
    }
}

/// The app wrote the name, so the error is a bad request.
fn invalid(error: &InvalidService) -> Error {
    Error::new(ErrorKind::BadRequest, error.to_string())
}
