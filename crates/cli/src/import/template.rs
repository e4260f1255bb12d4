//! Templates of others as templates of a pack, which know variables and nothing else.

use serde_json::{Value, json};
use serin_core::manifest::At;

/// What may stand in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `{{variable}}`, and Mustache's sections where somebody wrote them.
    Plain,
    /// Jinja: expressions, statements and comments.
    Jinja,
}

/// A variable that a template uses.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) default: Option<Value>,
    pub(super) example: Option<Value>,
}

impl Found {
    fn named(name: String) -> Self {
        Self { name, default: None, example: None }
    }

    /// The variable as a pack declares it.
    pub(super) fn json(&self) -> Value {
        let mut variable = json!({"name": self.name, "type": "string", "required": self.default.is_none()});
        if let Some(default) = &self.default {
            variable["default"] = default.clone();
        }
        if let Some(example) = &self.example {
            variable["example"] = example.clone();
        }
        variable
    }
}

/// Something of a template that a pack cannot say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lost {
    pub(super) at: At,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// A template of a pack, and what it took.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) text: String,
    pub(super) variables: Vec<Found>,
    pub(super) losses: Vec<Lost>,
}

/// Converts a template; what a pack cannot say is left out and told.
pub(super) fn convert(template: &str, dialect: Dialect) -> Converted {
    let mut converter = Converter { template, done: Converted::default() };
    let mut at = 0;
    while let Some(open) = next_open(&template[at..], dialect).map(|found| at + found) {
        converter.text(at, &template[at..open]);
        let (start, close) = match &template[open..open + 2] {
            "{{" => (open + 2, "}}"),
            "{%" => (open + 2, "%}"),
            _ => (open + 2, "#}"),
        };
        let Some(end) = template[start..].find(close).map(|found| start + found) else {
            let message =
                format!("`{}` is never closed; it is written with a space in it", &template[open..start]);
            converter.lose(open, message, None);
            converter.guarded(&template[open..start]);
            at = start;
            continue;
        };
        let inside = &template[start..end];
        at = end + 2;
        let (inside, trims_before) = trimmed(inside, inside.strip_prefix('-'));
        let (inside, trims_after) = trimmed(inside, inside.strip_suffix('-'));
        if trims_before && dialect == Dialect::Jinja {
            let kept = converter.done.text.trim_end().len();
            converter.done.text.truncate(kept);
        }
        match close {
            "}}" => at = converter.expression(open, inside.trim(), at, dialect),
            "%}" => at = converter.statement(open, inside.trim(), at),
            // A comment says nothing to the model.
            _ => {}
        }
        if trims_after && dialect == Dialect::Jinja {
            at += template[at..].len() - template[at..].trim_start().len();
        }
    }
    converter.text(at, &template[at..]);
    converter.done
}

fn trimmed<'a>(inside: &'a str, without: Option<&'a str>) -> (&'a str, bool) {
    (without.unwrap_or(inside), without.is_some())
}

fn next_open(text: &str, dialect: Dialect) -> Option<usize> {
    match dialect {
        Dialect::Plain => text.find("{{"),
        Dialect::Jinja => ["{{", "{%", "{#"].iter().filter_map(|open| text.find(open)).min(),
    }
}

struct Converter<'t> {
    template: &'t str,
    done: Converted,
}

impl Converter<'_> {
    fn lose(&mut self, offset: usize, message: String, hint: Option<&str>) {
        let before = &self.template[..offset];
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let at = At {
            line: number(before.matches('\n').count() + 1),
            column: number(before[line_start..].chars().count() + 1),
        };
        self.done.losses.push(Lost { at, message, hint: hint.map(str::to_owned) });
    }

    /// Adds text that says nothing to a pack, which two braces in a row would.
    fn text(&mut self, offset: usize, text: &str) {
        if self.guarded(text) {
            let message = "`{{` that stands for itself is written with a space in it: a pack would take it for a variable";
            self.lose(offset, message.to_owned(), None);
        }
    }

    /// Adds text without two braces in a row; whether it had some.
    fn guarded(&mut self, text: &str) -> bool {
        let mut is_cut = false;
        for c in text.chars() {
            if c == '{' && self.done.text.ends_with('{') {
                self.done.text.push(' ');
                is_cut = true;
            }
            self.done.text.push(c);
        }
        is_cut
    }

    fn placeholder(&mut self, name: &str) {
        if self.done.text.ends_with('{') {
            self.done.text.push(' ');
        }
        self.done.text.push_str(&format!("{{{{{name}}}}}"));
    }

    fn variable(&mut self, found: Found) {
        self.placeholder(&found.name);
        match self.done.variables.iter_mut().find(|known| known.name == found.name) {
            Some(known) => known.default = known.default.take().or(found.default),
            None => self.done.variables.push(found),
        }
    }

    /// What stands between `{{` and `}}`; returns where the template goes on.
    fn expression(&mut self, open: usize, inside: &str, at: usize, dialect: Dialect) -> usize {
        if inside.starts_with("fragment:") && dialect == Dialect::Plain {
            self.placeholder(inside);
            return at;
        }
        if let Some(sign) = inside.chars().next().filter(|c| "#/^>!&{".contains(*c)) {
            // `{{{x}}}` is x without escapes, which a pack never makes.
            if sign == '{' && is_name(inside[1..].trim()) {
                self.variable(Found::named(inside[1..].trim().to_owned()));
                return at + usize::from(self.template[at..].starts_with('}'));
            }
            let message =
                format!("`{{{{{inside}}}}}` is not carried over: its text stays, whatever its condition");
            self.lose(
                open,
                message,
                Some("a pack has no conditions and loops: make prompts of the cases, or fill a variable"),
            );
            return at;
        }
        let mut parts = inside.split('|').map(str::trim);
        let name = parts.next().unwrap_or_default();
        if let Some(text) = literal(name) {
            self.text(open, &text);
            return at;
        }
        let mut found = Found::named(plain_name(name));
        for filter in parts {
            let default =
                filter.strip_prefix("default").or_else(|| filter.strip_prefix("d(").map(|_| &filter[1..]));
            let argument = default.and_then(|rest| rest.trim().strip_prefix('(')?.split([',', ')']).next());
            match argument.and_then(|argument| literal(argument.trim())) {
                Some(default) => found.default = Some(Value::String(default)),
                None => self.lose(
                    open,
                    format!("filter {filter} of {name} is not carried over"),
                    Some("fill the variable with the value as it should read"),
                ),
            }
        }
        if found.name != name {
            let message = format!("`{name}` is the variable {} in the pack", found.name);
            self.lose(open, message, Some("fill it with the value that the expression had"));
        }
        self.variable(found);
        at
    }

    /// What stands between `{%` and `%}`; returns where the template goes on.
    fn statement(&mut self, open: usize, inside: &str, at: usize) -> usize {
        let word = inside.split_whitespace().next().unwrap_or_default();
        if word == "raw" {
            let end = self.template[at..].find("{%").map_or(self.template.len(), |found| at + found);
            let template = self.template;
            self.text(open, &template[at..end]);
            return end;
        }
        let shown: String = inside.chars().take(60).collect();
        match word {
            // Their openings are told.
            "endif" | "endfor" | "endraw" | "endblock" | "endmacro" | "endset" | "endwith" => {}
            "if" | "elif" | "else" | "for" => self.lose(
                open,
                format!(
                    "`{{% {shown} %}}` is not carried over: its text stays, once, whatever the condition"
                ),
                Some("a pack has no conditions and loops: make prompts of the cases, or fill a variable"),
            ),
            "include" | "extends" | "import" | "from" => self.lose(
                open,
                format!("`{{% {shown} %}}` is not carried over"),
                Some("put the other text into `fragments` of the pack, and write {{fragment:name}}"),
            ),
            _ => self.lose(open, format!("`{{% {shown} %}}` is not carried over"), None),
        }
        at
    }
}

/// The text of a literal such as `"friendly"`.
fn literal(text: &str) -> Option<String> {
    let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))?;
    Some(inner.replace("\\\"", "\"").replace("\\'", "'"))
}

fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty()
        && text.len() <= 63
        && text.chars().all(fits)
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// A variable's name that says what an expression did.
fn plain_name(expression: &str) -> String {
    if is_name(expression) {
        return expression.to_owned();
    }
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = expression.chars().map(fits).collect();
    let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
    let name: String = words.join("_").chars().take(60).collect();
    if is_name(&name) { name } else { format!("v_{name}").trim_end_matches('_').to_owned() }
}
