//! An honest HTTP proxy: `CONNECT`, and requests in absolute form over HTTP/1.1. It resolves names for its clients, and
//! records their requests.
#![allow(dead_code)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::upstream::BoxError;

type AnyBody = BoxBody<Bytes, BoxError>;

/// A running proxy.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The address of each `HOST:PORT` that clients may request.
    hosts: Mutex<HashMap<String, SocketAddr>>,
    /// The address of all other hosts.
    anywhere: Option<SocketAddr>,
    /// The only accepted `Proxy-Authorization`.
    authorization: Option<String>,
    asked: Mutex<Vec<Asked>>,
    /// A status that replaces the response to a request, and its `Retry-After`.
    refusal: Mutex<Option<(StatusCode, Option<String>)>>,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The number of the connection, from 0.
    pub connection: usize,
    pub method: Method,
    /// The target of the request line.
    pub target: String,
    pub headers: HeaderMap,
}

impl Proxy {
    /// Starts a proxy that knows only these `HOST:PORT`s.
    pub async fn knowing(hosts: &[(&str, SocketAddr)]) -> Self {
        let hosts = hosts
            .iter()
            .map(|(host, address)| ((*host).to_owned(), *address));
        Self::start(Shared {
            hosts: Mutex::new(hosts.collect()),
            ..Shared::default()
        })
        .await
    }

    /// Starts a proxy that finds every host at this address.
    pub async fn to(anywhere: SocketAddr) -> Self {
        Self::start(Shared {
            anywhere: Some(anywhere),
            ..Shared::default()
        })
        .await
    }

    /// Like [`to`](Self::to), for clients with these credentials.
    pub async fn asking(anywhere: SocketAddr, authorization: &str) -> Self {
        Self::start(Shared {
            anywhere: Some(anywhere),
            authorization: Some(authorization.to_owned()),
            ..Shared::default()
        })
        .await
    }

    async fn start(shared: Shared) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(shared),
        };
        let shared = Arc::clone(&proxy.shared);
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, connection, Arc::clone(&shared)));
                connection += 1;
            }
        });
        proxy
    }

    /// Returns the proxy's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns all requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Returns `METHOD TARGET` of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        let asked = self.asked();
        let line = |asked: &Asked| format!("{} {}", asked.method, asked.target);
        asked.iter().map(line).collect()
    }

    /// Answers all later requests with this status.
    pub fn refuse(&self, status: StatusCode) {
        *self.shared.refusal.lock().unwrap() = Some((status, None));
    }

    /// Answers all later requests with 503 and this `Retry-After`.
    pub fn refuse_until(&self, retry_after: &str) {
        let refusal = (
            StatusCode::SERVICE_UNAVAILABLE,
            Some(retry_after.to_owned()),
        );
        *self.shared.refusal.lock().unwrap() = Some(refusal);
    }

    /// Answers all later requests normally.
    pub fn allow(&self) {
        *self.shared.refusal.lock().unwrap() = None;
    }
}

async fn serve(stream: TcpStream, connection: usize, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        shared.asked.lock().unwrap().push(Asked {
            connection,
            method: request.method().clone(),
            target: request.uri().to_string(),
            headers: request.headers().clone(),
        });
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<AnyBody> {
    let refusal = shared.refusal.lock().unwrap().clone();
    if let Some((status, retry_after)) = refusal {
        let mut response = said(status, "the proxy's own words");
        if let Some(value) = retry_after {
            let value = value.parse().unwrap();
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        return response;
    }
    let authorization = request.headers().get(header::PROXY_AUTHORIZATION);
    if shared.authorization.as_deref() != authorization.map(|value| value.to_str().unwrap()) {
        let mut response = said(StatusCode::PROXY_AUTHENTICATION_REQUIRED, "who are you?");
        let challenge = "Basic realm=\"proxy\"".parse().unwrap();
        response
            .headers_mut()
            .insert(header::PROXY_AUTHENTICATE, challenge);
        return response;
    }
    let Some(authority) = request.uri().authority().cloned() else {
        return said(StatusCode::BAD_REQUEST, "this is a proxy");
    };
    let host = match authority.port() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:80"),
    };
    let known = shared.hosts.lock().unwrap().get(&host).copied();
    let Some(address) = known.or(shared.anywhere) else {
        return said(StatusCode::NOT_FOUND, "no such host");
    };
    let Ok(mut upstream) = TcpStream::connect(address).await else {
        return said(StatusCode::BAD_GATEWAY, "connection refused");
    };
    if request.method() == Method::CONNECT {
        tokio::spawn(async move {
            let client = hyper::upgrade::on(request).await.unwrap();
            let mut client = TokioIo::new(client);
            let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
        });
        return Response::new(AnyBody::default());
    }
    forward(request, upstream).await
}

async fn forward(mut request: Request<Incoming>, upstream: TcpStream) -> Response<AnyBody> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(upstream))
        .await
        .unwrap();
    tokio::spawn(connection);
    request.headers_mut().remove(header::PROXY_AUTHORIZATION);
    let path = request.uri().path_and_query().cloned().unwrap();
    *request.uri_mut() = path.into();
    match sender.send_request(request).await {
        Ok(response) => response.map(|body| body.map_err(BoxError::from).boxed()),
        Err(_) => said(StatusCode::BAD_GATEWAY, "it went away"),
    }
}

fn said(status: StatusCode, text: &'static str) -> Response<AnyBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain")
        .body(body.map_err(|never| match never {}).boxed())
        .unwrap()
}
