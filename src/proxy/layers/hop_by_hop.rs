//! Layer 7, **HopByHop**: what is meant for this connection stops here (RFC 9110, 7.6.1), both ways.
//!
//! `te: trailers` and `Trailer` go on, since gRPC and HTTP/1.1 trailers need them; an upgrade is marked and carried.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;

use crate::error::{Error, ErrorKind};
use crate::proxy::headers::grpc::is_grpc;
use crate::proxy::headers::hop_by_hop::{
    is_chunked_at_most, strip_request, strip_response, wants_upgrade,
};
use crate::proxy::headers::length::normalize_length;
use crate::proxy::headers::proxy_status;
use crate::proxy::request::Call;
use crate::proxy::request::body::Body;
use crate::proxy::service::{Outcome, ProxyService};

/// Makes [`HopByHop`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct HopByHopLayer;

/// See the module.
#[derive(Clone, Debug)]
pub struct HopByHop<S> {
    inner: S,
}

pin_project! {
    /// The answer on its way back.
    #[derive(Debug)]
    pub struct HopByHopFuture<F> {
        #[pin]
        inner: F,
        // The app reads HTTP/1.1 and wants trailers.
        announce: bool,
    }
}

impl<S> Layer<S> for HopByHopLayer {
    type Service = HopByHop<S>;

    fn layer(&self, inner: S) -> HopByHop<S> {
        HopByHop { inner }
    }
}

impl<S: ProxyService<Call>> Service<Call> for HopByHop<S> {
    type Response = Response<Body>;
    type Error = Error;
    type Future = HopByHopFuture<S::Future>;

    fn call(&self, mut call: Call) -> Self::Future {
        call.upgrade =
            call.request.version() == Version::HTTP_11 && wants_upgrade(call.request.headers());
        if call.request.method() != Method::CONNECT {
            let version = call.request.version();
            let named = strip_request(version, call.request.headers_mut(), call.upgrade);
            call.request.body_mut().remove_trailers(named);
        }
        let announce = call.request.version() == Version::HTTP_11
            && call.request.headers().contains_key(header::TE);
        HopByHopFuture {
            announce,
            inner: self.inner.call(call),
        }
    }
}

impl<F> Future for HopByHopFuture<F>
where
    F: Future<Output = Outcome>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        // Each hop speaks its own version (RFC 9110, 2.5): hyper would answer in the upstream's.
        *response.version_mut() = Version::HTTP_11;
        proxy_status::drop_own(response.headers_mut());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if !is_chunked_at_most(response.headers()) {
                return Poll::Ready(Err(Error::new(
                    ErrorKind::HttpProtocol,
                    "the upstream answers in a transfer coding that was not asked for",
                )));
            }
            let named = strip_response(response.headers_mut());
            response.body_mut().remove_trailers(named);
            if let Err(error) = normalize_length(response.headers_mut()) {
                let detail = format!("the upstream's {error}");
                return Poll::Ready(Err(Error::new(ErrorKind::HttpProtocol, detail)));
            }
            if *this.announce {
                announce_grpc_trailers(response.headers_mut());
            }
        }
        Poll::Ready(Ok(response))
    }
}

/// Announces a gRPC response's trailers: hyper writes only announced ones to HTTP/1.1, and an HTTP/2 upstream announces none.
fn announce_grpc_trailers(headers: &mut HeaderMap) {
    if is_grpc(headers)
        && !headers.contains_key(header::TRAILER)
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(
            header::TRAILER,
            HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin"),
        );
    }
}
