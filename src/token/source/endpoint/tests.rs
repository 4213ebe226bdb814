use std::net::SocketAddr;
use std::sync::Mutex;

use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Env, RawConfig, load};
use crate::token::source::transport::open;

/// Sends the next of these responses for each request, and records the requests.
async fn server(answers: Vec<String>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&requests);
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            // The requests of these tests end with the bytes of their body.
            while !bytes.ends_with(b"END") && !bytes.ends_with(b"END\"}") {
                if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                    break;
                }
            }
            record
                .lock()
                .unwrap()
                .push(String::from_utf8(bytes).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, requests)
}

fn client() -> EndpointClient {
    let config = load(&RawConfig::default(), &Env::default()).unwrap();
    let timeout = Duration::from_secs(8);
    EndpointClient::new(
        open::<Full<Bytes>>,
        &config.upstream,
        timeout,
        Arc::default(),
    )
    .unwrap()
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn refused(status: u16, body: &str) -> AttemptError {
    let answer = Response::builder()
        .status(status)
        .body(Bytes::from(body.to_owned()))
        .unwrap();
    success(answer, &RequestSecrets::default()).unwrap_err()
}

#[tokio::test]
async fn a_form_is_posted_url_encoded() {
    let (address, requests) = server(vec![answer("200 OK", "{}")]).await;
    let url = format!("http://{address}/token?a=b");
    let fields = [("grant_type", "urn:x y"), ("z", "é&="), ("last", "END")];
    let body = client().post_form(&url, HeaderMap::new(), &fields).await;
    assert_eq!(&body.unwrap()[..], b"{}");
    let request = requests.lock().unwrap()[0].clone();
    assert!(
        request.starts_with("POST /token?a=b HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"));
    assert!(request.contains(&format!("host: {address}\r\n")));
    assert!(request.ends_with("\r\n\r\ngrant_type=urn%3Ax%20y&z=%C3%A9%26%3D&last=END"));
}

#[tokio::test]
async fn json_is_posted_with_a_bearer_token() {
    let (address, requests) = server(vec![answer("200 OK", "{}")]).await;
    let url = format!("http://{address}/v1");
    let headers = bearer("T").unwrap();
    assert!(headers[header::AUTHORIZATION].is_sensitive());
    // The server of these tests waits for this end.
    let body = json!({"a": "END"});
    let (client, url) = (client(), url.as_str());
    let posted = client.post_json(&url, headers, &body);
    assert_eq!(&posted.await.unwrap()[..], b"{}");
    let request = requests.lock().unwrap()[0].clone();
    assert!(request.contains("content-type: application/json\r\n"));
    assert!(request.contains("authorization: Bearer T\r\n"));
    assert!(request.ends_with("\r\n\r\n{\"a\":\"END\"}"));
    assert!(bearer("a\nb").is_none());
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/");
    let error = client()
        .post_form(&url, HeaderMap::new(), &[])
        .await
        .unwrap_err();
    assert_eq!(error.fault, TokenFault::Unreachable);
    assert!(error.retry, "{error:?}");
}

#[tokio::test]
async fn only_a_certificate_error_gets_the_advice_about_upstream_ca() {
    let client = client();
    let junk = "SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned();
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1 << 20));
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40);
    for answer in [junk, long, interim] {
        let (address, _) = server(vec![answer]).await;
        let url = format!("http://{address}/");
        let priority = FetchPriority::high();
        let fetched = client.fetch(
            "an access token",
            &url,
            &priority,
            || client.post_form(&url, HeaderMap::new(), &[("last", "END")]),
            |_| None,
        );
        let error = fetched.await.unwrap_err();
        assert_eq!(error.fault(), TokenFault::WrongServer, "{error:?}");
        let detail = error.detail();
        assert!(
            !detail.contains("TLS") && !detail.contains("--upstream-ca"),
            "{detail}"
        );
        assert!(
            detail.ends_with("check the port, and any proxy or firewall in between"),
            "{detail}"
        );
    }
    for (kind, advised) in [
        (ErrorKind::CertificateInvalid, true),
        (ErrorKind::TlsProtocol, false),
        (ErrorKind::HttpProtocol, false),
    ] {
        let advice = advice(&no_answer(&Error::new(kind, "no"))).unwrap();
        assert_eq!(advice.contains("--upstream-ca"), advised, "{advice}");
    }
}

#[tokio::test]
async fn a_truncated_response_is_retried_and_an_oversized_one_is_not() {
    let torn = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned();
    let long = answer("200 OK", &"x".repeat(response_body::LONGEST + 1));
    for (answer, fault, retry) in [
        (torn, TokenFault::Failing, true),
        (long, TokenFault::Malformed, false),
    ] {
        let (address, _) = server(vec![answer]).await;
        let url = format!("http://{address}/");
        let fields = [("last", "END")];
        let error = client().post_form(&url, HeaderMap::new(), &fields).await;
        let error = error.unwrap_err();
        assert_eq!((error.fault, error.retry), (fault, retry), "{error:?}");
    }
}

#[tokio::test]
async fn a_fetch_is_retried_and_its_error_names_the_endpoint() {
    let busy = answer("503 Service Unavailable", r#"{"error":"internal_failure"}"#);
    let limited = answer("429 Too Many Requests", "");
    let no = answer(
        "400 Bad Request",
        r#"{"error":"invalid_grant","error_description":"Bad Request"}"#,
    );
    let (address, requests) = server(vec![busy, limited, no]).await;
    let url = format!("http://{address}/token");
    let client = client();
    let priority = FetchPriority::high();
    let fetched = client.fetch(
        "an access token",
        &url,
        &priority,
        || client.post_form(&url, HeaderMap::new(), &[("last", "END")]),
        |error| (error.code.as_deref() == Some("invalid_grant")).then(|| "log in".to_owned()),
    );
    let error = fetched.await.unwrap_err();
    assert_eq!(
        error.detail(),
        format!(
            "token: cannot get an access token from {url}: answered 400 Bad Request: \"invalid_grant\" \"Bad Request\" \
             (3 attempts); log in"
        )
    );
    assert_eq!(requests.lock().unwrap().len(), 3);
}

#[test]
fn the_error_of_the_server_is_quoted_with_its_code() {
    for (body, code, said) in [
        (
            json!({"error": "invalid_grant", "error_description": "reauth", "error_subtype": "invalid_rapt"}),
            Some("invalid_rapt"),
            r#""invalid_grant" "invalid_rapt" "reauth""#,
        ),
        (
            json!({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no\nway"}}),
            Some("PERMISSION_DENIED"),
            r#""PERMISSION_DENIED" "no way""#,
        ),
        (json!({"error": "eyJ.SECRET"}), None, r#""[…]""#),
        (json!({"error": 1}), None, ""),
    ] {
        let error = refused(400, &body.to_string());
        assert_eq!(error.code.as_deref(), code);
        let reason = match said {
            "" => "answered 400 Bad Request".to_owned(),
            said => format!("answered 400 Bad Request: {said}"),
        };
        assert_eq!(error.reason, reason);
        assert!(!error.retry);
    }
    let page = refused(502, "<html><title>Error 502</title>");
    assert_eq!(page.reason, "answered 502 Bad Gateway: \"Error 502\"");
    assert!(page.retry);
}

#[test]
fn a_redirect_is_an_error() {
    let error = refused(302, "");
    assert_eq!(
        error.reason,
        "answered 302 Found: redirects are not followed"
    );
    assert!(!error.retry);
}

#[tokio::test]
async fn only_https_and_http_urls_are_accepted() {
    let request = Request::post("ftp://a.example/")
        .body(Bytes::new())
        .unwrap();
    assert!(client().send(request).await.is_err());
}

#[test]
fn the_body_of_a_success_other_than_200_is_not_quoted() {
    for status in [201, 202, 203, 206] {
        let answer = Response::builder()
            .status(status)
            .body(Bytes::from("opaque-token"));
        let error = success(answer.unwrap(), &RequestSecrets::default()).unwrap_err();
        assert!(!error.reason.contains("opaque"), "{}", error.reason);
    }
}
