//! The load: a fixed number of callers, each of which waits for the response before its next call.
//!
//! It uses one core, and little of it, so HTTP/1.1 is written here by hand. It prints one line of JSON.

mod cost;
mod http1;
mod http2;
mod plan;
mod tally;

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use crate::support::{Failure, tls};
use cost::Cost;
use plan::Plan;
use tally::Tally;

#[derive(clap::Args)]
pub struct Args {
    /// The addresses to call; each connection uses the next one
    #[arg(long, required = true)]
    target: Vec<SocketAddr>,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Calls at a time on an HTTP/2 connection; without it, HTTP/1.1
    #[arg(long)]
    streams: Option<usize>,
    /// Opens a tunnel to this authority first, with TLS inside
    #[arg(long)]
    connect: Option<String>,
    /// The trusted certificates inside the tunnel
    #[arg(long)]
    ca: Option<PathBuf>,
    #[command(flatten)]
    plan: plan::RequestArgs,
    /// The warm-up time before counting begins
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Processes whose CPU time is read at the beginning and the end
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Keeps the connections until standard input ends
    #[arg(long)]
    hold: bool,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    LocalSet::new().run_until(measure(args)).await
}

async fn measure(args: Args) -> Result<(), Failure> {
    let args = Rc::new(args);
    let tally = Rc::<Tally>::default();
    let inside = match &args.ca {
        Some(ca) => Some(tls::client(ca, args.streams.is_some())?),
        None => None,
    };
    for number in 0..args.connections {
        let (args, tally, inside) = (args.clone(), tally.clone(), inside.clone());
        tokio::task::spawn_local(async move {
            // A closed connection is opened again, as in an app's pool.
            loop {
                if let Err(error) = connection(&args, number, &tally, inside.clone()).await {
                    tally.failed(&error.to_string());
                    sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    sleep(Duration::from_secs_f64(args.warm_up)).await;
    let before = Cost::read(&args.pids)?;
    tally.begin();
    sleep(Duration::from_secs_f64(args.seconds)).await;
    let counted = tally.end();
    let cpu = Cost::read(&args.pids)?.since(&before);
    println!("{}", counted.json(cpu));
    if args.hold {
        tally.pause();
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    }
    Ok(())
}

async fn connection(
    args: &Args,
    number: usize,
    tally: &Rc<Tally>,
    inside: Option<Arc<ClientConfig>>,
) -> Result<(), Failure> {
    let target = args.target[number % args.target.len()];
    let mut stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let plan = args.plan.plan(number, target);
    match (&args.connect, inside) {
        (Some(authority), Some(tls)) => {
            open(&mut stream, authority).await?;
            let host = authority.split(':').next().unwrap_or_default().to_owned();
            let connector = TlsConnector::from(tls);
            let stream = connector
                .connect(ServerName::try_from(host)?, stream)
                .await?;
            call(args, stream, plan, tally).await
        }
        _ => call(args, stream, plan, tally).await,
    }
}

async fn call<S>(args: &Args, stream: S, plan: Plan, tally: &Rc<Tally>) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    match args.streams {
        None => http1::call(stream, plan, tally).await,
        Some(streams) => http2::call(stream, streams, plan, tally).await,
    }
}

/// Sends `CONNECT` and reads the response head.
async fn open(stream: &mut TcpStream, authority: &str) -> Result<(), Failure> {
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if head.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&head).into_owned().into())
    }
}
