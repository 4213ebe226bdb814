//! The endpoints on sockets, as the tests of the token sources use them.

use std::sync::Arc;

use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::form_request;
use crate::support::google::{Endpoint, Endpoints, Fault, Google, UNIVERSE};

type Sent = Result<(u16, Version, Vec<u8>), Box<dyn std::error::Error>>;

/// Sends a request over TLS with the fixture's CA.
async fn send(google: &Google, alpn: &str, request: Request<bytes::Bytes>) -> Sent {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(google.ca())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(google.tls_address()).await?;
    let name = ServerName::try_from(request.uri().host().unwrap().to_owned())?;
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await?;
    let request = request.map(Full::new);
    let response = if alpn == "h2" {
        let executor = TokioExecutor::new();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (mut head, body) = request.into_parts();
        let authority = head.uri.authority().unwrap().to_string();
        head.headers.insert("host", authority.parse()?);
        head.uri = head.uri.path_and_query().unwrap().as_str().parse()?;
        sender.send_request(Request::from_parts(head, body)).await?
    };
    let (status, version) = (response.status().as_u16(), response.version());
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, version, body.to_vec()))
}

/// Sends the refresh of the user, like a client.
fn refresh(google: &Google) -> Request<bytes::Bytes> {
    let file = google.authorized_user(&Endpoints::default());
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    let [id, secret, token] = ["client_id", "client_secret", "refresh_token"].map(text);
    form_request(
        "https://oauth2.googleapis.com/token",
        &[
            ("grant_type", "refresh_token"),
            ("client_id", &id),
            ("client_secret", &secret),
            ("refresh_token", &token),
        ],
    )
}

#[tokio::test]
async fn http1_and_http2_are_served_under_any_name() {
    let google = Google::start().await;
    for (alpn, version) in [("http/1.1", Version::HTTP_11), ("h2", Version::HTTP_2)] {
        let (status, answered, _) = send(&google, alpn, refresh(&google)).await.unwrap();
        assert_eq!((status, answered), (200, version));
    }
    let recorded = google.requests(Endpoint::Token);
    assert_eq!(recorded.len(), 2);
    assert_eq!(recorded[0].host, "oauth2.googleapis.com");
    assert_eq!(recorded[1].field("grant_type"), "refresh_token");
    assert!(recorded.iter().all(|r| r.tls && r.status == 200));
    let url =
        format!("https://iamcredentials.{UNIVERSE}/v1/projects/-/serviceAccounts/a@b.c:signJwt");
    let request = Request::post(url).body(bytes::Bytes::new()).unwrap();
    let (status, ..) = send(&google, "h2", request).await.unwrap();
    assert_eq!(status, 401);
    assert_eq!(google.called()[2], Endpoint::SignJwt);
}

#[tokio::test]
async fn scripted_faults_come_in_order_and_end() {
    let google = Google::start().await;
    google.script(
        Endpoint::Token,
        [
            Fault::rate_limited(7),
            Fault::torn_json(),
            Fault::cut_short(),
            Fault::close(),
            Fault::invalid_rapt(),
            Fault::edit(|json| json["expires_in"] = "3599".into()),
        ],
    );
    let mut got = Vec::new();
    for _ in 0..7 {
        got.push(send(&google, "http/1.1", refresh(&google)).await);
    }
    let json = |at: usize| {
        let (_, _, body) = got[at].as_ref().unwrap();
        serde_json::from_slice::<serde_json::Value>(body)
    };
    assert_eq!(got[0].as_ref().unwrap().0, 429);
    assert_eq!(got[1].as_ref().unwrap().0, 200);
    assert!(json(1).is_err());
    assert!(got[2].is_err() && got[3].is_err());
    assert_eq!(json(4).unwrap()["error_subtype"], "invalid_rapt");
    assert_eq!(json(5).unwrap()["expires_in"], "3599");
    assert_eq!(json(6).unwrap()["expires_in"], json!(3599));
    assert_eq!(google.count(Endpoint::Token), 7);
}

#[tokio::test]
async fn a_server_clock_that_is_ahead_finds_tokens_expired() {
    let google = Google::start().await;
    assert!(google.subject() != google.expired_subject());
    let before = google.now();
    google.skew(-600);
    assert!(google.now() < before);
    google.skew(600);
    assert!(google.now() > before + std::time::Duration::from_secs(590));
}
