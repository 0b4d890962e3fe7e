//! The specification of each kind of scraper, read into the common shape.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{NamespaceScope, Scraper};
use crate::kubernetes::pod::{or_null, parse};
use crate::monitoring::selector::Selector;
use crate::reason::cut;

/// What an operator makes of the two selectors of rules: an absent one takes no rule, or those of the object's own namespace.
fn rules(
    selector: Option<&LabelSelector>,
    namespaces: Option<&LabelSelector>,
) -> Result<Option<(Selector, NamespaceScope)>, String> {
    let Some(selector) = selector else { return Ok(None) };
    let selector = read_selector("spec.ruleSelector", selector)?;
    let scope = match namespaces {
        Some(namespaces) => NamespaceScope::Matching(read_selector("spec.ruleNamespaceSelector", namespaces)?),
        None => NamespaceScope::Own,
    };
    Ok(Some((selector, scope)))
}

impl Scraper {
    /// An absent selector takes no monitor, an empty one takes every one. For namespaces an absent one means the
    /// object's own.
    pub(super) fn read_prometheus(&mut self, spec: &str) -> Result<bool, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            service_monitor_selector: Option<LabelSelector>,
            service_monitor_namespace_selector: Option<LabelSelector>,
            pod_monitor_selector: Option<IgnoredAny>,
            probe_selector: Option<IgnoredAny>,
            scrape_config_selector: Option<IgnoredAny>,
            rule_selector: Option<LabelSelector>,
            rule_namespace_selector: Option<LabelSelector>,
            paused: Option<bool>,
            ignore_namespace_selectors: Option<bool>,
            enforced_namespace_label: Option<String>,
            mode: Option<String>,
            service_account_name: Option<String>,
            service_discovery_role: Option<String>,
            scrape_interval: Option<String>,
            replicas: Option<i64>,
            #[serde(default, deserialize_with = "or_null")]
            scrape_classes: Vec<ScrapeClass>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ScrapeClass {
            name: String,
            default: Option<bool>,
            #[serde(default, deserialize_with = "or_null")]
            relabelings: Vec<IgnoredAny>,
            #[serde(default, deserialize_with = "or_null")]
            metric_relabelings: Vec<IgnoredAny>,
            authorization: Option<IgnoredAny>,
        }
        self.limits = read_limits(spec)?;
        let spec: Spec = read_spec(spec)?;
        self.paused = spec.paused.unwrap_or_default();
        self.ignore_namespace_selectors = spec.ignore_namespace_selectors.unwrap_or_default();
        self.enforced_namespace_label = spec.enforced_namespace_label.filter(|label| !label.is_empty());
        self.scrape_interval = spec.scrape_interval;
        self.health.has_no_replica = spec.replicas == Some(0);
        let default = spec.scrape_classes.into_iter().find(|class| class.default == Some(true));
        self.default_class = default.and_then(|class| {
            let fields = [
                ("relabelings", !class.relabelings.is_empty()),
                ("metricRelabelings", !class.metric_relabelings.is_empty()),
                ("authorization", class.authorization.is_some()),
            ];
            let effects: Vec<_> = fields.into_iter().filter_map(|(field, is_set)| is_set.then_some(field)).collect();
            (!effects.is_empty()).then_some((class.name, effects))
        });
        let account = spec.service_account_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        let slices = spec.service_discovery_role.as_deref() == Some("EndpointSlice");
        self.discovery = Some((account, if slices { "endpointslices" } else { "endpoints" }));
        if spec.mode.as_deref() == Some("DaemonSet") {
            return Err("runs as a DaemonSet, which cannot use ServiceMonitors; it needs a PodMonitor".to_owned());
        }
        if let Some(selector) = &spec.service_monitor_namespace_selector {
            self.scope = NamespaceScope::Matching(read_selector(self.scope_field, selector)?);
        }
        self.rules = rules(spec.rule_selector.as_ref(), spec.rule_namespace_selector.as_ref())?;
        let others = [spec.pod_monitor_selector, spec.probe_selector, spec.scrape_config_selector];
        match &spec.service_monitor_selector {
            Some(selector) => self.selector = read_selector(self.selector_field, selector)?,
            None if others.iter().all(Option::is_none) => {
                return Err("has no selector at all, so the operator leaves its configuration unmanaged".to_owned());
            }
            None => return Err("selects no ServiceMonitor: it has no spec.serviceMonitorSelector".to_owned()),
        }
        Ok(true)
    }

    /// VictoriaMetrics' own table of what an absent selector means.
    pub(super) fn read_vmagent(&mut self, spec: &str) -> Result<bool, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            service_scrape_selector: Option<LabelSelector>,
            service_scrape_namespace_selector: Option<LabelSelector>,
            select_all_by_default: Option<bool>,
            paused: Option<bool>,
        }
        (self.selector_field, self.scope_field) = ("spec.serviceScrapeSelector", "spec.serviceScrapeNamespaceSelector");
        let spec: Spec = read_spec(spec)?;
        self.paused = spec.paused.unwrap_or_default();
        let (selector, namespaces) = (spec.service_scrape_selector, spec.service_scrape_namespace_selector);
        if selector.is_none() && namespaces.is_none() {
            if !spec.select_all_by_default.unwrap_or_default() {
                return Err(
                    "selects nothing: it has no spec.serviceScrapeSelector and no spec.selectAllByDefault".to_owned()
                );
            }
            self.scope = NamespaceScope::Matching(Selector::default());
        }
        if let Some(selector) = &selector {
            self.selector = read_selector(self.selector_field, selector)?;
        }
        if let Some(selector) = &namespaces {
            self.scope = NamespaceScope::Matching(read_selector(self.scope_field, selector)?);
        }
        Ok(true)
    }

    pub(super) fn read_target_allocator(&mut self, spec: &str) -> Result<bool, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            #[serde(rename = "prometheusCR", default, deserialize_with = "or_null")]
            prometheus_cr: PrometheusCr,
        }
        self.selector_field = "spec.prometheusCR.serviceMonitorSelector";
        self.scope_field = "spec.prometheusCR.serviceMonitorNamespaceSelector";
        let spec: Spec = read_spec(spec)?;
        self.read_prometheus_cr(spec.prometheus_cr)
    }

    pub(super) fn read_collector(&mut self, spec: &str) -> Result<bool, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            #[serde(default, deserialize_with = "or_null")]
            target_allocator: TargetAllocator,
        }
        #[derive(Default, Deserialize)]
        struct TargetAllocator {
            enabled: Option<bool>,
            #[serde(rename = "prometheusCR", default, deserialize_with = "or_null")]
            prometheus_cr: PrometheusCr,
        }
        self.selector_field = "spec.targetAllocator.prometheusCR.serviceMonitorSelector";
        self.scope_field = "spec.targetAllocator.prometheusCR.serviceMonitorNamespaceSelector";
        let spec: Spec = read_spec(spec)?;
        if !spec.target_allocator.enabled.unwrap_or_default() {
            return Ok(false);
        }
        self.read_prometheus_cr(spec.target_allocator.prometheus_cr)
    }

    /// An absent label selector takes nothing; an absent namespace selector, unlike a Prometheus', reads everywhere.
    fn read_prometheus_cr(&mut self, cr: PrometheusCr) -> Result<bool, String> {
        if !cr.enabled.unwrap_or_default() {
            return Ok(false);
        }
        self.scrape_interval = cr.scrape_interval;
        self.allowed = Some(cr.allow_namespaces).filter(|names| !names.is_empty());
        self.denied = cr.deny_namespaces;
        self.scope = NamespaceScope::Matching(match &cr.service_monitor_namespace_selector {
            Some(selector) => read_selector(self.scope_field, selector)?,
            None => Selector::default(),
        });
        let selector = cr.service_monitor_selector.as_ref();
        let selector =
            selector.ok_or_else(|| format!("selects no ServiceMonitor: it has no {}", self.selector_field))?;
        self.selector = read_selector(self.selector_field, selector)?;
        Ok(true)
    }
}

/// `prometheusCR` of a target allocator.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PrometheusCr {
    enabled: Option<bool>,
    service_monitor_selector: Option<LabelSelector>,
    service_monitor_namespace_selector: Option<LabelSelector>,
    #[serde(default, deserialize_with = "or_null")]
    allow_namespaces: BTreeSet<String>,
    #[serde(default, deserialize_with = "or_null")]
    deny_namespaces: BTreeSet<String>,
    scrape_interval: Option<String>,
}

/// The limits that are set, as `field: value`. 0 is none.
fn read_limits(spec: &str) -> Result<Vec<String>, String> {
    const LIMITS: [&str; 10] = [
        "bodySizeLimit",
        "enforcedBodySizeLimit",
        "sampleLimit",
        "enforcedSampleLimit",
        "labelLimit",
        "enforcedLabelLimit",
        "labelNameLengthLimit",
        "enforcedLabelNameLengthLimit",
        "labelValueLengthLimit",
        "enforcedLabelValueLengthLimit",
    ];
    let fields: BTreeMap<Cow<str>, &RawValue> = read_spec(spec)?;
    let set = LIMITS.into_iter().filter_map(|field| {
        let value = fields.get(field)?.get().trim_matches('"');
        (!matches!(value, "0" | "" | "null")).then(|| format!("{field}: {}", cut(value, 16)))
    });
    Ok(set.collect())
}

fn read_selector(field: &str, selector: &LabelSelector) -> Result<Selector, String> {
    Selector::parse(selector).map_err(|why| format!("{field}.{why}, so the operator cannot use it"))
}

fn read_spec<'de, T: Deserialize<'de>>(spec: &'de str) -> Result<T, String> {
    parse(spec).map_err(|finding| format!("spec cannot be read: {}", finding.detail))
}
