//! The source of the identity: the search for credentials, and the tokens of each type of credential file.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod authorized_user;
mod broken;
#[allow(dead_code)]
#[path = "../emulator/google/client.rs"]
mod client;
mod command;
mod fault_matrix;
mod faults;
mod federation;
mod impersonation;
mod impersonation_rules;
mod metadata_server;
mod naming;
mod quota_project;
mod reload;
mod rules;
mod search;
mod service_account;
mod signed;
#[path = "../support/mod.rs"]
mod support;
mod universe;

use serde_json::Value;

use command::{Ran, sidentity};
use support::google::{Endpoints, Google};

/// A service that requires an ID token, a Google API, and a service behind IAP.
const RUN_APP: &str = "https://private-424242.us-central1.run.app/";
const STORAGE: &str = "https://storage.googleapis.com/";
const IAP: &str = "https://iap.example/";

/// Runs a command with a credential file and the flags that redirect to the emulated endpoints.
async fn run_with(google: &Google, file: &Value, args: &[&str]) -> Ran {
    let path = google.file("credentials.json", file);
    let mut all = vec![args[0].to_owned(), "--credentials".to_owned()];
    all.push(path.display().to_string());
    all.extend(google.flags_for_all());
    all.extend(args[1..].iter().map(ToString::to_string));
    sidentity(
        all,
        Vec::<(String, String)>::new()
            .into_iter()
            .map(|(n, v)| (n.into(), v.into())),
    )
    .await
}

fn service_account(google: &Google) -> Value {
    google.service_account(&Endpoints::default()).unwrap()
}

fn authorized_user(google: &Google) -> Value {
    google.authorized_user(&Endpoints::default())
}
