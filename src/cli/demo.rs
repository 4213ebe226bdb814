//! `sidentity demo`: shows on loopback what the sidecar does.
//!
//! It runs an emulator of the metadata server, a service that rejects calls without a valid token, and a sidecar. The
//! service emulates a private Cloud Run service and a Google API, under their real names.

mod call;
mod service;

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use self::call::{DemoResponse, get};
use self::service::{GUARDED, PrivateService, SERVICE, TokenIssuers};
use super::exit::Exit;
use super::interruption::interruption;
use super::runtime::runtime;
use crate::app::App;
use crate::config::{self, Config, Env, OptionKey, RawConfig};
use crate::destination::{Destination, Host};
use crate::emulator::google::{Endpoints, Google, Role, SubjectSource};
use crate::emulator::{Emulator, Identity};
use crate::error::BoxError;

/// The Google API that the demo's service emulates.
const API: &str = "storage.googleapis.com";

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The lifetime of the demo's subject token, in seconds.
const SUBJECT_LIFETIME: u64 = 24 * 60 * 60;

/// Show on loopback what the sidecar does: a refused call, the same call answered, both kinds of token
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Exit after these steps instead of serving further calls
    #[arg(long)]
    once: bool,
}

/// Fails if a step has an unexpected result, so that the demo can be used as a check.
pub(super) fn run(args: &DemoArgs) -> Result<(), Exit> {
    runtime(1)?.block_on(async {
        let stop = CancellationToken::new();
        let shown = show(args.once, stop.clone()).await;
        stop.cancel();
        shown.map_err(|error| Exit::failed(error.to_string()))
    })
}

async fn show(once: bool, stop: CancellationToken) -> Result<(), BoxError> {
    let emulator = Emulator::bind(LOOPBACK, Identity::default()).await?;
    let metadata = emulator.local_addr();
    let google = emulator.google();
    let service = PrivateService::bind(TokenIssuers {
        verifier: emulator.verifier(),
        google: Arc::clone(&google),
    })
    .await?;
    let upstream = service.address();
    let without_sidecar = service.caller()?;
    let endpoints = TokenEndpoints {
        address: metadata,
        ca: emulator.ca().certificate().clone(),
    };
    let app = App::build(configuration(&endpoints, &service, None)?).await?;
    let federation = Federation::new(&google)?;
    let federated = App::build(configuration(&endpoints, &service, Some(&federation))?).await?;
    // An account needs a role on itself to sign by the API.
    let account = google.directory().main().to_owned();
    google.grant(
        &format!("serviceAccount:{account}"),
        &account,
        Role::TokenCreator,
    );
    let federated_route = *federated
        .route_addresses()
        .first()
        .ok_or("there is no route")?;
    let proxy = app.proxy_address().ok_or("the proxy is off")?;
    let route = *app.route_addresses().first().ok_or("there is no route")?;
    let admin = app.admin_address().ok_or("the admin port is off")?;
    tokio::spawn(emulator.run(stop.clone().cancelled_owned()));
    tokio::spawn(service.serve());
    let running = tokio::spawn(app.run(stop.clone().cancelled_owned()));
    tokio::spawn(federated.run(stop.clone().cancelled_owned()));

    say(&format!(
        "\
sidentity demo: everything on loopback, nothing leaves this machine.

  metadata server   http://{metadata}    an emulator: it signs the tokens
  private service   https://{SERVICE}    requires an ID token for itself
  Google API        https://{API}    requires an access token
  behind IAP        https://{GUARDED}    requires a JWT that an account signed
                    (all three are one server on {upstream})
  sidecar           http://{proxy}    forward proxy
                    http://{route}    route to the private service
                    http://{admin}    status page, probes and metrics
"
    ))?;

    say("1. The private service, called without the sidecar:")?;
    show_call(
        "GET",
        &format!("https://{SERVICE}/"),
        &without_sidecar.await?,
        401,
    )?;
    say("2. The same call, through the route: an ID token for exactly that audience.")?;
    show_call(
        "GET",
        &format!("http://{route}/"),
        &get(route, "/", &route.to_string()).await?,
        200,
    )?;
    say(
        "3. The same call, through HTTP_PROXY: the app keeps its URL, the sidecar sends it over TLS.",
    )?;
    let url = format!("http://{SERVICE}/");
    show_call("GET", &url, &get(proxy, &url, SERVICE).await?, 200)?;
    say("4. A Google API, through HTTP_PROXY: an access token.")?;
    let url = format!("http://{API}/storage/v1/b");
    show_call("GET", &url, &get(proxy, &url, API).await?, 200)?;

    say(
        "5. Outside of Google Cloud: a sidecar with a credential file of workload identity federation. It exchanges a token \
         of another identity provider, and the service account mints the ID token.",
    )?;
    let answer = get(federated_route, "/", &federated_route.to_string()).await?;
    show_call("GET", &format!("http://{federated_route}/"), &answer, 200)?;

    say(
        "6. A service behind Identity-Aware Proxy, with a rule for it (token=jwt): the account signs a JWT for its URL.",
    )?;
    let url = format!("http://{GUARDED}/today");
    show_call("GET", &url, &get(proxy, &url, GUARDED).await?, 200)?;

    if once {
        return Ok(());
    }
    let interrupted = interruption()?;
    say(&format!(
        "\
It all stays up; try it, and end it with Ctrl-C:

  curl -i http://{route}/
  curl -i -x http://{proxy} http://{API}/storage/v1/b
  curl -i -x http://{proxy} http://{SERVICE}/hello -H 'Authorization: Bearer of-the-app'
  curl -s http://{admin}/metrics | grep token
  curl -s 'http://{admin}/explain?url=https://{SERVICE}/'

In a browser, http://{admin}/ is the status page.
"
    ))?;
    interrupted.await;
    stop.cancel();
    running.await?;
    Ok(())
}

/// The emulator's address, and the CA of its token endpoints.
struct TokenEndpoints {
    address: SocketAddr,
    ca: CertificateDer<'static>,
}

/// A credential file and its subject token.
struct Federation {
    folder: TempDir,
}

// === impl Federation ===

impl Federation {
    fn new(google: &Google) -> Result<Self, BoxError> {
        // An image of one file has no /tmp, but container engines provide /dev/shm.
        let folder = tempfile::tempdir().or_else(|_| tempfile::tempdir_in("/dev/shm"))?;
        let subject = folder.path().join("subject-token");
        let token = google.subject_token(SystemTime::now(), SUBJECT_LIFETIME);
        fs::write(&subject, token.ok_or("no subject token can be made")?)?;
        let source = SubjectSource::File(&subject);
        let content = google.external_account(&Endpoints::default(), source);
        let this = Self { folder };
        fs::write(this.file(), content.to_string())?;
        fs::set_permissions(this.file(), Permissions::from_mode(0o600))?;
        Ok(this)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("external-account.json")
    }
}

/// Returns the configuration of a user, with the addresses of upstreams and token endpoints replaced.
fn configuration(
    endpoints: &TokenEndpoints,
    service: &PrivateService,
    federation: Option<&Federation>,
) -> Result<Config, BoxError> {
    let mut raw = RawConfig::default();
    if let Some(federation) = federation {
        let file = federation.file().display().to_string();
        raw.set_flag(OptionKey::Credentials, [file]);
    }
    let guarded = format!("{GUARDED}=id,token=jwt");
    raw.set_flag(OptionKey::Rule, [guarded]);
    let mut config = config::load(&raw, &Env::default())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<String>())?;
    config.proxy = config.proxy.map(|proxy| config::Proxy {
        listen: LOOPBACK,
        on_ipv6: false,
        ..proxy
    });
    config.admin = Some(LOOPBACK);
    config.admin_on_ipv6 = false;
    config.routes = vec![config::Route {
        name: "demo".into(),
        listen: config::Listen::Tcp(LOOPBACK),
        on_ipv6: false,
        prefix: String::new(),
        upstream: Destination::parse(&format!("https://{SERVICE}/"))?,
        service: None,
        options: Default::default(),
        http: None,
        mode: None,
    }];
    config.metadata = config::MetadataServer {
        host: Host::from(endpoints.address.ip()),
        port: endpoints.address.port(),
        disabled: false,
    };
    config.upstream.extra_roots = vec![service.authority(), endpoints.ca.clone()];
    for host in ["sts.googleapis.com", "iamcredentials.googleapis.com"] {
        let host = config::ConnectHost::Exact(Host::parse(host)?);
        let connect_to = connect_to(host, endpoints.address);
        config.upstream.connect_to.push(connect_to);
    }
    let any = connect_to(config::ConnectHost::Any, service.address());
    config.upstream.connect_to.push(any);
    Ok(config)
}

fn connect_to(host: config::ConnectHost, address: SocketAddr) -> config::ConnectTo {
    config::ConnectTo {
        host,
        port: None,
        to_host: Some(Host::from(address.ip())),
        to_port: Some(address.port()),
    }
}

fn show_call(
    method: &str,
    url: &str,
    answer: &DemoResponse,
    expected: u16,
) -> Result<(), BoxError> {
    say(&format!("   {method} {url}"))?;
    say(&format!("   → {} {}\n", answer.status, answer.text.trim()))?;
    if answer.status.as_u16() == expected {
        Ok(())
    } else {
        Err(format!("expected {expected} from {url}").into())
    }
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
