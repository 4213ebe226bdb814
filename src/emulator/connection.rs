//! Serves one connection: detects TLS by its first byte, and selects the service of each request.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsAcceptor;

use super::google::{Endpoint, Google, host};
use super::http_connection::{HttpVersions, RespondFn, Stream, head_deadline, serve_http};
use super::service::MetadataService;

/// The first byte of a TLS handshake (RFC 8446, 5.1). No HTTP request begins with it.
const HANDSHAKE: u8 = 22;

/// The maximum length of a request body in bytes. A token of an identity provider has a few thousand.
const BODY: usize = 64 * 1024;

/// The services behind all connections.
pub(super) struct Services {
    pub(super) metadata: MetadataService,
    pub(super) google: Arc<Google>,
    pub(super) tls: TlsAcceptor,
}

/// Serves a connection until the client closes it.
pub(super) async fn serve(stream: TcpStream, services: Arc<Services>) {
    // Responses are small, so Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let head_by = head_deadline();
    let Ok(Some((stream, tls))) = timeout_at(head_by, open(stream, &services.tls)).await else {
        return;
    };
    let respond: RespondFn = Box::new(move |request| {
        let services = Arc::clone(&services);
        Box::pin(async move { services.respond(request, tls).await })
    });
    serve_http(stream, HttpVersions::Http1And2, head_by, respond).await;
}

/// Reads the first byte, and performs the TLS handshake that it begins. Returns the stream, and whether it has TLS.
async fn open(stream: TcpStream, tls: &TlsAcceptor) -> Option<(Box<dyn Stream>, bool)> {
    let mut first = [0];
    let Ok(1) = stream.peek(&mut first).await else {
        return None;
    };
    if first != [HANDSHAKE] {
        return Some((Box::new(stream), false));
    }
    match tls.accept(stream).await {
        Ok(stream) => Some((Box::new(stream), true)),
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}

// === impl Services ===

impl Services {
    async fn respond(&self, request: Request<Incoming>, tls: bool) -> Response<Full<Bytes>> {
        let Some(endpoint) = endpoint(&request, tls) else {
            return self.metadata.respond(&request);
        };
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY).collect().await else {
            let mut response = Response::new(Full::from("the body is longer than 64 KiB\n"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return response;
        };
        let request = Request::from_parts(head, body.to_bytes());
        let response = self
            .google
            .respond_as(endpoint, &request, SystemTime::now());
        tracing::debug!(
            method = %request.method(),
            host = host(&request),
            path = request.uri().path(),
            ?endpoint,
            status = response.status().as_u16(),
            "token endpoint call"
        );
        response.map(Full::new)
    }
}

/// Returns the endpoint of a request, or `None` for the metadata server.
///
/// With TLS, the host decides, because a client with `--connect-to` requests Google's host names. Without TLS, the
/// server may have any name, and the path decides. No endpoint has a path of the metadata server.
fn endpoint<B>(request: &Request<B>, tls: bool) -> Option<Endpoint> {
    let path = request.uri().path();
    if path.starts_with("/oauth2/") || path.starts_with("/.well-known/") {
        return None;
    }
    if tls {
        return Endpoint::of(host(request), path);
    }
    // `GET /` is the probe of a metadata server, which permits only GET. AWS clients post a form to this path.
    Endpoint::of_local(path).filter(|endpoint| {
        *endpoint != Endpoint::AwsAssumeRole
            || (request.method() == Method::POST && is_form(request))
    })
}

fn is_form<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    })
}
