//! The one tree that the validator reads, made from YAML (with lines) or from JSON (without).

use marked_yaml::{LoadError, LoaderOptions, parse_yaml_with_options};
use serde_json::Value;

use super::fault::Fault;

/// The greatest text: a contract of a thousand documented fields has about 100 KiB.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// The deepest nesting: a contract needs 4, and the parser below spends stack on each level.
const DEPTH_MAX: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// From 1; 0 where there are no lines.
    pub line: usize,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Null,
    /// A scalar. `bare`: it may stand for a number or a boolean, as a quoted text may not.
    Scalar {
        text: String,
        bare: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub node: Node,
}

impl Node {
    /// Reads YAML. A repeated key is a fault that still leaves a tree, so that the rest can be checked too.
    pub fn from_yaml(text: &str, faults: &mut Vec<Fault>) -> Option<Node> {
        if let Some(fault) = unreadable(text) {
            faults.push(fault);
            return None;
        }
        let options = || LoaderOptions::default().prevent_coercion(true);
        let loaded = match parse_yaml_with_options(0, text, options().error_on_duplicate_keys(true)) {
            Err(LoadError::DuplicateKey(inner)) => {
                let line = |node: &marked_yaml::types::MarkedScalarNode| node.span().start().map_or(0, |at| at.line());
                faults.push(Fault {
                    line: line(&inner.key),
                    path: inner.key.as_str().to_owned(),
                    message: format!(
                        "the key stands twice, first in line {}; remove or rename one of the two",
                        line(&inner.prev_key)
                    ),
                });
                parse_yaml_with_options(0, text, options())
            }
            other => other,
        };
        match loaded {
            Ok(node) => Some(from_marked(&node)),
            Err(error) => {
                faults.push(syntax(&error));
                None
            }
        }
    }

    pub fn from_json(value: &Value) -> Node {
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(_) | Value::Number(_) => Content::Scalar { text: value.to_string(), bare: true },
            Value::String(text) => Content::Scalar { text: text.clone(), bare: false },
            Value::Array(items) => Content::List(items.iter().map(Node::from_json).collect()),
            Value::Object(entries) => Content::Map(
                entries
                    .iter()
                    .map(|(key, value)| Entry { key: key.clone(), line: 0, node: Node::from_json(value) })
                    .collect(),
            ),
        };
        Node { line: 0, content }
    }

    /// What it is, for a sentence about what was found.
    pub fn describe(&self) -> String {
        match &self.content {
            Content::Null => "nothing".to_owned(),
            Content::Scalar { text, .. } => format!("`{text}`"),
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a mapping".to_owned(),
        }
    }
}

fn from_marked(node: &marked_yaml::Node) -> Node {
    let line = node.span().start().map_or(0, |at| at.line());
    let content = match node {
        marked_yaml::Node::Scalar(scalar) => {
            let (text, bare) = (scalar.as_str(), scalar.may_coerce());
            if bare && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
                Content::Null
            } else {
                Content::Scalar { text: text.to_owned(), bare }
            }
        }
        marked_yaml::Node::Sequence(items) => Content::List(items.iter().map(from_marked).collect()),
        marked_yaml::Node::Mapping(entries) => Content::Map(
            entries
                .iter()
                .map(|(key, value)| Entry {
                    key: key.as_str().to_owned(),
                    line: key.span().start().map_or(line, |at| at.line()),
                    node: from_marked(value),
                })
                .collect(),
        ),
    };
    Node { line, content }
}

/// What the YAML reader must not be given: it would read the first of several documents only, and recurses by level.
fn unreadable(text: &str) -> Option<Fault> {
    let fault = |line: usize, message: &str| Some(Fault { line, path: String::new(), message: message.to_owned() });
    if text.len() > TEXT_BYTES_MAX {
        return fault(1, "the text is longer than 1 MiB; a contract is not");
    }
    let (mut open, mut seen) = (0_usize, false);
    for (number, line) in text.lines().enumerate() {
        let marker = line == "---" || line.starts_with("--- ");
        if marker && seen {
            return fault(number + 1, "a second document begins here; write one contract per file");
        }
        seen |= marker || !(line.trim().is_empty() || line.trim_start().starts_with('#'));
        let lead = line.chars().take_while(|c| matches!(c, ' ' | '-' | '?')).filter(|c| *c != ' ').count();
        for c in line.chars() {
            match c {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        // A rule of dashes in a comment or text is no nesting, hence a wider limit for those.
        if open > DEPTH_MAX || lead > 8 * DEPTH_MAX || indent > 16 * DEPTH_MAX {
            return fault(number + 1, "the text is nested too deeply for a contract");
        }
    }
    None
}

fn syntax(error: &LoadError) -> Fault {
    let (line, message) = match error {
        LoadError::TopLevelMustBeMapping(at) | LoadError::TopLevelMustBeSequence(at) => {
            (at.line(), "a contract is a mapping; begin with `apiVersion: flywheel/v1`".to_owned())
        }
        LoadError::UnexpectedAnchor(at) => (at.line(), "anchors are not supported; write the value out".to_owned()),
        LoadError::UnexpectedTag(at) => (at.line(), "tags are not supported; remove it".to_owned()),
        LoadError::MappingKeyMustBeScalar(at) => (at.line(), "a key must be a plain name".to_owned()),
        LoadError::ScanError(at, error) => (at.line(), format!("not YAML: {error}")),
        LoadError::DuplicateKey(inner) => (0, format!("the key `{}` stands twice", inner.key.as_str())),
    };
    Fault { line, path: String::new(), message }
}
