//! pingora as the compared proxy. It adds one fixed header, and has no log and no cache.
//!
//! `pingora-peer CA TOKEN [PORT UPSTREAM HOST HTTP]...` forwards each port to an upstream's port, over HTTP/1.1 or
//! HTTP/2 on both sides.

use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST};
use pingora::Result;
use pingora::apps::HttpServerOptions;
use pingora::http::RequestHeader;
use pingora::proxy::{ProxyHttp, ProxyServiceBuilder, Session};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

type Failure = Box<dyn std::error::Error>;

/// The number of streams on a connection that the upstream permits. pingora's default is one.
const STREAMS: usize = 100;

/// One upstream.
struct Forward {
    peer: HttpPeer,
    host: HeaderValue,
    token: HeaderValue,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        request.insert_header(HOST, self.host.clone())?;
        request.insert_header(AUTHORIZATION, self.token.clone())
    }
}

fn main() -> Result<(), Failure> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [ca, token, routes @ ..] = args.as_slice() else {
        return Err("the CA and the token are missing".into());
    };
    // One thread for each port. With one there is nothing to steal.
    let mut server = Server::new_with_opt_and_conf(
        None,
        ServerConf {
            threads: 1,
            work_stealing: false,
            ca_file: Some(ca.clone()),
            upstream_keepalive_pool_size: 1024,
            ..ServerConf::default()
        },
    );
    server.bootstrap();
    for route in routes.chunks(4) {
        let [port, upstream, host, http] = route else {
            return Err("a route has four parts".into());
        };
        let forward = Forward {
            peer: peer(upstream.parse()?, host, http.parse()?),
            host: host.parse()?,
            token: token.parse()?,
        };
        let mut options = HttpServerOptions::default();
        options.h2c = http == "2";
        let mut service = ProxyServiceBuilder::new(&server.configuration, forward)
            .server_options(options)
            .build();
        service.add_tcp(&format!("127.0.0.1:{port}"));
        server.add_service(service);
    }
    server.run_forever()
}

/// Returns the upstream, whose certificate is verified against the CA and this host.
fn peer(port: u16, host: &str, http: u8) -> HttpPeer {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut peer = HttpPeer::new(address, true, host.to_owned());
    peer.options.set_http_version(http, http);
    peer.options.max_h2_streams = STREAMS;
    peer
}
