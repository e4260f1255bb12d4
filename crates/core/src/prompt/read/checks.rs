//! Reading evals and validators.

use serde_json::Value;

use super::{Object, Reader};
use crate::prompt::checks::{CheckKind, DeclaredCheck};

/// The most evals, or validators, in one place.
const MOST_CHECKS: usize = 200;

const EVAL_FIELDS: &[&str] = &[
    "id",
    "description",
    "type",
    "trigger",
    "sample_percentage",
    "enabled",
    "params",
    "metric",
    "threshold",
    "message",
    "when",
    "groups",
];

const VALIDATOR_FIELDS: &[&str] = &["type", "enabled", "message", "fail_on_violation", "params"];

const METRIC_KINDS: [&str; 4] = ["gauge", "counter", "histogram", "boolean"];

impl Reader {
    /// Reads the checks of one kind that a pack or a prompt declares, and notes what becomes of each.
    pub(super) fn checks(&mut self, holder: &Object<'_>, field: &str, kind: CheckKind) {
        let path = holder.path_of(field);
        let Some(value) = holder.fields.get(field) else { return };
        let mut ids: Vec<String> = Vec::new();
        for (index, item) in self.array(&path, value, MOST_CHECKS).iter().enumerate() {
            let Some(object) = self.object(&format!("{path}[{index}]"), item) else { continue };
            let check = match kind {
                CheckKind::Eval => self.eval(&object),
                CheckKind::Validator => self.validator(&object),
            };
            let Some(check) = check else { continue };
            if let Some(id) = &check.id {
                if ids.contains(id) {
                    self.problem(&object.path_of("id"), format!("eval {id} is declared twice"), None);
                }
                ids.push(id.clone());
            }
            self.note(&object.path, &check.told(), check.advice());
            self.checks.push(check);
        }
    }

    fn eval(&mut self, object: &Object<'_>) -> Option<DeclaredCheck> {
        self.note_fields(object, EVAL_FIELDS, &[]);
        let id = self.required_text(object, "id").map(str::to_owned);
        let how = self.required_text(object, "type").map(str::to_owned);
        self.required_text(object, "trigger");
        if let Some(share) = self.number(object, "sample_percentage")
            && !(0.0..=100.0).contains(&share)
        {
            self.problem(&object.path_of("sample_percentage"), format!("{share} is outside 0 to 100"), None);
        }
        if let Some(metric) =
            object.fields.get("metric").and_then(|value| self.object(&object.path_of("metric"), value))
        {
            self.required_text(&metric, "name");
            if let Some(kind) = self.required_text(&metric, "type")
                && !METRIC_KINDS.contains(&kind)
            {
                let message = format!("metric type {kind:?} is none of {}", METRIC_KINDS.join(", "));
                self.problem(&metric.path_of("type"), message, None);
            }
        }
        self.objects(object, &["params", "threshold", "when"]);
        let enabled = self.enabled(object);
        Some(DeclaredCheck::new(CheckKind::Eval, &object.path, Some(id?), how?, enabled))
    }

    fn validator(&mut self, object: &Object<'_>) -> Option<DeclaredCheck> {
        self.note_fields(object, VALIDATOR_FIELDS, &[]);
        let how = self.required_text(object, "type").map(str::to_owned);
        self.objects(object, &["params"]);
        let enabled = self.enabled(object);
        Some(DeclaredCheck::new(CheckKind::Validator, &object.path, None, how?, enabled))
    }

    /// Makes sure that fields hold objects where they are given.
    fn objects(&mut self, holder: &Object<'_>, names: &[&str]) {
        for name in names {
            if let Some(value) = holder.fields.get(*name) {
                self.object(&holder.path_of(name), value);
            }
        }
    }

    /// Whether a check is switched on, as it is when nothing is said.
    fn enabled(&mut self, object: &Object<'_>) -> bool {
        match object.fields.get("enabled") {
            Some(Value::Bool(enabled)) => *enabled,
            Some(other) => {
                self.wrong_type(&object.path_of("enabled"), "boolean", other);
                true
            }
            None => true,
        }
    }
}
