//! These tests use their own clock: every call passes the time.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::signer::{NONCE, PREFIX};
use super::super::verifier::Refused;
use super::*;

const AUDIENCE: &str = "https://billing-424242.us-central1.run.app";

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn after(seconds: u64) -> SystemTime {
    start() + Duration::from_secs(seconds)
}

fn mint() -> TokenIssuer {
    mint_of(Identity::default())
}

fn mint_of(identity: Identity) -> TokenIssuer {
    TokenIssuer::new(identity, Arc::new(TokenSigner::new().unwrap()))
}

fn id() -> RequestedToken {
    RequestedToken::Id {
        audience: AUDIENCE.to_owned(),
        full: true,
    }
}

#[test]
fn a_token_is_reissued_until_four_minutes_are_left() {
    let mint = mint();
    for wanted in [RequestedToken::access(""), id()] {
        let first = mint.issue(&wanted, start()).unwrap();
        let last = mint.issue(&wanted, after(3360)).unwrap();
        let next = mint.issue(&wanted, after(3361)).unwrap();
        assert_eq!(last.token, first.token);
        assert_ne!(next.token, first.token);
        assert_eq!(next.remaining(unix(after(3361))), 3600);
    }
}

#[test]
fn the_remaining_lifetime_counts_down() {
    let mint = mint();
    let left = |at| {
        mint.issue(&RequestedToken::access(""), at)
            .unwrap()
            .remaining(unix(at))
    };
    assert_eq!(left(start()), 3600);
    assert_eq!(left(after(1)), 3599);
    assert_eq!(left(after(3360)), 240);
}

#[test]
fn a_lifetime_under_the_margin_gives_a_new_token_each_time() {
    let mint = mint_of(Identity {
        lifetime: "30s".parse().unwrap(),
        ..Identity::default()
    });
    let first = mint.issue(&RequestedToken::access(""), start()).unwrap();
    let second = mint.issue(&RequestedToken::access(""), start()).unwrap();
    assert_eq!(first.remaining(unix(start())), 30);
    assert_ne!(first.token, second.token);
}

#[test]
fn scopes_in_another_order_share_a_token() {
    let mint = mint();
    let token = |scopes| {
        mint.issue(&RequestedToken::access(scopes), start())
            .unwrap()
            .token
    };
    assert_eq!(token("a,b"), token("b,a"));
    assert_eq!(token("a,b"), token("b a,b"));
    assert_ne!(token("a,b"), token("a"));
    assert_ne!(token("a"), token(""));
}

#[test]
fn each_audience_and_format_has_its_own_token() {
    let mint = mint();
    let token = |audience: &str, full| {
        let wanted = RequestedToken::Id {
            audience: audience.to_owned(),
            full,
        };
        mint.issue(&wanted, start()).unwrap().token
    };
    assert_ne!(token("a", true), token("b", true));
    assert_ne!(token("a", true), token("a", false));
}

#[test]
fn the_verifier_accepts_a_token_of_the_emulator_until_it_expires() {
    let mint = mint();
    let verifier = mint.signer.verifier();
    let token = mint.issue(&id(), start()).unwrap().token;
    let claims = verifier.verify(&token, AUDIENCE, after(3599)).unwrap();
    assert_eq!(claims.aud, AUDIENCE);
    assert_eq!(claims.iss, ISSUER);
    assert_eq!(claims.exp - claims.iat, 3600);
    assert_eq!(claims.azp, claims.sub);
    assert_eq!(claims.sub.len(), 21);
    assert_eq!(claims.email_verified, Some(true));
    assert_eq!(
        verifier.verify(&token, AUDIENCE, after(3600)),
        Err(Refused::Expired)
    );
}

#[test]
fn the_verifier_rejects_another_audience_key_or_issuer() {
    let mint = mint();
    let verifier = mint.signer.verifier();
    let token = mint.issue(&id(), start()).unwrap().token;
    let refusal = |token: &str| verifier.verify(token, AUDIENCE, start()).unwrap_err();

    assert_eq!(
        verifier.verify(&token, "https://other.example", start()),
        Err(Refused::Audience(AUDIENCE.to_owned()))
    );
    let stranger = mint_of(Identity::default());
    assert_eq!(
        refusal(&stranger.issue(&id(), start()).unwrap().token),
        Refused::Signature
    );
    let mut parts: Vec<&str> = token.split('.').collect();
    let forged = URL_SAFE_NO_PAD.encode(r#"{"aud":"x"}"#);
    parts[1] = &forged;
    assert_eq!(refusal(&parts.join(".")), Refused::Signature);
    let unsigned = format!("{}.{}.", parts[0], forged);
    assert_eq!(refusal(&unsigned), Refused::Signature);
    for text in ["", "a", "a.b", "a.b.c.d", "ä.b.c"] {
        assert_eq!(refusal(text), Refused::Malformed, "{text}");
    }
    let mut claims = verifier.verify(&token, AUDIENCE, start()).unwrap();
    claims.iss = "https://issuer.example".to_owned();
    assert_eq!(
        refusal(&mint.signer.id_token(&claims).unwrap()),
        Refused::Issuer
    );
}

#[test]
fn only_issued_access_tokens_are_valid_and_only_until_they_expire() {
    let mint = mint();
    let verifier = mint.signer.verifier();
    let token = mint
        .issue(&RequestedToken::access(""), start())
        .unwrap()
        .token;
    assert!(token.starts_with(PREFIX));
    assert!(verifier.knows_access_token(&token, after(3599)));
    assert!(!verifier.knows_access_token(&token, after(3600)));

    let stranger = mint_of(Identity::default()).signer.verifier();
    assert!(!stranger.knows_access_token(&token, start()));
    let mut sealed = URL_SAFE_NO_PAD
        .decode(token.strip_prefix(PREFIX).unwrap())
        .unwrap();
    sealed[NONCE] ^= 1;
    let later = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed));
    for forged in [
        "",
        PREFIX,
        "ya29.c.AAAA",
        token.trim_start_matches('y'),
        &later,
    ] {
        assert!(!verifier.knows_access_token(forged, start()), "{forged}");
    }
}

#[test]
fn the_debug_output_has_no_secrets() {
    let mint = mint();
    let token = mint
        .issue(&RequestedToken::access(""), start())
        .unwrap()
        .token;
    let text = format!("{mint:?} {:?}", mint.signer.verifier());
    assert!(!text.contains(&*token));
    assert!(!text.contains("seal") && !text.contains("pair"), "{text}");
}
