//! From the annotation to the exporter beside the gateway.

use serde_json::Value;

use super::{Way, lacking};
use crate::annotations::{DISCOVERY, Discovery, ENABLED, INJECT, MONITORED_BY, is_enabled};
use crate::diagnosis::check::{Check, Step, Verdict};
use crate::diagnosis::gateway::Pod;
use crate::diagnosis::missed::{self, Template};
use crate::diagnosis::workload::Workload;
use crate::injection::exporter::CONTAINER;
use crate::injection::predict::{Predicted, apply, predict};
use crate::monitoring::Owner;
use crate::reason::{Finding, Reason};

/// The fields of the exporter's container without which it does not do its work. Others may well be changed: an image by a mirror,
/// resources by an autoscaler.
const SENSITIVE: [&str; 7] =
    ["command", "args", "ports", "volumeMounts", "startupProbe", "readinessProbe", "livenessProbe"];

impl Way<'_> {
    pub(super) fn pods(&self) -> Vec<Check> {
        let mut checks = vec![self.annotation()];
        if let Some(workload) = &self.gateway.workload {
            checks.extend(self.scope());
            checks.extend(self.template(workload));
        }
        checks.extend(self.injected());
        if let Some(pod) = self.gateway.live().next() {
            checks.push(self.gateway(pod));
            checks.push(self.sidecar());
            checks.extend(self.rewritten());
        }
        checks
    }

    /// Returns true if a ServiceMonitor is to be there.
    pub(super) fn is_monitored(&self) -> bool {
        let Some(revision) = &self.gateway.revision else { return true };
        let by_annotations = revision.annotations.get(DISCOVERY).map(String::as_str);
        revision.labels.contains_key(MONITORED_BY) || by_annotations != Some(Discovery::Annotations.as_str())
    }

    fn annotation(&self) -> Check {
        let object = self.workload();
        let Some(workload) = &self.gateway.workload else {
            return Check::ok(Step::Annotation, object, format!("its pods have {INJECT}: \"true\""));
        };
        let labels = self.around.monitoring.namespace_labels(self.namespace);
        let says = |place: &str, value: &str| format!("{INJECT}: {value:?} in {place}");
        let on_template = ("spec.template.metadata.annotations", workload.template_inject.as_deref());
        let asked = [("metadata.annotations", workload.inject.as_deref()), on_template];
        if let Some((place, value)) = asked.iter().find(|(_, value)| *value == Some("true")) {
            return Check::ok(Step::Annotation, object, says(place, value.unwrap_or_default()));
        }
        let fix = format!("kubectl annotate {object} --overwrite {INJECT}=true");
        if let Some((place, Some(value))) = asked.iter().find(|(_, value)| value.is_some()) {
            let finding = Finding::new(Reason::OptedOut, says(place, value));
            return Check { verdict: Verdict::Fail, ..Check::found(Step::Annotation, object, finding) }.fix(fix);
        }
        if is_enabled(&labels) {
            return Check::ok(Step::Annotation, object, format!("its namespace has the label {INJECT}={ENABLED}"));
        }
        if let Some(why) = self.around.unread.why("namespaces") {
            return Check::skip(
                Step::Annotation,
                object,
                format!("it has no annotation {INJECT}; its namespace may ask: {why}"),
            );
        }
        let finding = Finding::new(Reason::NotRequested, format!("it has no annotation {INJECT}"));
        Check { verdict: Verdict::Fail, ..Check::found(Step::Annotation, object, finding) }.fix(fix)
    }

    /// The webhook is called in this namespace, and gwmon's configuration allows injection there.
    fn scope(&self) -> Option<Check> {
        let labels = self.around.monitoring.namespace_labels(self.namespace);
        let allowed = self.around.config.check_namespace(self.namespace);
        let scope = self.around.scope.filter(|_| self.around.unread.why("namespaces").is_none());
        let called = scope.map_or(Ok(()), |scope| scope.check(self.namespace, &labels));
        let finding = allowed.and(called).err()?;
        Some(Check::found(Step::Webhook, format!("namespace/{}", self.namespace), finding))
    }

    fn template(&self, workload: &Workload) -> Option<Check> {
        if !workload.asks() {
            return None;
        }
        let owner = Owner {
            api_version: "apps/v1".to_owned(),
            kind: workload.kind.clone(),
            name: workload.name.clone(),
            uid: workload.uid.clone(),
        };
        let place = (self.namespace, &owner);
        let template =
            missed::template(self.around.config, self.limits(), &workload.json, place, true, workload.pods > 0);
        Some(match template {
            Template::Differs(finding) => {
                // What is wrong with the request itself.
                let is_request = matches!(
                    finding.reason,
                    Reason::InvalidAnnotation | Reason::MalformedObject | Reason::ManagedWorkload
                );
                let step = if is_request { Step::Annotation } else { Step::Template };
                let is_missed = finding.reason == Reason::MissedInjection;
                let check = Check::found(step, self.workload(), finding);
                if is_missed { check.fix(self.restart()) } else { check }
            }
            Template::Agrees | Template::Asks => {
                Check::ok(Step::Template, self.workload(), format!("{INJECT}: \"true\" is on the pod template"))
            }
        })
    }

    /// The command that makes new pods.
    fn restart(&self) -> String {
        let (kind, name) = self.gateway.workload_name();
        match kind {
            "Deployment" | "StatefulSet" | "DaemonSet" => {
                format!("gwmon repair {} -n {}", self.gateway.resource(), self.namespace)
            }
            "Pod" => format!("kubectl delete pod {name} -n {}, and create it again", self.namespace),
            _ => format!("restart the pods of {kind} {name} -n {}", self.namespace),
        }
    }

    fn injected(&self) -> Vec<Check> {
        let object = self.workload();
        let (live, total) = (self.gateway.live().count(), self.gateway.total());
        let mut checks = Vec::new();
        if let Some(finding) = &self.gateway.suspended {
            checks.push(Check::found(Step::Pods, object.clone(), finding.clone()));
        }
        if let Some(workload) = &self.gateway.workload {
            if let Some(failure) = &workload.failure {
                let detail = format!("{total} of {} pods are there: {failure}", workload.wanted);
                checks.push(Check::found(Step::Pods, object.clone(), Finding::new(Reason::PodRefused, detail)));
            }
            let is_asked = workload.asks() || is_enabled(&self.around.monitoring.namespace_labels(self.namespace));
            if live == 0 && !is_asked {
                checks.push(Check::skip(Step::Pods, object, "it does not ask for injection"));
                return checks;
            }
            if workload.wanted == 0 {
                checks.push(Check::skip(Step::Pods, object, "it is scaled to no pods"));
                return checks;
            }
            if workload.is_rolling {
                let what = format!("a roll-out is going on: {live} pods are injected; look again when it has ended");
                checks.push(Check::skip(Step::Pods, object, what));
                return checks;
            }
        }
        let missed = self.gateway.missed();
        if missed > 0 && self.gateway.suspended.is_none() {
            let detail = format!("{missed} of {total} pods run without what gwmon injects");
            let finding = Finding::new(Reason::MissedInjection, detail);
            checks.push(Check::found(Step::Pods, object.clone(), finding).fix(self.restart()));
        } else if live == 0 && checks.is_empty() {
            let is_labelled = self.gateway.workload.as_ref().is_none_or(|workload| workload.is_labelled);
            let what = if is_labelled {
                "it has no pods yet"
            } else {
                "its pods are discovered by annotations and may have no label of gwmon's"
            };
            checks.push(Check::skip(Step::Pods, object.clone(), what));
        } else if missed == 0 && live > 0 {
            let versions = self.versions();
            checks.push(Check::ok(
                Step::Pods,
                object.clone(),
                format!("{live} of {total} pods are injected, by gwmon {versions}"),
            ));
        }
        if let Some(outdated) = self.outdated().filter(|outdated| *outdated > 0) {
            let what = format!("{outdated} of {live} pods run what another version or configuration of gwmon injected");
            let finding = Finding::new(Reason::OutdatedInjection, what);
            checks.push(Check::found(Step::Pods, object, finding).fix(self.restart()));
        }
        checks
    }

    fn versions(&self) -> String {
        let mut versions: Vec<_> =
            self.gateway.live().filter_map(|pod| pod.injected.as_ref()).map(|(version, _)| version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        versions.join(", ")
    }

    /// The number of pods in which gwmon would now inject something else.
    pub(super) fn outdated(&self) -> Option<usize> {
        if !self.around.is_predictable() {
            return None;
        }
        let current = self.current(self.gateway.workload.as_ref()?)?;
        let differs = |pod: &&Pod| pod.injected.as_ref().is_some_and(|(_, hash)| *hash != current);
        Some(self.gateway.live().filter(differs).count())
    }

    /// The hash of what gwmon would inject into a new pod of the workload.
    fn current(&self, workload: &Workload) -> Option<String> {
        self.predicted(workload).map(|predicted| predicted.injection.status.hash)
    }

    /// What gwmon would make of a new pod of the workload.
    fn predicted(&self, workload: &Workload) -> Option<Predicted> {
        let mut object: Value = serde_json::from_str(&workload.json).ok()?;
        // Items of a list lack both.
        object["apiVersion"] = "apps/v1".into();
        object["kind"] = workload.kind.as_str().into();
        let labels = self.around.monitoring.namespace_labels(self.namespace);
        predict(self.around.config, self.limits(), (self.namespace, &labels), &object, "/spec/template").ok()
    }

    /// The exporter's container is no longer as gwmon injected it: a webhook that is called after gwmon, or a person, changed it.
    fn rewritten(&self) -> Option<Check> {
        if !self.around.is_predictable() {
            return None;
        }
        let revision = self.gateway.revision.as_ref()?;
        let (live, status) = (revision.exporter.as_ref()?, revision.status.as_ref()?);
        let Predicted { mut pod, injection, .. } = self.predicted(self.gateway.workload.as_ref()?)?;
        if injection.status.hash != status.hash {
            // The configuration is another one now.
            return None;
        }
        apply(&mut pod, &injection.patch).ok()?;
        let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array().into_iter().flatten());
        let injected = lists.into_iter().flatten().find(|container| container["name"] == CONTAINER)?;
        let field = SENSITIVE.into_iter().find_map(|field| {
            lacking(injected.get(field)?, live.get(field).unwrap_or(&Value::Null), &format!("{CONTAINER}.{field}"))
        })?;
        let detail = format!("{field} is not as gwmon injected it");
        Some(Check::found(Step::Sidecar, self.workload(), Finding::new(Reason::WebhookRewritesPods, detail)))
    }

    fn gateway(&self, pod: &Pod) -> Check {
        let object = self.object(&format!("pod/{}", pod.name));
        if let Some(mismatch) = self.gateway.live().find_map(|pod| pod.mismatch.clone()) {
            return Check::found(Step::Gateway, object, mismatch);
        }
        if let Some(status) = self.gateway.revision.as_ref().and_then(|revision| revision.status.as_ref()) {
            return Check::ok(Step::Gateway, object, status.summary());
        }
        let finding = Finding::new(Reason::StatusMismatch, "its annotation gwmon.io/status cannot be read");
        let fix = format!("kubectl delete {object}");
        Check::found(Step::Gateway, object, finding).fix(fix)
    }

    fn sidecar(&self) -> Check {
        let object = self.workload();
        let status = self.gateway.revision.as_ref().and_then(|revision| revision.status.as_ref());
        let Some(status) = status.filter(|status| status.statsd_port.is_some()) else {
            return Check::ok(Step::Sidecar, object, "none is needed: Prometheus scrapes the gateway's own endpoint");
        };
        let states: Vec<_> = self.gateway.live().filter_map(|pod| Some((&pod.name, pod.status.as_ref()?))).collect();
        for (name, state) in &states {
            let object = self.object(&format!("pod/{name}"));
            if let Some(failure) = state.failure(&status.container) {
                return Check::found(Step::Sidecar, object, failure);
            }
            if let Some(why) = state.exporters_last_end() {
                let finding = Finding::new(Reason::SamplesLost, why);
                return Check::found(Step::Sidecar, object, finding);
            }
        }
        let running = states.iter().filter(|(_, state)| state.exporter_runs()).count();
        if running < states.len() {
            let what = format!("the exporter runs in {running} of {} pods; the others are starting", states.len());
            return Check::skip(Step::Sidecar, object, what);
        }
        Check::ok(Step::Sidecar, object, format!("the exporter runs in all {running} pods"))
    }
}
