//! The recorded requests to the token endpoints.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use serde_json::Value;
use sidentity::emulator::google::Endpoint;

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The endpoint of the host and path. `None` if there is no such endpoint.
    pub endpoint: Option<Endpoint>,
    pub method: Method,
    pub version: Version,
    pub tls: bool,
    /// `Host` or `:authority`.
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The number of the connection, from 1.
    pub connection: usize,
    /// The status of the emulated endpoint, before a fault changes it.
    pub status: StatusCode,
}

/// A JWT whose signature is not checked.
#[derive(Clone, Debug)]
pub struct Jwt {
    pub header: Value,
    pub claims: Value,
}

// === impl Recorded ===

impl Recorded {
    /// Returns a header's only value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} twice: {:?}", self.headers);
        value.to_str().ok()
    }

    /// Returns the bearer token.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// Returns all form fields.
    pub fn form(&self) -> BTreeMap<String, String> {
        let body = std::str::from_utf8(&self.body).unwrap();
        url::form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect()
    }

    /// Returns a required form field.
    pub fn field(&self, name: &str) -> String {
        let mut form = self.form();
        let value = form.remove(name);
        value.unwrap_or_else(|| panic!("no {name} in {form:?}"))
    }

    /// Returns a form field that is a JWT.
    pub fn jwt(&self, name: &str) -> Jwt {
        Jwt::read(&self.field(name))
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

// === impl Jwt ===

impl Jwt {
    /// Parses the compact form.
    pub fn read(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| {
            let json = URL_SAFE_NO_PAD.decode(part).unwrap();
            serde_json::from_slice(&json).unwrap_or_default()
        });
        Self {
            header: parts.next().unwrap(),
            claims: parts.next().unwrap(),
        }
    }
}
