//! Sends requests to token, STS and IAM endpoints: one attempt each, over verified TLS, without redirects.
//!
//! The connections obey `--connect-to`, `--upstream-ca` and `--upstream-proxy`, like those to upstreams. The
//! environment's proxy variables are never read, because for the app they name this sidecar.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Map, Value};

use super::fetch_limits::FetchLimits;
use super::message::words;
use super::request_secrets::RequestSecrets;
use super::response_body::{self, BodyError};
use super::transport::{OpenTransport, Transport};
use crate::config::{self, HttpVersion};
use crate::destination::Destination;
use crate::error::{Error, ErrorKind, TokenFault};
use crate::memory::Memory;
use crate::telemetry::Metrics;
use crate::token::fetch_error::FetchError;
use crate::token::parse::object;
use crate::token::priority::FetchPriority;
use crate::token::retry::AttemptError;
use crate::upstream::{BadRoots, Target};

/// The time limit of each of DNS, TCP and TLS, as for the metadata server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The budget for unread responses in bytes. They are short, and few are open at a time.
const MEMORY_BUDGET: usize = 16 * 1024 * 1024;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("sidentity/", env!("CARGO_PKG_VERSION")));

/// Sends requests to endpoints. Clones share connections and limits.
#[derive(Clone)]
pub(super) struct EndpointClient(Arc<ClientInner>);

struct ClientInner {
    transport: Arc<dyn Transport>,
    limits: FetchLimits,
}

// === impl EndpointClient ===

impl EndpointClient {
    /// Creates a client with its own connections. `timeout` limits one fetch with all its attempts (`--token-timeout`).
    ///
    /// # Errors
    ///
    /// Fails if the user's file of trust roots cannot be used.
    pub(super) fn new(
        open: OpenTransport,
        upstream: &config::UpstreamConfig,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BadRoots> {
        let config = config::UpstreamConfig {
            http: HttpVersion::Auto,
            connect_timeout: upstream.connect_timeout.min(CONNECT_TIMEOUT),
            ..upstream.clone()
        };
        Ok(Self(Arc::new(ClientInner {
            transport: open(&config, metrics, Memory::new(MEMORY_BUDGET))?,
            limits: FetchLimits::new(timeout),
        })))
    }

    /// Returns the time limit of one fetch.
    pub(super) fn timeout(&self) -> Duration {
        self.0.limits.timeout()
    }

    /// Repeats `attempt` within the limits. `what` is requested from `endpoint`. `hint` returns advice for the last
    /// error.
    ///
    /// An attempt must not wait for another fetch of this client, because both would hold a permit.
    pub(super) async fn fetch<'f, T, F>(
        &self,
        what: &str,
        endpoint: &(dyn fmt::Display + Sync),
        priority: &FetchPriority,
        attempt: impl FnMut() -> F + Send,
        hint: impl FnOnce(&AttemptError) -> Option<String>,
    ) -> Result<T, FetchError>
    where
        T: Send + 'f,
        F: Future<Output = Result<T, AttemptError>> + Send + 'f,
    {
        self.fetch_within(self.timeout(), what, endpoint, priority, attempt, hint)
            .await
    }

    /// Like [`fetch`](Self::fetch), with at most this time.
    pub(super) async fn fetch_within<'f, T, F>(
        &self,
        time: Duration,
        what: &str,
        endpoint: &(dyn fmt::Display + Sync),
        priority: &FetchPriority,
        attempt: impl FnMut() -> F + Send,
        hint: impl FnOnce(&AttemptError) -> Option<String>,
    ) -> Result<T, FetchError>
    where
        T: Send + 'f,
        F: Future<Output = Result<T, AttemptError>> + Send + 'f,
    {
        let fetched = self.0.limits.fetch_within(time, priority, attempt).await;
        fetched.map_err(|failure| {
            let hint = hint(&failure.error).or_else(|| advice(&failure.error));
            failure.into_fetch_error(what, endpoint, hint)
        })
    }

    /// Sends a request without a body, with an absolute URI. Returns the body of a response of status 200.
    pub(super) async fn request(&self, request: Request<Bytes>) -> Result<Bytes, AttemptError> {
        let secrets = RequestSecrets::of(&request, &[]);
        success(self.send(request).await?, &secrets)
    }

    /// Sends a request with an absolute URI once, and reads the whole response. The caller sets the timeout, and
    /// removes the secrets of the request from the texts of the response that it quotes.
    ///
    /// # Errors
    ///
    /// Fails if there is no response, or if it is longer than 64 KiB.
    pub(super) async fn send(
        &self,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, AttemptError> {
        let destination = Destination::from_uri(request.uri())
            .map_err(|error| AttemptError::new(TokenFault::Unreachable, error.to_string()))?;
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        let target = Target {
            origin: destination.origin,
            http: HttpVersion::Auto,
            proxy_may_read: false,
            upgrade: false,
        };
        let sent = self.0.transport.send(&target, request);
        let (head, body) = sent.await.map_err(|error| no_answer(&error))?.into_parts();
        match response_body::read(head.status, body).await {
            Ok(body) => Ok(Response::from_parts(head, body)),
            Err(error @ BodyError::TooLong) => Err(AttemptError::malformed(error.to_string())),
            Err(BodyError::Broken(error)) => Err(AttemptError {
                retry: true,
                ..AttemptError::new(
                    TokenFault::Failing,
                    format!("the response ended early: {error}"),
                )
            }),
        }
    }

    /// Posts a form (`application/x-www-form-urlencoded`) to a URL. Returns the body of a response of status 200.
    pub(super) async fn post_form(
        &self,
        url: &impl fmt::Display,
        headers: HeaderMap,
        fields: &[(&str, &str)],
    ) -> Result<Bytes, AttemptError> {
        let content_type = "application/x-www-form-urlencoded";
        self.post(url, headers, content_type, form(fields), fields)
            .await
    }

    /// Posts JSON to a URL. Returns the body of a response of status 200.
    pub(super) async fn post_json(
        &self,
        url: &impl fmt::Display,
        headers: HeaderMap,
        body: &Value,
    ) -> Result<Bytes, AttemptError> {
        self.post(url, headers, "application/json", body.to_string(), &[])
            .await
    }

    async fn post(
        &self,
        url: &impl fmt::Display,
        headers: HeaderMap,
        content_type: &'static str,
        body: String,
        fields: &[(&str, &str)],
    ) -> Result<Bytes, AttemptError> {
        let mut request = Request::post(url.to_string())
            .body(Bytes::from(body))
            .map_err(|error| AttemptError::new(TokenFault::Unreachable, error.to_string()))?;
        *request.headers_mut() = headers;
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let secrets = RequestSecrets::of(&request, fields);
        let answer = self.send(request).await?;
        match error_of_success(&answer, &secrets) {
            Some(error) => Err(error),
            None => success(answer, &secrets),
        }
    }
}

impl fmt::Debug for EndpointClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointClient").finish_non_exhaustive()
    }
}

/// Returns the body of a response of status 200. Any other response is an error with the server's own text, without the
/// secrets of the request, because an endpoint may repeat them.
fn success(answer: Response<Bytes>, secrets: &RequestSecrets) -> Result<Bytes, AttemptError> {
    let (head, body) = answer.into_parts();
    if head.status == StatusCode::OK {
        return Ok(body);
    }
    let (code, message) = explanation(&body, secrets);
    let message = if head.status.is_redirection() {
        Some("redirects are not followed".to_owned())
    } else if head.status.is_success() {
        // The body of a success may be a token in any form.
        None
    } else {
        message
    };
    let error = AttemptError::answered(head.status, &head.headers, message);
    let fault = match code.as_deref() {
        Some("invalid_scope") if error.fault == TokenFault::Refused => TokenFault::InvalidScope,
        _ => error.fault,
    };
    Err(AttemptError {
        fault,
        code,
        ..error
    })
}

/// Returns the error in a response of status 200, which some servers send instead of a 400. A response with a token has
/// none.
fn error_of_success(answer: &Response<Bytes>, secrets: &RequestSecrets) -> Option<AttemptError> {
    const TOKENS: [&str; 5] = [
        "access_token",
        "accessToken",
        "id_token",
        "signedJwt",
        "token",
    ];
    let body = answer.body();
    let object: Map<String, Value> = object(body)?;
    if answer.status() != StatusCode::OK || TOKENS.iter().any(|name| object.contains_key(*name)) {
        return None;
    }
    object.get("error")?;
    let (code, message) = explanation(body, secrets);
    Some(AttemptError {
        code,
        // To the caller it is no success.
        status: None,
        ..AttemptError::answered(StatusCode::OK, answer.headers(), Some(message?))
    })
}

/// Returns `Authorization: Bearer`, marked sensitive. Returns `None` if the token is not a valid header value.
pub(super) fn bearer(token: &str) -> Option<HeaderMap> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
}

/// Parses an error of OAuth (RFC 6749, 5.2) or of a Google API. Returns its code and its text.
fn explanation(body: &[u8], secrets: &RequestSecrets) -> (Option<Box<str>>, Option<String>) {
    let quoted = |text: &str| {
        let words = words(secrets.removed_from(text).as_bytes())?;
        Some(format!("{words:?}"))
    };
    let answer = match serde_json::from_slice(body) {
        Ok(Value::Object(answer)) => answer,
        // Serialised again, so that no escape sequence hides a secret.
        Ok(value) => return (None, quoted(&value.to_string())),
        Err(_) => return (None, quoted(&String::from_utf8_lossy(body))),
    };
    let text = |name| answer.get(name).and_then(Value::as_str);
    let (code, parts) = match answer.get("error") {
        Some(Value::Object(error)) => {
            let text = |name| error.get(name).and_then(Value::as_str);
            (text("status"), [text("status"), text("message"), None])
        }
        Some(Value::String(error)) => {
            let error = error.as_str();
            let subtype = text("error_subtype");
            let description = text("error_description");
            (subtype.or(Some(error)), [Some(error), subtype, description])
        }
        _ => (None, [None; 3]),
    };
    let parts: Vec<String> = parts.into_iter().flatten().filter_map(quoted).collect();
    let message = (!parts.is_empty()).then(|| parts.join(" "));
    let is_code = |code: &&str| {
        secrets.removed_from(code) == **code
            && code.len() <= 64
            && code.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
    };
    let code = code.filter(is_code);
    (code.map(Box::from), message)
}

/// Returns the error of an endpoint that sent no response.
fn no_answer(error: &Error) -> AttemptError {
    let (fault, retry) = match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionTimeout
        | ErrorKind::DnsFailed
        | ErrorKind::DnsTimeout
        | ErrorKind::Unroutable => (TokenFault::Unreachable, true),
        ErrorKind::ConnectionTerminated | ErrorKind::LimitReached => (TokenFault::Failing, true),
        // The connection was closed during the handshake.
        ErrorKind::TlsProtocol if error.is_transient() => (TokenFault::Unreachable, true),
        ErrorKind::CertificateInvalid | ErrorKind::TlsProtocol | ErrorKind::HttpProtocol => {
            (TokenFault::WrongServer, false)
        }
        ErrorKind::ProxyRefused => (TokenFault::ProxyRefused, error.is_transient()),
        _ => (TokenFault::Failing, false),
    };
    AttemptError {
        retry,
        // Of a proxy that refused the tunnel.
        retry_after: error.wait(),
        kind: Some(error.kind()),
        ..AttemptError::new(fault, error.detail().to_owned())
    }
}

/// Returns advice if the source has none.
fn advice(error: &AttemptError) -> Option<String> {
    let advice = match error.fault {
        TokenFault::WrongServer if error.kind == Some(ErrorKind::CertificateInvalid) => {
            "does a proxy inspect TLS? Then give its certificate authority to --upstream-ca"
        }
        TokenFault::WrongServer => "check the port, and any proxy or firewall in between",
        TokenFault::InvalidScope => {
            "correct scope= or audience= of the rule or route, or what the client requests"
        }
        TokenFault::ProxyRefused => {
            "let the proxy permit CONNECT to this host, correct the credentials in --upstream-proxy, or add the host to \
             --no-upstream-proxy"
        }
        TokenFault::Unreachable => "can this machine reach it?",
        _ => return None,
    };
    Some(advice.to_owned())
}

/// Encodes a text for a form (WHATWG URL, 5.2).
pub(super) fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const FORM: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'*')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_');
    utf8_percent_encode(text, FORM).to_string()
}

/// Encodes a form.
fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests;
