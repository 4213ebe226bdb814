//! The caller's `HTTPS_PROXY` and `NO_PROXY`: the command calls through the sidecar, and the sidecar through that
//! proxy.

use super::direct;
use crate::config::{Config, Env, OptionKey, RawConfig, check_upstream_proxy};
use crate::policy::{NoProxy, NoProxyEntry};

/// The variables that name the caller's proxy, in the order of precedence, as in Go.
const VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];

/// The upstream proxy of the caller's environment.
#[derive(Debug, Default)]
pub(super) struct InheritedProxy {
    variable: Option<&'static str>,
    /// The proxy's URL, or the reason that it cannot be used.
    proxy: Option<Result<String, String>>,
    no_proxy: Vec<String>,
    /// Entries of `NO_PROXY` that match no host.
    left_out: Vec<String>,
}

// === impl InheritedProxy ===

impl InheritedProxy {
    pub(super) fn of(env: &Env) -> Self {
        let Some(variable) = VARIABLES.into_iter().find(|name| env.is_set(name)) else {
            return Self::default();
        };
        let proxy = match env.text(variable) {
            Ok(text) => {
                let text = text.unwrap_or_default().trim().to_owned();
                check_upstream_proxy(&text).map(|()| text)
            }
            Err(problem) => Err(problem.message),
        };
        let hosts = direct::callers(env);
        let (no_proxy, left_out) = NoProxy::split(&hosts)
            .map(str::to_owned)
            .partition(|entry| NoProxyEntry::parse(entry).is_some());
        Self {
            variable: Some(variable),
            proxy: Some(proxy),
            no_proxy,
            left_out,
        }
    }

    /// Sets the caller's proxy as the default of the options.
    pub(super) fn set_defaults(&self, defaults: &mut RawConfig) {
        if let (Some(variable), Some(Ok(proxy))) = (self.variable, &self.proxy) {
            defaults.set_variable(OptionKey::UpstreamProxy, variable, [proxy.clone()]);
            let hosts = self.no_proxy.iter().cloned();
            defaults.set_variable(OptionKey::NoUpstreamProxy, "NO_PROXY", hosts);
        }
    }

    /// Describes the caller's proxy, if the sidecar uses it.
    pub(super) fn in_use(&self, config: &Config) -> Option<String> {
        let variable = self.variable?;
        let proxy = config.upstream.proxy.as_deref()?;
        if !proxy.is_from_variable(variable) {
            return None;
        }
        let egress = &proxy.egress;
        let mut text = format!("the sidecar reaches upstreams through {variable} ({egress})");
        if !egress.no_proxy.is_empty() {
            text.push_str(&format!(", but not {}", egress.no_proxy));
        }
        text.push_str("; --upstream-proxy off reaches them directly");
        if !self.left_out.is_empty() {
            let left_out: Vec<_> = self
                .left_out
                .iter()
                .map(|entry| format!("{entry:?}"))
                .collect();
            text.push_str(&format!(
                "; NO_PROXY: {} matches no host",
                left_out.join(", ")
            ));
        }
        Some(text)
    }

    /// Returns the reason that the caller's proxy is not used, if it cannot be used.
    pub(super) fn unusable(&self) -> Option<String> {
        let (variable, proxy) = (self.variable?, self.proxy.as_ref()?);
        let why = proxy.as_ref().err()?;
        Some(format!("{variable}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_over;

    fn inherited(
        env: &[(&'static str, &'static str)],
        flags: &[(OptionKey, &str)],
    ) -> (InheritedProxy, Option<String>) {
        let env: Env = env.iter().copied().collect();
        let inherited = InheritedProxy::of(&env);
        let mut defaults = RawConfig::default();
        inherited.set_defaults(&mut defaults);
        let mut raw = RawConfig::default();
        for (name, text) in flags {
            raw.set_flag(*name, [(*text).to_owned()]);
        }
        let in_use = inherited.in_use(&load_over(&raw, &env, defaults).unwrap());
        (inherited, in_use)
    }

    #[test]
    fn the_summary_shows_the_callers_proxy_without_its_password() {
        let env = [
            ("HTTPS_PROXY", "http://u:s3cret@p.example:3128"),
            ("NO_PROXY", "a.example,10.0.0.0/8, http://x"),
        ];
        assert_eq!(
            inherited(&env, &[]).1.unwrap(),
            "the sidecar reaches upstreams through HTTPS_PROXY (http://p.example:3128), but not a.example,10.0.0.0/8; \
             --upstream-proxy off reaches them directly; NO_PROXY: \"http://x\" matches no host"
        );
        assert_eq!(inherited(&[("NO_PROXY", "a.example")], &[]).1, None);
        assert_eq!(
            inherited(&[("HTTP_PROXY", "http://p.example:3128")], &[]).1,
            None
        );
    }

    #[test]
    fn options_take_precedence_over_the_environment() {
        let env = [("https_proxy", "http://p.example:3128"), ("no_proxy", "*")];
        assert_eq!(
            inherited(&env, &[(OptionKey::UpstreamProxy, "off")]).1,
            None
        );
        assert_eq!(
            inherited(&env, &[(OptionKey::UpstreamProxy, "http://q.example:1")]).1,
            None
        );
        let message = inherited(&env, &[(OptionKey::NoUpstreamProxy, "b.example")])
            .1
            .unwrap();
        assert!(message.contains("but not b.example;"), "{message}");
    }

    #[test]
    fn an_unsupported_proxy_is_reported() {
        for (proxy, words) in [
            (
                "socks5://u:s3cret@p.example:1080",
                "socks5:// proxies are not supported",
            ),
            (
                "https://u:s3cret@p.example:443",
                "https:// proxies are not supported",
            ),
            ("http://u:s3cret@", "write http://"),
        ] {
            let (inherited, in_use) = inherited(&[("HTTPS_PROXY", proxy)], &[]);
            let message = inherited.unusable().unwrap();
            assert!(message.contains(words), "{message}");
            assert!(!message.contains("s3cret"), "{message}");
            assert_eq!(in_use, None);
        }
    }
}
