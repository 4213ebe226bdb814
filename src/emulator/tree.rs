//! What `/computeMetadata/v1/` holds, as a tree of directories and values.

use serde_json::{Map, Value, json};

use super::identity::Identity;

/// The scopes of an account on Cloud Run.
pub(super) const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/cloud-platform"];

/// A directory, or what stands at its end.
#[derive(Debug)]
pub(super) enum Node {
    Directory(Vec<(String, Self)>),
    Text(String),
    Number(u64),
    /// One a line.
    List(Vec<String>),
    AccessToken,
    IdToken,
}

// === impl Node ===

impl Node {
    /// The root, as Cloud Run has it: an instance there has no name, host name, attributes or network.
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

    /// The child of that name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        let Self::Directory(children) = self else {
            return None;
        };
        children
            .iter()
            .find_map(|(child, node)| (child == name).then_some(node))
    }

    /// The listing of a directory, or a value as text; `None` for a token, which is made when it is asked for.
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

    /// The whole subtree, without its tokens.
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

fn directory<const N: usize>(children: [(&str, Node); N]) -> Node {
    Node::Directory(children.map(|(name, node)| (name.to_owned(), node)).into())
}

/// `project-id` is `projectId` in JSON; an account's address stays as it is.
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
