//! Malformed requests of an app (RFC 9113, 8.1.1): the error of one stream does not end the others, as far as h2
//! permits.

use super::frames::{GOAWAY, HEADERS, RST_STREAM, Raw, frame, get, literal, named};
use super::{HOST, metric, started};

const DATA: u8 = 0;

const ERRORS: &str = "sidentity_proxy_errors_total{error=\"http_request_error\"}";
const REJECTED: &str =
    "sidentity_requests_total{code=\"400\",credential=\"none\",listener=\"proxy\"}";

/// Returns the pseudo-header fields of a `GET`, without these.
fn head(without: u8) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, field) in [
        (2, vec![0x82]),
        (6, vec![0x86]),
        (4, literal(4, "/")),
        (1, literal(1, HOST)),
    ] {
        if name != without {
            block.extend(field);
        }
    }
    block
}

/// Sends bytes for stream 1 and then a valid request on stream 3. Returns whether stream 3 is answered, and the error
/// code that ended stream 1 or the connection.
async fn after(sidecar: std::net::SocketAddr, bytes: &[u8]) -> (bool, Option<u32>) {
    let mut raw = Raw::open(sidecar).await;
    raw.write(bytes).await;
    raw.write(&get(3, "/good")).await;
    let mut code = None;
    loop {
        let Some(next) = raw.next().await else {
            return (false, code);
        };
        let ended = |payload: &[u8]| Some(u32::from_be_bytes(payload.try_into().unwrap()));
        match (next.kind, next.stream) {
            (RST_STREAM, 1) => code = ended(&next.payload),
            (GOAWAY, _) => code = ended(&next.payload[4..8]),
            (HEADERS, 3) => return (true, code),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_malformed_request_ends_its_own_stream() {
    let (service, _metadata, sidecar) = started().await;
    tokio::spawn(async move {
        loop {
            service.next().await.answer("good");
        }
    });
    let with = |field: Vec<u8>| [head(0), field].concat();
    let mut count = 0;
    for (what, bytes) in [
        (
            "a connection-specific field",
            frame(HEADERS, 0x5, 1, &with(named("connection", "close"))),
        ),
        ("no :method", frame(HEADERS, 0x5, 1, &head(2))),
        ("no :path", frame(HEADERS, 0x5, 1, &head(4))),
        ("no :scheme", frame(HEADERS, 0x5, 1, &head(6))),
        (
            "a pseudo-header after a field",
            frame(
                HEADERS,
                0x5,
                1,
                &[head(4), named("x-a", "b"), literal(4, "/")].concat(),
            ),
        ),
        (
            "a response's pseudo-header",
            frame(HEADERS, 0x5, 1, &with(vec![0x88])),
        ),
        (
            "a TE other than trailers",
            frame(HEADERS, 0x5, 1, &with(named("te", "gzip"))),
        ),
        (
            "an invalid Content-Length",
            frame(HEADERS, 0x4, 1, &with(named("content-length", "x"))),
        ),
    ] {
        let (answered, code) = after(sidecar.proxy(), &bytes).await;
        println!("{what}: {answered} {code:?}");
        assert!(answered, "{what}: the connection was closed ({code:?})");
        count += 1;
        let counted = format!("{ERRORS} {count}");
        metric(&sidecar, &counted).await;
        let rejected = format!("{REJECTED} {count}");
        metric(&sidecar, &rejected).await;
    }
    sidecar
        .logged(|line| {
            line["error"] == "http_request_error"
                && line["httpRequest"]["status"] == 400
                && line["httpRequest"]["protocol"] == "HTTP/2"
                && line["listener"] == "proxy"
        })
        .await;
}

/// A request that reached the proxy is counted there once, whatever h2 does with its stream later.
#[tokio::test]
async fn a_request_that_is_malformed_after_its_head_is_counted_once() {
    let (service, _metadata, sidecar) = started().await;
    tokio::spawn(async move {
        loop {
            service.next().await.answer("good");
        }
    });
    let short = [head(0), named("content-length", "1")].concat();
    let longer = [frame(HEADERS, 0x4, 1, &short), frame(DATA, 1, 1, b"longer")];
    for round in 1..=5 {
        let (answered, code) = after(sidecar.proxy(), &longer.concat()).await;
        assert!(answered, "{code:?}");
        let mut requests = 0;
        for _ in 0..2000 {
            let response = super::get(sidecar.admin(), "/metrics").await;
            let metrics = super::support::app::text(&response).to_owned();
            requests = metrics
                .lines()
                .filter(|line| line.starts_with("sidentity_requests_total{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .sum();
            if requests >= 2 * round {
                break;
            }
        }
        assert_eq!(requests, 2 * round);
    }
}

#[tokio::test]
async fn a_field_list_over_the_limit_is_counted_and_logged() {
    let (service, _metadata, sidecar) = started().await;
    tokio::spawn(async move {
        loop {
            service.next().await.answer("good");
        }
    });
    // The same field repeatedly, from the dynamic table: 300 kB of fields in few bytes.
    let field = [vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e], vec![b'v'; 4000]].concat();
    let block = [head(0), field, vec![0xbe; 80]].concat();
    for count in 1..=3 {
        let (answered, _) = after(sidecar.proxy(), &frame(HEADERS, 0x5, 1, &block)).await;
        assert!(answered);
        let counted = format!("{ERRORS} {count}");
        metric(&sidecar, &counted).await;
        let rejected = format!(
            "sidentity_requests_total{{code=\"431\",credential=\"none\",listener=\"proxy\"}} {count}"
        );
        metric(&sidecar, &rejected).await;
    }
    sidecar
        .logged(|line| {
            line["error"] == "http_request_error"
                && line["httpRequest"]["status"] == 431
                && line["httpRequest"]["protocol"] == "HTTP/2"
        })
        .await;
}

/// h2 0.4 ends the connection in these cases. RFC 9113 allows this only for the second. Each is counted.
#[tokio::test]
async fn a_connection_error_found_by_h2_is_counted() {
    let (service, _metadata, sidecar) = started().await;
    tokio::spawn(async move {
        loop {
            service.next().await.answer("good");
        }
    });
    let upper = frame(HEADERS, 0x5, 1, &[head(0), named("X-Upper", "a")].concat());
    let late = [get(1, "/"), frame(DATA, 1, 1, b"late")].concat();
    for (what, bytes) in [
        ("an upper-case name", upper),
        ("DATA after END_STREAM", late),
    ] {
        let ended = after(sidecar.proxy(), &bytes).await;
        println!("{what}: {ended:?}");
        assert!(
            !ended.0,
            "{what}: h2 has become milder, so can the documents"
        );
    }
    metric(
        &sidecar,
        "sidentity_proxy_errors_total{error=\"http_request_error\"} 2",
    )
    .await;
}
