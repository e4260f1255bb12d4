//! Reports in the form that pipelines read as tests (JUnit XML), and reports that go to files.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::told::Told;

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It holds.
    Passed,
    /// It does not hold, and why.
    Failed(String),
    /// It was not looked at, and why.
    Skipped(String),
}

/// One test of a report.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// What it belongs to, such as `support.gates`.
    pub(crate) class: String,
    /// What it holds.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What else there is to say.
    pub(crate) output: String,
}

impl Case {
    /// A test without more to say.
    pub(crate) fn new(class: impl Into<String>, name: impl Into<String>, outcome: Outcome) -> Self {
        Self { class: class.into(), name: name.into(), outcome, output: String::new() }
    }
}

/// One suite with its tests, as a document.
pub(crate) fn document(suite: &str, cases: &[Case]) -> String {
    let count = |is: fn(&Outcome) -> bool| cases.iter().filter(|case| is(&case.outcome)).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\">\n",
        escaped(suite),
        cases.len(),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
        count(|outcome| matches!(outcome, Outcome::Skipped(_))),
    );
    for case in cases {
        let ended = match &case.outcome {
            Outcome::Passed => String::new(),
            Outcome::Failed(why) => format!("<failure message=\"{}\"/>", escaped(why)),
            Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escaped(why)),
        };
        let output = match case.output.as_str() {
            "" => String::new(),
            output => format!("<system-out>{}</system-out>", escaped(output)),
        };
        writeln!(
            text,
            "    <testcase classname=\"{}\" name=\"{}\">{ended}{output}</testcase>",
            escaped(&case.class),
            escaped(&case.name)
        )
        .expect("a string takes everything");
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// Text as XML holds it, in an attribute or between tags; line ends stay.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            // Neither control characters nor these two have a form in XML 1.0.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A report that goes to a file, such as `junit=report.xml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportFile {
    /// In which form.
    pub(crate) form: ReportForm,
    /// Where to.
    pub(crate) path: PathBuf,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportForm {
    /// Tests, for pipelines.
    Junit,
    /// Data.
    Json,
    /// A comment of a pull request.
    Markdown,
}

impl ReportFile {
    /// Reads `junit=FILE`, `json=FILE` or `markdown=FILE`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no report such as junit=report.xml, json=FILE or markdown=FILE");
        let (form, path) = text.split_once('=').filter(|(_, path)| !path.is_empty()).ok_or_else(wrong)?;
        let form = match form {
            "junit" => ReportForm::Junit,
            "json" => ReportForm::Json,
            "markdown" => ReportForm::Markdown,
            _ => return Err(wrong()),
        };
        Ok(Self { form, path: PathBuf::from(path) })
    }

    /// Makes sure that the report can be written, before anything is done that it is about.
    ///
    /// # Errors
    /// [`Told`] when the file cannot be made.
    pub(crate) fn prepare(&self) -> Result<(), Told> {
        self.write("")
    }

    /// Writes the report.
    ///
    /// # Errors
    /// [`Told`] when the file cannot be written.
    pub(crate) fn write(&self, text: &str) -> Result<(), Told> {
        std::fs::write(&self.path, text).map_err(|error| {
            Told::new(format!("could not write the report {}: {error}", self.path.display()))
                .hint("name a file in a folder that exists, such as --report junit=serin.xml")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_cannot_break_the_document() {
        let case = Case {
            output: "line 1\nline <2> & \u{1}".to_owned(),
            ..Case::new("a\"b", "x < y", Outcome::Failed("</failure>".to_owned()))
        };
        assert_eq!(
            document("s", &[case, Case::new("a", "b", Outcome::Skipped("no data".to_owned()))]),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"s\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"1\">\n    <testcase classname=\"a&quot;b\" name=\"x &lt; y\"><failure message=\"&lt;/failure&gt;\"/><system-out>line 1\nline &lt;2&gt; &amp;  </system-out></testcase>\n    <testcase classname=\"a\" name=\"b\"><skipped message=\"no data\"/></testcase>\n  </testsuite>\n</testsuites>\n"
        );
    }

    #[test]
    fn a_report_names_its_form_and_its_file() {
        let report = ReportFile::parse("junit=out/a=b.xml").unwrap();
        assert_eq!((report.form, report.path), (ReportForm::Junit, PathBuf::from("out/a=b.xml")));
        for wrong in ["junit", "junit=", "xml=a", "=a", ""] {
            assert!(ReportFile::parse(wrong).is_err(), "{wrong}");
        }
    }
}
