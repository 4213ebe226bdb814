//! `--route` and `routes:`.

use super::super::diagnostic::{Diagnostic, DiagnosticId, quote, quote_unless_secret};
use super::super::entry;
use super::super::raw::{RawEntry, RawFields, Spanned};
use super::super::value::{HTTP_VERSION, listen, word};
use super::super::{Config, Listen, Route};
use super::rule;
use crate::destination::{Destination, Scheme};
use crate::policy::{
    Credential, CredentialGrant, Policy, Rule, ServiceLocation, ServiceName, Settings, TokenKind,
};

/// Resolves all routes, each with its location.
pub(super) fn resolve(
    entries: &[RawEntry],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<(String, Route)> {
    let mut routes = Vec::new();
    for entry in entries {
        match entry::fields(entry, &entry::ROUTE) {
            Ok(fields) => {
                let place = fields.place.to_string();
                routes.extend(route(fields, diagnostics).map(|route| (place, route)));
            }
            Err(found) => diagnostics.extend(found),
        }
    }
    routes
}

fn route(mut fields: RawFields, diagnostics: &mut Vec<Diagnostic>) -> Option<Route> {
    let before = diagnostics.len();
    let prefix = fields.take("prefix");
    let at = fields.require("listen", diagnostics);
    let port = at.as_ref().and_then(|text| text.value.split('/').next());
    let on_ipv6 = port.is_some_and(listen::is_port);
    let at = at.and_then(|text| listen(&text, prefix.as_ref(), diagnostics));
    let upstream = fields
        .require("upstream", diagnostics)
        .and_then(|text| understood(&text, upstream, diagnostics));
    let http = fields
        .take_once("http", diagnostics)
        .and_then(|text| understood(&text, |text| word(text, HTTP_VERSION), diagnostics));
    let mode = fields.take_once("mode", diagnostics);
    let options = rule::options(&fields, diagnostics);
    let mode = mode.and_then(|text| match &at {
        Some((_, Listen::Tcp(_), _)) => {
            let message = format!("{} is for unix sockets only: remove it", quote(&text.value));
            diagnostics.push(text.diagnostic(DiagnosticId::OptionWithoutEffect, message));
            None
        }
        Some((_, Listen::Unix(_), _)) | None => understood(&text, self::mode, diagnostics),
    });
    let ((name, listen, prefix), (upstream, service)) = (at?, upstream?);
    (diagnostics.len() == before).then(|| Route {
        name: name.into(),
        listen,
        on_ipv6,
        prefix,
        upstream,
        service,
        options,
        http,
        mode,
    })
}

/// Parses permissions as chmod(1) does: three octal digits, with or without a leading zero.
fn mode(text: &str) -> Result<u32, String> {
    let digits = match text.len() {
        4 => text.strip_prefix('0'),
        3 => Some(text),
        _ => None,
    };
    digits
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
        .ok_or_else(|| {
            format!(
                "{} must be the permissions of a socket in octal, like 0660",
                quote(text)
            )
        })
}

fn understood<T>(
    text: &Spanned,
    parse: impl Fn(&str) -> Result<T, String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<T> {
    parse(&text.value)
        .map_err(|message| diagnostics.push(text.diagnostic(DiagnosticId::InvalidValue, message)))
        .ok()
}

/// Parses the address and the prefix. Also returns both in the syntax of a flag.
fn listen(
    text: &Spanned,
    prefix: Option<&Spanned>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(String, Listen, String)> {
    let (listen, own) = understood(text, listen::parse, diagnostics)?;
    let Some(extra) = prefix else {
        return Some((text.value.clone(), listen, own));
    };
    let prefix = understood(extra, listen::prefix, diagnostics)?;
    if !own.is_empty() {
        let message = format!(
            "listen and {} both give a prefix: keep one",
            quote(&extra.value)
        );
        diagnostics.push(extra.diagnostic(DiagnosticId::Duplicate, message));
        return None;
    }
    let colon = match &listen {
        Listen::Unix(_) if !prefix.is_empty() => ":",
        Listen::Unix(_) | Listen::Tcp(_) => "",
    };
    Some((format!("{}{colon}{prefix}", text.value), listen, prefix))
}

/// Parses an absolute URL, or the name of a service. No message repeats a URL's user or query, which may contain
/// passwords and keys.
fn upstream(url: &str) -> Result<(Destination, Option<ServiceName>), String> {
    // In a path, an `@` is an ordinary character (RFC 3986, 3.3).
    let authority = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .split('/')
        .next();
    if authority.and_then(quote_unless_secret).is_none() {
        return Err(
            "the URL must not contain a user (@): tokens come from the metadata server".to_owned(),
        );
    }
    let shown =
        quote_unless_secret(entry::without_query(url)).unwrap_or_else(|| "the URL".to_owned());
    if url.contains('?') {
        Err(format!("{shown} must not have a query (?)"))
    } else if url.contains('#') {
        Err(format!("{shown} must not have a fragment (#)"))
    } else if let Some(rest) = url.strip_prefix("run://") {
        service(rest)
    } else {
        match Destination::parse(url) {
            Ok(destination) => Ok((destination, None)),
            Err(_) => Err(format!(
                "{shown} must be an absolute http or https URL, like https://storage.googleapis.com"
            )),
        }
    }
}

/// Parses `SERVICE[.REGION][/PATH]`.
fn service(text: &str) -> Result<(Destination, Option<ServiceName>), String> {
    let (name, path) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        None => (text, "/"),
    };
    let service = ServiceName::parse(name).map_err(|error| error.to_string())?;
    let upstream = Destination {
        origin: service.origin(),
        target: path.parse().map_err(|_| {
            let url = quote(&format!("run://{text}"));
            format!("{url} must be run://SERVICE/PATH, like run://billing/v1")
        })?,
        userinfo: false,
    };
    Ok((upstream, Some(service)))
}

/// Refuses tokens in plaintext, and warns of routes that get none. A universe of the metadata server is known only at
/// run time: `universe` is then the default.
pub(super) fn validate(
    routes: &[(String, Route)],
    universe: &str,
    config: &mut Config,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let metadata = &config.metadata;
    let base = config.credentials.base_credential();
    let policy = Policy::new(
        config.rules.clone(),
        Settings {
            metadata: Some((metadata.host.clone(), metadata.port)),
            impersonate: config.impersonate.clone(),
            base: base.clone(),
            ..Settings::default()
        },
    );
    for (place, route) in routes {
        let decide = |upstream: &Destination| {
            policy.decide_route(&route.name, &route.options, upstream, universe)
        };
        let cleartext = route.upstream.origin.scheme == Scheme::Http
            && places(&route.upstream, &config.rules)
                .map(|place| decide(&place))
                .any(|decision| {
                    matches!(decision.grant, CredentialGrant::Token(_)) && !decision.plaintext
                });
        if cleartext {
            let message = format!(
                "a token would be sent to {} in plaintext: write https://, or plaintext=allow",
                route.upstream.origin
            );
            diagnostics.push(Diagnostic::new(
                DiagnosticId::PlaintextToken,
                place,
                message,
            ));
        }
        let upstream = on_cloud_run(route);
        let decision = decide(&upstream);
        let unobtainable = match &decision.grant {
            // Routes for which an account signs are checked with the credential.
            CredentialGrant::Token(key) if !matches!(key.kind, TokenKind::Jwt { .. }) => {
                base.unobtainable(key, &upstream.origin.host)
            }
            _ => None,
        };
        // If a rule decides, the rule is reported.
        if let Some(why) = unobtainable
            && !config.rules.iter().any(|rule| rule.name == decision.rule)
        {
            let message = format!(
                "this token cannot be obtained from {}: {why}",
                config.credentials
            );
            diagnostics.push(Diagnostic::new(
                DiagnosticId::TokenUnobtainable,
                place,
                message,
            ));
        }
        let silent = route.options.effective_credential().is_none();
        let wants_token = matches!(
            route.options.effective_credential(),
            Some(Credential::Access | Credential::Id)
        );
        // The URL of a service's name is known only at run time.
        if (silent || wants_token)
            && route.service.is_none()
            && !policy.depends_on_path(&route.upstream.origin, universe)
        {
            let (what, why) = match decide(&route.upstream).grant {
                CredentialGrant::Token(_) => continue,
                CredentialGrant::None(why) => ("get no token", why),
                CredentialGrant::Deny(why) => ("are refused", why),
            };
            let origin = &route.upstream.origin;
            let warning = format!("{place}: calls to {origin} {what}: {why}");
            config.warnings.push(warning);
        }
    }
}

/// Returns the upstream as far as it is known: a service's name is on Cloud Run.
fn on_cloud_run(route: &Route) -> Destination {
    let mut upstream = route.upstream.clone();
    let service = route.service.as_ref();
    if let Some(origin) = service.and_then(|service| service.at(&ServiceLocation::default()).ok()) {
        upstream.origin = origin;
    }
    upstream
}

/// Returns paths below the upstream that rules may distinguish: its own path, one below it, and one below each rule's
/// path.
fn places<'a>(upstream: &'a Destination, rules: &'a [Rule]) -> impl Iterator<Item = Destination> {
    let base = upstream.path().trim_end_matches('/');
    let of_rules = rules.iter().filter_map(move |rule| {
        let pattern = rule.pattern.to_string();
        let slash = pattern.find('/')?;
        let path = pattern.split_at(slash).1;
        path.starts_with(base).then(|| format!("{path}/x"))
    });
    of_rules
        .chain([format!("{base}/x")])
        .filter_map(|path| path.parse().ok())
        .map(|target| Destination {
            target,
            ..upstream.clone()
        })
        .chain([upstream.clone()])
}
