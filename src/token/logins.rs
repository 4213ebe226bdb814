//! The current refresh tokens of logins. They outlive the token sources, because a reload replaces these.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use crate::credentials::EndpointUrl;
use crate::lock::lock;

/// The logins of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Logins(Arc<Mutex<HashMap<LoginKey, Weak<RefreshToken>>>>);

/// A login as its file has it.
#[derive(PartialEq, Eq, Hash)]
struct LoginKey {
    token_url: String,
    client_id: Arc<str>,
    refresh_token: Arc<str>,
}

/// The current refresh token of a login. Each response may replace it, so only one attempt at a time uses it.
pub(super) struct RefreshToken(pub(super) tokio::sync::Mutex<Arc<str>>);

// === impl Logins ===

impl Logins {
    /// Returns the current refresh token of a login whose file has `refresh_token`. Sources of the same login share it,
    /// so it survives a reload. A file with another refresh token is another login.
    pub(super) fn refresh_token(
        &self,
        token_url: &EndpointUrl,
        client_id: &Arc<str>,
        refresh_token: &Arc<str>,
    ) -> Arc<RefreshToken> {
        let key = LoginKey {
            token_url: token_url.to_string(),
            client_id: Arc::clone(client_id),
            refresh_token: Arc::clone(refresh_token),
        };
        let mut logins = lock(&self.0);
        if let Some(current) = logins.get(&key).and_then(Weak::upgrade) {
            return current;
        }
        logins.retain(|_, current| current.strong_count() > 0);
        let current = Arc::new(RefreshToken(tokio::sync::Mutex::new(Arc::clone(
            refresh_token,
        ))));
        logins.insert(key, Arc::downgrade(&current));
        current
    }
}

/// Omits the secrets.
impl fmt::Debug for LoginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginKey")
            .field("token_url", &self.token_url)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// Omits the secret.
impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken").finish_non_exhaustive()
    }
}
