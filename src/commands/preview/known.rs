//! The state of the cluster for which manifests are previewed.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::annotations::{Version, WORKLOAD_NAMESPACE};
use crate::injection::resources::LimitRange;
use crate::labels::Labels;
use crate::manifest::{display_name, namespace_of};
use crate::monitoring::network::NetworkPolicy;
use crate::monitoring::{Cluster, Operator, Scraper};

/// The state of the cluster, as far as it was read.
#[derive(Default)]
pub(super) struct Known {
    pub(super) cluster: Cluster,
    /// The labels of other people's ServiceMonitors, by namespace.
    pub(super) existing_monitors: BTreeMap<String, Vec<Labels>>,
    /// The Kubernetes version.
    pub(super) kubernetes: Option<Version>,
    /// The LimitRanges of each namespace.
    pub(super) limits: BTreeMap<String, Vec<LimitRange>>,
    pub(super) network: Vec<NetworkPolicy>,
}

impl Known {
    /// The kinds that say something of the namespaces in which workloads are to run, and that may stand among these.
    pub(super) const NAMESPACE_KINDS: [&'static str; 3] = ["LimitRange", "Namespace", "NetworkPolicy"];

    /// Reads the objects of a cluster.
    ///
    /// # Errors
    /// One that cannot be read.
    pub(super) fn of(objects: &[Value]) -> Result<Self> {
        let mut known = Self::default();
        for object in objects {
            known.take(object, "default")?;
        }
        Ok(known)
    }

    /// Takes in an object of one of [`Self::NAMESPACE_KINDS`].
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn take_namespace_object(&mut self, object: &Value, namespace: &str) -> Result<()> {
        if object["kind"] == "LimitRange" {
            let range = LimitRange::parse(&object.to_string()).with_context(|| display_name(object, namespace))?;
            self.limits.entry(namespace_of(object, namespace).to_owned()).or_default().push(range);
        } else if object["kind"] == "NetworkPolicy" {
            self.network.extend(NetworkPolicy::parse(object, namespace_of(object, namespace)));
        } else if object["kind"] == "Namespace" {
            let labels = serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            self.cluster.namespaces.insert(name.to_owned(), labels);
        }
        Ok(())
    }

    fn take(&mut self, object: &Value, namespace: &str) -> Result<()> {
        let metadata = &object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let labels = || serde_json::from_value::<Labels>(metadata["labels"].clone()).unwrap_or_default();
        match object["kind"].as_str() {
            Some("ServiceMonitor") if !labels().contains_key(WORKLOAD_NAMESPACE) => {
                self.existing_monitors.entry(text("namespace")).or_default().push(labels());
            }
            Some("Deployment") => {
                let operator = Operator::parse(&object.to_string()).with_context(|| display_name(object, namespace))?;
                self.cluster.operators.extend(operator);
            }
            Some(kind) if Self::NAMESPACE_KINDS.contains(&kind) => self.take_namespace_object(object, namespace)?,
            _ => {
                let scraper = Scraper::parse(&object.to_string()).with_context(|| display_name(object, namespace))?;
                self.cluster.scrapers.extend(scraper);
            }
        }
        Ok(())
    }
}
