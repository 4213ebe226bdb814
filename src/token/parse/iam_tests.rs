use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{Malformed, iam_access_token, iam_id_token, signed_jwt};
use crate::token::clock::Now;
use crate::token::value::Token;

const HOUR: Duration = Duration::from_secs(3600);

fn access(body: &str) -> Result<Token, Malformed> {
    let now = Now::now();
    iam_access_token(body.as_bytes(), HOUR, now, now)
}

/// Returns a response whose token expires in this number of seconds by this machine's clock.
fn expiring(seconds: i64) -> String {
    let now = Now::now()
        .wall
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    let time = UNIX_EPOCH + Duration::from_secs((now + seconds) as u64);
    json!({"accessToken": "ya29.T", "expireTime": humantime::format_rfc3339(time).to_string()})
        .to_string()
}

fn left(token: &Token) -> u64 {
    (token.left(Now::now()) + Duration::from_millis(500)).as_secs()
}

#[test]
fn an_access_token_of_iam_lives_until_its_expire_time() {
    let token = access(&expiring(1800)).unwrap();
    assert_eq!(token.reveal(), "ya29.T");
    assert!((1798..=1800).contains(&left(&token)));
}

#[test]
fn a_slow_clock_extends_no_token_beyond_the_requested_lifetime() {
    assert_eq!(left(&access(&expiring(3600 + 600)).unwrap()), 3600);
    let ahead = access(&expiring(3600 - 600)).unwrap();
    assert!((2998..=3000).contains(&left(&ahead)));
    assert_eq!(access(&expiring(-600)).unwrap_err(), Malformed::Expired);
}

#[test]
fn an_iam_response_without_token_or_expiry_is_rejected() {
    for (body, expected) in [
        ("", Malformed::NotAccessTokenObject),
        ("[]", Malformed::NotAccessTokenObject),
        (
            "{\"accessToken\":\"T\",\"expire",
            Malformed::NotAccessTokenObject,
        ),
        ("{}", Malformed::NoToken),
        ("{\"accessToken\":\"\"}", Malformed::NoToken),
        ("{\"accessToken\":\"T\"}", Malformed::ExpireTime),
        (
            "{\"accessToken\":\"T\",\"expireTime\":\"tomorrow\"}",
            Malformed::ExpireTime,
        ),
        (
            "{\"accessToken\":\"T\",\"expireTime\":\"2999-01-01T00:00:00\"}",
            Malformed::ExpireTime,
        ),
        (
            "{\"accessToken\":\"T\",\"expireTime\":3600}",
            Malformed::NotAccessTokenObject,
        ),
        (
            "{\"access_token\":\"T\",\"expires_in\":3600}",
            Malformed::NoToken,
        ),
    ] {
        assert_eq!(access(body).unwrap_err(), expected, "{body}");
    }
    let odd = expiring(60).replace("ya29.T", "a\\nb");
    assert_eq!(access(&odd).unwrap_err(), Malformed::NotVisible);
}

#[test]
fn an_id_token_of_iam_is_checked_like_any_other() {
    let now = Now::now();
    let exp = now.wall.duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let jwt = |alg: &str| {
        let header = part(json!({ "alg": alg }));
        format!("{header}.{}.c2ln", part(json!({"aud": "a", "exp": exp})))
    };
    let read = |body: serde_json::Value, audience| {
        iam_id_token(body.to_string().as_bytes(), audience, now, now)
    };
    let token = read(json!({"token": jwt("RS256")}), "a").unwrap();
    assert_eq!(token.reveal(), jwt("RS256"));
    let refused = |body, audience| read(body, audience).unwrap_err();
    assert_eq!(
        refused(json!({"token": jwt("RS256")}), "b"),
        Malformed::Audience
    );
    assert_eq!(
        refused(json!({"token": jwt("none")}), "a"),
        Malformed::Unsigned
    );
    assert_eq!(refused(json!({"token": "T"}), "a"), Malformed::NotJwt);
    assert_eq!(refused(json!({"token": ""}), "a"), Malformed::Empty);
    assert_eq!(refused(json!({}), "a"), Malformed::NotJwtObject);
}

#[test]
fn a_signed_jwt_has_three_parts() {
    assert_eq!(
        signed_jwt(br#"{"keyId":"k","signedJwt":"a.b.c"}"#).unwrap(),
        "a.b.c"
    );
    for body in ["", "{}", r#"{"signedJwt":1}"#] {
        assert_eq!(
            signed_jwt(body.as_bytes()).unwrap_err(),
            Malformed::NotJwtObject,
            "{body}"
        );
    }
    for jwt in ["", "a.b", "a.b.c.d", "a..c", "a.b.c&d"] {
        let body = json!({ "signedJwt": jwt }).to_string();
        assert_eq!(
            signed_jwt(body.as_bytes()).unwrap_err(),
            Malformed::NotJwt,
            "{jwt}"
        );
    }
}
