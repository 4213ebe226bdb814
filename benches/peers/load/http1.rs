//! A minimal HTTP/1.1 client, which uses little CPU for each response.

use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::plan::{Call, Plan};
use super::tally::Tally;
use crate::support::Failure;

const BUFFER: usize = 64 * 1024;

/// Calls until the connection fails.
pub(super) async fn call<S>(mut stream: S, plan: Plan, tally: &Rc<Tally>) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let requests: Vec<_> = plan.calls.iter().map(|call| head(call, &plan)).collect();
    let mut buffer = vec![0; BUFFER];
    for request in requests.iter().cycle() {
        tally.go_on().await;
        let began = Instant::now();
        stream.write_all(request).await?;
        if let Some(body) = &plan.body {
            stream.write_all(body).await?;
        }
        stream.flush().await?;
        let (status, length) = answer(&mut stream, &mut buffer).await?;
        let sent = plan.body.as_ref().map_or(0, |body| body.len() as u64);
        tally.answered(status, length + sent, began.elapsed());
    }
    Ok(())
}

fn head(call: &Call, plan: &Plan) -> Vec<u8> {
    let Call { authority, path } = call;
    let method = plan.body.as_ref().map_or("GET", |_| "POST");
    let scheme = if plan.absolute {
        format!("http://{authority}")
    } else {
        String::new()
    };
    let mut head = format!(
        "{method} {scheme}{path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: load\r\naccept: */*\r\n"
    );
    if let Some(body) = &plan.body {
        head += &format!("content-length: {}\r\n", body.len());
    }
    if let Some(header) = &plan.header {
        head += &format!("x-header: {header}\r\n");
    }
    if let Some(token) = &plan.token {
        head += &format!("authorization: {token}\r\n");
    }
    head += "\r\n";
    head.into_bytes()
}

/// Reads a response to its end, and returns its status and the length of its body.
async fn answer<S>(stream: &mut S, buffer: &mut [u8]) -> Result<(u16, u64), Failure>
where
    S: AsyncRead + Unpin,
{
    let mut filled = 0;
    let end = loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err("the connection was closed".into());
        }
        filled += read;
        if let Some(end) = find(&buffer[..filled], b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = std::str::from_utf8(&buffer[..end])?;
    let status = head.get(9..12).ok_or("no status")?.parse()?;
    let length: u64 = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without Content-Length")?
        .1
        .trim()
        .parse()?;
    let mut left = length.saturating_sub((filled - end) as u64);
    while left > 0 {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err("the connection was closed in the middle of an answer".into());
        }
        left = left.saturating_sub(read as u64);
    }
    Ok((status, length))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
