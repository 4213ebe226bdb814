//! Many upstreams, each called once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::observe::{Bounds, Observer};
use super::support::app::try_send;
use super::support::service::Service;
use super::{ALONE, started};

const HOSTS: usize = 1500;

const BOUNDS: Bounds = Bounds {
    // A debug build needs about 10 MiB more.
    peak: if cfg!(debug_assertions) { 80 } else { 64 },
    // 1,024 idle connections, and those in use.
    descriptors: 1200,
};

/// Raises the limit of this process, which has the upstreams' ends of the connections.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

async fn called_once(scenario: &str, http: &str) {
    let _alone = ALONE.lock().await;
    raise_descriptor_limit();
    let alpn: [&[u8]; 1] = if http == "2" { [b"h2"] } else { [b"http/1.1"] };
    let service = Service::speaking(&alpn, |_| http::Response::new("hello".into())).await;
    let mut args = service.flags();
    args.extend(["--rule".into(), "*.example.com=access".into()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (_metadata, sidecar) = started(&args).await;
    let observer = Observer::of_both(&sidecar);
    let proxy = sidecar.proxy();
    let callers = (0..4).map(|caller| {
        tokio::spawn(async move {
            for host in (caller..HOSTS).step_by(4) {
                let host = format!("host-{host}.example.com");
                let request = http::Request::get(format!("http://{host}/"))
                    .header("host", &host)
                    .body(bytes::Bytes::new())
                    .unwrap();
                let answer = try_send(proxy, request).await.unwrap();
                assert_eq!(answer.status(), 200, "{host}");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    observer.probes(4).await;
    observer.within(scenario, BOUNDS);
}

#[tokio::test]
async fn fifteen_hundred_hosts_over_http1_called_once_each() {
    called_once("1,500 hosts over HTTP/1.1", "1").await;
}

#[tokio::test]
async fn fifteen_hundred_hosts_over_http2_called_once_each() {
    called_once("1,500 hosts over HTTP/2", "2").await;
}
