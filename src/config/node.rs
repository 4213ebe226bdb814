//! YAML as a small tree. Every node has its location, so that all problems of a file are reported, not only the first.

mod unquoted;

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DefaultMessageFormatter, DuplicateKeyPolicy, MergeKeyPolicy, MessageFormatter,
    NonFiniteFloatPolicy,
};

/// One node.
#[derive(Debug)]
pub(super) enum Node {
    /// Nothing, or `null`.
    Null,
    /// A text.
    Text(String),
    /// A plain `true`, `false` or number. Its text is that of the source.
    Scalar,
    /// `[…]`
    List(Vec<SpannedNode>),
    /// `{…}`, with duplicate keys.
    Map(Vec<(SpannedNode, SpannedNode)>),
}

/// A node and its location in the file.
pub(super) type SpannedNode = serde_saphyr::Spanned<Node>;

/// The location of a syntax error, line and column (0 if unknown), and its reason.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) message: String,
}

/// The maximum depth. A configuration has three levels; deeper files get better messages.
const MAX_DEPTH: usize = 16;

/// Reads one document. Depth, anchors and aliases are bounded.
pub(super) fn parse(source: &str) -> Result<SpannedNode, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: 50_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(source, options).map_err(|error| {
        let place = error.location();
        let (line, column) = place.map_or((0, 0), |place| (place.line(), place.column()));
        let message = match &error {
            serde_saphyr::Error::MultipleDocuments { .. } => {
                "a second document begins here: write one".to_owned()
            }
            serde_saphyr::Error::RecursiveReferencesRequireWeakTypes { .. } => {
                "an alias is inside its own anchor".to_owned()
            }
            serde_saphyr::Error::Budget { .. }
            | serde_saphyr::Error::AliasReplayLimitExceeded { .. } => {
                "the file is too large or too deeply nested after its aliases are resolved: write it without them"
                    .to_owned()
            }
            error => {
                if let Some(found) = unquoted::find(source, line) {
                    return SyntaxError {
                        line,
                        column: found.column,
                        message: found.message(),
                    };
                }
                DefaultMessageFormatter.format_message(error).into_owned()
            }
        };
        SyntaxError {
            line,
            column,
            message,
        }
    })
}

// === impl Node ===

impl Node {
    /// Names the kind of the node, for messages.
    pub(super) const fn kind_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) | Self::Scalar => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list or a mapping")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}
