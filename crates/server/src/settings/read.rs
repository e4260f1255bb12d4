//! Finding the value of each setting: in the flags, the variables, the file, or the default.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serin_core::manifest::{At, Entry, Node, Value};
use serin_core::metric::nearest;

use crate::gateway::{Price, Prices};

use super::{Settings, SettingsError, SettingsProblem, Shown};

/// Sections of the file; everything else in it is a setting.
const SECTIONS: [&str; 9] =
    ["data", "control", "provider", "ingest", "notify", "alerts", "samples", "log", "oidc"];
/// Variables of the command line, which the server passes over.
const OF_THE_CLIENT: [&str; 4] = ["SERIN_SERVER", "SERIN_KEY", "SERIN_ACTOR", "SERIN_SETTINGS"];

/// One entry of a mapping as it is written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// Its name.
    pub(super) name: String,
    /// Its value.
    pub(super) node: Node,
    /// Where it stands.
    pub(super) place: String,
}

/// Reads settings and notes what is wrong.
pub(super) struct Reader<'a> {
    file: String,
    /// The settings of the file by their path.
    leaves: BTreeMap<String, (Node, At)>,
    variables: &'a BTreeMap<String, String>,
    asked: BTreeSet<String>,
    known_variables: BTreeSet<String>,
    shown: Vec<Shown>,
    problems: Vec<SettingsProblem>,
}

impl<'a> Reader<'a> {
    /// A reader of a file, given by its name and text, and of variables.
    pub(super) fn new(file: Option<(String, String)>, variables: &'a BTreeMap<String, String>) -> Self {
        let (name, text) = file.unwrap_or_default();
        let known_variables = OF_THE_CLIENT.iter().map(ToString::to_string).collect();
        let mut reader = Self {
            file: name,
            leaves: BTreeMap::new(),
            variables,
            asked: BTreeSet::new(),
            known_variables,
            shown: Vec::new(),
            problems: Vec::new(),
        };
        // An empty file is a file of defaults.
        if !text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            match Node::read(&text) {
                Ok(root) => reader.open(&root),
                Err(error) => {
                    let place = reader.place(error.at);
                    reader.problem(&place, "", &error.message, error.hint.as_deref());
                }
            }
        }
        reader
    }

    fn open(&mut self, root: &Node) {
        for entry in self.entries(root, "") {
            let is_section = SECTIONS.contains(&entry.key.as_str());
            match (&entry.node.value, is_section) {
                (Value::Null, _) => {}
                (_, true) => {
                    for inner in self.entries(&entry.node, &entry.key) {
                        self.leaves.insert(format!("{}.{}", entry.key, inner.key), (inner.node, inner.at));
                    }
                }
                (_, false) => {
                    self.leaves.insert(entry.key.clone(), (entry.node, entry.at));
                }
            }
        }
    }

    /// The members of a mapping; anything else is noted as wrong.
    pub(super) fn entries(&mut self, node: &Node, path: &str) -> Vec<Entry> {
        match &node.value {
            Value::Map(entries) => entries.clone(),
            Value::Null | Value::Scalar(_) | Value::List(_) => {
                let place = self.place(node.at);
                self.problem(&place, path, &format!("expected a mapping, found {}", node.describe()), None);
                Vec::new()
            }
        }
    }

    /// A place in the file, as messages have it.
    pub(super) fn place(&self, at: At) -> String {
        format!("{} line {}, column {}", self.file, at.line, at.column)
    }

    /// Notes that something is wrong.
    pub(super) fn problem(&mut self, place: &str, setting: &str, message: &str, hint: Option<&str>) {
        self.problems.push(SettingsProblem {
            place: place.to_owned(),
            setting: setting.to_owned(),
            message: message.to_owned(),
            hint: hint.map(ToOwned::to_owned),
        });
    }

    /// Where a setting that was read comes from.
    pub(super) fn origin_of(&self, setting: &str) -> String {
        let shown = self.shown.iter().find(|shown| shown.setting == setting);
        shown.map_or_else(|| "default".to_owned(), |shown| shown.origin.clone())
    }

    /// Reads one setting; what is wrong with it is noted, and the default stands in for it.
    pub(super) fn value<T, E: Display>(
        &mut self,
        setting: &str,
        flag: Option<(&'static str, String)>,
        default: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> T {
        let written = self.written(setting);
        let found = match flag {
            Some((name, text)) => Some((text, name.to_owned())),
            None => written,
        };
        if let Some((text, origin)) = found {
            match parse(&text) {
                Ok(value) => {
                    self.show(setting, text, origin);
                    return value;
                }
                Err(error) => {
                    let given: String = text.chars().take(80).collect();
                    self.problem(&origin, setting, &format!("{given:?} {error}"), None);
                }
            }
        } else {
            self.show(setting, default.to_owned(), "default".to_owned());
        }
        match parse(default) {
            Ok(value) => value,
            Err(error) => unreachable!("the default {default:?} of {setting} {error}"),
        }
    }

    /// What the file says about a setting that no variable can say.
    pub(super) fn node(&mut self, setting: &str) -> Option<Node> {
        self.asked.insert(setting.to_owned());
        self.leaves.get(setting).map(|(node, _)| node.clone())
    }

    /// Reads one setting that may be absent, with its origin.
    pub(super) fn optional(&mut self, setting: &str) -> Option<(String, String)> {
        let (text, origin) = self.written(setting)?;
        self.show(setting, text.clone(), origin.clone());
        Some((text, origin))
    }

    /// What the variables or the file say.
    fn written(&mut self, setting: &str) -> Option<(String, String)> {
        self.asked.insert(setting.to_owned());
        let variable = variable_of(setting);
        self.known_variables.insert(variable.clone());
        if let Some(text) = self.variables.get(&variable) {
            return Some((text.clone(), variable));
        }
        let (node, _) = self.leaves.get(setting)?.clone();
        let place = self.place(node.at);
        match node.value {
            Value::Scalar(scalar) => Some((scalar.text, place)),
            Value::Null => None,
            Value::List(_) | Value::Map(_) => {
                self.problem(
                    &place,
                    setting,
                    &format!("expected one value, found {}", node.describe()),
                    None,
                );
                None
            }
        }
    }

    /// Reads a list; in a variable its items stand between commas.
    pub(super) fn list<T>(&mut self, setting: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.asked.insert(setting.to_owned());
        let variable = variable_of(setting);
        self.known_variables.insert(variable.clone());
        let items: Vec<(String, String)> = if let Some(text) = self.variables.get(&variable) {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(|item| (item.to_owned(), variable.clone())).collect()
        } else {
            match self.leaves.get(setting).cloned() {
                None => Vec::new(),
                Some((Node { value: Value::List(nodes), .. }, _)) => {
                    nodes.into_iter().filter_map(|node| self.item(setting, node)).collect()
                }
                Some((node, _)) => {
                    let place = self.place(node.at);
                    self.problem(
                        &place,
                        setting,
                        &format!("expected a list, found {}", node.describe()),
                        None,
                    );
                    Vec::new()
                }
            }
        };
        let origin = items.first().map_or_else(|| "default".to_owned(), |(_, origin)| origin.clone());
        let texts: Vec<&str> = items.iter().map(|(text, _)| text.as_str()).collect();
        self.show(setting, format!("[{}]", texts.join(", ")), origin);
        let mut values = Vec::with_capacity(items.len());
        for (text, place) in &items {
            match parse(text) {
                Ok(value) => values.push(value),
                Err(error) => self.problem(place, setting, &format!("{text:?} {error}"), None),
            }
        }
        values
    }

    fn item(&mut self, setting: &str, node: Node) -> Option<(String, String)> {
        let place = self.place(node.at);
        let what = node.describe();
        match node.value {
            Value::Scalar(scalar) => Some((scalar.text, place)),
            Value::Null | Value::List(_) | Value::Map(_) => {
                self.problem(&place, setting, &format!("expected text, found {what}"), None);
                None
            }
        }
    }

    /// Reads a list of mappings, each with its place; what is none is noted.
    pub(super) fn mappings(&mut self, setting: &str) -> Vec<(String, Vec<Written>)> {
        self.asked.insert(setting.to_owned());
        let Some((node, _)) = self.leaves.get(setting).cloned() else { return Vec::new() };
        let place = self.place(node.at);
        let Value::List(items) = &node.value else {
            self.problem(&place, setting, &format!("expected a list, found {}", node.describe()), None);
            return Vec::new();
        };
        let entries = items.iter().enumerate().map(|(index, item)| {
            (self.place(item.at), self.written_entries(&format!("{setting}[{index}]"), item))
        });
        entries.collect()
    }

    /// Reads a list of rules, each with its path and its place; those beyond `most` are refused.
    pub(super) fn rules<T>(
        &mut self,
        setting: &str,
        most: usize,
        read: impl Fn(&mut Self, &str, &str, Vec<Written>) -> Option<T>,
    ) -> Vec<T> {
        let mut rules = Vec::new();
        for (index, (place, fields)) in self.mappings(setting).into_iter().enumerate() {
            if index == most {
                self.problem(&place, setting, &format!("there are more than {most} rules"), None);
                break;
            }
            rules.extend(read(self, &format!("{setting}[{index}]"), &place, fields));
        }
        rules
    }

    /// Shows a list that only the file can fill.
    pub(super) fn show_list(&mut self, setting: &str, shown: &[String]) {
        let origin = if shown.is_empty() { "default" } else { "file" };
        self.show(setting, format!("[{}]", shown.join(", ")), origin.to_owned());
    }

    /// Reads one mapping; an absent one has no entries.
    pub(super) fn mapping(&mut self, setting: &str) -> Vec<Written> {
        self.asked.insert(setting.to_owned());
        let Some((node, _)) = self.leaves.get(setting).cloned() else { return Vec::new() };
        self.written_entries(setting, &node)
    }

    /// Reads the members of a mapping inside of another.
    pub(super) fn members(&mut self, path: &str, node: &Node) -> Vec<Written> {
        self.written_entries(path, node)
    }

    fn written_entries(&mut self, path: &str, node: &Node) -> Vec<Written> {
        let entries = self.entries(node, path);
        entries
            .into_iter()
            .map(|entry| Written { place: self.place(entry.at), name: entry.key, node: entry.node })
            .collect()
    }

    /// What a variable holds that a setting names; an empty one counts as absent.
    pub(super) fn variable(&mut self, variable: &str) -> Option<String> {
        self.known_variables.insert(variable.to_owned());
        self.variables.get(variable).filter(|text| !text.is_empty()).cloned()
    }

    /// What a variable holds that has to be there.
    ///
    /// # Errors
    /// A sentence that names the variable.
    pub(super) fn text_of_variable(&mut self, variable: &str) -> Result<String, String> {
        self.variable(variable).ok_or_else(|| format!("the variable {variable} is not set, or empty"))
    }

    /// Reads the prices of models: `MODEL: {input, cached, output}` in US dollars for a million tokens.
    ///
    /// `cached` may be left out; tokens from a cache then cost what the others do.
    pub(super) fn prices(&mut self, setting: &str) -> Prices {
        self.asked.insert(setting.to_owned());
        let Some((node, _)) = self.leaves.get(setting).cloned() else { return Prices::default() };
        let place = self.place(node.at);
        let mut prices = Vec::new();
        for model in self.entries(&node, setting) {
            let path = format!("{setting}.{}", model.key);
            let (mut input, mut cached, mut output) = (None, None, None);
            for entry in self.entries(&model.node, &path) {
                let at = self.place(entry.at);
                let field = format!("{path}.{}", entry.key);
                let of = match entry.key.as_str() {
                    "input" => &mut input,
                    "cached" => &mut cached,
                    "output" => &mut output,
                    _ => {
                        self.problem(&at, &field, "unknown field", Some("known here: input, cached, output"));
                        continue;
                    }
                };
                let number = match &entry.node.value {
                    Value::Scalar(scalar) => scalar.text.parse::<f64>().ok(),
                    Value::Null | Value::List(_) | Value::Map(_) => None,
                };
                *of = number.filter(|price| (0.0..=1e6).contains(price));
                if of.is_none() {
                    let hint = "write US dollars for a million tokens, such as 1.25";
                    self.problem(&at, &field, "is no price from 0 to 1000000", Some(hint));
                }
            }
            match (input, output) {
                (Some(input), Some(output)) => {
                    let price = Price { input, cached: cached.unwrap_or(input), output };
                    prices.push((model.key, price));
                }
                (_, _) => {
                    let at = self.place(model.at);
                    self.problem(&at, &path, "needs a price for input and output", None);
                }
            }
        }
        let names: Vec<&str> = prices.iter().map(|(name, _)| name.as_str()).collect();
        self.show(setting, format!("[{}]", names.join(", ")), place);
        prices.into_iter().collect()
    }

    /// A secret of a variable; an empty one counts as absent.
    pub(super) fn secret(&mut self, variable: &str) -> Option<String> {
        self.known_variables.insert(variable.to_owned());
        let secret = self.variables.get(variable).filter(|text| !text.is_empty())?;
        let setting = if variable == "SERIN_CONTROL_KEY" { "control.key" } else { "provider.apiKey" };
        self.shown.push(Shown {
            setting: setting.to_owned(),
            value: "\"…\"".to_owned(),
            origin: variable.to_owned(),
        });
        Some(secret.clone())
    }

    /// Notes a setting as it is in force.
    pub(super) fn show(&mut self, setting: &str, value: String, origin: String) {
        self.shown.push(Shown { setting: setting.to_owned(), value, origin });
    }

    /// Everything that was read.
    pub(super) fn shown(&self) -> Vec<Shown> {
        self.shown.clone()
    }

    /// The settings, or everything that is wrong.
    pub(super) fn finish(mut self, settings: Settings) -> Result<Settings, SettingsError> {
        let unknown: Vec<(String, At)> = self
            .leaves
            .iter()
            .filter(|(path, _)| !self.asked.contains(*path))
            .map(|(path, (_, at))| (path.clone(), *at))
            .collect();
        for (path, at) in unknown {
            let near = nearest(&path, self.asked.iter().map(String::as_str));
            let hint = near.map(|name| format!("did you mean {name}?"));
            let place = self.place(at);
            self.problem(&place, &path, "unknown setting", hint.as_deref());
        }
        for name in self.variables.keys().filter(|name| name.starts_with("SERIN_")) {
            if !self.known_variables.contains(name) {
                let near = nearest(name, self.known_variables.iter().map(String::as_str));
                self.problems.push(SettingsProblem {
                    place: name.clone(),
                    setting: String::new(),
                    message: "no setting has this variable".to_owned(),
                    hint: near.map(|name| format!("did you mean {name}?")),
                });
            }
        }
        if self.problems.is_empty() { Ok(settings) } else { Err(SettingsError::Problems(self.problems)) }
    }
}

/// What a file holds that is not empty, without the spaces around it.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn text_of_file(path: &str) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) => Err(format!("{path} is empty")),
        Err(error) => Err(format!("could not read {path}: {error}")),
    }
}

/// The variable of a setting: `data.bodyLimit` is `SERIN_DATA_BODY_LIMIT`.
fn variable_of(setting: &str) -> String {
    let mut name = "SERIN_".to_owned();
    for c in setting.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => {
                name.push('_');
                name.push(c);
            }
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}
