//! The kinds of error, and the table of their responses.

use http::StatusCode;

/// The kind of an error, which decides the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// The request cannot be forwarded: its framing or its target is ambiguous.
    BadRequest,
    /// A page of another site called a route.
    CrossSite,
    /// The certificate is not trusted, expired, or for another name.
    CertificateInvalid,
    /// The upstream refused the connection.
    ConnectionRefused,
    /// The upstream closed the connection before the response was complete.
    ConnectionTerminated,
    /// No connection within the time-out.
    ConnectionTimeout,
    /// A rule or `--unmatched deny` forbids the destination.
    Denied,
    /// The name does not resolve.
    DnsFailed,
    /// The resolver did not answer in time.
    DnsTimeout,
    /// The head of the request is too large.
    HeadTooLarge,
    /// The upstream's response is not valid HTTP.
    HttpProtocol,
    /// An error of the sidecar.
    Internal,
    /// Too many connections or requests.
    LimitReached,
    /// The destination is one of the sidecar's own listeners.
    LoopDetected,
    /// The request is not valid HTTP.
    Malformed,
    /// A route was called under a name that is not its own.
    Misdirected,
    /// No route has this path's prefix.
    NoRoute,
    /// The forward proxy was called with a path, as if it were a server.
    NotAbsolute,
    /// The forward proxy requires credentials.
    ProxyAuthRequired,
    /// `--upstream-proxy` rejected the request.
    ProxyRefused,
    /// No response within `--response-timeout`.
    ResponseTimeout,
    /// The request target is too long.
    TargetTooLong,
    /// The TLS handshake failed for another reason than the certificate.
    TlsProtocol,
    /// The caller speaks TLS to a port of plain HTTP.
    TlsToPlaintext,
    /// The token source answered with an error, or with something other than a token.
    TokenRefused,
    /// The token source is down, slow, or limits this instance.
    TokenUnavailable,
    /// No route to the upstream's address.
    Unroutable,
}

/// The side that caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The caller.
    Downstream,
    /// The sidecar, or a token source.
    Internal,
    /// The upstream, or the network path to it.
    Upstream,
}

/// A row of the table: the properties of the response.
#[derive(Clone, Copy, Debug)]
pub struct ErrorRow {
    /// The HTTP status of the response.
    pub status: StatusCode,
    /// The `error` parameter of `Proxy-Status`, and the label of `sidentity_proxy_errors_total`.
    pub proxy_status: &'static str,
    /// The gRPC status code of the response.
    pub grpc: u8,
    /// The problem's title: one short sentence, the same for every request of this kind.
    pub title: &'static str,
}

// === impl ErrorKind ===

impl ErrorKind {
    /// Every kind, for tests and for metrics that must exist before the first error.
    pub const ALL: [Self; 27] = [
        Self::BadRequest,
        Self::CrossSite,
        Self::CertificateInvalid,
        Self::ConnectionRefused,
        Self::ConnectionTerminated,
        Self::ConnectionTimeout,
        Self::Denied,
        Self::DnsFailed,
        Self::DnsTimeout,
        Self::HeadTooLarge,
        Self::HttpProtocol,
        Self::Internal,
        Self::LimitReached,
        Self::LoopDetected,
        Self::Malformed,
        Self::Misdirected,
        Self::NoRoute,
        Self::NotAbsolute,
        Self::ProxyAuthRequired,
        Self::ProxyRefused,
        Self::ResponseTimeout,
        Self::TargetTooLong,
        Self::TlsProtocol,
        Self::TlsToPlaintext,
        Self::TokenRefused,
        Self::TokenUnavailable,
        Self::Unroutable,
    ];

    /// Returns the row of this kind.
    ///
    /// `Proxy-Status` types are those of RFC 9209, 2.3; gRPC codes follow the mapping of HTTP to gRPC statuses.
    pub const fn row(self) -> ErrorRow {
        let (status, proxy_status, grpc, title) = match self {
            Self::BadRequest => (
                StatusCode::BAD_REQUEST,
                "http_request_error",
                13,
                "The request is ambiguous",
            ),
            Self::CertificateInvalid => (
                StatusCode::BAD_GATEWAY,
                "tls_certificate_error",
                14,
                "The upstream's certificate is not valid",
            ),
            Self::ConnectionRefused => (
                StatusCode::BAD_GATEWAY,
                "connection_refused",
                14,
                "The upstream refused the connection",
            ),
            Self::ConnectionTerminated => (
                StatusCode::BAD_GATEWAY,
                "connection_terminated",
                14,
                "The upstream closed the connection early",
            ),
            Self::ConnectionTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "connection_timeout",
                14,
                "The upstream did not accept the connection in time",
            ),
            Self::CrossSite => (
                StatusCode::FORBIDDEN,
                "http_request_denied",
                7,
                "A page of another site may not call this port",
            ),
            Self::Denied => (
                StatusCode::FORBIDDEN,
                "http_request_denied",
                7,
                "The destination is denied",
            ),
            Self::DnsFailed => (
                StatusCode::BAD_GATEWAY,
                "dns_error",
                14,
                "The upstream's name does not resolve",
            ),
            Self::DnsTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "dns_timeout",
                14,
                "The resolver did not answer in time",
            ),
            Self::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http_request_error",
                8,
                "The request's head is too large",
            ),
            Self::HttpProtocol => (
                StatusCode::BAD_GATEWAY,
                "http_protocol_error",
                14,
                "The upstream's response is not valid HTTP",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "proxy_internal_error",
                13,
                "The sidecar failed",
            ),
            Self::LimitReached => (
                StatusCode::SERVICE_UNAVAILABLE,
                "connection_limit_reached",
                8,
                "Too many connections",
            ),
            Self::LoopDetected => (
                StatusCode::LOOP_DETECTED,
                "proxy_loop_detected",
                13,
                "The destination is the sidecar itself",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "http_request_error",
                13,
                "The request cannot be parsed",
            ),
            Self::Misdirected => (
                StatusCode::MISDIRECTED_REQUEST,
                "http_request_error",
                7,
                "The request is for another host",
            ),
            Self::NoRoute => (
                StatusCode::NOT_FOUND,
                "destination_not_found",
                5,
                "No route has this path",
            ),
            Self::NotAbsolute => (
                StatusCode::BAD_REQUEST,
                "http_request_error",
                13,
                "The request has no absolute URL",
            ),
            Self::ProxyAuthRequired => (
                StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                "http_request_denied",
                16,
                "The proxy requires credentials",
            ),
            Self::ProxyRefused => (
                StatusCode::BAD_GATEWAY,
                "proxy_internal_response",
                14,
                "The upstream proxy rejected the request",
            ),
            Self::ResponseTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "http_response_timeout",
                4,
                "The upstream did not answer in time",
            ),
            Self::TargetTooLong => (
                StatusCode::URI_TOO_LONG,
                "http_request_error",
                13,
                "The request target is too long",
            ),
            Self::TlsProtocol => (
                StatusCode::BAD_GATEWAY,
                "tls_protocol_error",
                14,
                "TLS with the upstream failed",
            ),
            Self::TlsToPlaintext => (
                StatusCode::BAD_REQUEST,
                "http_request_error",
                13,
                "The client speaks TLS to a plain HTTP port",
            ),
            Self::TokenRefused => (
                StatusCode::BAD_GATEWAY,
                "proxy_internal_error",
                14,
                "No usable token was issued",
            ),
            Self::TokenUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "proxy_internal_error",
                14,
                "No token is available now",
            ),
            Self::Unroutable => (
                StatusCode::BAD_GATEWAY,
                "destination_ip_unroutable",
                14,
                "The upstream cannot be reached",
            ),
        };
        ErrorRow {
            status,
            proxy_status,
            grpc,
            title,
        }
    }

    /// Returns the side that caused the error.
    pub(crate) const fn side(self) -> Side {
        match self {
            Self::BadRequest
            | Self::CrossSite
            | Self::Denied
            | Self::HeadTooLarge
            | Self::LimitReached
            | Self::LoopDetected
            | Self::Malformed
            | Self::Misdirected
            | Self::NoRoute
            | Self::NotAbsolute
            | Self::ProxyAuthRequired
            | Self::TargetTooLong
            | Self::TlsToPlaintext => Side::Downstream,
            Self::Internal | Self::TokenRefused | Self::TokenUnavailable => Side::Internal,
            Self::CertificateInvalid
            | Self::ConnectionRefused
            | Self::ConnectionTerminated
            | Self::ConnectionTimeout
            | Self::DnsFailed
            | Self::DnsTimeout
            | Self::HttpProtocol
            | Self::ProxyRefused
            | Self::ResponseTimeout
            | Self::TlsProtocol
            | Self::Unroutable => Side::Upstream,
        }
    }
}
