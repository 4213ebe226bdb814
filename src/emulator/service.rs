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

use super::answer::{Answer, METADATA_FLAVOR};
use super::identity::ISSUER;
use super::key::{NoKey, SigningKey, hex};
use super::mint::{Mint, Wanted, unix};
use super::query::Query;
use super::tree::Node;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The error of a system without randomness, which was never observed.
const NO_TOKEN: &str = "no token can be made";

/// The path of the metadata.
pub(super) const ROOT: &str = "/computeMetadata/v1";

/// The inputs of all responses.
#[derive(Debug)]
pub(super) struct Service {
    mint: Mint,
    tree: Node,
    address: SocketAddr,
    jwks: Value,
    certificates: Value,
}

// === impl Service ===

impl Service {
    pub(super) fn new(mint: Mint, key: &SigningKey, address: SocketAddr) -> Result<Self, NoKey> {
        let mut instance = [0; 64];
        aws_lc_rs::rand::fill(&mut instance).map_err(|_| NoKey)?;
        Ok(Self {
            tree: Node::root(mint.identity(), hex(&instance)),
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
            _ => Answer::html(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here")
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

    fn find(&self, uri: &Uri, headers: &HeaderMap) -> Answer {
        match uri.path() {
            "/oauth2/v3/certs" => Answer::json(&self.jwks),
            "/oauth2/v1/certs" => Answer::json(&self.certificates),
            "/.well-known/openid-configuration" => self.configuration(headers),
            // Old libraries probe without the header, and look for it only in the response.
            "/" => Answer::text("computeMetadata/\n"),
            _ => guard(headers).unwrap_or_else(|| self.metadata(uri)),
        }
    }

    /// Returns Google's discovery document (OpenID Connect Discovery 1.0, section 3), with the URL of the keys here.
    /// The issuer is the one of the tokens.
    fn configuration(&self, headers: &HeaderMap) -> Answer {
        let local = self.address.to_string();
        // The caller's name for this server. Behind a container's port it is not known otherwise.
        let authority = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok()?.parse::<Authority>().ok())
            .map_or(local, |authority| authority.to_string());
        Answer::json(&json!({
            "issuer": ISSUER,
            "jwks_uri": format!("http://{authority}/oauth2/v3/certs"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "claims_supported": ["aud", "azp", "email", "email_verified", "exp", "iat", "iss", "sub"],
        }))
    }

    fn metadata(&self, uri: &Uri) -> Answer {
        let query = Query::new(uri.query());
        match find(&self.tree, uri) {
            Ok(Node::AccessToken) => self.access_token(&query),
            Ok(Node::IdToken) => self.id_token(&query),
            Ok(node) => node.answer(&query),
            Err(answer) => answer,
        }
    }

    fn access_token(&self, query: &Query<'_>) -> Answer {
        let now = SystemTime::now();
        let scopes = query.value("scopes").unwrap_or_default();
        match self.mint.issue(&Wanted::access(&scopes), now) {
            Some(issued) => Answer::json(&json!({
                "access_token": &*issued.token,
                "expires_in": issued.left(unix(now)),
                "token_type": "Bearer",
            })),
            None => Answer::html(StatusCode::INTERNAL_SERVER_ERROR, NO_TOKEN),
        }
    }

    fn id_token(&self, query: &Query<'_>) -> Answer {
        let audience = query.value("audience").unwrap_or_default().into_owned();
        if audience.is_empty() {
            return Answer::html(
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
            .issue(&Wanted::Id { audience, full }, SystemTime::now())
        {
            Some(issued) => Answer::html(StatusCode::OK, &issued.token),
            None => Answer::html(StatusCode::INTERNAL_SERVER_ERROR, NO_TOKEN),
        }
    }
}

/// Returns the node of a metadata path, or the error response.
pub(super) fn find<'a>(tree: &'a Node, uri: &Uri) -> Result<&'a Node, Answer> {
    let path = uri.path();
    match path {
        "/computeMetadata" => return Err(Answer::redirect(uri)),
        "/computeMetadata/" => return Err(Answer::text("v1/\n")),
        _ => {}
    }
    let below = path.strip_prefix(ROOT).ok_or_else(Answer::not_found)?;
    let (below, slash) = match below.strip_suffix('/') {
        Some(below) => (below, true),
        None => (below, false),
    };
    let found = below.split('/').skip(1).try_fold(tree, |node, segment| {
        node.child(&percent_decode_str(segment).decode_utf8().ok()?)
    });
    // "/computeMetadata/v1x" is not below the root.
    let found = found.filter(|_| below.is_empty() || below.starts_with('/'));
    let node = found.ok_or_else(Answer::not_found)?;
    let is_directory = matches!(node, Node::Directory(_));
    match (is_directory, slash) {
        (true, false) => Err(Answer::redirect(uri)),
        (false, true) => Err(Answer::not_found()),
        _ => Ok(node),
    }
}

/// Returns whether the full format of an ID token is requested.
pub(super) fn id_format(query: &Query<'_>) -> Result<bool, Answer> {
    match query.value("format").as_deref() {
        None | Some("standard") => Ok(false),
        Some("full") => Ok(true),
        Some(_) => Err(Answer::html(
            StatusCode::BAD_REQUEST,
            "format parameter must be standard or full",
        )),
    }
}

/// Returns the refusal of a request that may be forged: a page cannot set this header, and a proxy adds the other one.
pub(super) fn guard(headers: &HeaderMap) -> Option<Answer> {
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
    Some(Answer::html(StatusCode::FORBIDDEN, why))
}
