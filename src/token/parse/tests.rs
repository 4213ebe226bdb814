use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::{LONGEST, Malformed, access_token, fuzz_answers, id_token};
use crate::token::clock::Now;
use crate::token::value::Token;

fn access(body: impl AsRef<[u8]>) -> Result<Token, Malformed> {
    let now = Now::now();
    access_token(body.as_ref(), now, now)
}

fn id(body: impl AsRef<[u8]>) -> Result<Token, Malformed> {
    id_for("a", body)
}

fn id_for(audience: &str, body: impl AsRef<[u8]>) -> Result<Token, Malformed> {
    let now = Now::now();
    id_token(body.as_ref(), audience, now, now)
}

fn jwt(payload: impl AsRef<[u8]>) -> String {
    jwt_with(r#"{"alg":"RS256"}"#, payload)
}

fn jwt_with(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    let [header, payload] =
        [header.as_ref(), payload.as_ref()].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{payload}.c2ln")
}

/// Returns claims that are valid for an hour, with this `aud`.
fn claims_for(aud: &serde_json::Value) -> String {
    serde_json::json!({"aud": aud, "exp": in_seconds(3600)}).to_string()
}

fn in_seconds(seconds: i64) -> i64 {
    let now = Now::now().wall.duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() as i64 + seconds
}

fn seconds_left(token: &Token) -> u64 {
    (token.left(Now::now()) + Duration::from_millis(500)).as_secs()
}

#[test]
fn an_access_token_lives_for_its_expires_in() {
    for (expires_in, expected) in [
        ("3600", 3600),
        ("\"3600\"", 3600),
        ("\" 3600 \"", 3600),
        ("3599.6", 3600),
        ("3.6e3", 3600),
        ("31", 31),
    ] {
        let body =
            format!(r#"{{"access_token":"T1","expires_in":{expires_in},"token_type":"Bearer"}}"#);
        let token = access(&body).expect(&body);
        assert_eq!(token.reveal(), "T1");
        assert_eq!(seconds_left(&token), expected, "{body}");
    }
}

#[test]
fn a_lifetime_over_twelve_hours_is_cut() {
    for life in ["1e300", "18446744073709551615", "\"99999999999999999999\""] {
        let body = format!(r#"{{"access_token":"T","expires_in":{life}}}"#);
        let left = access(&body).expect(&body).left(Now::now());
        assert!(left <= LONGEST && left > LONGEST - Duration::from_secs(5));
    }
    let far = jwt(format!(r#"{{"aud":"a","exp":{}}}"#, i64::MAX));
    assert!(id(&far).unwrap().left(Now::now()) <= LONGEST);
}

#[test]
fn an_access_token_counts_from_the_start_of_the_attempt() {
    let start = Now::now();
    let later = Duration::from_secs(10);
    let now = Now {
        wall: start.wall + later,
        mono: start.mono + later,
    };
    let body = br#"{"access_token":"T","expires_in":100}"#;
    let token = access_token(body, start, now).unwrap();
    assert_eq!(token.left(now), Duration::from_secs(90));
    let body = br#"{"access_token":"T","expires_in":15}"#;
    assert_eq!(
        access_token(body, start, now).unwrap_err(),
        Malformed::Expired
    );
}

#[test]
fn a_response_without_a_usable_access_token_is_an_error() {
    for (body, expected) in [
        ("", Malformed::NotAccessTokenObject),
        ("{bad", Malformed::NotAccessTokenObject),
        ("null", Malformed::NotAccessTokenObject),
        (r#"["T",3600,"Bearer"]"#, Malformed::NotAccessTokenObject),
        (
            r#"{"access_token":7,"expires_in":3600}"#,
            Malformed::NotAccessTokenObject,
        ),
        (
            r#"{"access_token":"T","access_token":"U","expires_in":3600}"#,
            Malformed::NotAccessTokenObject,
        ),
        (r#"{"expires_in":3600}"#, Malformed::NoToken),
        (
            r#"{"access_token":"","expires_in":3600}"#,
            Malformed::NoToken,
        ),
        (
            r#"{"access_token":null,"expires_in":3600}"#,
            Malformed::NoToken,
        ),
        (r#"{"access_token":"T"}"#, Malformed::ExpiresIn),
        (
            r#"{"access_token":"T","expires_in":0}"#,
            Malformed::ExpiresIn,
        ),
        (
            r#"{"access_token":"T","expires_in":-1}"#,
            Malformed::ExpiresIn,
        ),
        (
            r#"{"access_token":"T","expires_in":null}"#,
            Malformed::ExpiresIn,
        ),
        (
            r#"{"access_token":"T","expires_in":[3600]}"#,
            Malformed::ExpiresIn,
        ),
        (
            r#"{"access_token":"T","expires_in":"soon"}"#,
            Malformed::ExpiresIn,
        ),
        (
            r#"{"access_token":"T","expires_in":"NaN"}"#,
            Malformed::ExpiresIn,
        ),
        (
            r#"{"access_token":"T","expires_in":"inf"}"#,
            Malformed::ExpiresIn,
        ),
        (r#"{"access_token":"T","expires_in":5}"#, Malformed::Expired),
        (
            r#"{"access_token":"T","expires_in":3600,"token_type":"mac"}"#,
            Malformed::TokenType,
        ),
        (
            r#"{"access_token":"T\r\nX: y","expires_in":3600}"#,
            Malformed::NotVisible,
        ),
        (
            r#"{"access_token":"T T","expires_in":3600}"#,
            Malformed::NotVisible,
        ),
        (
            r#"{"access_token":"é","expires_in":3600}"#,
            Malformed::NotVisible,
        ),
    ] {
        assert_eq!(access(body).unwrap_err(), expected, "{body}");
    }
}

#[test]
fn an_id_token_is_trimmed_and_lives_until_its_exp() {
    let exp = in_seconds(1800);
    let text = jwt(format!(r#"{{"aud":"a","exp":{exp}}}"#));
    let token = id(format!(" \r\n{text}\n")).unwrap();
    assert_eq!(token.reveal(), text);
    let since_epoch = token.expires_at().duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(since_epoch.as_secs_f64().round() as i64, exp);
    assert!((1799..=1800).contains(&seconds_left(&token)));
}

#[test]
fn a_slow_clock_extends_no_id_token_beyond_its_lifetime() {
    let (iat, exp) = (in_seconds(7200), in_seconds(7200 + 3600));
    let token = id(jwt(format!(r#"{{"aud":"a","iat":{iat},"exp":{exp}}}"#))).unwrap();
    assert_eq!(seconds_left(&token), 3600);
    // An invalid iat is ignored.
    let token = id(jwt(format!(r#"{{"aud":"a","iat":{exp},"exp":{exp}}}"#))).unwrap();
    assert!(seconds_left(&token) > 3600);
}

#[test]
fn a_response_without_a_usable_id_token_is_an_error() {
    let good = format!(r#"{{"aud":"a","exp":{}}}"#, in_seconds(3600));
    let payload = URL_SAFE_NO_PAD.encode(&good);
    assert!(id(format!("eyJhbGciOiJSUzI1NiJ9.{payload}.b")).is_ok());
    for (body, expected) in [
        (String::new(), Malformed::Empty),
        (" \r\n".to_owned(), Malformed::Empty),
        ("error\nnot-found".to_owned(), Malformed::NotVisible),
        ("tok\rx".to_owned(), Malformed::NotVisible),
        ("not a jwt".to_owned(), Malformed::NotVisible),
        ("not-a-jwt".to_owned(), Malformed::NotJwt),
        ("not.a.jwt".to_owned(), Malformed::NotJwt),
        (format!("a.{payload}"), Malformed::NotJwt),
        (format!("a.{payload}."), Malformed::NotJwt),
        (format!(".{payload}.b"), Malformed::NotJwt),
        (format!("=.{payload}.b"), Malformed::NotJwt),
        (format!("a.{payload}.b.c"), Malformed::NotJwt),
        (format!("a.{payload}.b+c"), Malformed::NotJwt),
        (format!("a.{payload}%.b"), Malformed::NotJwt),
        (jwt("{}"), Malformed::Exp),
        (jwt("[4102444800]"), Malformed::Exp),
        (jwt(r#"{"exp":"4102444800"}"#), Malformed::Exp),
        (jwt(r#"{"exp":-1}"#), Malformed::Exp),
        (jwt("nonsense"), Malformed::Exp),
        (
            jwt(format!(r#"{{"aud":"a","exp":{}}}"#, in_seconds(-10))),
            Malformed::Expired,
        ),
        (
            jwt(format!(r#"{{"aud":"a","exp":{}}}"#, in_seconds(5))),
            Malformed::Expired,
        ),
        (jwt(r#"{"aud":"a","exp":0}"#), Malformed::Expired),
    ] {
        assert_eq!(id(&body).unwrap_err(), expected, "{body}");
    }
}

#[test]
fn an_id_token_whose_json_is_not_utf8_is_an_error() {
    let claims = format!(r#"{{"aud":"a","exp":{},"x":"?"}}"#, in_seconds(3600));
    assert!(id_for("a", jwt(&claims)).is_ok());
    let mut bytes = claims.into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xf6;
    assert!(id_for("a", jwt(&bytes)).is_err());
    let mut header = br#"{"alg":"RS256","x":"?"}"#.to_vec();
    let at = header.iter().position(|byte| *byte == b'?').unwrap();
    header[at] = 0xf6;
    let claims = claims_for(&json!("a"));
    assert!(id_for("a", jwt_with(header, claims)).is_err());
}

#[test]
fn an_id_token_for_another_audience_is_an_error() {
    let asked = "https://a.example/";
    for (aud, expected) in [
        (json!(asked), None),
        (json!([asked]), None),
        (json!(null), Some(Malformed::NoAudience)),
        (json!("https://b.example/"), Some(Malformed::Audience)),
        (json!("https://a.example"), Some(Malformed::Audience)),
        (json!("https://A.example/"), Some(Malformed::Audience)),
        (json!(" https://a.example/"), Some(Malformed::Audience)),
        (json!("https://a.example/%2f"), Some(Malformed::Audience)),
        (json!(""), Some(Malformed::Audience)),
        (json!([]), Some(Malformed::Audience)),
        (json!(["https://b.example/"]), Some(Malformed::Audience)),
        (
            json!([asked, "https://b.example/"]),
            Some(Malformed::Audience),
        ),
        (json!([asked, asked]), Some(Malformed::Audience)),
        (json!([[asked]]), Some(Malformed::Audience)),
        (json!({"aud": asked}), Some(Malformed::Audience)),
        (json!(7), Some(Malformed::Audience)),
        (json!(true), Some(Malformed::Audience)),
    ] {
        let read = id_for(asked, jwt(claims_for(&aud)));
        assert_eq!(read.err(), expected, "{aud}");
    }
    let without = format!(r#"{{"exp":{}}}"#, in_seconds(3600));
    let read = id_for(asked, jwt(without));
    assert_eq!(read.err(), Some(Malformed::NoAudience));
    // Readers differ in which of two fields of the same name they use.
    let exp = in_seconds(3600);
    let twice = format!(r#"{{"aud":"https://b.example/","aud":"{asked}","exp":{exp}}}"#);
    assert!(id_for(asked, jwt(twice)).is_err());
}

#[test]
fn an_audience_is_compared_byte_for_byte() {
    for audience in [
        "123-abc.apps.googleusercontent.com",
        "/projects/1/global/backendServices/2",
        "https://a.example/x%20y?z=ü",
        "A b\"c\\",
    ] {
        let token = jwt(claims_for(&json!(audience)));
        assert!(id_for(audience, token).is_ok(), "{audience}");
    }
}

#[test]
fn an_id_token_without_a_signature_is_an_error() {
    let payload = claims_for(&json!("a"));
    for (header, expected) in [
        (r#"{"alg":"RS256","kid":"1","typ":"JWT"}"#, None),
        (r#"{"alg":"ES256"}"#, None),
        (r#"{"alg":"none"}"#, Some(Malformed::Unsigned)),
        (r#"{"alg":"NONE"}"#, Some(Malformed::Unsigned)),
        (r#"{"alg":"nOnE"}"#, Some(Malformed::Unsigned)),
        (r#"{"alg":" none "}"#, Some(Malformed::Unsigned)),
        (r#"{"alg":"n\u006fne"}"#, Some(Malformed::Unsigned)),
        (r#"{"alg":""}"#, Some(Malformed::Header)),
        (r#"{"alg":null}"#, Some(Malformed::Header)),
        (r#"{"alg":["RS256"]}"#, Some(Malformed::Header)),
        (r#"{"alg":"RS256","alg":"none"}"#, Some(Malformed::Header)),
        (r#"{"typ":"JWT"}"#, Some(Malformed::Header)),
        (r#"["RS256"]"#, Some(Malformed::Header)),
        ("{}", Some(Malformed::Header)),
        ("nonsense", Some(Malformed::Header)),
    ] {
        let read = id(jwt_with(header, &payload));
        assert_eq!(read.err(), expected, "{header}");
    }
}

proptest! {
    #[test]
    fn an_id_token_is_accepted_only_for_the_requested_audience(
        asked in "\\PC{1,20}", others in proptest::collection::vec("\\PC{0,20}", 0..3),
    ) {
        let aud = match others.as_slice() {
            [] => json!(asked),
            [one] => json!(one),
            more => json!(more),
        };
        let read = id_for(&asked, jwt(claims_for(&aud)));
        prop_assert_eq!(read.is_ok(), aud == json!(asked));
    }

    #[test]
    fn no_bytes_make_the_parser_panic_and_every_token_fits_a_header(
        body in proptest::collection::vec(any::<u8>(), 0..512),
    ) {
        for token in [access(&body), id(&body)].into_iter().flatten() {
            prop_assert!(token.reveal().bytes().all(|b| b.is_ascii_graphic()));
        }
    }

    #[test]
    fn every_accepted_access_token_has_a_bounded_lifetime(
        value in "\\PC{0,20}", life in any::<f64>(), kind in "[bB]earer|mac|",
    ) {
        let answer = serde_json::json!({
            "access_token": value, "expires_in": life, "token_type": kind,
        });
        match access(answer.to_string()) {
            Ok(token) => {
                prop_assert_eq!(token.reveal(), value);
                prop_assert!(life > 5.0 && kind.eq_ignore_ascii_case("bearer"));
                prop_assert!(token.left(Now::now()) <= LONGEST);
            }
            Err(malformed) => {
                let text = malformed.to_string();
                prop_assert!(value.len() < 8 || !text.contains(&value));
            }
        }
    }

    #[test]
    fn no_payload_makes_the_parser_panic(payload in "\\PC{0,40}", exp in any::<f64>(), iat in any::<f64>()) {
        let _ = id(jwt(&payload));
        let claims = serde_json::json!({"aud": "a", "exp": exp, "iat": iat});
        if let Ok(token) = id(jwt(claims.to_string())) {
            prop_assert!(token.left(Now::now()) <= LONGEST);
        }
    }

    #[test]
    fn a_jwt_of_three_parts_round_trips(
        alg in "[A-Z]{2}[0-9]{3}", signature in "[A-Za-z0-9_-]{1,90}", life in 10_i64..100_000,
    ) {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
        let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"aud":"a","exp":{}}}"#, in_seconds(life)));
        let text = format!("{header}.{payload}.{signature}");
        let token = id(format!("{text}\r\n")).unwrap();
        prop_assert_eq!(token.reveal(), text);
    }
}

#[test]
fn no_response_in_the_fuzz_corpus_breaks_an_invariant() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus/token");
    for entry in std::fs::read_dir(corpus).unwrap() {
        fuzz_answers(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}
