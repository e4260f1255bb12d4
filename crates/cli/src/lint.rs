//! `serin lint`: looks manifests and packs over, without a server unless one is asked about stable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serin_core::forecast::Forecast;
use serin_core::ids::ProviderName;
use serin_core::lint::{Lint, lint_judges, lint_traffic};
use serin_core::policy::Policy;
use serin_core::prompt::Pack;
use serin_server::gateway::provider_hint;
use serin_server::settings::{policy_of, provider_names, sample_rate};

use crate::api::{Client, ServerArgs};
use crate::manifest_file::{Loaded, examine, load_pack, read_text, wrong_provider};
use crate::terminal::{GOOD, LOOK, OutputFlag, paint};
use crate::told::{Detail, Exit, Severity, Told};
use crate::traffic::TrafficArgs;

/// Check manifests and pack files, without a server
///
/// With a traffic it also tells which gates that traffic cannot feed; with the prompts that are stable
/// now, which tools conversations in flight would lose; with settings, which rules of their policy are
/// not kept.
#[derive(Debug, clap::Args)]
pub(crate) struct LintArgs {
    /// Manifests (YAML or JSON) or pack files; `-` is standard input
    #[arg(value_name = "FILE", required_unless_present = "named")]
    files: Vec<PathBuf>,
    /// The same, as the other commands take it
    #[arg(id = "named", long = "file", short = 'f', num_args = 1.., value_name = "FILE")]
    named: Vec<PathBuf>,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    against: AgainstArgs,
    #[command(flatten)]
    output: OutputFlag,
}

/// The flags that name what a manifest is held against: the prompts that are stable now, and the settings.
#[derive(Debug, clap::Args)]
pub(crate) struct AgainstArgs {
    /// Settings of the server, for its policy and the providers that packs may name
    #[arg(long, env = "SERIN_SETTINGS", value_name = "FILE")]
    settings: Option<PathBuf>,
    /// What is stable now: its pack file, or its manifest
    #[arg(long, value_name = "FILE", conflicts_with = "against_server")]
    against: Option<PathBuf>,
    /// Ask the server what is stable now, and for its policy unless --settings names one
    #[arg(long)]
    against_server: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

impl AgainstArgs {
    /// The prompts that are stable now of the pack of a manifest; nothing when no flag names them.
    ///
    /// # Errors
    /// [`Told`] when they cannot be read, or are those of another pack.
    pub(crate) async fn stable(&self, loaded: &Loaded) -> Result<Option<Pack>, Told> {
        let pack = &loaded.plan.pack;
        if self.against_server {
            return Client::new(&self.server)?.stable_prompts(pack).await;
        }
        let Some(path) = &self.against else { return Ok(None) };
        let stable = load_pack(path)?;
        if stable.id() != pack {
            let message =
                format!("{} is a pack {}, the manifest is one of {pack}", path.display(), stable.id());
            return Err(
                Told::new(message).hint("name the pack file or manifest of the version that is stable now")
            );
        }
        Ok(Some(stable))
    }
}

impl AgainstArgs {
    /// The policy that manifests are held against: that of the settings file, or of the server if it is asked.
    ///
    /// # Errors
    /// [`Told`] when it cannot be read.
    pub(crate) async fn policy(&self) -> Result<Policy, Told> {
        match &self.settings {
            Some(path) => policy_in(path),
            None if self.against_server => Client::new(&self.server)?.policy().await,
            None => Ok(Policy::NONE),
        }
    }
}

/// The policy of a settings file.
///
/// # Errors
/// [`Told`] with everything that is wrong with it.
pub(crate) fn policy_in(path: &Path) -> Result<Policy, Told> {
    policy_of(&read_text(path)?)
        .map_err(|message| Told::new(format!("could not read the policy of {}: {message}", path.display())))
}

/// What was found, as data.
#[derive(Serialize)]
struct Report {
    errors: usize,
    warnings: usize,
    problems: Vec<Detail>,
}

/// Lints the files; fails when one of them has an error.
pub(crate) async fn run(args: &LintArgs) -> anyhow::Result<Exit> {
    let mut problems = Vec::new();
    let files: Vec<&PathBuf> = args.files.iter().chain(&args.named).collect();
    let policy = args.against.policy().await?;
    let known = match &args.against.settings {
        Some(path) => Some(provider_names(&read_text(path)?).map_err(|message| {
            Told::new(format!("could not read the providers of {}: {message}", path.display()))
        })?),
        None => None,
    };
    let recorded = match &args.against.settings {
        Some(path) => Some(sample_rate(&read_text(path)?).map_err(|message| {
            Told::new(format!("could not read `samples.rate` of {}: {message}", path.display()))
        })?),
        None => None,
    };
    for file in &files {
        let findings = examine(file)?;
        problems.extend(findings.details);
        if let Some(loaded) = &findings.loaded {
            problems.extend(loaded.against(&policy));
            problems.extend(of_traffic(&args.traffic, loaded)?);
            let stable = args.against.stable(loaded).await?;
            problems.extend(stable.iter().flat_map(|stable| loaded.beside(stable)));
            let named = loaded.pack.as_ref().and_then(|pack| pack.provider());
            if let (Some(named), Some(known)) = (named, &known)
                && !known.contains(named)
            {
                problems.push(wrong_provider(file, named, &provider_hint(named.as_str(), known.iter()))?);
            }
            if let Some(known) = &known {
                problems.extend(wrong_judges(loaded, known));
            }
            if let Some(recorded) = recorded {
                let lints = lint_judges(&loaded.plan, recorded);
                problems.extend(lints.iter().map(|lint| loaded.warning(lint)));
            }
        }
    }
    let count = |severity| problems.iter().filter(|problem: &&Detail| problem.severity == severity).count();
    let report = Report { errors: count(Severity::Error), warnings: count(Severity::Warning), problems };
    args.output.print(&report, |report| table(report, files.len()))?;
    Ok(if report.errors > 0 { Exit::Failed } else { Exit::Done })
}

/// Judges of a provider that the settings do not name; the server refuses them.
fn wrong_judges(loaded: &Loaded, known: &BTreeSet<ProviderName>) -> Vec<Detail> {
    let analysis = &loaded.plan.analysis;
    let mut problems = Vec::new();
    for judge in &analysis.judges {
        let Some(provider) = judge.provider.as_ref().filter(|provider| !known.contains(*provider)) else {
            continue;
        };
        let index = analysis.custom.iter().position(|metric| metric.name == judge.outcome).unwrap_or(0);
        let found = loaded.warning(&Lint {
            rule: "unknown-judge",
            path: format!("spec.rollout.analysis.outcomes[{index}].judge"),
            message: format!(
                "{} is judged by the provider {provider}, which is not in the settings",
                judge.outcome
            ),
            hint: provider_hint(provider.as_str(), known.iter()),
        });
        problems.push(Detail { rule: None, severity: Severity::Error, ..found });
    }
    problems
}

/// What the traffic cannot feed; nothing when none is given.
fn of_traffic(args: &TrafficArgs, loaded: &Loaded) -> Result<Vec<Detail>, Told> {
    let Some(traffic) = args.given(&loaded.plan)? else { return Ok(Vec::new()) };
    let lints = lint_traffic(&loaded.plan, &Forecast::new(&loaded.plan, &traffic, None));
    Ok(lints.iter().map(|lint| loaded.warning(lint)).collect())
}

fn table(report: &Report, files: usize) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        text.push_str(&format!("{problem}\n\n"));
    }
    let plural = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let looked = plural(files, "file");
    let found = match (report.errors, report.warnings) {
        (0, 0) => paint(GOOD, format!("{looked}: nothing to say")),
        (0, n) => paint(LOOK, format!("{looked}: {}", plural(n, "warning"))),
        (n, 0) => format!("{looked}: {}", plural(n, "error")),
        (n, m) => format!("{looked}: {}, {}", plural(n, "error"), plural(m, "warning")),
    };
    text + &found
}
