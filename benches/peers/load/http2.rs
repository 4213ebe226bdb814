//! HTTP/2: a fixed number of concurrent calls on one connection.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::plan::{Call, Plan};
use super::tally::Tally;
use crate::support::Failure;

const WINDOW: u32 = 4 << 20;

/// A message of 64 bytes, after its prefix of five bytes.
const MESSAGE: &[u8; 69] = &{
    let mut message = [b'x'; 69];
    message[0] = 0;
    message[1] = 0;
    message[2] = 0;
    message[3] = 0;
    message[4] = 64;
    message
};

/// Calls until the connection fails.
pub(super) async fn call<S>(
    stream: S,
    streams: usize,
    plan: Plan,
    tally: &Rc<Tally>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(stream)
        .await?;
    let plan = Rc::new(plan);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..streams {
        let (sender, plan, tally) = (sender.clone(), plan.clone(), tally.clone());
        callers.spawn_local(async move { caller(sender, number, &plan, &tally).await });
    }
    // The callers end with the connection.
    Ok(connection.await?)
}

async fn caller(mut sender: SendRequest<Bytes>, number: usize, plan: &Plan, tally: &Tally) {
    for call in plan.calls.iter().cycle().skip(number) {
        tally.go_on().await;
        let began = Instant::now();
        match exchange(&mut sender, call, plan).await {
            Ok((status, bytes)) => tally.answered(status, bytes, began.elapsed()),
            Err(error) => return tally.failed(&error.to_string()),
        }
    }
}

async fn exchange(
    sender: &mut SendRequest<Bytes>,
    call: &Call,
    plan: &Plan,
) -> Result<(u16, u64), Failure> {
    let scheme = if plan.absolute { "http" } else { "https" };
    let uri = format!("{scheme}://{}{}", call.authority, call.path);
    let mut request = Request::builder()
        .uri(uri)
        .header(header::USER_AGENT, "load");
    let mut body = plan.body.clone();
    if plan.grpc {
        request = request
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc");
        body = Some(Bytes::from_static(MESSAGE));
    }
    if body.is_some() {
        request = request.method("POST");
    }
    if let Some(value) = &plan.header {
        request = request.header("x-header", value);
    }
    if let Some(token) = &plan.token {
        request = request.header(header::AUTHORIZATION, token);
    }
    poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (response, mut upload) = sender.send_request(request.body(())?, body.is_none())?;
    let mut bytes = 0;
    if let Some(body) = body {
        bytes += body.len() as u64;
        upload.send_data(body, true)?;
    }
    let (head, mut download) = response.await?.into_parts();
    while let Some(data) = download.data().await {
        let data = data?;
        bytes += data.len() as u64;
        download.flow_control().release_capacity(data.len())?;
    }
    let trailers = download.trailers().await?;
    let refused = |trailers: &http::HeaderMap| trailers.get("grpc-status").is_none_or(|s| s != "0");
    if plan.grpc && trailers.as_ref().is_none_or(refused) {
        return Err(format!("the call failed: {:?} {trailers:?}", head.headers).into());
    }
    Ok((head.status.as_u16(), bytes))
}
