//! The requests of the load.

use std::net::SocketAddr;

/// The requests are the same for all callers, but each begins at another one.
#[derive(clap::Args)]
pub struct RequestArgs {
    #[arg(long, default_value = "/bytes/1024")]
    path: String,
    /// `Host`; the default is the called address
    #[arg(long)]
    authority: Option<String>,
    /// Uses the absolute form, as for a forward proxy
    #[arg(long)]
    absolute: bool,
    /// Calls this number of functions in turn, twenty at each host; each has its own audience
    #[arg(long)]
    functions: Option<usize>,
    /// Sends `POST` with a body of this number of bytes
    #[arg(long)]
    body: Option<usize>,
    /// Sends gRPC calls
    #[arg(long)]
    grpc: bool,
    /// Adds a header of this number of bytes
    #[arg(long, default_value_t = 0)]
    header: usize,
    /// The value of `Authorization`, for a hop that cannot add it
    #[arg(long)]
    token: Option<String>,
}

/// The requests of one connection, in order.
pub(super) struct Plan {
    pub(super) calls: Vec<Call>,
    pub(super) body: Option<bytes::Bytes>,
    pub(super) grpc: bool,
    pub(super) header: Option<String>,
    pub(super) token: Option<String>,
    /// Whether the target contains the scheme and the authority.
    pub(super) absolute: bool,
}

/// One request.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) authority: String,
    pub(super) path: String,
}

/// The number of functions at one host.
const AT_ONE_HOST: usize = 20;

impl RequestArgs {
    /// Connections begin at different positions, so that they do not call in lockstep.
    pub(super) fn plan(&self, number: usize, target: SocketAddr) -> Plan {
        let authority = self.authority.clone().unwrap_or_else(|| target.to_string());
        let calls = match self.functions {
            None => vec![Call {
                authority,
                path: self.path.clone(),
            }],
            Some(all) => (0..all)
                .map(|step| (number * 7 + step) % all)
                .map(|index| Call {
                    authority: format!("us-central1-p{}.cloudfunctions.net", index / AT_ONE_HOST),
                    path: format!("/f{}{}", index % AT_ONE_HOST, self.path),
                })
                .collect(),
        };
        Plan {
            calls,
            body: self.body.map(|length| vec![b'x'; length].into()),
            grpc: self.grpc,
            header: (self.header > 0).then(|| "x".repeat(self.header)),
            token: self.token.clone(),
            absolute: self.absolute,
        }
    }
}
