use proptest::prelude::*;

use super::words;

#[test]
fn an_error_message_of_a_server_is_quoted_on_one_short_line() {
    let quoted = words(b"Unauthenticated\n\x1b[31m  try\x07 again\r\n").unwrap();
    assert_eq!(quoted, "Unauthenticated [31m try again");
    assert_eq!(words(b" \r\n"), None);
    assert_eq!(
        words("é ".repeat(500).as_bytes()).unwrap().chars().count(),
        200
    );
}

#[test]
fn only_the_title_of_an_html_error_is_quoted() {
    let page =
        b"<!DOCTYPE html><html><title>Error 404 (Not Found)!!1</title><style>*{margin:0}</style>";
    assert_eq!(words(page).unwrap(), "Error 404 (Not Found)!!1");
}

#[test]
fn text_that_could_be_a_token_is_not_quoted() {
    let long = "x".repeat(65);
    for body in [
        "1//SECRET was revoked",
        "GOCSPX-SECRET does not match",
        "quota for ya29.SECRET exceeded",
        "bad eyJSECRET.eyJSECRET.SECRET",
        &format!("SECRET{long} is bad"),
    ] {
        let quoted = words(body.as_bytes()).unwrap();
        assert!(
            quoted.contains("[…]") && !quoted.contains("SECRET"),
            "{quoted}"
        );
    }
    assert_eq!(words(br#"{"access_token":"SECRET","error":"x"}"#), None);
}

proptest! {
    #[test]
    fn a_quoted_error_is_always_printable(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Some(words) = words(&body) {
            prop_assert!(words.chars().count() <= 200);
            prop_assert!(!words.contains(char::is_control));
        }
    }
}
