//! Reads the body of a response of an endpoint or of the metadata server.

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::error::BoxError;

/// The maximum length in bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// The reason that a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the response is longer than {} KiB", LONGEST / 1024)]
    TooLong,
    #[error("{0}")]
    Broken(BoxError),
}

/// Reads a body. That of an error is empty if it is too long, because the status says enough.
pub(super) async fn read<B>(status: StatusCode, body: B) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    match Limited::new(body, LONGEST).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if !error.is::<LengthLimitError>() => Err(BodyError::Broken(error)),
        Err(_) if status == StatusCode::OK => Err(BodyError::TooLong),
        Err(_) => Ok(Bytes::new()),
    }
}
