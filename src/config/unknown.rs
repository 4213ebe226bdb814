//! `SIDENTITY_…` variables that are not options.
//!
//! A variable that nearly names an option is an error, because a misspelt variable would have no effect. Any other
//! variable may belong to another program, such as one of a build or of a Kubernetes Service called `sidentity`. These
//! are ignored, with one warning.

use super::diagnostic::{Diagnostic, DiagnosticId};
use super::env::Env;
use super::options::OptionKey;
use crate::suggestion::nearest;

/// Checks the names of all variables that begin with `SIDENTITY_`, for every command, also those that read none.
///
/// Returns the warning about variables that are ignored.
///
/// # Errors
///
/// One problem for each variable that is within two edits of an option's.
pub fn unknown_variables(env: &Env) -> Result<Option<String>, Vec<Diagnostic>> {
    let mut ignored = Vec::new();
    let mut diagnostics = Vec::new();
    for variable in env.names("SIDENTITY_") {
        // SIDENTITY_REVISION names a build, not an option.
        let known = matches!(&*variable, "SIDENTITY_CONFIG" | "SIDENTITY_REVISION")
            || OptionKey::ALL
                .iter()
                .any(|name| name.variable() == variable);
        if known || !env.is_set(&variable) {
            continue;
        }
        let service_link = env
            .text(&variable)
            .is_ok_and(|value| is_service_link(&variable, value.unwrap_or("")));
        match nearest_option(&variable).filter(|_| !service_link) {
            Some(near) => diagnostics.push(Diagnostic::new(
                DiagnosticId::UnknownVariable,
                format!("environment {variable}"),
                format!("is not an option: did you mean {near}?"),
            )),
            None => ignored.push(variable),
        }
    }
    if diagnostics.is_empty() {
        Ok(ignored_variables(&ignored))
    } else {
        Err(diagnostics)
    }
}

/// Kubernetes sets such variables in every pod of a namespace that has a Service called `sidentity` or `sidentity-…`.
fn is_service_link(variable: &str, value: &str) -> bool {
    let of_one_port = variable.split_once("_PORT_").is_some_and(|(_, rest)| {
        rest.bytes()
            .next()
            .is_some_and(|first| first.is_ascii_digit())
    });
    of_one_port
        || variable.ends_with("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || (variable.ends_with("_PORT") && value.contains("://"))
}

/// Returns the option's variable that is at most two edits away.
fn nearest_option(variable: &str) -> Option<String> {
    const MOST_EDITS: usize = 2;
    let options = OptionKey::ALL.iter().map(|option| option.variable());
    let known = options.chain(["SIDENTITY_CONFIG".to_owned()]);
    nearest(variable, known, |_| MOST_EDITS)
}

/// Returns the warning about variables that are not options and are ignored.
fn ignored_variables(variables: &[String]) -> Option<String> {
    const SHOWN: usize = 8;
    let shown: Vec<String> = variables
        .iter()
        .take(SHOWN)
        .map(|variable| {
            variable
                .chars()
                .filter(|c| !c.is_control())
                .take(80)
                .collect()
        })
        .collect();
    let more = match variables.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let is_one = variables.len() == 1;
    (!variables.is_empty()).then(|| {
        format!(
            "environment {}{more}: {} of sidentity and {} ignored",
            shown.join(", "),
            if is_one {
                "is not an option"
            } else {
                "are not options"
            },
            if is_one { "is" } else { "are" },
        )
    })
}
