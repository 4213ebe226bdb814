//! The metadata server for development, over raw HTTP, as Google's client libraries use it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sidentity::emulator::{Emulator, ISSUER, Identity, Refused, Verifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const FLAVOR: &str = "Metadata-Flavor: Google\r\n";
const V1: &str = "/computeMetadata/v1";
const ACCOUNT: &str = "/computeMetadata/v1/instance/service-accounts/default";
const EMAIL: &str = "emulator@example-project.iam.gserviceaccount.com";
const AUDIENCE: &str = "https://billing-424242.us-central1.run.app";
const CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";

/// An emulator that runs until the test ends.
struct Running {
    address: SocketAddr,
    verifier: Verifier,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Running {
    async fn start(identity: Identity) -> Self {
        let emulator = Emulator::bind("127.0.0.1:0".parse().unwrap(), identity)
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            address: emulator.local_addr(),
            verifier: emulator.verifier(),
            stop: Some(stop),
            task: tokio::spawn(emulator.run(async {
                let _ = stopped.await;
            })),
        }
    }

    /// Sends one request on its own connection.
    async fn send(&self, method: &str, target: &str, headers: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: metadata.google.internal\r\n{headers}Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, FLAVOR).await
    }

    async fn id_token(&self, query: &str) -> String {
        let reply = self.get(&format!("{ACCOUNT}/identity?{query}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("text/html"));
        reply.body
    }
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn emulator() -> Running {
    Running::start(Identity::default()).await
}

/// Returns the claims, without verification.
fn claims(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Time jumps to the next deadline when all wait.
#[tokio::test(start_paused = true)]
async fn a_connection_without_a_complete_first_head_is_closed_after_30_s() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let emulator = emulator().await;
    for first in [
        &b""[..],
        b"GET /computeMetadata/v1/ HTTP/1.1\r\nX: ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        // The beginning of a TLS handshake.
        b"\x16\x03\x01",
    ] {
        let began = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(emulator.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        let closed = tokio::time::timeout(DAY, stream.read_to_end(&mut Vec::new())).await;
        // Bytes that were not read make the close a reset.
        assert!(closed.is_ok(), "{first:?} is still open");
        let took = began.elapsed().as_secs();
        assert_eq!(took, 30, "{first:?}");
    }
    let mut stream = TcpStream::connect(emulator.address).await.unwrap();
    let request = format!("GET {V1}/project/project-id HTTP/1.1\r\nHost: x\r\n{FLAVOR}\r\n");
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = vec![0; 4096];
        let read = stream.read(&mut reply).await.unwrap();
        let reply = String::from_utf8_lossy(&reply[..read]);
        assert!(reply.ends_with("example-project"), "{reply}");
        // A library's pool keeps it for its next request.
        let silence = tokio::time::timeout(DAY, stream.read(&mut [0])).await;
        assert!(silence.is_err(), "an idle connection was closed");
    }
}

#[tokio::test]
async fn every_librarys_probe_is_answered() {
    let emulator = emulator().await;
    for headers in ["", FLAVOR] {
        let reply = emulator.send("GET", "/", headers).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("metadata-flavor"), Some("Google"));
    }
}

#[tokio::test]
async fn values_are_those_of_the_identity() {
    let emulator = Running::start(Identity {
        email: "app@shop.iam.gserviceaccount.com".parse().unwrap(),
        project_id: "shop".parse().unwrap(),
        project_number: 77,
        region: "europe-west1".parse().unwrap(),
        lifetime: "1h".parse().unwrap(),
    })
    .await;
    let scopes = format!("{CLOUD_PLATFORM}\n");
    for (path, value) in [
        ("/project/project-id", "shop"),
        ("/project/numeric-project-id", "77"),
        ("/instance/region", "projects/77/regions/europe-west1"),
        ("/instance/zone", "projects/77/zones/europe-west1-1"),
        ("/universe/universe-domain", "googleapis.com"),
        (
            "/instance/service-accounts/default/email",
            "app@shop.iam.gserviceaccount.com",
        ),
        (
            "/instance/service-accounts/app@shop.iam.gserviceaccount.com/email",
            "app@shop.iam.gserviceaccount.com",
        ),
        ("/instance/service-accounts/default/aliases", "default\n"),
        ("/instance/service-accounts/default/scopes", &scopes),
    ] {
        let reply = emulator.get(&format!("{V1}{path}")).await;
        assert_eq!((reply.status, &*reply.body), (200, value), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/text"));
        assert_eq!(reply.header("metadata-flavor"), Some("Google"));
        assert_eq!(reply.header("server"), Some("Metadata Server for VM"));
    }
}

#[tokio::test]
async fn an_instance_keeps_its_id_and_shares_it_with_no_other() {
    let (one, other) = (emulator().await, emulator().await);
    let path = format!("{V1}/instance/id");
    let id = one.get(&path).await.body;
    assert!(id.len() > 60 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(one.get(&path).await.body, id);
    assert_ne!(other.get(&path).await.body, id);
}

#[tokio::test]
async fn directories_list_their_entries() {
    let emulator = emulator().await;
    let accounts = format!("{EMAIL}/\ndefault/\n");
    for (path, listing) in [
        ("/computeMetadata/", "v1/\n"),
        ("/computeMetadata/v1/", "instance/\nproject/\nuniverse/\n"),
        (
            "/computeMetadata/v1/instance/",
            "id\nregion\nservice-accounts/\nzone\n",
        ),
        (
            "/computeMetadata/v1/project/",
            "numeric-project-id\nproject-id\n",
        ),
        ("/computeMetadata/v1/universe/", "universe-domain\n"),
        ("/computeMetadata/v1/instance/service-accounts/", &*accounts),
        (
            "/computeMetadata/v1/instance/service-accounts/default/",
            "aliases\nemail\nidentity\nscopes\ntoken\n",
        ),
    ] {
        let reply = emulator.get(path).await;
        assert_eq!((reply.status, &*reply.body), (200, listing), "{path}");
    }
}

#[tokio::test]
async fn a_directory_without_its_slash_is_redirected() {
    let emulator = emulator().await;
    for (path, to) in [
        ("/computeMetadata", "/computeMetadata/"),
        ("/computeMetadata/v1", "/computeMetadata/v1/"),
        (
            "/computeMetadata/v1/instance?recursive=true",
            "/computeMetadata/v1/instance/?recursive=true",
        ),
        (ACCOUNT, &format!("{ACCOUNT}/")),
    ] {
        let reply = emulator.get(path).await;
        assert_eq!(reply.status, 301, "{path}");
        assert_eq!(reply.header("location"), Some(to));
    }
}

#[tokio::test]
async fn a_subtree_is_json_without_tokens() {
    let emulator = emulator().await;
    let account = json!({"aliases": ["default"], "email": EMAIL, "scopes": [CLOUD_PLATFORM]});
    let reply = emulator.get(&format!("{ACCOUNT}/?recursive=true")).await;
    assert_eq!(reply.json(), account);

    let all = emulator.get(&format!("{V1}/?recursive=true")).await.json();
    assert_eq!(all["project"]["numericProjectId"], 424_242);
    assert_eq!(all["project"]["projectId"], "example-project");
    assert_eq!(all["universe"]["universeDomain"], "googleapis.com");
    assert_eq!(all["instance"]["serviceAccounts"][EMAIL], account);

    let region = emulator
        .get(&format!("{V1}/instance/region?alt=json"))
        .await;
    assert_eq!(region.json(), "projects/424242/regions/us-central1");
}

#[tokio::test]
async fn requests_that_a_page_or_a_proxy_could_have_made_are_forbidden() {
    let emulator = emulator().await;
    for target in [
        "/computeMetadata/v1/",
        "/computeMetadata/v1/project/project-id",
        &format!("{ACCOUNT}/token"),
        &format!("{ACCOUNT}/identity?audience=a"),
        "/nowhere",
    ] {
        let bare = emulator.send("GET", target, "").await;
        assert_eq!(bare.status, 403, "{target}");
        assert_eq!(
            bare.body,
            r#"Missing required header "Metadata-Flavor": "Google""#
        );
        let other = emulator
            .send("GET", target, "Metadata-Flavor: Amazon\r\n")
            .await;
        assert_eq!(other.status, 403, "{target}");
        let forwarded = format!("{FLAVOR}X-Forwarded-For: 192.0.2.1\r\n");
        let forwarded = emulator.send("GET", target, &forwarded).await;
        assert_eq!(forwarded.status, 403, "{target}");
        assert!(forwarded.body.contains("X-Forwarded-For"));
        assert_eq!(forwarded.header("metadata-flavor"), Some("Google"));
    }
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let emulator = emulator().await;
    for path in [
        "/nowhere",
        "//",
        "/computeMetadata/v2/",
        "/computeMetadata/v1x",
        "/computeMetadata/v1/instance/name",
        "/computeMetadata/v1/instance/id/",
        "/computeMetadata/v1//instance/id",
        "/computeMetadata/v1/instance/../project/project-id",
        "/computeMetadata/v1/instance/%ff",
        "/computeMetadata/v1/instance/service-accounts/other@example.com/token",
        "/computeMetadata/v1/instance/service-accounts/default/token/x",
        "/oauth2/v2/certs",
    ] {
        let reply = emulator.get(path).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.header("metadata-flavor"), Some("Google"));
    }
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let emulator = emulator().await;
    for target in ["/", &format!("{ACCOUNT}/token"), "/oauth2/v3/certs"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let reply = emulator.send(method, target, FLAVOR).await;
            assert_eq!(reply.status, 405, "{method} {target}");
            assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        }
    }
    let head = emulator.send("HEAD", "/", "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
}

#[tokio::test]
async fn an_access_token_is_opaque_and_reissued_with_less_time_left() {
    let emulator = emulator().await;
    let first = emulator.get(&format!("{ACCOUNT}/token")).await.json();
    let token = first["access_token"].as_str().unwrap();
    assert!(token.starts_with("ya29."), "{token}");
    assert_eq!(first["token_type"], "Bearer");
    assert_eq!(first["expires_in"], 3600);

    // Under both names of the account.
    let again = format!(
        "{V1}/instance/service-accounts/{}/token",
        EMAIL.replace('@', "%40")
    );
    let again = emulator.get(&again).await.json();
    assert_eq!(again["access_token"], token);
    assert!((3590..=3600).contains(&again["expires_in"].as_u64().unwrap()));

    let in_one_hour = SystemTime::now() + Duration::from_secs(3600);
    let verifier = &emulator.verifier;
    assert!(verifier.knows_access_token(token, SystemTime::now()));
    assert!(!verifier.knows_access_token(token, in_one_hour));
}

#[tokio::test]
async fn other_scopes_get_another_token() {
    let emulator = emulator().await;
    let token = async |query: &str| {
        let reply = emulator.get(&format!("{ACCOUNT}/token{query}")).await;
        reply.json()["access_token"].as_str().unwrap().to_owned()
    };
    let drive = token("?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdrive,b").await;
    assert_eq!(
        token("?scopes=b%2Chttps://www.googleapis.com/auth/drive").await,
        drive
    );
    assert_ne!(token("?scopes=b").await, drive);
    assert_ne!(token("").await, drive);
    assert_eq!(token("?scopes=").await, token("").await);
}

#[tokio::test]
async fn a_short_lifetime_applies_to_both_kinds_of_token() {
    let emulator = Running::start(Identity {
        lifetime: "90s".parse().unwrap(),
        ..Identity::default()
    })
    .await;
    let access = emulator.get(&format!("{ACCOUNT}/token")).await.json();
    assert_eq!(access["expires_in"], 90);
    let claims = claims(&emulator.id_token("audience=a").await);
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        90
    );
}

#[tokio::test]
async fn an_id_token_names_audience_issuer_and_expiry() {
    let emulator = emulator().await;
    let before = now();
    let standard = claims(&emulator.id_token(&format!("audience={AUDIENCE}")).await);
    assert_eq!(standard["aud"], AUDIENCE);
    assert_eq!(standard["iss"], ISSUER);
    assert!((before..=now()).contains(&standard["iat"].as_u64().unwrap()));
    assert_eq!(
        standard["exp"].as_u64().unwrap(),
        standard["iat"].as_u64().unwrap() + 3600
    );
    assert_eq!(standard["azp"], standard["sub"]);
    assert!(standard.get("email").is_none());

    let full = format!("audience={AUDIENCE}&format=full&licenses=TRUE");
    let full = claims(&emulator.id_token(&full).await);
    assert_eq!(full["email"], EMAIL);
    assert_eq!(full["email_verified"], true);
    assert_eq!(full["sub"], standard["sub"]);
}

#[tokio::test]
async fn an_encoded_audience_is_decoded() {
    let emulator = emulator().await;
    for (query, audience) in [
        (
            "audience=https%3A%2F%2Fx%2F%3Fa%3Db%26c%20d",
            "https://x/?a=b&c d",
        ),
        ("audience=a+b%2Bc", "a b+c"),
        ("format=full&audience=https://x/", "https://x/"),
        ("audience=first&audience=second", "first"),
        ("audience=%22%7B%0A", "\"{\n"),
    ] {
        assert_eq!(claims(&emulator.id_token(query).await)["aud"], audience);
    }
}

#[tokio::test]
async fn an_id_token_is_reissued_only_for_its_audience_and_format() {
    let emulator = emulator().await;
    let token = emulator.id_token("audience=a").await;
    assert_eq!(emulator.id_token("audience=a").await, token);
    assert_eq!(emulator.id_token("audience=a&format=standard").await, token);
    assert_ne!(emulator.id_token("audience=a&format=full").await, token);
    assert_ne!(emulator.id_token("audience=b").await, token);
}

#[tokio::test]
async fn an_id_token_needs_an_audience_and_a_known_format() {
    let emulator = emulator().await;
    for query in ["", "?audience=", "?format=full", "?Audience=a"] {
        let reply = emulator.get(&format!("{ACCOUNT}/identity{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert_eq!(reply.body, "non-empty audience parameter required");
    }
    let reply = emulator
        .get(&format!("{ACCOUNT}/identity?audience=a&format=fu"))
        .await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn the_published_keys_verify_an_id_token() {
    let emulator = emulator().await;
    let jwt = emulator.id_token(&format!("audience={AUDIENCE}")).await;
    let (message, signature) = jwt.rsplit_once('.').unwrap();
    let header = message.split('.').next().unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["typ"], "JWT");

    // These requests have no Metadata-Flavor, because services that verify tokens do not send it.
    let jwks = emulator.send("GET", "/oauth2/v3/certs", "").await.json();
    let key = &jwks["keys"][0];
    assert_eq!(key["kid"], header["kid"]);
    assert_eq!((&key["kty"], &key["alg"]), (&json!("RSA"), &json!("RS256")));
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let modulus = part("n");
    assert_eq!(modulus.len(), 256);
    RsaPublicKeyComponents {
        n: &modulus,
        e: &part("e"),
    }
    .verify(
        &RSA_PKCS1_2048_8192_SHA256,
        message.as_bytes(),
        &URL_SAFE_NO_PAD.decode(signature).unwrap(),
    )
    .unwrap();

    let certificates = emulator.send("GET", "/oauth2/v1/certs", "").await.json();
    let pem = certificates[header["kid"].as_str().unwrap()]
        .as_str()
        .unwrap();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(base64).unwrap();
    assert!(der.windows(modulus.len()).any(|window| window == modulus));
}

#[tokio::test]
async fn the_discovery_document_uses_the_host_of_the_request() {
    let emulator = emulator().await;
    let path = "/.well-known/openid-configuration";
    let document = emulator.send("GET", path, "").await.json();
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(
        document["jwks_uri"],
        "http://metadata.google.internal/oauth2/v3/certs"
    );

    let mut stream = TcpStream::connect(emulator.address).await.unwrap();
    let nameless = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(nameless.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let own = format!("http://{}/oauth2/v3/certs", emulator.address);
    assert!(reply.contains(&own), "{reply}");
}

#[tokio::test]
async fn the_verifier_accepts_only_tokens_of_its_own_emulator() {
    let (own, other) = (emulator().await, emulator().await);
    let jwt = own
        .id_token(&format!("audience={AUDIENCE}&format=full"))
        .await;
    let now = SystemTime::now();
    let claims = own.verifier.verify(&jwt, AUDIENCE, now).unwrap();
    assert_eq!(claims.email.as_deref(), Some(EMAIL));
    assert_eq!(
        own.verifier.verify(&jwt, "https://else.example", now),
        Err(Refused::Audience(AUDIENCE.to_owned()))
    );
    assert_eq!(
        own.verifier
            .verify(&jwt, AUDIENCE, now + Duration::from_secs(3600)),
        Err(Refused::Expired)
    );
    assert_eq!(
        other.verifier.verify(&jwt, AUDIENCE, now),
        Err(Refused::Signature)
    );
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    let emulator = emulator().await;
    let mut stream = TcpStream::connect(emulator.address).await.unwrap();
    for _ in 0..2 {
        let request = format!("GET {V1}/project/project-id HTTP/1.1\r\nHost: x\r\n{FLAVOR}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"example-project") {
            assert_ne!(stream.read_buf(&mut reply).await.unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn it_stops_even_with_a_caller_connected() {
    let mut emulator = emulator().await;
    let mut idle = TcpStream::connect(emulator.address).await.unwrap();
    emulator.get("/").await;
    emulator.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), emulator.task).await;
    ended.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let emulator = emulator().await;
    let error = Emulator::bind(emulator.address, Identity::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}
