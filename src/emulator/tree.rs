//! The content of `/computeMetadata/v1/`, as a tree of directories and values.

use serde_json::{Map, Value, json};

use super::identity::Identity;
use super::query_params::QueryParams;
use super::real_token_server::KnownIdentity;
use super::response::MetadataResponse;

/// The scopes of an account on Cloud Run.
pub(super) const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/cloud-platform"];

/// A directory or a value.
#[derive(Debug)]
pub(super) enum MetadataNode {
    Directory(Vec<(String, Self)>),
    Text(String),
    Number(u64),
    /// One value in each line.
    List(Vec<String>),
    AccessToken,
    IdToken,
}

// === impl MetadataNode ===

impl MetadataNode {
    /// Returns the root, as on Cloud Run: an instance there has no name, host name, attributes or network.
    pub(super) fn root(identity: &Identity, instance_id: String) -> Self {
        let Identity {
            email,
            project_id,
            project_number,
            region,
            ..
        } = identity;
        let location = format!("projects/{project_number}");
        directory([
            (
                "instance",
                directory([
                    ("id", Self::Text(instance_id)),
                    ("region", Self::Text(format!("{location}/regions/{region}"))),
                    (
                        "service-accounts",
                        directory([
                            (email.as_str(), Self::account(identity)),
                            ("default", Self::account(identity)),
                        ]),
                    ),
                    ("zone", Self::Text(format!("{location}/zones/{region}-1"))),
                ]),
            ),
            (
                "project",
                directory([
                    ("numeric-project-id", Self::Number(*project_number)),
                    ("project-id", Self::Text(project_id.to_string())),
                ]),
            ),
            (
                "universe",
                directory([("universe-domain", Self::Text("googleapis.com".to_owned()))]),
            ),
        ])
    }

    fn account(identity: &Identity) -> Self {
        directory([
            ("aliases", Self::List(vec!["default".to_owned()])),
            ("email", Self::Text(identity.email.to_string())),
            ("identity", Self::IdToken),
            ("scopes", Self::List(SCOPES.map(str::to_owned).to_vec())),
            ("token", Self::AccessToken),
        ])
    }

    /// Returns the root for a real credential. An unknown fact has no path.
    pub(super) fn of_credential(known: &KnownIdentity, instance_id: String) -> Self {
        let text = |name: &str, text: String| Some((name.to_owned(), Self::Text(text)));
        let below = |name: &str, children: Vec<Option<(String, Self)>>| {
            let children = children.into_iter().flatten().collect();
            Some((name.to_owned(), Self::Directory(children)))
        };
        // Google's libraries expect an address here and accept any text.
        let email = known.email.as_deref().unwrap_or("default");
        let account = |name: &str| {
            below(
                name,
                vec![
                    Some(("aliases".to_owned(), Self::List(vec!["default".to_owned()]))),
                    text("email", email.to_owned()),
                    Some(("identity".to_owned(), Self::IdToken)),
                    Some(("scopes".to_owned(), Self::List(known.scopes.clone()))),
                    Some(("token".to_owned(), Self::AccessToken)),
                ],
            )
        };
        let named = known.email.is_some().then(|| account(email)).flatten();
        let number = known.project_number.as_deref();
        let location = |what: String| number.map(|number| format!("projects/{number}/{what}"));
        let region = known.region.as_deref();
        let in_region = |name: &str, what: Option<String>| text(name, location(what?)?);
        let instance = vec![
            text("id", instance_id),
            in_region("region", region.map(|region| format!("regions/{region}"))),
            below("service-accounts", vec![named, account("default")]),
            in_region("zone", region.map(|region| format!("zones/{region}-1"))),
        ];
        let project = vec![
            number.and_then(|number| text("numeric-project-id", number.to_owned())),
            known
                .project_id
                .as_ref()
                .and_then(|id| text("project-id", id.clone())),
        ];
        let universe = vec![text("universe-domain", known.universe.clone())];
        let root = [
            below("instance", instance),
            below("project", project),
            below("universe", universe),
        ];
        Self::Directory(root.into_iter().flatten().collect())
    }

    /// Returns the response for a directory or a value. Tokens are handled elsewhere.
    pub(super) fn answer(&self, query: &QueryParams<'_>) -> MetadataResponse {
        let recursive = query.flag("recursive") && matches!(self, Self::Directory(_));
        let as_json = recursive || query.value("alt").is_some_and(|alt| alt == "json");
        match (as_json, self.json(), self.text()) {
            (true, Some(json), _) => MetadataResponse::json(&json),
            (_, _, Some(text)) => MetadataResponse::text(&text),
            _ => MetadataResponse::not_found(),
        }
    }

    /// Returns the child with this name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        let Self::Directory(children) = self else {
            return None;
        };
        children
            .iter()
            .find_map(|(child, node)| (child == name).then_some(node))
    }

    /// Returns the listing of a directory, or a value as text. Returns `None` for a token, which is issued on request.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Directory(children) => Some(
                children
                    .iter()
                    .map(|(name, node)| match node {
                        Self::Directory(_) => format!("{name}/\n"),
                        _ => format!("{name}\n"),
                    })
                    .collect(),
            ),
            Self::Text(text) => Some(text.clone()),
            Self::Number(number) => Some(number.to_string()),
            Self::List(lines) => Some(lines.iter().map(|line| format!("{line}\n")).collect()),
            Self::AccessToken | Self::IdToken => None,
        }
    }

    /// Returns the whole subtree without its tokens.
    pub(super) fn json(&self) -> Option<Value> {
        match self {
            Self::Directory(children) => Some(Value::Object(
                children
                    .iter()
                    .filter_map(|(name, node)| Some((json_key(name), node.json()?)))
                    .collect::<Map<_, _>>(),
            )),
            Self::Text(text) => Some(json!(text)),
            Self::Number(number) => Some(json!(number)),
            Self::List(lines) => Some(json!(lines)),
            Self::AccessToken | Self::IdToken => None,
        }
    }
}

fn directory<const N: usize>(children: [(&str, MetadataNode); N]) -> MetadataNode {
    MetadataNode::Directory(children.map(|(name, node)| (name.to_owned(), node)).into())
}

/// Converts a name: `project-id` becomes `projectId`, an account's address stays.
fn json_key(name: &str) -> String {
    if name.contains('@') {
        return name.to_owned();
    }
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |key, word| {
        let mut letters = word.chars();
        let initial = letters.next().map(|letter| letter.to_ascii_uppercase());
        key + &initial.into_iter().chain(letters).collect::<String>()
    })
}
