//! The requests of the load.

use std::net::SocketAddr;

/// Requests are the same for all callers, but for the place.
#[derive(clap::Args)]
pub struct RequestArgs {
    #[arg(long, default_value = "/bytes/1024")]
    path: String,
    /// `Host`; without it, the address that is called
    #[arg(long)]
    authority: Option<String>,
    /// In absolute form, as to a forward proxy
    #[arg(long)]
    absolute: bool,
    /// Calls so many functions in turn, at hosts of their own by twenties: each has an audience of its own
    #[arg(long)]
    functions: Option<usize>,
    /// `POST` with a body of so many bytes
    #[arg(long)]
    body: Option<usize>,
    /// A gRPC call
    #[arg(long)]
    grpc: bool,
    /// A header of so many bytes
    #[arg(long, default_value_t = 0)]
    header: usize,
}

/// The requests of one connection, in order.
pub(super) struct Plan {
    pub(super) calls: Vec<Call>,
    pub(super) body: Option<bytes::Bytes>,
    pub(super) grpc: bool,
    pub(super) header: Option<String>,
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
            absolute: self.absolute,
        }
    }
}
