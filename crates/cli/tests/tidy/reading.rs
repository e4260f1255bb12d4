//! How the rules read the project: its files, lines and manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// This test: it shows broken examples of what it checks.
pub(crate) const TIDY: &str = "crates/cli/tests/tidy.rs";

/// Files by their path from the root, with `/` between the parts; the text of what is not UTF-8 is empty.
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, String>,
}

impl Tree {
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { files: files.collect() }
    }

    /// Reads the project without what builds put into it.
    pub(crate) fn of_project() -> Self {
        const SKIPPED: &[&str] = &[".git", ".venv", "__pycache__", "node_modules", "target"];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = BTreeMap::new();
        let mut directories = vec![String::new()];
        while let Some(directory) = directories.pop() {
            let entries = std::fs::read_dir(root.join(&directory)).expect("the project can be read");
            for entry in entries {
                let entry = entry.expect("the project can be read");
                let name = entry.file_name().into_string().expect("our file names are UTF-8");
                let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
                let kind = entry.file_type().expect("the project can be read");
                if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                    directories.push(path);
                } else if kind.is_file() {
                    // A file that has just gone (an editor's, another test's) is none of ours.
                    let bytes = std::fs::read(entry.path()).unwrap_or_default();
                    files.insert(path, String::from_utf8(bytes).unwrap_or_default());
                }
            }
        }
        assert!(files.contains_key(TIDY), "the walk starts at the root of the project");
        Self { files }
    }

    /// The text of one file, empty if there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// Whether a file or a directory is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        let directory = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&directory))
    }

    pub(crate) fn matching<'t>(
        &'t self,
        start: &'t str,
        ends: &'t [&'t str],
    ) -> impl Iterator<Item = (&'t str, &'t str)> {
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| path.starts_with(start) && ends.iter().any(|end| path.ends_with(end)))
    }
}

/// The lines whose code (without `//` comments) has what is looked for, as `path:line: code`.
pub(crate) fn lines_where(path: &str, text: &str, found: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // `://` is an address in a string.
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        let code = comment.map_or(line, |(at, _)| &line[..at]);
        if found(code) {
            lines.push(format!("{path}:{number}: {}", code.trim()));
        }
    }
    lines
}

/// The identifiers of a line, each with where it starts.
pub(crate) fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.split(move |c| !is_part(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr().addr() - line.as_ptr().addr(), word))
}

pub(crate) fn has_word_starting(line: &str, start: &str) -> bool {
    words(line).any(|(_, word)| word.starts_with(start))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Dev,
    Build,
}

/// The dependencies that a `Cargo.toml` names, whatever the platform.
pub(crate) fn dependencies(manifest: &str) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            let (table, named) = match header.rsplit_once("dependencies.") {
                Some((table, name)) => (format!("{table}dependencies"), Some(name)),
                None => (header.to_owned(), None),
            };
            let kind = match table.rsplit('.').next() {
                Some("dependencies") => Some(Kind::Normal),
                Some("dev-dependencies") => Some(Kind::Dev),
                Some("build-dependencies") => Some(Kind::Build),
                Some(_) | None => None,
            };
            found.extend(kind.zip(named.map(str::to_owned)));
            current = if named.is_some() { None } else { kind };
        } else if let Some(kind) = current {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.push((kind, name.trim_matches('"').to_owned()));
        }
    }
    found
}

/// The lines of one section of a TOML file.
pub(crate) fn section<'t>(text: &'t str, header: &str) -> Vec<&'t str> {
    let after = text.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    after.take_while(|line| !line.starts_with('[')).collect()
}

/// What stands between single backticks, outside of fenced blocks.
pub(crate) fn code_spans(page: &str) -> BTreeSet<&str> {
    let mut spans = BTreeSet::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// Runs cargo in the project and returns what it prints.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, as it has built this test");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "could not run `cargo {}`: {errors}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}
