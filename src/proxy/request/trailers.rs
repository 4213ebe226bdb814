//! Filters trailers in both directions. In addition to hop-by-hop fields, it removes fields that a recipient must know
//! before the content (RFC 9110, 6.5.1).
//!
//! HTTP/2 forbids connection-specific fields in trailers (RFC 9113, 8.2.2): the peer would reset the stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::headers::hop_by_hop::{Named, remove};
use crate::proxy::headers::proxy_status::drop_own;
use crate::proxy::request::joined::Joined;

/// A body whose trailers are filtered, and whose small pieces are joined.
#[derive(Debug)]
pub(crate) struct FilteredTrailers<B: Body<Error: std::fmt::Debug>> {
    body: Joined<B>,
    /// What `Connection` named in the message's head (RFC 9110, 7.6.1).
    named: Named,
}

// === impl FilteredTrailers ===

impl<B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin> FilteredTrailers<B> {
    pub(crate) fn new(body: B) -> Self {
        Self {
            body: Joined::new(body),
            named: Named::default(),
        }
    }

    /// Also removes the fields that the head's `Connection` named.
    pub(crate) fn remove_named(&mut self, named: Named) {
        self.named = named;
    }
}

impl<B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin> Body for FilteredTrailers<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) if frame.is_trailers() => self.filter(frame).map(Ok),
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body<Error: std::fmt::Debug>> FilteredTrailers<B> {
    /// Returns `None` if no trailer is left: the body ends with its data.
    fn filter(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut trailers = frame.into_trailers().ok()?;
        remove(&mut trailers, |name| self.named.contains(name));
        strip_trailers(&mut trailers);
        drop_own(&mut trailers);
        (!trailers.is_empty()).then(|| Frame::trailers(trailers))
    }
}

/// Removes the trailers that are not passed on, in either direction: fields for one connection, and those that must be
/// in the head. The latter frame, route, modify or authenticate a message, or describe its content.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    let named = Named::of(trailers);
    remove(trailers, |name| {
        is_forbidden(name.as_str()) || named.contains(name)
    });
}

/// The kinds of fields that RFC 9110, 6.5.1 excludes, and every field that carries a credential.
fn is_forbidden(name: &str) -> bool {
    is_connection_specific(name)
        || is_routing(name)
        || is_credential(name)
        || is_request_modifier(name)
        || is_response_control(name)
        || is_content_format(name)
}

/// Framing, and fields for one connection.
fn is_connection_specific(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "http2-settings"
            | "keep-alive"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || begins(name, &["sec-"])
        // Allowed as a trailer (RFC 9209, 2).
        || name.starts_with("proxy-") && name != "proxy-status"
}

/// Fields that route a request, or say where it came from.
fn is_routing(name: &str) -> bool {
    matches!(
        name,
        "alt-svc"
            | "alt-used"
            | "cdn-loop"
            | "cf-connecting-ip"
            | "fastly-client-ip"
            | "forwarded"
            | "front-end-https"
            | "host"
            | "origin"
            | "referer"
            | "true-client-ip"
            | "via"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "x-goog-request-params"
            | "x-host"
            | "x-real-ip"
            | "x-rewrite-url"
    ) || begins(name, &["x-envoy-", "x-forwarded-", "x-original-"])
}

/// Fields that authenticate a request or identify its user.
fn is_credential(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "client-cert"
            | "client-cert-chain"
            | "cookie"
            | "cookie2"
            | "dpop"
            | "dpop-nonce"
            | "job-token"
            | "ocp-apim-subscription-key"
            | "private-token"
            | "remote-user"
            | "set-cookie"
            | "set-cookie2"
            | "www-authenticate"
            | "x-apigateway-api-userinfo"
            | "x-csrftoken"
            | "x-endpoint-api-userinfo"
            | "x-firebase-appcheck"
            | "x-functions-key"
            | "x-goog-authuser"
            | "x-goog-user-project"
            | "x-remote-user"
            | "x-tenant"
            | "x-user"
            | "x-vault-token"
    ) || begins(
        name,
        &[
            "x-amzn-oidc-",
            "x-appengine-",
            "x-auth-request-",
            "x-client-cert",
            "x-goog-authenticated-user-",
            "x-goog-encryption-",
            "x-goog-iam-",
            "x-goog-iap-",
            "x-ms-client-principal",
            "x-ms-token-",
            "x-serverless-",
            "x-ssl-",
        ],
    ) || ends(
        name,
        &[
            "-authorization",
            "access-token",
            "api-key",
            "api-token",
            "apikey",
            "auth-token",
            "csrf-token",
            "id-token",
            "security-token",
            "session-token",
            "xsrf-token",
        ],
    )
}

fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|prefix| name.starts_with(prefix))
}

fn ends(name: &str, with: &[&str]) -> bool {
    with.iter().any(|suffix| name.ends_with(suffix))
}

fn is_request_modifier(name: &str) -> bool {
    matches!(
        name,
        "cache-control"
            | "early-data"
            | "expect"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "if-unmodified-since"
            | "max-forwards"
            | "pragma"
            | "range"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
    )
}

fn is_response_control(name: &str) -> bool {
    matches!(
        name,
        "age" | "date" | "expires" | "location" | "retry-after" | "vary" | "warning"
    )
}

fn is_content_format(name: &str) -> bool {
    matches!(name, "content-encoding" | "content-range" | "content-type")
}

#[cfg(test)]
mod tests;
