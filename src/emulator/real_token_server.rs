//! A metadata server for real tokens, which an [`Issuer`] provides.
//!
//! It has neither the keys nor the endpoints of the emulator, so its tokens cannot be confused with those.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::accept::accept;
use super::caller::Callers;
use super::http_connection::{HttpVersions, RespondFn, head_deadline, serve_http};
use super::key::hex;
use super::query_params::QueryParams;
use super::response::MetadataResponse;
use super::service::{ROOT, find, guard, id_format};
use super::tree::MetadataNode;
use crate::destination::Host;

/// The known facts about the credential. An unknown fact has no path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownIdentity {
    /// The account's e-mail address.
    pub(crate) email: Option<String>,
    /// The project's id.
    pub(crate) project_id: Option<String>,
    /// The project's number.
    pub(crate) project_number: Option<String>,
    /// The region.
    pub(crate) region: Option<String>,
    /// The scopes of access tokens for which a caller requests none. Empty if they are those of a login, whose file does
    /// not name them. The path exists nevertheless: Google's library for Python reads it.
    pub(crate) scopes: Vec<String>,
    /// The universe domain.
    pub(crate) universe: String,
}

/// A token for a caller. `Debug` does not show it.
pub(crate) struct IssuedToken {
    /// The token.
    pub(crate) token: String,
    /// The remaining lifetime in seconds.
    pub(crate) left: u64,
}

/// The reason that there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotIssued {
    /// The status of the response.
    pub(crate) status: StatusCode,
    /// The message: what happened, and what to do.
    pub(crate) text: String,
    /// The value of `Retry-After` in seconds.
    pub(crate) retry_after: Option<u64>,
}

/// Issues the tokens of one credential.
pub(crate) trait Issuer: Send + Sync + 'static {
    /// Issues an access token. Without scopes, it has those of the credential.
    fn access_token(
        &self,
        scopes: Vec<String>,
    ) -> impl Future<Output = Result<IssuedToken, NotIssued>> + Send;

    /// Issues an ID token for this audience.
    fn id_token(
        &self,
        audience: String,
    ) -> impl Future<Output = Result<IssuedToken, NotIssued>> + Send;
}

/// A bound server of real tokens. Connections queue until [`run`](Self::run).
pub(crate) struct RealTokenServer<I> {
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<ArcSwap<RealTokenService<I>>>,
}

/// Replaces the credential of a running server.
pub(crate) struct Replacement<I> {
    address: SocketAddr,
    service: Arc<ArcSwap<RealTokenService<I>>>,
}

struct RealTokenService<I> {
    issuer: I,
    tree: MetadataNode,
    callers: Callers,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

// === impl RealTokenServer ===

impl<I: Issuer> RealTokenServer<I> {
    /// Binds the address; port 0 binds a free one. `allowed` are further names under which programs call it.
    ///
    /// # Errors
    ///
    /// The address is in use or cannot be bound, or the system has no randomness.
    pub(crate) async fn bind(
        address: SocketAddr,
        known: &KnownIdentity,
        issuer: I,
        allowed: Vec<Host>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let service = RealTokenService::new(address, known, issuer, allowed)?;
        Ok(Self {
            address,
            listener,
            service: Arc::new(ArcSwap::from_pointee(service)),
        })
    }

    /// Returns a handle that replaces the credential while the server runs.
    pub(crate) fn replacement(&self) -> Replacement<I> {
        Replacement {
            address: self.address,
            service: Arc::clone(&self.service),
        }
    }

    /// Returns the bound address, with the actual port.
    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` completes. Requests in flight are cancelled then.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) {
        let service = self.service;
        accept(&self.listener, shutdown, |stream| {
            serve(stream, Arc::clone(&service))
        })
        .await;
    }
}

impl<I> fmt::Debug for RealTokenServer<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealTokenServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

async fn serve<I: Issuer>(stream: TcpStream, service: Arc<ArcSwap<RealTokenService<I>>>) {
    // Responses are small, so Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let respond: RespondFn = Box::new(move |request| {
        let service = service.load_full();
        Box::pin(async move { service.respond(&request).await })
    });
    serve_http(
        Box::new(stream),
        HttpVersions::Http1,
        head_deadline(),
        respond,
    )
    .await;
}

// === impl Replacement ===

impl<I: Issuer> Replacement<I> {
    /// Serves the tokens of another credential, from the next request on.
    ///
    /// # Errors
    ///
    /// Fails if the system has no randomness, which was never observed.
    pub(crate) fn replace(
        &self,
        known: &KnownIdentity,
        issuer: I,
        allowed: Vec<Host>,
    ) -> io::Result<()> {
        let service = RealTokenService::new(self.address, known, issuer, allowed)?;
        self.service.store(Arc::new(service));
        Ok(())
    }
}

impl<I> fmt::Debug for Replacement<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

// === impl RealTokenService ===

impl<I: Issuer> RealTokenService<I> {
    fn new(
        address: SocketAddr,
        known: &KnownIdentity,
        issuer: I,
        allowed: Vec<Host>,
    ) -> io::Result<Self> {
        let mut instance = [0; 64];
        aws_lc_rs::rand::fill(&mut instance).map_err(io::Error::other)?;
        Ok(Self {
            issuer,
            tree: MetadataNode::of_credential(known, hex(&instance)),
            callers: Callers {
                listen: address.ip(),
                allowed,
            },
        })
    }

    async fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let answer = match *request.method() {
            Method::GET | Method::HEAD => self.answer(request.uri(), request.headers()).await,
            _ => MetadataResponse::html(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here")
                .with(ALLOW, HeaderValue::from_static("GET, HEAD")),
        };
        tracing::debug!(
            method = %request.method(),
            path = request.uri().path(),
            status = answer.status.as_u16(),
            "metadata call"
        );
        answer.into_response()
    }

    async fn answer(&self, uri: &Uri, headers: &HeaderMap) -> MetadataResponse {
        if let Some(refusal) = self.callers.refusal(uri, headers) {
            return refusal;
        }
        if uri.path() == "/" {
            // Old libraries probe without the header, and look for it only in the response.
            return MetadataResponse::text("computeMetadata/\n");
        }
        if let Some(refusal) = guard(headers) {
            return refusal;
        }
        if !uri.path().starts_with(ROOT) {
            return MetadataResponse::not_found();
        }
        let query = QueryParams::new(uri.query());
        match find(&self.tree, uri) {
            Ok(MetadataNode::AccessToken) => self.access_token(&query).await,
            Ok(MetadataNode::IdToken) => self.id_token(&query).await,
            Ok(node) => node.answer(&query),
            Err(answer) if answer.status == StatusCode::NOT_FOUND => {
                unknown_fact(uri).unwrap_or(answer)
            }
            Err(answer) => answer,
        }
    }

    async fn access_token(&self, query: &QueryParams<'_>) -> MetadataResponse {
        let scopes = query.value("scopes").unwrap_or_default();
        let scopes = scopes
            .split([',', ' '])
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned);
        match self.issuer.access_token(scopes.collect()).await {
            Ok(issued) => MetadataResponse::json(&json!({
                "access_token": issued.token,
                "expires_in": issued.left,
                "token_type": "Bearer",
            })),
            Err(error) => error.into(),
        }
    }

    async fn id_token(&self, query: &QueryParams<'_>) -> MetadataResponse {
        let audience = query.value("audience").map(Cow::into_owned);
        let Some(audience) = audience.filter(|audience| !audience.is_empty()) else {
            return MetadataResponse::html(
                StatusCode::BAD_REQUEST,
                "non-empty audience parameter required",
            );
        };
        // A real token always has the claims of the full format.
        if let Err(answer) = id_format(query) {
            return answer;
        }
        match self.issuer.id_token(audience).await {
            Ok(issued) => MetadataResponse::html(StatusCode::OK, &issued.token),
            Err(error) => error.into(),
        }
    }
}

/// Returns the response for a fact that programs need and that the credential does not have. gcloud reads the project's
/// number to detect a metadata server.
fn unknown_fact(uri: &Uri) -> Option<MetadataResponse> {
    let below = uri.path().strip_prefix(ROOT)?;
    (below == "/project/numeric-project-id").then(|| {
        MetadataResponse::html(
            StatusCode::NOT_FOUND,
            "the credential does not have the number of its project: give it to --project-number of sidentity metadata-server",
        )
    })
}

impl From<NotIssued> for MetadataResponse {
    fn from(error: NotIssued) -> Self {
        let answer = Self::html(error.status, &error.text);
        match error.retry_after {
            Some(seconds) => answer.with(RETRY_AFTER, seconds.into()),
            None => answer,
        }
    }
}
