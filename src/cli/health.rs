//! `sidentity health` and `sidentity wait`: probes for images without curl.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::exit::Exit;
use super::runtime::runtime;
use crate::admin::{ALIVE, READY};
use crate::config::{ADMIN_PORT, Env, OptionKey, parse_duration, printed_duration, quote};
use crate::error::BoxError;

/// The default admin address.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ADMIN_PORT);

/// The timeout of a probe.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two probes.
const PAUSE: Duration = Duration::from_millis(100);

/// The maximum size of a probe's response, in bytes.
const ANSWER: usize = 1024 * 1024;

/// A probe: its path, and the text of its success.
type Probe = (&'static str, &'static str);

const LIVENESS: Probe = ("/liveness", ALIVE);
const READINESS: Probe = ("/readiness", READY);

/// Probe a running sidecar; the status is 0 or 1
#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// Probe /readiness (every route has its token) instead of /liveness
    #[arg(long)]
    ready: bool,
    /// The sidecar's admin address [default: SIDENTITY_ADMIN, or 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin: Option<SocketAddr>,
}

/// Wait until a running sidecar is ready; the status is 0 or 1
#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// The longest wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    max: Duration,
    /// The sidecar's admin address [default: SIDENTITY_ADMIN, or 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin: Option<SocketAddr>,
}

pub(super) fn health(args: &Health, env: &Env) -> Result<(), Exit> {
    let admin = admin(args.admin, env)?;
    let probed = if args.ready { READINESS } else { LIVENESS };
    runtime(1)?.block_on(async {
        probe(admin, probed).await.map_err(Exit::failed)?;
        if let Some(identity) = identity(admin).await {
            // The status has the result. The text is only for humans to read, so an error is ignored.
            let _ = writeln!(io::stdout(), "tokens come from {identity}");
        }
        Ok(())
    })
}

/// Returns the source of the sidecar's identity, from `/status`.
async fn identity(admin: SocketAddr) -> Option<String> {
    let asked = tokio::time::timeout(TIMEOUT, ask(admin, "/status")).await;
    let (_, text) = asked.ok()?.ok()?;
    let status: Value = serde_json::from_str(&text).ok()?;
    Some(status.get("identity")?.as_str()?.to_owned())
}

pub(super) fn wait(args: &Wait, env: &Env) -> Result<(), Exit> {
    let admin = admin(args.admin, env)?;
    runtime(1)?.block_on(async {
        // Long enough for one probe, also with `--max 0s`.
        let deadline = Instant::now() + args.max.max(PAUSE);
        let mut last = format!("http://{admin}/readiness: no response");
        while Instant::now() < deadline {
            match tokio::time::timeout_at(deadline, probe(admin, READINESS)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(reason)) => last = reason,
                Err(_) => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
        let max = printed_duration(&args.max);
        Err(Exit::failed(format!("not ready after {max}: {last}")))
    })
}

/// Returns the admin address of the flag, otherwise of the sidecar's variable.
fn admin(flag: Option<SocketAddr>, env: &Env) -> Result<SocketAddr, Exit> {
    let variable = OptionKey::Admin.variable();
    let value = env.text(&variable);
    match (flag, value.map_err(|problem| Exit::usage(vec![problem]))?) {
        (Some(admin), _) => Ok(admin),
        (None, Some(text)) => {
            address(text).map_err(|right| Exit::misused(&format!("environment {variable}"), right))
        }
        (None, None) => Ok(DEFAULT_ADMIN),
    }
}

async fn probe(admin: SocketAddr, (path, success): Probe) -> Result<(), String> {
    let asked = tokio::time::timeout(TIMEOUT, ask(admin, path)).await;
    let (status, text) = asked
        .map_err(|_| format!("http://{admin}{path}: no response within {TIMEOUT:?}"))?
        .map_err(|error| format!("http://{admin}{path}: {error}"))?;
    match status {
        StatusCode::OK if text == success => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => {
            Err(format!("http://{admin}{path}: {status}: {}", text.trim()))
        }
        _ => Err(format!(
            "something else listens on {admin}: its response to {path}, {status}, is not that of a sidecar's admin port. \
             Name the right address with --admin or {}",
            OptionKey::Admin.variable()
        )),
    }
}

async fn ask(admin: SocketAddr, path: &str) -> Result<(StatusCode, String), BoxError> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, admin.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER).collect().await?;
    Ok((
        status,
        String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    ))
}

/// Parses `PORT`, `ADDR:PORT` or `localhost:PORT`. Replaces an unspecified address by loopback.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.replace("localhost:", "127.0.0.1:");
    let mut address = match text.parse::<u16>() {
        Ok(port) => SocketAddr::from(([127, 0, 0, 1], port)),
        Err(_) => text
            .parse::<SocketAddr>()
            .map_err(|_| format!("{} must be ADDR:PORT, such as 127.0.0.1:9090", quote(&text)))?,
    };
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => [127, 0, 0, 1].into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}
