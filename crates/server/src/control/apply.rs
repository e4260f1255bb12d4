//! Applying a manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serin_core::access::Scope;
use serin_core::audit::{Action, AuditFact};
use serin_core::ids::{PackName, ProviderName, Version};
use serin_core::lint::{Lint, lint, lint_judges, lint_tools};
use serin_core::metric::MetricName;
use serin_core::parse::{PackSource, Parsed, Problem, Problems, parse, to_json};
use serin_core::plan::Plan;
use serin_core::policy::{self, Override, Violation, Who};
use serin_core::prompt::{Pack, PackChange, PackProblem, canonical};
use serin_core::publish::{Application, Change, Outcome, Published, Refused, publish};
use serin_core::routing::Cohorts;
use serin_core::weight::Weight;
use tokio::sync::Mutex;

use super::commit::{Beside, NotCommitted, Publication};
use super::policy::{Broken, fact, unless_overridden};
use super::{Control, LoadError, Managed, segments_of};
use crate::store::{StoreError, StoredVersion};
use crate::tool_schema;

/// A manifest that somebody applies.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The manifest, YAML or JSON, with its prompts inline.
    pub manifest: &'a str,
    /// The packs that may be changed.
    pub scope: &'a Scope,
    /// Who applies it.
    pub who: Who<'a>,
    /// Why.
    pub reason: &'a str,
    /// Whether only to say what would happen.
    pub dry_run: bool,
    /// Whether a rollout of the same version is to begin anew.
    pub restart: bool,
    /// Why rules of the policy are set aside, by somebody who may.
    pub override_policy: Option<&'a str>,
}

/// What applying a manifest came to.
#[derive(Debug, Clone, Serialize)]
pub struct Applied {
    /// The pack.
    pub pack: PackName,
    /// The version.
    pub version: Version,
    /// What happened, or would happen.
    pub outcome: AppliedOutcome,
    /// The same in words.
    pub message: String,
    /// The rollout that it started.
    pub rollout: Option<String>,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

/// What happened, or would happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AppliedOutcome {
    /// Nothing.
    Unchanged,
    /// The rollout block is kept for the next rollout of the version.
    PlanKept,
    /// The first version of a pack is stable.
    FirstStable,
    /// A rollout has started.
    Started,
    /// A rollout has started in place of another one.
    Superseded,
    /// The canary was rolled back because stable was applied again.
    RolledBack,
    /// Everyone is on the version at once.
    Immediate,
}

/// Why a manifest was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The manifest is wrong.
    #[error("the manifest has problems")]
    Manifest(Problems),
    /// Its prompts are wrong.
    #[error("the pack has problems")]
    Pack(Vec<PackProblem>),
    /// The server takes no paths.
    #[error("spec.source.file {0:?} is a path; the server takes prompts inline only")]
    SourceIsPath(String),
    /// The pack names itself differently from the manifest.
    #[error("the pack calls itself {pack}, the manifest {manifest}")]
    OtherPack {
        /// Name and version as the pack says.
        pack: String,
        /// Name and version as the manifest says.
        manifest: String,
    },
    /// The key is not for this pack.
    #[error("the key is for {scope} only, not for {pack}")]
    OutOfScope {
        /// The pack of the manifest.
        pack: PackName,
        /// What the key is for.
        scope: Scope,
    },
    /// It goes to a provider that the settings do not name.
    #[error("the pack names the provider {provider} in its metadata, which is not in the settings")]
    UnknownProvider {
        /// The provider as named.
        provider: ProviderName,
        /// Those that there are.
        known: Vec<ProviderName>,
    },
    /// A provider that the settings do not name is to judge.
    #[error("{outcome} is judged by the provider {provider}, which is not in the settings")]
    UnknownJudge {
        /// What is judged.
        outcome: MetricName,
        /// The provider as named.
        provider: ProviderName,
        /// Those that there are.
        known: Vec<ProviderName>,
    },
    /// The publishing rules refuse it.
    #[error("{refused}")]
    Refused {
        /// Why.
        refused: Refused,
        /// What differs from the published content, for a version that is published already.
        diff: Vec<PackChange>,
    },
    /// Rules of the policy do not allow it.
    #[error(transparent)]
    Policy(#[from] Broken),
    /// It could not be recorded.
    #[error(transparent)]
    NotCommitted(#[from] NotCommitted),
    /// A stored manifest could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store failed.
    #[error("could not apply the manifest")]
    Store(#[from] StoreError),
}

/// A manifest that was read with its prompts.
struct Read {
    plan: Plan,
    prompts: Option<Arc<Pack>>,
    digests: Published,
    warnings: Vec<String>,
}

/// The digest of a version without prompts of its own.
const VERSION_ONLY: &str = "version-only";

fn read(manifest: &str) -> Result<Read, ApplyError> {
    let Parsed { plan, source, warnings } = parse(manifest).map_err(ApplyError::Manifest)?;
    let prompts = match source {
        None => None,
        Some(PackSource::File(path)) => return Err(ApplyError::SourceIsPath(path)),
        Some(PackSource::Inline(value)) => {
            let pack = Pack::from_value(value).map_err(ApplyError::Pack)?;
            let problems = tool_schema::problems(&pack);
            if !problems.is_empty() {
                return Err(ApplyError::Pack(problems));
            }
            Some(pack)
        }
    };
    if let Some(pack) = &prompts
        && (*pack.id() != plan.pack || *pack.version() != plan.version)
    {
        return Err(ApplyError::OtherPack {
            pack: format!("{} {}", pack.id(), pack.version()),
            manifest: format!("{} {}", plan.pack, plan.version),
        });
    }
    let content_digest = prompts.as_ref().map_or_else(|| VERSION_ONLY.to_owned(), Pack::digest);
    let digests = Published { content_digest, plan_digest: plan_digest(manifest)? };
    let notes = prompts.iter().flat_map(|pack| pack.notes()).map(ToString::to_string);
    let lints = lint(&plan).into_iter().map(told);
    let warnings = warnings.iter().map(Problem::to_string).chain(lints).chain(notes).collect();
    Ok(Read { plan, prompts: prompts.map(Arc::new), digests, warnings })
}

fn told(lint: Lint) -> String {
    let Lint { path, message, hint, .. } = lint;
    format!("{path}: {message} (hint: {hint})")
}

fn set_aside(violation: &Violation) -> String {
    let Violation { rule, path, message, .. } = violation;
    format!("{path}: {message}; the rule {rule} is set aside")
}

/// The digest of everything in a manifest that says how a version is shipped.
fn plan_digest(manifest: &str) -> Result<String, ApplyError> {
    let mut json = to_json(manifest).map_err(ApplyError::Manifest)?;
    let rollout = json.pointer_mut("/spec/rollout").map(serde_json::Value::take).unwrap_or_default();
    Ok(blake3::hash(canonical(&rollout).as_bytes()).to_hex().to_string())
}

impl Control {
    /// Applies a manifest.
    ///
    /// # Errors
    /// [`ApplyError`] tells everything that is wrong; nothing changes then.
    pub async fn apply(&self, request: Request<'_>) -> Result<Applied, ApplyError> {
        let mut read = read(request.manifest)?;
        self.policy().impose(&mut read.plan);
        if !request.scope.allows(&read.plan.pack) {
            return Err(ApplyError::OutOfScope { pack: read.plan.pack, scope: request.scope.clone() });
        }
        self.check_provider(&read)?;
        self.check_judges(&mut read)?;
        match self.managed(&read.plan.pack).await {
            Some(managed) => self.apply_to(&mut *managed.lock().await, request, read).await,
            None => self.apply_first(request, read).await,
        }
    }

    fn check_provider(&self, read: &Read) -> Result<(), ApplyError> {
        let named = read.prompts.as_ref().and_then(|pack| pack.provider());
        match (named, self.providers.get()) {
            (Some(provider), Some(known)) if !known.contains(provider) => Err(ApplyError::UnknownProvider {
                provider: provider.clone(),
                known: known.iter().cloned().collect(),
            }),
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
    }

    /// Refuses judges of an unknown provider, and warns of those that have nothing to read.
    fn check_judges(&self, read: &mut Read) -> Result<(), ApplyError> {
        for judge in &read.plan.analysis.judges {
            if let (Some(provider), Some(known)) = (&judge.provider, self.providers.get())
                && !known.contains(provider)
            {
                return Err(ApplyError::UnknownJudge {
                    outcome: judge.outcome.clone(),
                    provider: provider.clone(),
                    known: known.iter().cloned().collect(),
                });
            }
        }
        if let Some(recorded) = self.recorded.get() {
            read.warnings.extend(lint_judges(&read.plan, *recorded).into_iter().map(told));
        }
        Ok(())
    }

    async fn apply_to(
        &self,
        managed: &mut Managed,
        request: Request<'_>,
        mut read: Read,
    ) -> Result<Applied, ApplyError> {
        if let (Some(stable), Some(new)) = (managed.prompts.get(&managed.state.stable), &read.prompts) {
            read.warnings.extend(lint_tools(&read.plan, stable, new).into_iter().map(told));
        }
        let known = self.store.version(&read.plan.pack, &read.plan.version).await?;
        let outcome = self.decide(Some(managed), known.as_ref(), request, &read)?;
        let violations = self.violations(&read.plan, &outcome, request.who);
        let overridden = unless_overridden(&violations, request.who.actor, request.override_policy)?;
        read.warnings.extend(violations.iter().map(set_aside));
        let applied = applied(&read, &outcome);
        if request.dry_run {
            return Ok(applied);
        }
        match outcome {
            Outcome::Unchanged(_) => {}
            Outcome::PlanKept(_) => {
                self.keep_plan(managed, request, &read, overridden).await?;
            }
            Outcome::Changed(mut transition, _) => {
                policy::record(&mut transition, self.policy(), overridden);
                let version = new_version(&read, request, self.clock.now());
                let version = known.is_none().then(|| publication(&version, &read));
                let starts = transition.pack.attempts > managed.state.attempts;
                let same_plan =
                    known.as_ref().is_none_or(|known| known.plan_digest == read.digests.plan_digest);
                if starts && !same_plan {
                    // What was set aside goes with the rollout.
                    self.keep_plan(managed, request, &read, None).await?;
                }
                let manifest = starts.then(|| (request.manifest, Arc::new(read.plan.clone())));
                let beside = Beside { version, manifest, seen: None };
                self.commit(managed, *transition, beside).await?;
            }
        }
        Ok(applied)
    }

    /// Keeps the rollout block of a version that is published already.
    async fn keep_plan(
        &self,
        managed: &Managed,
        request: Request<'_>,
        read: &Read,
        overridden: Option<Override<'_>>,
    ) -> Result<(), StoreError> {
        let Read { plan, digests, .. } = read;
        let mut replaced = AuditFact {
            at: self.clock.now(),
            rollout: None,
            revision: managed.state.revision,
            actor: request.who.actor.clone(),
            action: Action::PlanReplaced,
            reason: request.reason.to_owned(),
            evidence: serde_json::json!({"version": plan.version, "plan_digest": digests.plan_digest}),
        };
        policy::note(&mut replaced, self.policy());
        let set_aside = fact(self.policy(), overridden, &replaced);
        let facts: Vec<AuditFact> = std::iter::once(replaced).chain(set_aside).collect();
        self.store
            .replace_plan(&plan.pack, &plan.version, request.manifest, &digests.plan_digest, &facts)
            .await?;
        Ok(())
    }

    /// The first version of a pack.
    async fn apply_first(&self, request: Request<'_>, mut read: Read) -> Result<Applied, ApplyError> {
        let mut packs = self.packs.write().await;
        if let Some(managed) = packs.get(&read.plan.pack).cloned() {
            drop(packs);
            return self.apply_to(&mut *managed.lock().await, request, read).await;
        }
        let outcome = self.decide(None, None, request, &read)?;
        let violations = self.violations(&read.plan, &outcome, request.who);
        let overridden = unless_overridden(&violations, request.who.actor, request.override_policy)?;
        read.warnings.extend(violations.iter().map(set_aside));
        let applied = applied(&read, &outcome);
        let Outcome::Changed(mut transition, _) = outcome else { return Ok(applied) };
        if request.dry_run {
            return Ok(applied);
        }
        policy::record(&mut transition, self.policy(), overridden);
        let version = new_version(&read, request, self.clock.now());
        let version = publication(&version, &read);
        let mut managed = Managed {
            state: transition.pack.clone(),
            cohorts: Cohorts::default(),
            plan: Arc::new(read.plan.clone()),
            segments: segments_of(&read.plan),
            prompts: BTreeMap::new(),
        };
        let beside = Beside { version: Some(version), ..Beside::default() };
        self.commit(&mut managed, *transition, beside).await?;
        packs.insert(read.plan.pack.clone(), Arc::new(Mutex::new(managed)));
        Ok(applied)
    }

    /// The rules of the policy that applying a manifest breaks; going back breaks none.
    fn violations(&self, plan: &Plan, outcome: &Outcome, who: Who<'_>) -> Vec<Violation> {
        if !outcome.goes_forward() {
            return Vec::new();
        }
        let mut violations = self.policy().violations(plan);
        match outcome {
            Outcome::Changed(_, change @ (Change::Started | Change::Superseded | Change::Immediate)) => {
                violations.extend(plan.imposed.refuses_at(self.clock.now()));
                if *change == Change::Immediate {
                    violations.extend(self.policy().fully(plan, who, "spec.rollout.strategy"));
                }
            }
            Outcome::Changed(_, Change::FirstStable | Change::RolledBack)
            | Outcome::Unchanged(_)
            | Outcome::PlanKept(_) => {}
        }
        violations
    }

    fn decide(
        &self,
        managed: Option<&Managed>,
        known: Option<&StoredVersion>,
        request: Request<'_>,
        read: &Read,
    ) -> Result<Outcome, ApplyError> {
        let published = known.map(|known| Published {
            content_digest: known.content_digest.clone(),
            plan_digest: known.plan_digest.clone(),
        });
        let salt = (self.salts)();
        let application = Application {
            plan: &read.plan,
            digests: &read.digests,
            actor: request.who.actor,
            reason: request.reason,
            salt: &salt,
            restart: request.restart,
            now: self.clock.now(),
        };
        publish(managed.map(|managed| &managed.state), published.as_ref(), application).map_err(|refused| {
            let diff = match (&refused, known.and_then(|known| known.content.as_deref()), &read.prompts) {
                (Refused::ContentDiffers(_), Some(content), Some(new)) => {
                    Pack::stored(content).map(|old| old.diff(new)).unwrap_or_default()
                }
                _ => Vec::new(),
            };
            ApplyError::Refused { refused, diff }
        })
    }
}

fn new_version(read: &Read, request: Request<'_>, at: jiff::Timestamp) -> StoredVersion {
    StoredVersion {
        version: read.plan.version.clone(),
        content: read.prompts.as_ref().map(|pack| pack.content()),
        content_digest: read.digests.content_digest.clone(),
        manifest: request.manifest.to_owned(),
        plan_digest: read.digests.plan_digest.clone(),
        actor: request.who.actor.clone(),
        created_at: at,
    }
}

fn publication<'a>(stored: &'a StoredVersion, read: &'a Read) -> Publication<'a> {
    Publication { stored, prompts: read.prompts.as_ref() }
}

fn applied(read: &Read, outcome: &Outcome) -> Applied {
    let Plan { pack, version, .. } = &read.plan;
    let rollout = match outcome {
        Outcome::Changed(transition, Change::Started | Change::Superseded | Change::Immediate) => {
            transition.pack.rollout.as_ref().map(|rollout| rollout.id.to_string())
        }
        Outcome::Changed(_, Change::FirstStable | Change::RolledBack)
        | Outcome::Unchanged(_)
        | Outcome::PlanKept(_) => None,
    };
    let (outcome, message) = match outcome {
        Outcome::Unchanged(why) => (AppliedOutcome::Unchanged, why.clone()),
        Outcome::PlanKept(why) => (AppliedOutcome::PlanKept, why.clone()),
        Outcome::Changed(transition, change) => match change {
            Change::FirstStable => (AppliedOutcome::FirstStable, format!("{pack} {version} is stable")),
            Change::Started => {
                let weights = transition.pack.rollout.as_ref().map(serin_core::rollout::Rollout::weights);
                let shares = shares(&read.plan, weights.unwrap_or_default());
                (AppliedOutcome::Started, format!("{pack} {version} is a canary at {shares}"))
            }
            Change::Superseded => (
                AppliedOutcome::Superseded,
                format!("{pack} {version} is a canary in place of the one before"),
            ),
            Change::RolledBack => (AppliedOutcome::RolledBack, format!("{pack} is back on stable {version}")),
            Change::Immediate => {
                (AppliedOutcome::Immediate, format!("{pack} {version} is stable for everyone"))
            }
        },
    };
    Applied {
        pack: pack.clone(),
        version: version.clone(),
        outcome,
        message,
        rollout,
        warnings: read.warnings.clone(),
    }
}

/// The weights of a rollout in words: `10% of new sessions`, or by segment.
fn shares(plan: &Plan, weights: &[Weight]) -> String {
    match weights {
        [weight] => format!("{weight} of new sessions"),
        weights => {
            let named = plan.segments.iter().zip(weights);
            named
                .map(|(segment, weight)| format!("{weight} of {}", segment.name))
                .collect::<Vec<_>>()
                .join(", ")
        }
    }
}
