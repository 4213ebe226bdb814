//! The request as it becomes known. Each layer takes one of these types and passes on the next:
//!
//! [`Inbound`] → [`Addressed`] → [`Located`] → [`Stripped`] → [`Decided`] → [`Authorized`] → [`Outbound`]

pub(crate) mod body;
pub(crate) mod counted;
pub(crate) mod joined;
mod permit;
pub(crate) mod record;
pub(crate) mod trailers;
pub(crate) mod transfer;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, Request, Version};

use self::body::RequestBody;
use self::record::RequestRecord;
use super::connection::ConnectionState;
use crate::destination::Destination;
use crate::dns::Priority;
use crate::policy::{CredentialGrant, Decision, SkipReason};
use crate::token::{Slot, Token};
use crate::upstream::expects_continue;

/// The connection of an app that a request came on.
#[derive(Clone, Debug)]
pub(crate) struct ClientConnection {
    /// The address that the app connected to; `None` for a unix socket.
    pub(crate) local: Option<SocketAddr>,
    /// Its state, for limits and deadlines.
    pub(crate) state: Arc<ConnectionState>,
}

/// A request as it came in.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// Head and body as hyper parsed them.
    pub(crate) request: Request<RequestBody>,
    /// The record of the request, reported when it ends.
    pub(crate) record: Arc<RequestRecord>,
    /// The connection that it came on.
    pub(crate) connection: ClientConnection,
}

/// A request whose destination is unambiguous. From here on the URI and `Host` of `request` do not say where it goes.
#[derive(Debug)]
pub(crate) struct Addressed {
    /// Head and body.
    pub(crate) request: Request<RequestBody>,
    /// The record of the request, reported when it ends.
    pub(crate) record: Arc<RequestRecord>,
    /// The value that the app or the route names.
    pub(crate) destination: Destination,
}

/// A request whose destination is the place that it is sent to, not the name of a service.
#[derive(Debug)]
pub(crate) struct Located {
    /// Head and body.
    pub(crate) request: Request<RequestBody>,
    /// The record of the request, reported when it ends.
    pub(crate) record: Arc<RequestRecord>,
    /// Where it goes.
    pub(crate) destination: Destination,
    /// The app used a service name, which stands for the destination.
    pub(crate) by_service_name: bool,
}

/// A request without hop-by-hop headers.
#[derive(Debug)]
pub(crate) struct Stripped {
    /// Head and body.
    pub(crate) request: Request<RequestBody>,
    /// The record of the request, reported when it ends.
    pub(crate) record: Arc<RequestRecord>,
    /// Where it goes.
    pub(crate) destination: Destination,
    /// See [`Located::by_service_name`].
    pub(crate) by_service_name: bool,
    /// The app asks for another protocol on this connection (RFC 9110, 7.8).
    pub(crate) wants_upgrade: bool,
}

/// A request and the decision for it.
#[derive(Debug)]
pub(crate) struct Decided {
    /// Head and body.
    pub(crate) request: Request<RequestBody>,
    /// The record of the request, reported when it ends.
    pub(crate) record: Arc<RequestRecord>,
    /// Where it goes, after the upgrade to TLS.
    pub(crate) destination: Destination,
    /// See [`Located::by_service_name`].
    pub(crate) by_service_name: bool,
    /// See [`Stripped::wants_upgrade`].
    pub(crate) wants_upgrade: bool,
    /// The app used `http://`, and the request is sent over TLS.
    pub(crate) upgraded_to_tls: bool,
    /// The credential, its form, and the rule that decided.
    pub(crate) decision: Arc<Decision>,
    /// The slot of the token; `None` if the decision grants none.
    pub(crate) slot: Option<Arc<Slot>>,
}

/// A request with its token injected, or sent without one.
#[derive(Debug)]
pub(crate) struct Authorized {
    /// The request as it is sent.
    pub(crate) outbound: Outbound,
    /// The token that was injected, if one was.
    pub(crate) injected: Option<Injected>,
    /// Why no token was injected although the decision grants one.
    pub(crate) skipped: Option<SkipReason>,
}

/// The token that a request carries, with what is needed to replace it.
#[derive(Debug)]
pub(crate) struct Injected {
    /// The decision that grants it.
    pub(crate) decision: Arc<Decision>,
    /// Its slot.
    pub(crate) slot: Arc<Slot>,
    /// The token that was sent.
    pub(crate) token: Arc<Token>,
    /// The header that carries it.
    pub(crate) header: HeaderName,
}

/// A request as it is sent.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Head and body.
    pub(crate) request: Request<RequestBody>,
    /// The record of the request, reported when it ends.
    pub(crate) record: Arc<RequestRecord>,
    /// Where it goes.
    pub(crate) destination: Destination,
    /// See [`Located::by_service_name`].
    pub(crate) by_service_name: bool,
    /// See [`Stripped::wants_upgrade`].
    pub(crate) wants_upgrade: bool,
    /// See [`Decided::upgraded_to_tls`].
    pub(crate) upgraded_to_tls: bool,
    /// The priority of the DNS lookup of its host.
    pub(crate) dns_priority: Priority,
    /// The response must come with a copy of the request, to send it again.
    pub(crate) keep_copy: bool,
}

// === impl Inbound ===

impl Inbound {
    /// Returns whether the app sends its body only after a 100 (RFC 9110, 10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        self.request.version() == Version::HTTP_11
            && matches!(self.request.body(), RequestBody::Streamed(_))
            && expects_continue(self.request.headers())
    }
}

// === impl Decided ===

impl Decided {
    /// Returns the priority of the DNS lookup. Lookups of arbitrary names must not delay routes and hosts that get a
    /// token.
    pub(super) fn dns_priority(&self) -> Priority {
        let is_granted = matches!(self.decision.grant, CredentialGrant::Token(_));
        if is_granted || self.record.ingress().route().is_some() {
            Priority::High
        } else {
            Priority::Normal
        }
    }

    /// Splits the request as it is sent from its decision and slot.
    pub(super) fn into_parts(self) -> (Outbound, Arc<Decision>, Option<Arc<Slot>>) {
        let outbound = Outbound {
            dns_priority: self.dns_priority(),
            request: self.request,
            record: self.record,
            destination: self.destination,
            by_service_name: self.by_service_name,
            wants_upgrade: self.wants_upgrade,
            upgraded_to_tls: self.upgraded_to_tls,
            keep_copy: false,
        };
        (outbound, self.decision, self.slot)
    }
}

// === impl Authorized ===

impl Authorized {
    /// Creates a request that carries no token of ours.
    pub(super) const fn without_token(outbound: Outbound) -> Self {
        Self {
            outbound,
            injected: None,
            skipped: None,
        }
    }
}
