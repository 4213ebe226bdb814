//! The responses: which requests are accepted, and what each path returns.

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ALLOW, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::identity::ISSUER;
use super::key::{GeneratedKey, NoKey, hex};
use super::mint::{RequestedToken, TokenIssuer, unix};
use super::query_params::QueryParams;
use super::response::{METADATA_FLAVOR, MetadataResponse};
use super::tree::MetadataNode;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The error of a system without randomness, which was never observed.
const NO_TOKEN: &str = "no token can be made";

/// The path of the metadata.
pub(super) const ROOT: &str = "/computeMetadata/v1";

/// The inputs of all responses.
#[derive(Debug)]
pub(super) struct MetadataService {
    mint: TokenIssuer,
    tree: MetadataNode,
    address: SocketAddr,
    jwks: Value,
    certificates: Value,
}

// === impl MetadataService ===

impl MetadataService {
    pub(super) fn new(
        mint: TokenIssuer,
        key: &GeneratedKey,
        address: SocketAddr,
    ) -> Result<Self, NoKey> {
        let mut instance = [0; 64];
        aws_lc_rs::rand::fill(&mut instance).map_err(|_| NoKey)?;
        Ok(Self {
            tree: MetadataNode::root(mint.identity(), hex(&instance)),
            jwks: key.jwks()?,
            certificates: key.certificates()?,
            mint,
            address,
        })
    }

    /// Answers any request.
    pub(super) fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let answer = match *request.method() {
            Method::GET | Method::HEAD => self.find(request.uri(), request.headers()),
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

    fn find(&self, uri: &Uri, headers: &HeaderMap) -> MetadataResponse {
        match uri.path() {
            "/oauth2/v3/certs" => MetadataResponse::json(&self.jwks),
            "/oauth2/v1/certs" => MetadataResponse::json(&self.certificates),
            "/.well-known/openid-configuration" => self.configuration(headers),
            // Old libraries probe without the header, and look for it only in the response.
            "/" => MetadataResponse::text("computeMetadata/\n"),
            _ => guard(headers).unwrap_or_else(|| self.metadata(uri)),
        }
    }

    /// Returns Google's discovery document (OpenID Connect Discovery 1.0, section 3), with the URL of the keys here.
    /// The issuer is the one of the tokens.
    fn configuration(&self, headers: &HeaderMap) -> MetadataResponse {
        let local = self.address.to_string();
        // The caller's name for this server. Behind a container's port it is not known otherwise.
        let authority = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok())
            .map_or(local, |authority| authority.to_string());
        MetadataResponse::json(&json!({
            "issuer": ISSUER,
            "jwks_uri": format!("http://{authority}/oauth2/v3/certs"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["aud", "azp", "email", "email_verified", "exp", "iat", "iss", "sub"],
        }))
    }

    fn metadata(&self, uri: &Uri) -> MetadataResponse {
        let query = QueryParams::new(uri.query());
        match find(&self.tree, uri) {
            Ok(MetadataNode::AccessToken) => self.access_token(&query),
            Ok(MetadataNode::IdToken) => self.id_token(&query),
            Ok(node) => node.answer(&query),
            Err(answer) => answer,
        }
    }

    fn access_token(&self, query: &QueryParams<'_>) -> MetadataResponse {
        let now = SystemTime::now();
        let scopes = query.value("scopes").unwrap_or_default();
        match self.mint.issue(&RequestedToken::access(&scopes), now) {
            Some(issued) => MetadataResponse::json(&json!({
                "access_token": &*issued.token,
                "expires_in": issued.remaining(unix(now)),
                "token_type": "Bearer",
            })),
            None => MetadataResponse::html(StatusCode::INTERNAL_SERVER_ERROR, NO_TOKEN),
        }
    }

    fn id_token(&self, query: &QueryParams<'_>) -> MetadataResponse {
        let audience = query.value("audience").unwrap_or_default().into_owned();
        if audience.is_empty() {
            return MetadataResponse::html(
                StatusCode::BAD_REQUEST,
                "non-empty audience parameter required",
            );
        }
        let full = match id_format(query) {
            Ok(full) => full,
            Err(answer) => return answer,
        };
        // `licenses` describes a machine's image. Without a machine it adds nothing.
        match self
            .mint
            .issue(&RequestedToken::Id { audience, full }, SystemTime::now())
        {
            Some(issued) => MetadataResponse::html(StatusCode::OK, &issued.token),
            None => MetadataResponse::html(StatusCode::INTERNAL_SERVER_ERROR, NO_TOKEN),
        }
    }
}

/// Returns the node of a metadata path, or the error response.
pub(super) fn find<'a>(
    tree: &'a MetadataNode,
    uri: &Uri,
) -> Result<&'a MetadataNode, MetadataResponse> {
    let path = uri.path();
    match path {
        "/computeMetadata" => return Err(MetadataResponse::redirect(uri)),
        "/computeMetadata/" => return Err(MetadataResponse::text("v1/\n")),
        _ => {}
    }
    let below = path
        .strip_prefix(ROOT)
        .ok_or_else(MetadataResponse::not_found)?;
    let (below, slash) = match below.strip_suffix('/') {
        Some(below) => (below, true),
        None => (below, false),
    };
    let found = below.split('/').skip(1).try_fold(tree, |node, segment| {
        node.child(&percent_decode_str(segment).decode_utf8().ok()?)
    });
    // "/computeMetadata/v1x" is not below the root.
    let found = found.filter(|_| below.is_empty() || below.starts_with('/'));
    let node = found.ok_or_else(MetadataResponse::not_found)?;
    let is_directory = matches!(node, MetadataNode::Directory(_));
    match (is_directory, slash) {
        (true, false) => Err(MetadataResponse::redirect(uri)),
        (false, true) => Err(MetadataResponse::not_found()),
        _ => Ok(node),
    }
}

/// Returns whether the full format of an ID token is requested.
pub(super) fn id_format(query: &QueryParams<'_>) -> Result<bool, MetadataResponse> {
    match query.value("format").as_deref() {
        None | Some("standard") => Ok(false),
        Some("full") => Ok(true),
        Some(_) => Err(MetadataResponse::html(
            StatusCode::BAD_REQUEST,
            "format parameter must be standard or full",
        )),
    }
}

/// Returns the refusal of a request that may be forged: a page cannot set this header, and a proxy adds the other one.
pub(super) fn guard(headers: &HeaderMap) -> Option<MetadataResponse> {
    let why = if headers.contains_key(X_FORWARDED_FOR) {
        "Request contains the X-Forwarded-For header, which is not allowed"
    } else if headers
        .get(METADATA_FLAVOR)
        .is_none_or(|flavor| flavor != "Google")
    {
        r#"Missing required header "Metadata-Flavor": "Google""#
    } else {
        return None;
    };
    Some(MetadataResponse::html(StatusCode::FORBIDDEN, why))
}
