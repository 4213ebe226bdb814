//! `metadata-server --credentials`: the metadata protocol with real tokens, for Google's own libraries.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{MetadataServerArgs, cannot_listen, reachable};
use crate::app;
use crate::cli::detached_thread::on_detached_thread;
use crate::cli::exit::{Exit, complain};
use crate::cli::interruption::interruption;
use crate::cli::runtime::runtime;
use crate::config::{
    self, Config, Diagnostic, DiagnosticId, Env, METADATA_VARIABLES, OptionKey, RawConfig,
};
use crate::credentials::{Base, Mode};
use crate::destination::{Destination, Host, Scheme};
use crate::diagnostics::LogEntry;
use crate::emulator::{
    IssuedToken, Issuer, KnownIdentity, NotIssued, RealTokenServer, Replacement,
};
use crate::error::{Error, TokenFault};
use crate::policy::{Principal, RuleOptions, TokenKey, TokenKind};
use crate::proxy::CredentialProvider;
use crate::telemetry;
use crate::token::{Logins, Now};

/// The options of the credential and its endpoints.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Real tokens")]
pub(in crate::cli) struct RealArgs {
    /// Serve real tokens of this credential, for Google's own libraries, instead of emulated ones; on loopback unless
    /// --allow-non-loopback
    #[arg(
        long,
        value_name = "auto|metadata|adc|FILE",
        conflicts_with_all = ["email", "project_id", "region", "lifetime", "write_credentials"],
    )]
    credentials: Option<String>,
    /// With --credentials: that credential impersonates A, which impersonates B, which impersonates TARGET
    #[arg(long, value_name = "A,B,TARGET", requires = "credentials")]
    impersonate_service_account: Option<String>,
    /// With --credentials: accept this token, STS or IAM endpoint in the credential file; repeatable
    #[arg(long, value_name = "URL-PREFIX", requires = "credentials")]
    trust_credential_url: Vec<String>,
    /// With --credentials: permit connections from other machines, which get the same tokens
    #[arg(long, requires = "credentials")]
    allow_non_loopback: bool,
    /// With --credentials: accept this name with dots in Host, as metadata.google.internal is; repeatable
    #[arg(long, value_name = "NAME", requires = "credentials")]
    allowed_host: Vec<String>,
    /// With --credentials: connect to another address, as with curl; repeatable
    #[arg(long, value_name = "HOST:PORT:HOST2:PORT2", requires = "credentials")]
    connect_to: Vec<String>,
    /// With --credentials: PEM file with additional trust roots; repeatable
    #[arg(long, value_name = "FILE", requires = "credentials")]
    upstream_ca: Vec<String>,
    /// With --credentials: HTTP proxy for calls to token endpoints
    #[arg(
        long,
        value_name = "http://[USER:PASS@]HOST:PORT",
        requires = "credentials"
    )]
    upstream_proxy: Option<String>,
    /// With --credentials: hosts that are called without that proxy, as in NO_PROXY; repeatable
    #[arg(long, value_name = "LIST", requires = "credentials")]
    no_upstream_proxy: Vec<String>,
}

/// The tokens of one principal.
struct Tokens {
    provider: CredentialProvider,
    principal: Principal,
}

// === impl RealArgs ===

impl RealArgs {
    /// Returns whether real tokens are requested.
    pub(super) const fn is_real(&self) -> bool {
        self.credentials.is_some()
    }

    /// Returns the configuration of these arguments. The sidecar's variables and file are ignored.
    fn config(&self, env: &Env) -> Result<Config, Vec<Diagnostic>> {
        let mut raw = RawConfig::default();
        raw.set_flag(OptionKey::Credentials, self.credentials.clone());
        let chain = self.impersonate_service_account.clone();
        raw.set_flag(OptionKey::ImpersonateServiceAccount, chain);
        raw.set_flag(
            OptionKey::TrustCredentialUrl,
            self.trust_credential_url.clone(),
        );
        raw.set_flag(OptionKey::ConnectTo, self.connect_to.clone());
        raw.set_flag(OptionKey::UpstreamCa, self.upstream_ca.clone());
        raw.set_flag(OptionKey::UpstreamProxy, self.upstream_proxy.clone());
        raw.set_flag(OptionKey::NoUpstreamProxy, self.no_upstream_proxy.clone());
        raw.set_flag(OptionKey::AllowedHost, self.allowed_host.clone());
        let config = config::load(&raw, &env.without_options())?;
        for warning in &config.warnings {
            complain("warning", warning);
        }
        Ok(config)
    }
}

/// Serves until SIGINT or SIGTERM, and prints how to use it.
pub(super) fn run(args: &MetadataServerArgs, env: &Env) -> Result<(), Exit> {
    let listen = args.listen;
    if !args.real.allow_non_loopback && !listen.ip().is_loopback() {
        return Err(Exit::misused(
            "--listen",
            format!(
                "{listen}: anyone who can reach it would get this credential's tokens: listen on 127.0.0.1, or set \
                 --allow-non-loopback"
            ),
        ));
    }
    let config = load(args, env).map_err(Exit::usage)?;
    telemetry::init(&config.log);
    runtime(1)?.block_on(serve(config, args, env))
}

/// Loads the configuration, with a credential other than this server itself.
fn load(args: &MetadataServerArgs, env: &Env) -> Result<Config, Vec<Diagnostic>> {
    let listen = args.listen;
    let mut config = args.real.config(env)?;
    if let Some(why) = asks_itself(&config, listen) {
        let variable = METADATA_VARIABLES.iter().find(|name| env.is_set(name));
        let text = format!(
            "{listen} is this server itself, and {why}. Name a file with --credentials, or unset the variable for this \
             command, so that gcloud's file is searched"
        );
        return Err(vec![Diagnostic::new(
            DiagnosticId::InvalidValue,
            format!("environment {}", variable.unwrap_or(&"GCE_METADATA_HOST")),
            text,
        )]);
    }
    // Facts of another server are not those of the file's project.
    config.credentials.beside_metadata_server = false;
    Ok(config)
}

/// The served tokens, and the human-readable name of the credential.
struct ServedCredential {
    tokens: Tokens,
    known: KnownIdentity,
    allowed: Vec<Host>,
    greeting: String,
}

impl ServedCredential {
    /// `number` is the project's, if the user gave it.
    async fn of(config: Config, number: Option<u64>, logins: &Logins) -> Result<Self, String> {
        let provider = app::provider(&config, Arc::default(), logins);
        let provider = provider.map_err(|error| error.to_string())?;
        // Any other metadata server may start later.
        let is_doubtful = match &config.credentials.base {
            Base::Metadata { searched } => searched.is_some() || config.metadata.disabled,
            Base::File(_) => false,
        };
        if is_doubtful {
            let found = provider.facts().check_source_exists().await;
            found.map_err(|error| error.detail().to_owned())?;
        }
        let principal = provider.policy().default_principal().clone();
        let mut known = known(&provider, &principal, config.token_timeout).await;
        if let Some(number) = number {
            known.project_number = Some(number.to_string());
        }
        Ok(Self {
            greeting: greeting(&config, &principal, &known),
            tokens: Tokens {
                provider,
                principal,
            },
            known,
            allowed: config.allowed_hosts,
        })
    }
}

async fn serve(config: Config, args: &MetadataServerArgs, env: &Env) -> Result<(), Exit> {
    let (listen, logins) = (args.listen, Logins::default());
    let interrupted = interruption()
        .map_err(|error| Exit::failed(format!("cannot wait for signals: {error}")))?;
    let hangup = signal(SignalKind::hangup())
        .map_err(|error| Exit::failed(format!("cannot wait for signals: {error}")))?;
    let ServedCredential {
        tokens,
        known,
        allowed,
        greeting,
    } = ServedCredential::of(config, args.project_number, &logins)
        .await
        .map_err(Exit::failed)?;
    let server = RealTokenServer::bind(listen, &known, tokens, allowed)
        .await
        .map_err(|error| Exit::failed(cannot_listen(listen, &error)))?;
    let address = server.local_addr();
    let reachable = reachable(address);
    let _ = write!(
        io::stdout(),
        "Metadata server on {address}: {greeting}\n\n\
         Set this for the app (Python's libraries probe the second):\n\n    \
         export GCE_METADATA_HOST={reachable}\n    \
         export GCE_METADATA_IP={reachable}\n"
    );
    let replacement = server.replacement();
    tokio::select! {
        () = server.run(interrupted) => Ok(()),
        never = reload(hangup, &replacement, &logins, args, env) => match never {},
    }
}

/// Reads the credential again at each SIGHUP. An invalid one changes nothing.
async fn reload(
    mut hangup: Signal,
    replacement: &Replacement<Tokens>,
    logins: &Logins,
    args: &MetadataServerArgs,
    env: &Env,
) -> Infallible {
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let number = args.project_number;
        let (args, env) = (args.clone(), env.clone());
        let served = match on_detached_thread(move || load(&args, &env)).await {
            Err(error) => Err(error.to_string()),
            Ok(Ok(config)) => ServedCredential::of(config, number, logins).await,
            Ok(Err(problems)) => {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Err(problems.join("; "))
            }
        };
        let replaced = served.and_then(|served| {
            let ServedCredential {
                tokens,
                known,
                allowed,
                greeting,
            } = served;
            let replaced = replacement.replace(&known, tokens, allowed);
            replaced
                .map(|()| greeting)
                .map_err(|error| error.to_string())
        });
        match replaced {
            Ok(greeting) => tracing::info!("SIGHUP: {greeting}"),
            Err(error) => tracing::error!(
                help = LogEntry::ServerReloadFailed.page(),
                "SIGHUP: reload failed, the previous credential stays in use: {error}"
            ),
        }
    }
}

/// Describes the principal of the tokens.
fn greeting(config: &Config, principal: &Principal, known: &KnownIdentity) -> String {
    let account = known.email.as_deref().unwrap_or("the login");
    let project = known.project_id.as_ref();
    let project = project.map_or_else(String::new, |id| format!(", project {id}"));
    let via = principal
        .chain_clause()
        .map_or_else(String::new, |via| format!(", {via}"));
    format!(
        "real tokens of {account}{via}, from {}{project}.",
        config.credentials
    )
}

/// Returns the facts of the credential. A fact that is not known in time is omitted.
async fn known(
    provider: &CredentialProvider,
    principal: &Principal,
    timeout: Duration,
) -> KnownIdentity {
    let facts = provider.facts();
    let scopes = provider.policy().credential_name().scopes(principal, &[]);
    let unknown = KnownIdentity {
        universe: provider.universe().to_string(),
        scopes: scopes.unwrap_or_default(),
        ..KnownIdentity::default()
    };
    let text = |ask: Result<Arc<str>, Error>| ask.ok().map(|text| text.to_string());
    let all = async {
        let (email, id, number, region, universe) = tokio::join!(
            facts.email(principal),
            facts.project_id(),
            facts.project_number(),
            facts.region(),
            facts.universe(),
        );
        KnownIdentity {
            email: text(email),
            project_id: text(id),
            project_number: text(number),
            region: text(region),
            universe: text(universe).unwrap_or_else(|| unknown.universe.clone()),
            scopes: unknown.scopes.clone(),
        }
    };
    let known = tokio::time::timeout(timeout, all).await;
    known.unwrap_or(unknown)
}

/// Returns why no file is used, if the tokens would come from this metadata server itself.
fn asks_itself(config: &Config, listen: SocketAddr) -> Option<String> {
    let metadata = &config.metadata;
    let is_here = match &metadata.host {
        Host::Ip(ip) => *ip == listen.ip() || listen.ip().is_unspecified() && ip.is_loopback(),
        name @ Host::Name(_) => name.is_loopback(),
    };
    if !is_here || metadata.port != listen.port() {
        return None;
    }
    match (&config.credentials.base, &config.credentials.mode) {
        (Base::File(_), _) => None,
        (Base::Metadata { .. }, Mode::Metadata) => {
            Some("--credentials metadata uses no credential file".to_owned())
        }
        (Base::Metadata { searched: None }, _) => Some(
            "no credential file was searched, because a variable names a metadata server"
                .to_owned(),
        ),
        (
            Base::Metadata {
                searched: Some(searched),
            },
            _,
        ) => Some(format!("no credential file was found ({searched})")),
    }
}

// === impl Tokens ===

impl Tokens {
    fn key(&self, kind: TokenKind) -> TokenKey {
        TokenKey {
            kind,
            principal: self.principal.clone(),
        }
    }

    async fn issue(&self, key: TokenKey) -> Result<IssuedToken, NotIssued> {
        match self.provider.tokens().slot(&key).token().await {
            Ok(token) => Ok(IssuedToken {
                token: token.reveal().to_owned(),
                left: token.left(Now::now()).as_secs(),
            }),
            Err(error) => Err(not_issued(&error)),
        }
    }
}

impl Issuer for Tokens {
    async fn access_token(&self, scopes: Vec<String>) -> Result<IssuedToken, NotIssued> {
        let mut options = RuleOptions::default();
        for scope in &scopes {
            options.set("scope", scope).map_err(bad_request)?;
        }
        let mut scopes: Vec<Arc<str>> = scopes.iter().map(|scope| Arc::from(&**scope)).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let scopes = scopes.into();
        self.issue(self.key(TokenKind::Access { scopes })).await
    }

    async fn id_token(&self, audience: String) -> Result<IssuedToken, NotIssued> {
        let mut options = RuleOptions::default();
        options.set("audience", &audience).map_err(bad_request)?;
        // Here the audience names the service. A login has one ID token for Cloud Run and functions.
        let service = Destination::parse(&audience).ok().filter(|service| {
            service.origin.scheme == Scheme::Https && service.origin.is_default_port()
        });
        let audience = audience.into();
        let mut key = self.key(TokenKind::Id { audience });
        if let Some(service) = service {
            let base = self.provider.policy().base();
            base.adjust(&mut key, &service.origin.host, false);
        }
        self.issue(key).await
    }
}

fn bad_request(text: String) -> NotIssued {
    NotIssued {
        status: StatusCode::BAD_REQUEST,
        text,
        retry_after: None,
    }
}

/// Returns whether a retry may succeed without a change.
fn is_temporary(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Maps the error of a source to a status. Google's libraries retry only after 429 and 503.
fn not_issued(error: &Error) -> NotIssued {
    let status = match error.fault() {
        Some(TokenFault::Limited) => StatusCode::TOO_MANY_REQUESTS,
        Some(TokenFault::NoAccount) => StatusCode::NOT_FOUND,
        Some(TokenFault::Forbidden | TokenFault::NotDelegated | TokenFault::NotImpersonated) => {
            StatusCode::FORBIDDEN
        }
        Some(TokenFault::InvalidScope | TokenFault::Refused | TokenFault::Unsupported) => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    NotIssued {
        status,
        text: error.detail().to_owned(),
        retry_after: is_temporary(status).then(|| error.retry_after_seconds().unwrap_or(1)),
    }
}
