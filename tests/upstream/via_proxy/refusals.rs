//! Proxies that refuse, and errors that repeat no credentials.

use super::*;

#[tokio::test]
async fn a_proxy_that_requires_credentials_is_an_error_without_them() {
    let server = Honest::start(Manner::default()).await;
    let proxy = Proxy::asking(server.address, "Basic other").await;
    for (url, says) in [
        (proxy.url(), "requires credentials"),
        (
            format!("http://user:s3cret@{}", proxy.address),
            "does not accept the credentials",
        ),
    ] {
        let client = setting(proxy.address, None)
            .with(|setting| setting.config.proxy = way_out(&url, ""))
            .client();
        let url = proxy.url();
        for target in [https(), forwarded()] {
            let error = client.send(&target, get("/")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ProxyRefused);
            for words in ["407", says, "api.example", url.as_str()] {
                assert!(
                    error.detail().contains(words),
                    "{words}: {}",
                    error.detail()
                );
            }
            for secret in ["s3cret", "dXNlcj"] {
                assert!(!format!("{error:?}").contains(secret), "{error:?}");
            }
        }
    }
    assert!(server.seen().is_empty());
}

/// The user `scout` with the password `s3cret pw`, and the forms in which proxies may repeat them.
const SECRETS: [&str; 8] = [
    "scout",
    "c2NvdXQ6czNjcmV0IHB3", // both
    "c2NvdXQ",              // the user
    "czNjcmV0IHB3",         // the password
    "s3cret%20pw",
    "s3cret+pw",
    "SCOUT",
    "Scout",
];

#[tokio::test]
async fn a_refusal_that_repeats_the_credentials_is_redacted() {
    let port = Port::open().await;
    let way_out = way_out(&format!("http://scout:s3cret%20pw@{}", port.address()), "");
    let setting = setting(port.address(), None);
    let client = setting
        .with(|setting| setting.config.proxy = way_out)
        .client();
    for secret in SECRETS
        .iter()
        .map(|secret| (*secret).to_owned())
        .chain(["s3cret pw".to_owned()])
    {
        let length = secret.len() + 6;
        for answer in [
            format!("HTTP/1.1 403 No {secret}!\r\nContent-Length: 0\r\n\r\n"),
            format!("HTTP/1.1 403 No\r\nContent-Length: {length}\r\n\r\nuser={secret}!"),
            format!("HTTP/1.1 407 No\r\nProxy-Authenticate: {secret} realm=\"x\"\r\n\r\n"),
            format!("HTTP/1.1 407 No\r\nProxy-Authenticate: Digest username=\"{secret}\"\r\n\r\n"),
            format!(
                "HTTP/1.1 502 No\r\nProxy-Status: p; details=\"{secret}\"\r\nX-User: {secret}\r\n\r\n"
            ),
        ] {
            let target = https();
            let asked = client.send(&target, get("/"));
            let (failed, _wire) = tokio::join!(asked, answer_one(&port, &answer));
            let error = failed.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ProxyRefused, "{answer}");
            let said = format!("{error:?} {error}").to_ascii_lowercase();
            assert!(
                !said.contains(&secret.to_ascii_lowercase()),
                "{answer}: {said}"
            );
        }
    }
}

/// The refusal of a request in absolute form looks like a response of the origin.
#[tokio::test]
async fn a_refusal_in_absolute_form_is_redacted() {
    let port = Port::open().await;
    let way_out = way_out(&format!("http://scout:s3cret%20pw@{}", port.address()), "");
    let setting = setting(port.address(), None);
    let client = setting
        .with(|setting| setting.config.proxy = way_out)
        .client();
    for secret in SECRETS {
        let answer = format!(
            "HTTP/1.1 403 No\r\nX-User: {secret}\r\nProxy-Status: p; details=\"{secret}\"\r\n\
             Content-Type: text/x-scout\r\nX-Other: scouting\r\nContent-Length: 0\r\n\r\n"
        );
        let target = forwarded();
        let asked = client.send(&target, get("/"));
        let (response, _wire) = tokio::join!(asked, answer_one(&port, &answer));
        let response = response.unwrap();
        assert_eq!(response.status(), 403);
        let headers = response.headers();
        for name in ["x-user", "proxy-status"] {
            assert!(!headers.contains_key(name), "{secret}: {headers:?}");
        }
        assert_eq!(headers["content-type"], "text/x-scout");
        assert_eq!(headers["x-other"], "scouting");
    }
}

#[tokio::test]
async fn a_refusal_has_the_proxys_status_and_message() {
    let port = Port::open().await;
    let client = setting(port.address(), None).client();
    let url = format!("http://{}", port.address());
    for (answer, words) in [
        (
            "HTTP/1.1 403 Filtered\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
            "403 Filtered for CONNECT",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nnot on this list!",
            "403 Forbidden not on this list!",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n",
            "502 Bad Gateway",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n",
            "302 Found",
        ),
        ("HTTP/1.0 500\r\n\r\n", "500 for"),
        ("HTTP/1.1 304 \x1b[31mred\r\n\r\n", "304  [31mred"),
    ] {
        let words = [
            words,
            "https://api.example",
            "CONNECT api.example:443",
            &url,
        ];
        fails_on(
            &client,
            &port,
            (answer, false),
            ErrorKind::ProxyRefused,
            &words,
        )
        .await;
    }
    assert_eq!(
        client.metric("sidentity_upstream_connects_total{outcome=\"error\"}"),
        6.0
    );
}
