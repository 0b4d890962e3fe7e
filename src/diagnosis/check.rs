//! One line of a diagnosis: what was looked at, what was found, and what to do about it.

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::reason::{Finding, Reason, Severity};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It is as it must be.
    Ok,
    /// It cannot be told, mostly for lack of a right.
    Skip,
    /// Metrics arrive, and something about them needs attention.
    Warn,
    /// Metrics do not arrive, or will not.
    Fail,
}

impl Verdict {
    /// The word in every output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Skip => "SKIP",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// The steps on a metric's way, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// gwmon's own Deployment and its version.
    Installation,
    /// gwmon's webhook: whether the API server calls it and trusts it.
    Webhook,
    /// The workload asks for injection.
    Annotation,
    /// Its pod template asks for it, too.
    Template,
    /// Its pods are injected.
    Pods,
    /// The gateway in them is configured to send, or to be scraped.
    Gateway,
    /// The exporter beside it runs.
    Sidecar,
    /// The metrics Service.
    Service,
    /// The addresses behind that.
    Endpoints,
    /// The ServiceMonitor.
    ServiceMonitor,
    /// A Prometheus selects that.
    Selection,
    /// The Prometheus and its operator work.
    Prometheus,
    /// It may discover the pods.
    ScrapeRights,
    /// Nothing between it and the pods refuses the scrape.
    Network,
    /// Its target is up.
    Target,
    /// Samples arrive, and are what they should be.
    Samples,
    /// A Prometheus loads the rules about them.
    Rules,
}

impl Step {
    /// The word in every output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Webhook => "webhook",
            Self::Annotation => "annotation",
            Self::Template => "template",
            Self::Pods => "pods",
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecar",
            Self::Service => "service",
            Self::Endpoints => "endpoints",
            Self::ServiceMonitor => "service-monitor",
            Self::Selection => "selection",
            Self::Prometheus => "prometheus",
            Self::ScrapeRights => "scrape-rights",
            Self::Network => "network",
            Self::Target => "target",
            Self::Samples => "samples",
            Self::Rules => "rules",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The result.
    pub verdict: Verdict,
    /// Its place on the metric's way.
    pub step: Step,
    /// The object that was looked at, as kubectl takes it.
    pub object: String,
    /// What was found there and, where that is wrong, what is needed.
    pub fact: String,
    /// The reason, which has its entry in `docs/troubleshooting.md`; absent for what is as it must be.
    pub reason: Option<Reason>,
    /// The command that repairs it, or what to do.
    pub fix: Option<String>,
}

impl Check {
    /// It is as it must be.
    #[must_use]
    pub fn ok(step: Step, object: impl Into<String>, fact: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, step, object: object.into(), fact: fact.into(), reason: None, fix: None }
    }

    /// It cannot be told, for this reason.
    #[must_use]
    pub fn skip(step: Step, object: impl Into<String>, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skip, ..Self::ok(step, object, why) }
    }

    /// A finding: a failure if its reason is an error.
    #[must_use]
    pub fn found(step: Step, object: impl Into<String>, finding: Finding) -> Self {
        let verdict = match finding.reason.severity() {
            Severity::Info => Verdict::Ok,
            Severity::Warning => Verdict::Warn,
            Severity::Error => Verdict::Fail,
        };
        let Finding { reason, detail } = finding;
        Self { verdict, step, object: object.into(), fact: detail, reason: Some(reason), fix: None }
    }

    /// With the command that repairs it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// What to do: the command that repairs it or, where there is none, what its reason's page says.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        if self.verdict < Verdict::Warn {
            return None;
        }
        self.fix.as_deref().or_else(|| self.reason.map(Reason::remedy))
    }

    /// The place in the documentation.
    #[must_use]
    pub fn page(&self) -> Option<String> {
        let reason = self.reason.filter(|_| self.verdict >= Verdict::Warn)?;
        Some(format!("docs/troubleshooting.md#{}", reason.as_str().to_lowercase()))
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut check = serializer.serialize_struct("Check", 7)?;
        check.serialize_field("verdict", &self.verdict)?;
        check.serialize_field("step", &self.step)?;
        check.serialize_field("object", &self.object)?;
        check.serialize_field("fact", &self.fact)?;
        check.serialize_field("reason", &self.reason.map(Reason::as_str))?;
        check.serialize_field("fix", &self.remedy())?;
        check.serialize_field("page", &self.page())?;
        check.end()
    }
}

/// The first failure, in the order of the metric's way: what follows fails because of it.
#[must_use]
pub fn cause(checks: &[Check]) -> Option<&Check> {
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail);
    // `min_by_key` keeps the first of equals.
    failed.min_by_key(|check| check.step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: Step, reason: Reason) -> Check {
        Check::found(step, "deployment.apps/edge -n gw", Finding::new(reason, "x"))
    }

    #[test]
    fn the_first_failure_on_the_way_is_the_cause() {
        let checks = [
            check(Step::Samples, Reason::NotSelected),
            check(Step::Pods, Reason::AmbiguousPrometheus),
            check(Step::Selection, Reason::NotSelected),
            Check::skip(Step::Webhook, "", "x"),
        ];
        assert_eq!(cause(&checks).unwrap().step, Step::Selection);
        assert_eq!(cause(&checks[3..]), None);
    }

    #[test]
    fn json_has_what_the_line_has() {
        let found = serde_json::to_value(check(Step::ScrapeRights, Reason::ScrapeRBACMissing)).unwrap();
        assert_eq!((&found["verdict"], &found["step"]), (&"FAIL".into(), &"scrape-rights".into()));
        assert_eq!(found["page"], "docs/troubleshooting.md#scraperbacmissing");
        assert!(found["fix"].as_str().is_some_and(|fix| !fix.is_empty()));
        let ok = serde_json::to_value(Check::ok(Step::Target, "x", "up")).unwrap();
        assert!(ok["page"].is_null() && ok["fix"].is_null() && ok["reason"].is_null());
        for step in [Step::ServiceMonitor, Step::ScrapeRights] {
            assert_eq!(serde_json::to_value(step).unwrap(), step.as_str());
        }
    }
}
