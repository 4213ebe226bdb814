use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::{Freshness, Token};
use crate::policy::AuthScheme;
use crate::token::clock::Now;

fn token(value: &str, life: Duration) -> Option<Token> {
    let now = Now::now();
    Token::new(value, now.after(life), now)
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_token_is_sent_as_bearer_or_as_the_password_of_oauth2accesstoken() {
    let token = token("ya29.SECRET", HOUR).unwrap();
    assert_eq!(token.header(AuthScheme::Bearer), "Bearer ya29.SECRET");
    let basic = STANDARD.encode("oauth2accesstoken:ya29.SECRET");
    for _ in 0..2 {
        let header = token.header(AuthScheme::Basic);
        assert_eq!(header.to_str().unwrap(), format!("Basic {basic}"));
    }
    assert_eq!(token.reveal(), "ya29.SECRET");
}

#[test]
fn a_token_is_in_no_debug_output() {
    let token = token("SECRET", HOUR).unwrap();
    let headers = [AuthScheme::Bearer, AuthScheme::Basic].map(|scheme| token.header(scheme));
    let shown = format!("{token:?} {headers:?}");
    assert!(
        !shown.contains("SECRET") && !shown.contains("b2F1dGg"),
        "{shown}"
    );
    assert!(headers.iter().all(http::HeaderValue::is_sensitive));
}

#[test]
fn a_token_with_a_line_break_or_a_space_is_rejected() {
    for value in ["", "a b", "a\r\nx: y", "a\n", "\u{e9}", "a\0", "a\t"] {
        assert!(token(value, HOUR).is_none(), "{value:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_use_of_a_token_depends_on_its_remaining_lifetime() {
    let now = Now::now();
    let at = |left: u64| {
        let life = Duration::from_millis(left);
        Token::new("T", now.after(life), now)
            .unwrap()
            .freshness(now)
    };
    assert_eq!(at(225_001), Freshness::Fresh);
    assert_eq!(at(225_000), Freshness::Stale);
    assert_eq!(at(30_000), Freshness::Stale);
    assert_eq!(at(29_999), Freshness::Expiring);
    assert_eq!(at(5_001), Freshness::Expiring);
    assert_eq!(at(5_000), Freshness::Expired);
    assert_eq!(at(0), Freshness::Expired);
}

#[test]
fn tokens_are_compared_by_their_text() {
    let (a, b) = (token("A", HOUR).unwrap(), token("B", HOUR).unwrap());
    assert!(a.same_value(&token("A", 2 * HOUR).unwrap()));
    assert!(!a.same_value(&b));
}

proptest! {
    #[test]
    fn every_valid_token_round_trips(value in ".{0,64}") {
        let visible = !value.is_empty() && value.bytes().all(|b| (0x21..=0x7e).contains(&b));
        match token(&value, HOUR) {
            Some(token) => {
                prop_assert!(visible);
                prop_assert_eq!(token.reveal(), value);
            }
            None => prop_assert!(!visible),
        }
    }
}
