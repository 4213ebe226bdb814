//! Requests that could not be parsed. They are answered, counted and logged like rejected ones.

use std::time::{Duration, Instant};

use http::Version;

use crate::config::AccessLog;
use crate::diagnostics::RequestOutcome;
use crate::error::Error;
use crate::policy::Credential;
use crate::proxy::error_response::{problem_json, proxy_status};
use crate::proxy::ingress::Ingress;
use crate::proxy::layers::record::Record;
use crate::proxy::layers::rescue::Rescue;
use crate::telemetry::{AccessRecord, Code, access_log};

/// Returns the complete HTTP/1.1 response to a request that could not be parsed. The connection must be closed after
/// it.
pub(crate) fn rejection(error: &Error) -> Vec<u8> {
    let status = error.kind().row().status;
    let body = problem_json(error.problem());
    let mut response = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\nproxy-status: ",
        status.as_str(),
        status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    response.extend_from_slice(proxy_status(error).as_bytes());
    let rest = format!(
        "\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    response.extend_from_slice(rest.as_bytes());
    response
}

impl<S> Record<Rescue<S>> {
    /// Counts and logs a request that could not be parsed; only its ingress is known.
    pub(crate) fn malformed(
        &self,
        ingress: &Ingress,
        mode: AccessLog,
        protocol: Version,
        error: &Error,
    ) {
        let kind = error.kind();
        let code = Code::from(kind.row().status);
        self.inner().metrics().proxy_error(kind);
        let metrics = &ingress.metrics;
        metrics.request_finished(Credential::None, code, Duration::ZERO);
        metrics.record_history(Instant::now(), RequestOutcome::Failed, None);
        metrics
            .recent()
            .failed(error.problem(), None, &ingress.name);
        if mode == AccessLog::Off || !self.inner().metrics().logs_malformed() {
            return;
        }
        access_log(
            mode,
            &AccessRecord {
                method: None,
                destination: None,
                code,
                request_bytes: 0,
                response_bytes: 0,
                latency: Duration::ZERO,
                protocol,
                user_agent: None,
                listener: &ingress.name,
                credential: None,
                rule: None,
                token: None,
                problem: Some(error.problem()),
                trace: None,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn an_error_is_a_complete_response() {
        let error = Error::new(ErrorKind::TargetTooLong, "too long: \"\r\n");
        let response = String::from_utf8(rejection(&error)).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{head}");
        assert!(head.contains("\r\nproxy-status: sidentity; error=http_request_error; details=\""));
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], 414);
    }
}
