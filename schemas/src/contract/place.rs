//! A node with its path, and the readings of it that note a fault instead of failing.

use std::cell::RefCell;

use super::duration;
use super::fault::Fault;
use super::node::{Content, Entry, Node};

/// Names of models, fields, labels and views: they become columns, topics and Avro names.
const NAME_LENGTH_MAX: usize = 63;

/// The faults found so far.
#[derive(Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub fn new(faults: Vec<Fault>) -> Faults {
        Faults(RefCell::new(faults))
    }

    pub fn add(&self, line: usize, path: &str, message: impl Into<String>) {
        self.0.borrow_mut().push(Fault { line, path: path.to_owned(), message: message.into() });
    }

    /// By line, and within a line as they were found.
    pub fn into_sorted(self) -> Vec<Fault> {
        let mut faults = self.0.into_inner();
        faults.sort_by_key(|fault| fault.line);
        faults
    }
}

/// A value somewhere in the contract.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub node: &'a Node,
    /// That of its key.
    pub line: usize,
    pub path: String,
    faults: &'a Faults,
}

impl<'a> Place<'a> {
    pub fn root(node: &'a Node, faults: &'a Faults) -> Place<'a> {
        Place { node, line: node.line, path: String::new(), faults }
    }

    pub fn fault(&self, message: impl Into<String>) {
        self.faults.add(self.line, &self.path, message);
    }

    fn wrong<T>(&self, wanted: &str) -> Option<T> {
        self.fault(format!("found {}; write {wanted}", self.node.describe()));
        None
    }

    /// Any scalar, as it is written.
    pub fn text(&self) -> Option<&'a str> {
        match &self.node.content {
            Content::Scalar { text, .. } => Some(text),
            _ => self.wrong("a text"),
        }
    }

    pub fn scalar(&self) -> Option<(&'a str, bool)> {
        match &self.node.content {
            Content::Scalar { text, bare } => Some((text, *bare)),
            _ => self.wrong("a single value"),
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match &self.node.content {
            Content::Scalar { text, bare: true } if text == "true" => Some(true),
            Content::Scalar { text, bare: true } if text == "false" => Some(false),
            _ => self.wrong("true or false"),
        }
    }

    pub fn number(&self) -> Option<f64> {
        match &self.node.content {
            Content::Scalar { text, bare: true } => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Some(number),
                _ => self.wrong("a number"),
            },
            _ => self.wrong("a number"),
        }
    }

    pub fn whole(&self) -> Option<i32> {
        match &self.node.content {
            Content::Scalar { text, bare: true } => match text.parse::<i32>() {
                Ok(number) => Some(number),
                Err(_) => self.wrong("a whole number"),
            },
            _ => self.wrong("a whole number"),
        }
    }

    /// In milliseconds.
    pub fn duration(&self) -> Option<i64> {
        match &self.node.content {
            Content::Scalar { text, .. } => duration::parse(text).map_err(|message| self.fault(message)).ok(),
            _ => self.wrong("a duration such as `12h`"),
        }
    }

    pub fn name(&self) -> Option<&'a str> {
        let text = self.text()?;
        self.check_name(text);
        Some(text)
    }

    fn check_name(&self, text: &str) {
        let mut bytes = text.bytes();
        let pattern = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !pattern || text.len() > NAME_LENGTH_MAX {
            self.fault(format!(
                "`{text}` is no name; write a lower-case letter, then up to 62 lower-case letters, digits or _"
            ));
        }
    }

    /// One of several words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let list = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        match &self.node.content {
            Content::Scalar { text, .. } => match words.iter().find(|(word, _)| word == text) {
                Some((_, value)) => Some(*value),
                None => self.wrong(&format!("one of {}", list())),
            },
            _ => self.wrong(&format!("one of {}", list())),
        }
    }

    pub fn object(&self) -> Option<Object<'a>> {
        match &self.node.content {
            Content::Map(entries) => Some(Object::new(self.clone(), entries)),
            _ => self.wrong("a mapping"),
        }
    }

    /// The items of a list, each under its place in it.
    pub fn items(&self) -> Vec<Place<'a>> {
        match &self.node.content {
            Content::List(items) => {
                items.iter().enumerate().map(|(index, item)| self.below(&index.to_string(), item.line, item)).collect()
            }
            _ => self.wrong("a list").unwrap_or_default(),
        }
    }

    /// Named things: a mapping of name to `value`, or, as JSON has it since JSON objects have no order, a list of
    /// mappings with a `name` each.
    pub fn named(&self, check_names: bool) -> Vec<(&'a str, Object<'a>)> {
        let mut named = Vec::new();
        match &self.node.content {
            Content::Map(entries) => {
                for entry in entries {
                    let place = self.below(&entry.key, entry.line, &entry.node);
                    if check_names {
                        place.check_name(&entry.key);
                    }
                    named.extend(place.object().map(|object| (entry.key.as_str(), object)));
                }
            }
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let place = self.below(&index.to_string(), item.line, item);
                    let Some(mut object) = place.object() else { continue };
                    let Some(name) = object.require("name").and_then(|name| name.text()) else { continue };
                    object.place.path = self.path_of(name);
                    if check_names {
                        object.place.check_name(name);
                    }
                    if named.iter().any(|(other, _)| *other == name) {
                        object.place.fault("the name stands twice; rename or remove one of the two");
                    }
                    named.push((name, object));
                }
            }
            _ => drop(self.wrong::<()>("a mapping of names")),
        }
        named
    }

    /// A mapping of texts, or a list of mappings with `name` and `value_key`.
    pub fn pairs(&self, value_key: &'static str) -> Vec<(String, String)> {
        if let Content::Map(entries) = &self.node.content {
            let pair = |entry: &'a Entry| {
                Some((entry.key.clone(), self.below(&entry.key, entry.line, &entry.node).text()?.to_owned()))
            };
            return entries.iter().filter_map(pair).collect();
        }
        let pair = |(name, mut object): (&'a str, Object<'a>)| {
            let value = object.require(value_key).and_then(|value| value.text())?.to_owned();
            object.finish();
            Some((name.to_owned(), value))
        };
        self.named(false).into_iter().filter_map(pair).collect()
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn below(&self, key: &str, line: usize, node: &'a Node) -> Place<'a> {
        Place { node, line, path: self.path_of(key), faults: self.faults }
    }
}

/// A mapping that is read key by key; what nobody asked for when it goes is unknown.
pub(super) struct Object<'a> {
    pub place: Place<'a>,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

impl<'a> Object<'a> {
    fn new(place: Place<'a>, entries: &'a [Entry]) -> Object<'a> {
        Object { place, entries, known: Vec::new() }
    }

    /// The value of `key`; none where it is absent or null.
    pub fn get(&mut self, key: &'static str) -> Option<Place<'a>> {
        self.known.push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if matches!(entry.node.content, Content::Null) {
            return None;
        }
        Some(self.place.below(key, entry.line, &entry.node))
    }

    /// The value of `key`, whose absence is a fault.
    pub fn require(&mut self, key: &'static str) -> Option<Place<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.place.fault(format!("`{key}` is missing; add it"));
        }
        found
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key && !matches!(entry.node.content, Content::Null))
    }

    /// Notes every key that nobody asked for.
    pub fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let path = self.place.path_of(&entry.key);
            let known = self.known.join(", ");
            self.place.faults.add(entry.line, &path, format!("unknown key; remove it, or write one of {known}"));
        }
    }
}
