//! Any bytes of a client get a response.

use std::sync::LazyLock;
use std::time::SystemTime;

use http::Request;
use proptest::prelude::*;
use sidentity::emulator::google::Google;

static GOOGLE: LazyLock<Google> = LazyLock::new(super::client::google);

const URLS: [&str; 9] = [
    "https://oauth2.googleapis.com/token",
    "https://sts.googleapis.com/v1/token",
    "https://sts.googleapis.com/v1/oauthtoken",
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b.c:signJwt",
    "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/:",
    "https://sts.us-east-1.amazonaws.com/",
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "http://127.0.0.1/actions/id-token?audience=%",
    "https://storage.googleapis.com/",
];

proptest! {
    #[test]
    fn no_random_request_gets_a_token_or_breaks_the_server(
        url in prop::sample::select(&URLS[..]),
        method in "GET|POST|PUT",
        media in "application/(x-www-form-urlencoded|json)",
        authorization in "(Bearer|Basic) [!-~]{0,40}",
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "(grant_type=(refresh_token|urn:ietf:params:oauth:grant-type:jwt-bearer)&)?[a-z_]{1,12}=[!-~]{0,60}"
                .prop_map(String::into_bytes),
            r#"\{"(scope|payload|audience)": ?("[!-~]{0,9}"|\[\]|1)\}"#.prop_map(String::into_bytes),
        ],
    ) {
        let request = Request::builder()
            .method(&*method)
            .uri(url)
            .header("content-type", media)
            .header("authorization", authorization)
            .body(body.into())
            .unwrap();
        let response = GOOGLE.respond(&request, SystemTime::now());
        prop_assert!(response.status().is_client_error(), "{response:?}");
    }

    #[test]
    fn no_assertion_breaks_the_server(header in ".{0,40}", claims in ".{0,80}", token in "[!-~]{0,80}") {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        for assertion in [token, format!("{header}.{claims}.AAAA")] {
            let fields = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", &*assertion),
            ];
            let (status, _) = super::client::form(&GOOGLE, URLS[0], &fields);
            prop_assert_eq!(status, 400);
        }
    }
}
