//! The upstream of the demo. It rejects requests without a valid token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout_at;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::call::{DemoResponse, exchange};
use super::{API, LOOPBACK};
use crate::emulator::google::Google;
use crate::emulator::{HttpVersions, RespondFn, Verifier, head_deadline, serve_http};
use crate::error::BoxError;

/// A private Cloud Run service.
pub(super) const SERVICE: &str = "billing-424242.us-central1.run.app";

/// A service behind Identity-Aware Proxy.
pub(super) const GUARDED: &str = "reports.example.com";

const SERVERLESS: HeaderName = HeaderName::from_static("x-serverless-authorization");

/// The service: its listener, and a certificate for all names.
pub(super) struct PrivateService {
    listener: TcpListener,
    address: SocketAddr,
    authority: CertificateDer<'static>,
    tls: Arc<ServerConfig>,
    issuers: TokenIssuers,
}

/// The principals whose tokens are accepted.
#[derive(Clone)]
pub(super) struct TokenIssuers {
    pub(super) verifier: Verifier,
    pub(super) google: Arc<Google>,
}

impl PrivateService {
    pub(super) async fn bind(issuers: TokenIssuers) -> Result<Self, BoxError> {
        let listener = TcpListener::bind(LOOPBACK).await?;
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority_key = KeyPair::generate()?;
        let authority_certificate = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let names = [SERVICE, API, GUARDED].map(str::to_owned);
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der())?,
            )?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            authority: authority_certificate.der().clone(),
            tls: Arc::new(tls),
            issuers,
        })
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the CA certificate of the service.
    pub(super) fn authority(&self) -> CertificateDer<'static> {
        self.authority.clone()
    }

    pub(super) async fn serve(self) {
        let acceptor = TlsAcceptor::from(self.tls);
        while let Ok((stream, _)) = self.listener.accept().await {
            let (acceptor, issuers) = (acceptor.clone(), self.issuers.clone());
            tokio::spawn(async move {
                let head_by = head_deadline();
                let accept = timeout_at(head_by, acceptor.accept(stream));
                let Ok(Ok(stream)) = accept.await else {
                    return;
                };
                let respond: RespondFn = Box::new(move |request| {
                    Box::pin(std::future::ready(answer(&request, &issuers)))
                });
                serve_http(Box::new(stream), HttpVersions::Http1And2, head_by, respond).await;
            });
        }
    }
}

/// Checks the token, as Cloud Run, Google APIs and Identity-Aware Proxy do.
fn answer(request: &Request<Incoming>, issuers: &TokenIssuers) -> Response<Full<Bytes>> {
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| request.headers().get(header::HOST)?.to_str().ok())
        .unwrap_or_default();
    let now = SystemTime::now();
    let verdict = match bearer(request.headers()) {
        None => Err("no token: this service is private".to_owned()),
        Some(token) if host == GUARDED => issuers
            .google
            .verify_iap(
                token,
                &format!("https://{host}{}", request.uri().path()),
                now,
            )
            .map(|email| format!("a JWT that {email} signed for this URL")),
        Some(token) if host == API => match issuers.verifier.knows_access_token(token, now) {
            true => Ok("an access token of this project's service account".to_owned()),
            false => Err("not a valid access token".to_owned()),
        },
        Some(token) => issuers
            .verifier
            .verify(token, &format!("https://{SERVICE}"), now)
            .map(|claims| {
                let email = claims.email.unwrap_or(claims.sub);
                format!("an ID token of {email} for {}", claims.aud)
            })
            .map_err(|refused| refused.to_string()),
    };
    let (status, text) = match verdict {
        Ok(whose) => (StatusCode::OK, format!("hello: the call carried {whose}\n")),
        Err(reason) => (StatusCode::UNAUTHORIZED, format!("{reason}\n")),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

/// Returns the token. `X-Serverless-Authorization` takes precedence over `Authorization`, as on Cloud Run.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(SERVERLESS)
        .or_else(|| headers.get(header::AUTHORIZATION))?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

impl PrivateService {
    /// Calls the service without a token.
    pub(super) fn caller(
        &self,
    ) -> Result<impl Future<Output = Result<DemoResponse, BoxError>> + use<>, BoxError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = self.address;
        Ok(async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(SERVICE)?;
            let stream = TlsConnector::from(Arc::new(tls))
                .connect(name, stream)
                .await?;
            exchange(stream, "/", SERVICE).await
        })
    }
}
