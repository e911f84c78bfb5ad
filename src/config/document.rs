//! Reading a TOML document setting by setting, without stopping at the first mistake.
//!
//! Serde gives up at the first error; an operator wants all of them. So each setting is read by name from a
//! [`Section`], with its default and its parser, in one place: what was never asked for is an unknown key,
//! and what was asked for is the list of all settings, which a test holds against `proxy.toml`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::mistake::{Mistake, Place};
use super::node::{Entry, Node, Origin, Value, entries};
use super::parse::{Parsed, Wrong};

/// The environment, as much of it as the configuration may read.
pub type Environment = BTreeMap<String, String>;

/// Environment variables that override a setting, and which.
pub(super) const OVERRIDES: &[(&str, &str)] = &[
    ("BROKER_WALLET", "accepts.pay_to"),
    ("X402_FACILITATOR_URL", "facilitator.url"),
    ("XCACHE_BASE_URL", "providers.xcache.url"),
    ("OPENX402_BASE_URL", "providers.openx402.url"),
    ("MERIT_SYSTEMS_URL", "providers.merit.url"),
];

/// A document being read.
pub(super) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    pub(super) environment: &'a Environment,
    mistakes: RefCell<Vec<(usize, Mistake)>>,
    warnings: RefCell<Vec<Mistake>>,
    overrides: RefCell<BTreeSet<(&'static str, String)>>,
    #[cfg(test)]
    pub(super) declared: RefCell<BTreeMap<String, Option<toml::Value>>>,
}

/// What reading found besides the settings.
pub(super) struct Findings {
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Mistake>,
    /// Environment variable and the setting it replaced.
    pub(super) overrides: BTreeSet<(&'static str, String)>,
}

impl<'a> Document<'a> {
    /// Starts reading `text`; `file` is its name in mistakes. After a syntax error there is nothing to read: what
    /// the parser makes of the rest would only be called wrong in turn.
    pub(super) fn parse(file: &'a str, text: &'a str, environment: &'a Environment) -> (Self, Node) {
        let document = Document {
            file,
            text,
            environment,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
            overrides: RefCell::default(),
            #[cfg(test)]
            declared: RefCell::default(),
        };
        let (table, errors) = toml::de::DeTable::parse_recoverable(text);
        let mut lines = BTreeSet::new();
        for error in errors {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count();
            if !lines.insert(line) {
                continue;
            }
            let origin = Origin::File(error.span().unwrap_or(0..0));
            let wrong = Wrong::new(error.message().to_owned(), "correct the TOML syntax here");
            document.mistake(&origin, String::new(), wrong);
        }
        let root = Node { origin: Origin::File(0..0), value: Value::Table(entries(table.get_ref())) };
        (document, root)
    }

    /// The document's top level.
    pub(super) fn root(&'a self, node: &'a Node) -> Section<'a> {
        Section::new(self, String::new(), Some(node))
    }

    /// Whether nothing wrong was found so far.
    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    pub(super) fn findings(self) -> Findings {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|(offset, _)| *offset);
        Findings {
            mistakes: mistakes.into_iter().map(|(_, mistake)| mistake).collect(),
            warnings: self.warnings.into_inner(),
            overrides: self.overrides.into_inner(),
        }
    }

    pub(super) fn mistake(&self, origin: &Origin, setting: String, wrong: Wrong) {
        let offset = if let Origin::File(range) = origin { range.start } else { usize::MAX };
        self.mistakes.borrow_mut().push((offset, self.describe(origin, setting, wrong)));
    }

    pub(super) fn warning(&self, origin: &Origin, setting: String, wrong: Wrong) {
        let warning = self.describe(origin, setting, wrong);
        self.warnings.borrow_mut().push(warning);
    }

    fn describe(&self, origin: &Origin, setting: String, wrong: Wrong) -> Mistake {
        let place = match origin {
            Origin::File(range) => self.position(range.start),
            Origin::Environment(name) => Place::Environment(name),
            Origin::Default => Place::WholeFile,
        };
        Mistake { file: self.file.to_owned(), place, setting, reason: wrong.reason, fix: wrong.fix }
    }

    fn position(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Place::File { line, column }
    }

    /// The variable that overrides the setting at `path`, if it is set.
    fn overridden(&self, path: &str) -> Option<Node> {
        let generic = path.split_once('[').map_or(path.to_owned(), |(head, rest)| {
            format!("{head}{}", rest.split_once(']').map_or("", |(_, tail)| tail))
        });
        let (name, _) = OVERRIDES.iter().find(|(_, setting)| *setting == generic)?;
        let text = self.environment.get(*name).filter(|text| !text.is_empty())?;
        self.note_override(name, path);
        Some(Node::from_environment(name, text))
    }

    /// Warns of variables that are set and replaced nothing, since what they are about is not in the file.
    pub(super) fn idle_overrides(&self) {
        for (name, setting) in OVERRIDES {
            let set = self.environment.get(*name).is_some_and(|text| !text.is_empty());
            if set && !self.overrides.borrow().iter().any(|(used, _)| used == name) {
                let table = setting.rsplit_once('.').map_or(*setting, |(table, _)| table);
                let reason = format!("it is set, and there is no {table} in the file for it to change");
                let fix = format!("add {table}, or unset the variable");
                let wrong = Wrong::new(reason, fix);
                self.warning(&Origin::Environment(name), (*setting).to_owned(), wrong);
            }
        }
    }

    pub(super) fn note_override(&self, name: &'static str, path: &str) {
        self.overrides.borrow_mut().insert((name, path.to_owned()));
    }

    #[cfg(test)]
    fn declare(&self, path: &str, default: Option<toml::Value>) {
        self.declared.borrow_mut().insert(path.to_owned(), default);
    }
}

/// One table of the document; an absent table reads as an empty one.
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    path: String,
    node: Option<&'a Node>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    fn new(document: &'a Document<'a>, path: String, node: Option<&'a Node>) -> Self {
        Section { document, path, node, known: RefCell::default() }
    }

    /// A setting that must be written.
    pub(super) fn required<T>(&self, key: &'static str, parse: impl Fn(&Node) -> Parsed<T>) -> Option<T> {
        self.declared(key, None);
        match self.find(key) {
            Some(node) => self.parsed(key, &node, parse),
            None => {
                let fix =
                    format!("add `{key} = …` to [{}]; the proxy.toml in the source describes it", self.path);
                self.mistake_here(Wrong::new(format!("`{key}` is missing"), fix));
                None
            }
        }
    }

    /// A setting without a default. `Some(None)`: it is not written.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&Node) -> Parsed<T>,
    ) -> Option<Option<T>> {
        self.declared(key, None);
        match self.find(key) {
            Some(node) => self.parsed(key, &node, parse).map(Some),
            None => Some(None),
        }
    }

    /// A setting with a default, written as TOML.
    pub(super) fn setting<T>(
        &self,
        key: &'static str,
        default: impl Into<toml::Value>,
        parse: impl Fn(&Node) -> Parsed<T>,
    ) -> Option<T> {
        let node = self.or_default(key, default.into());
        self.parsed(key, &node, parse)
    }

    /// A list with a default; each wrong element is a mistake of its own.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        default: Vec<&str>,
        parse: impl Fn(&Node) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let node = self.or_default(key, default.into());
        let Value::Array(items) = &node.value else {
            let reason = format!("expected a list, found {}", node.value.kind());
            let wrong = Wrong::new(reason, format!("write `{key} = [ … ]`"));
            self.document.mistake(&node.origin, self.path_of(key), wrong);
            return None;
        };
        let parsed: Vec<Option<T>> = items.iter().map(|item| self.parsed(key, item, &parse)).collect();
        parsed.into_iter().collect()
    }

    /// The table `key`, empty if it is not written.
    pub(super) fn table(&self, key: &'static str) -> Section<'a> {
        self.known.borrow_mut().push(key);
        let path = self.path_of(key);
        let node = self.entry(key).map(|entry| &entry.node);
        if let Some(node) = node.filter(|node| !matches!(node.value, Value::Table(_))) {
            let reason = format!("expected a table, found {}", node.value.kind());
            self.document.mistake(
                &node.origin,
                path.clone(),
                Wrong::new(reason, format!("write it as [{path}]")),
            );
        }
        Section::new(self.document, path, node)
    }

    /// The tables of `[[key]]`, in the order written.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Section<'a>> {
        self.known.borrow_mut().push(key);
        let path = self.path_of(key);
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let wrong = |node: &Node| {
            let reason = format!("expected tables, found {}", node.value.kind());
            let fix = format!("write each as a [[{path}]] table");
            self.document.mistake(&node.origin, path.clone(), Wrong::new(reason, fix));
        };
        let Value::Array(items) = &entry.node.value else {
            wrong(&entry.node);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item.value {
                Value::Table(_) => {
                    sections.push(Section::new(self.document, format!("{path}[{index}]"), Some(item)));
                }
                _ => wrong(item),
            }
        }
        sections
    }

    /// Whether the table is written at all.
    pub(super) fn is_present(&self) -> bool {
        self.node.is_some()
    }

    /// Whether `key` is written in this table.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where `key` is written; its table, if it is not.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        match self.document.overridden(&self.path_of(key)) {
            Some(node) => node.origin,
            None => self.entry(key).map_or_else(|| self.origin(), |entry| Origin::File(entry.key.clone())),
        }
    }

    /// Notes a mistake about `key`, found by looking at more than its own value.
    pub(super) fn mistake(&self, key: &str, reason: impl Into<String>, fix: impl Into<String>) {
        self.document.mistake(&self.origin_of(key), self.path_of(key), Wrong::new(reason, fix));
    }

    /// Notes something about `key` that `serve` cannot start with but the file is not to blame for.
    pub(super) fn warning(&self, key: &str, reason: impl Into<String>, fix: impl Into<String>) {
        self.document.warning(&self.origin_of(key), self.path_of(key), Wrong::new(reason, fix));
    }

    /// The dotted path of `key`.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Refuses every key that was not asked for.
    pub(super) fn finish(&self) {
        let Some(Value::Table(table)) = self.node.map(|node| &node.value) else { return };
        let known = self.known.borrow();
        for (key, entry) in table.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let wrong = Wrong::new(format!("`{key}` is not a setting"), suggestion(key, &known));
            self.document.mistake(&Origin::File(entry.key.clone()), self.path_of(key), wrong);
        }
    }

    fn origin(&self) -> Origin {
        self.node.map_or(Origin::Default, |node| node.origin.clone())
    }

    fn mistake_here(&self, wrong: Wrong) {
        self.document.mistake(&self.origin(), self.path.clone(), wrong);
    }

    fn entry(&self, key: &str) -> Option<&'a Entry> {
        match self.node.map(|node| &node.value) {
            Some(Value::Table(table)) => table.get(key),
            _ => None,
        }
    }

    fn find(&self, key: &'static str) -> Option<Node> {
        // A provider is on if its table is there; a variable alone does not switch it on.
        let off = self.path.starts_with("providers.") && !self.is_present();
        let overridden = if off { None } else { self.document.overridden(&self.path_of(key)) };
        overridden.or_else(|| self.entry(key).map(|entry| entry.node.clone()))
    }

    fn or_default(&self, key: &'static str, default: toml::Value) -> Node {
        self.declared(key, Some(default.clone()));
        self.find(key).unwrap_or_else(|| Node::from_default(&default))
    }

    fn declared(&self, key: &'static str, default: Option<toml::Value>) {
        self.known.borrow_mut().push(key);
        #[cfg(test)]
        self.document.declare(&self.path_of(key), default);
        #[cfg(not(test))]
        drop(default);
    }

    fn parsed<T>(&self, key: &str, node: &Node, parse: impl Fn(&Node) -> Parsed<T>) -> Option<T> {
        match parse(node) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.document.mistake(&node.origin, self.path_of(key), wrong);
                None
            }
        }
    }
}

/// The nearest known key, or all of them.
fn suggestion(key: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min();
    match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("remove it; the settings here are {}", known.join(", ")),
    }
}
