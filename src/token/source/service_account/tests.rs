use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use super::*;
use crate::config::{Env, RawConfig, load};
use crate::credentials::tests::{private_key, verify};
use crate::credentials::{CredentialFile, ReadContext};
use crate::token::source::transport::open;

const EMAIL: &str = "a@p.iam.gserviceaccount.com";

fn source(universe: &str) -> ServiceAccountSource {
    let file = json!({
        "type": "service_account",
        "private_key": private_key(),
        "private_key_id": "k1",
        "client_email": EMAIL,
        "universe_domain": universe,
    });
    let context = ReadContext {
        universe: "googleapis.com",
        trusted: &[],
        variable: &|_| None,
    };
    let file = CredentialFile::parse(file.to_string().as_bytes(), &context).unwrap();
    let CredentialFile::ServiceAccount(file) = file else {
        panic!("{file:?}");
    };
    let config = load(&RawConfig::default(), &Env::default()).unwrap();
    let timeout = Duration::from_secs(8);
    let open = open::<Full<Bytes>>;
    let client = EndpointClient::new(open, &config.upstream, timeout, Arc::default());
    ServiceAccountSource::new(file, "the file".to_owned(), client.unwrap())
}

fn access(scopes: &[&str]) -> TokenKey {
    let scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
    TokenKey {
        kind: TokenKind::Access { scopes },
        principal: Principal::Attached,
    }
}

/// Returns the header and the claims of a self-signed token.
async fn signed(source: &ServiceAccountSource, key: &TokenKey) -> (Value, Value, Token) {
    let token = source.token(key, &FetchPriority::high()).await.unwrap();
    let (message, signature) = token.reveal().rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(verify(message.as_bytes(), &signature));
    let (header, claims) = message.split_once('.').unwrap();
    let json = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (json(header), json(claims), token)
}

#[tokio::test]
async fn an_access_token_for_google_apis_is_a_self_signed_jwt() {
    let source = source("googleapis.com");
    for (scopes, scope) in [
        (&[] as &[&str], CLOUD_PLATFORM),
        (
            &[
                "https://www.googleapis.com/auth/devstorage.read_only",
                "https://www.googleapis.com/auth/pubsub",
            ],
            "https://www.googleapis.com/auth/devstorage.read_only https://www.googleapis.com/auth/pubsub",
        ),
    ] {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (header, claims, token) = signed(&source, &access(scopes)).await;
        assert_eq!(header, json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
        let (iat, exp) = (
            claims["iat"].as_u64().unwrap(),
            claims["exp"].as_u64().unwrap(),
        );
        let expected = json!({"iss": EMAIL, "sub": EMAIL, "scope": scope, "iat": iat, "exp": exp});
        assert_eq!(claims, expected);
        assert_eq!(exp - iat, 3600);
        // `iat` is back-dated, and a second may have passed.
        assert!((9..=10).contains(&(before.as_secs() - iat)), "{iat}");
        let left = token.left(Now::now());
        let exact = Duration::from_secs(3590);
        assert!(
            left <= exact && left > exact - Duration::from_secs(5),
            "{left:?}"
        );
    }
}

#[tokio::test]
async fn a_jwt_for_iap_has_an_audience_and_no_scope() {
    let key = TokenKey {
        kind: TokenKind::Jwt {
            audience: "https://iap.example/*".into(),
        },
        principal: Principal::Attached,
    };
    let (_, claims, _) = signed(&source("googleapis.com"), &key).await;
    assert_eq!(claims["aud"], "https://iap.example/*");
    assert_eq!(claims["sub"], EMAIL);
    assert!(claims.get("scope").is_none());
}

#[test]
fn scopes_about_the_account_need_a_token_of_the_endpoint() {
    let google = source("googleapis.com");
    let scopes = |text: &str| text.split(' ').map(Arc::from).collect::<Vec<Arc<str>>>();
    for text in [
        "openid",
        "https://www.googleapis.com/auth/userinfo.email",
        "https://mail.google.com/",
        "https://www.googleapis.com/auth/pubsub openid",
    ] {
        assert!(!google.is_self_signed(&scopes(text)), "{text}");
        // Other universes have no such endpoint.
        assert!(
            source("s3nsapis.fr").is_self_signed(&scopes(text)),
            "{text}"
        );
    }
    assert!(google.is_self_signed(&[]));
    assert!(google.is_self_signed(&scopes("https://www.googleapis.com/auth/pubsub")));
}
