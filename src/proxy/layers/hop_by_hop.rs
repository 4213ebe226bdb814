//! Layer 6, **HopByHop**: removes hop-by-hop headers in both directions (RFC 9110, 7.6.1).
//!
//! `TE: trailers` and `Trailer` are kept, because gRPC and HTTP/1.1 trailers need them. An upgrade is kept and marked.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::service::Service;
use pin_project_lite::pin_project;
use tower::Layer;
use tower::layer::layer_fn;

use crate::error::{Error, ErrorKind};
use crate::header_lookup;
use crate::proxy::headers::grpc::is_grpc;
use crate::proxy::headers::hop_by_hop::{
    is_chunked_at_most, strip_request, strip_response, wants_upgrade,
};
use crate::proxy::headers::length::normalize_length;
use crate::proxy::headers::proxy_status;
use crate::proxy::request::body::ResponseBody;
use crate::proxy::request::{Located, Stripped};
use crate::proxy::service::{LayerResult, ProxyService};

/// The layer that removes hop-by-hop headers.
#[derive(Clone, Debug)]
pub(crate) struct HopByHop<S> {
    inner: S,
}

pin_project! {
    /// The future of [`HopByHop`].
    #[derive(Debug)]
    pub(crate) struct HopByHopFuture<F> {
        #[pin]
        inner: F,
        // The app speaks HTTP/1.1 and accepts trailers.
        announce: bool,
        // The app speaks HTTP/2.
        http2: bool,
        // The app speaks HTTP/1.0, and the response has content.
        http10: bool,
    }
}

// === impl HopByHop ===

impl<S> HopByHop<S> {
    pub(crate) fn layer() -> impl Layer<S, Service = Self> + Clone {
        layer_fn(|inner| Self { inner })
    }
}

impl<S: ProxyService<Stripped>> Service<Located> for HopByHop<S> {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = HopByHopFuture<S::Future>;

    fn call(&self, located: Located) -> Self::Future {
        let Located {
            mut request,
            record,
            destination,
            by_service_name,
        } = located;
        let version = request.version();
        let wants_upgrade = version == Version::HTTP_11 && wants_upgrade(request.headers());
        if request.method() != Method::CONNECT {
            let named = strip_request(version, request.headers_mut(), wants_upgrade);
            request.body_mut().remove_trailers(named);
        }
        HopByHopFuture {
            http2: version == Version::HTTP_2,
            http10: version == Version::HTTP_10 && request.method() != Method::HEAD,
            announce: version == Version::HTTP_11
                && header_lookup::has(request.headers(), &header::TE),
            inner: self.inner.call(Stripped {
                request,
                record,
                destination,
                by_service_name,
                wants_upgrade,
            }),
        }
    }
}

impl<F> Future for HopByHopFuture<F>
where
    F: Future<Output = LayerResult>,
{
    type Output = LayerResult;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LayerResult> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        // Each hop has its own version (RFC 9110, 2.5). hyper would answer in the upstream's.
        *response.version_mut() = Version::HTTP_11;
        proxy_status::drop_own(response.headers_mut());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            if !is_chunked_at_most(response.headers()) {
                return Poll::Ready(Err(Error::new(
                    ErrorKind::HttpProtocol,
                    "the response has a transfer coding that was not requested",
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
            if *this.http10 && !has_length(&response) {
                // The end of the connection ends the content (RFC 9112, 6.3). For another version, hyper would announce
                // `keep-alive`.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
                *response.version_mut() = Version::HTTP_10;
            }
            if *this.http2 {
                header_lookup::detach(response.headers_mut());
            } else if response.status() == StatusCode::NOT_MODIFIED
                && let Some(length) = described_length(&response)
            {
                *response.body_mut() = ResponseBody::Described(length);
            }
        }
        Poll::Ready(Ok(response))
    }
}

/// Returns the length of content that the upstream describes and does not send.
fn described_length(response: &Response<ResponseBody>) -> Option<u64> {
    let length = response.headers().get(header::CONTENT_LENGTH)?;
    let length = length.to_str().ok()?.parse().ok()?;
    response.body().is_end_stream().then_some(length)
}

/// Returns whether an HTTP/1.0 client knows the length of the content from the head.
fn has_length(response: &Response<ResponseBody>) -> bool {
    let is_empty = matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    is_empty
        || response.headers().contains_key(header::CONTENT_LENGTH)
        || response.body().size_hint().exact().is_some()
}

/// Announces the trailers of a gRPC response. To HTTP/1.1, hyper writes only announced trailers, and an HTTP/2 upstream
/// announces none.
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
