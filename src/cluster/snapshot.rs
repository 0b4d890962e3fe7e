//! A cluster at one moment, as far as a command needs to know it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::Need;
use super::request::{api_resource, next_page};
use super::version::oldest_version;
use crate::annotations::WORKLOAD_NAMESPACE;
use crate::diagnosis::path::{NotRead, Unread};
use crate::injection::resources::LimitRange;
use crate::kubernetes::Version;
use crate::kubernetes::labels::Labels;
use crate::manifest::{display_name, namespace_of};
use crate::monitoring::network::NetworkPolicy;
use crate::monitoring::objects::MONITOR;
use crate::monitoring::operator::OPERATOR_LABELS;
use crate::monitoring::{Cluster, Operator, Scraper};
use crate::reason::Finding;

/// Objects in one answer of the API server's.
const PAGE: u32 = 100;

/// A cluster at one moment, by one list of each kind, or from files.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The objects that configure monitoring.
    pub monitoring: Cluster,
    /// The labels of ServiceMonitors that gwmon does not manage, by namespace.
    pub existing_monitors: BTreeMap<String, Vec<Labels>>,
    /// The version of the oldest part of the cluster, where it is known.
    pub kubernetes: Option<Version>,
    /// The LimitRanges of each namespace.
    pub limit_ranges: BTreeMap<String, Vec<LimitRange>>,
    /// The NetworkPolicies of every namespace.
    pub network_policies: Vec<NetworkPolicy>,
    /// The objects and kinds that are left out, each with the reason why it cannot be read.
    pub left_out: Vec<(String, String)>,
}

impl Snapshot {
    /// The kinds that configure a namespace and may occur in a manifest file among workloads.
    pub const NAMESPACE_KINDS: [&str; 3] = ["LimitRange", "Namespace", "NetworkPolicy"];

    /// Reads objects, those without a namespace as of `default`. One that cannot be read is left out.
    #[must_use]
    pub fn of(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut snapshot = Self::default();
        for object in objects {
            snapshot.take_or_leave_out(&object);
        }
        snapshot.monitoring.normalize();
        snapshot
    }

    /// Lists the objects on which the decision and the plan depend, with the client's rights.
    ///
    /// # Errors
    /// A kind without which no plan can be made and that cannot be listed.
    pub async fn list(client: &Client) -> Result<Self> {
        let mut snapshot = Self::default();
        let monitors = [(MONITOR.0, MONITOR.1, "", Need::Optional)];
        for (version, kind, label, need) in kinds().chain(monitors) {
            if let Some(NotRead::Forbidden(why)) = snapshot.list_kind(client, (version, kind), label).await? {
                if need == Need::Required {
                    bail!("cannot list {kind} objects: {why}");
                }
                snapshot.left_out.push((format!("{kind} objects"), why));
            }
        }
        snapshot.finish(client).await
    }

    /// Lists the same objects, but for ServiceMonitors, as far as the client may, and notes what it could not read.
    ///
    /// # Errors
    /// An API server that does not answer.
    pub(crate) async fn list_permitted(client: &Client, unread: &mut Unread) -> Result<Self> {
        let mut snapshot = Self::default();
        for (version, kind, label, _) in kinds() {
            if let Some(why) = snapshot.list_kind(client, (version, kind), label).await? {
                unread.0.insert(api_resource(version, kind).plural, why);
            }
        }
        snapshot.finish(client).await
    }

    async fn finish(mut self, client: &Client) -> Result<Self> {
        self.monitoring.normalize();
        self.kubernetes = oldest_version(client).await.context("cannot ask the API server for its version")?;
        Ok(self)
    }

    /// Lists a kind. Returns why it could not be read, where the cluster does not serve it or the client may not.
    async fn list_kind(&mut self, client: &Client, kind: (&str, &str), label: &str) -> Result<Option<NotRead>> {
        match self.list_all(client, kind, label).await {
            Ok(()) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Some(NotRead::NotServed)),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(Some(NotRead::Forbidden(status.message.clone()))),
            Err(error) => Err(error).with_context(|| format!("cannot list {} objects", kind.1)),
        }
    }

    async fn list_all(&mut self, client: &Client, (version, kind): (&str, &str), label: &str) -> kube::Result<()> {
        let api = Api::<DynamicObject>::all_with(client.clone(), &api_resource(version, kind));
        let mut page = ListParams::default().labels(label).limit(PAGE);
        loop {
            let list = api.list(&page).await?;
            for object in list.items {
                self.take_or_leave_out(&with_kind(object, kind));
            }
            match next_page(page, list.metadata) {
                Some(next) => page = next,
                None => return Ok(()),
            }
        }
    }

    fn take_or_leave_out(&mut self, object: &Value) {
        if let Err(finding) = self.take(object, "default") {
            self.left_out.push((display_name(object, "default"), finding.to_string()));
        }
    }

    /// Takes in an object, in this namespace if it names none.
    ///
    /// # Errors
    /// The finding that it cannot be read.
    pub fn take(&mut self, object: &Value, namespace: &str) -> Result<(), Finding> {
        let labels = || serde_json::from_value::<Labels>(object["metadata"]["labels"].clone()).unwrap_or_default();
        let namespace = namespace_of(object, namespace);
        match object["kind"].as_str().unwrap_or_default() {
            "LimitRange" => {
                let range = LimitRange::parse(&object.to_string())?;
                self.limit_ranges.entry(namespace.to_owned()).or_default().push(range);
            }
            "NetworkPolicy" => self.network_policies.extend(NetworkPolicy::parse(object, namespace)),
            "Namespace" => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                self.monitoring.namespaces.insert(name.to_owned(), labels());
            }
            "ServiceMonitor" => {
                let labels = labels();
                if !labels.contains_key(WORKLOAD_NAMESPACE) {
                    self.existing_monitors.entry(namespace.to_owned()).or_default().push(labels);
                }
            }
            "Deployment" => self.monitoring.operators.extend(Operator::parse(&object.to_string())?),
            _ => self.monitoring.scrapers.extend(Scraper::parse(&object.to_string())?),
        }
        Ok(())
    }
}

/// The kinds to list, with their group and version, a label of those that matter, and the need for them.
fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static str, Need)> {
    let monitoring = super::scraper_kinds().map(|(kind, version, need)| (version, kind.as_str(), "", need));
    let operators = OPERATOR_LABELS.map(|label| ("apps/v1", "Deployment", label, Need::Optional));
    let rest = [
        ("v1", "Namespace", "", Need::Required),
        ("v1", "LimitRange", "", Need::Optional),
        ("networking.k8s.io/v1", "NetworkPolicy", "", Need::Optional),
    ];
    monitoring.chain(operators).chain(rest)
}

/// An object of a list, with its kind, which lists omit.
pub(crate) fn with_kind(mut object: DynamicObject, kind: &str) -> Value {
    object.managed_fields_mut().clear();
    let mut object = json!(object);
    object["kind"] = json!(kind);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(image: &Value) -> Value {
        let container = json!({"name": "operator", "image": image, "args": []});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kps-operator", "namespace": "monitoring"},
            "spec": {"template": {"spec": {"containers": [container]}}},
        })
    }

    #[test]
    fn an_object_found_twice_counts_once() {
        let found = operator(&json!("quay.io/prometheus-operator/prometheus-operator:v0.93.1"));
        let snapshot = Snapshot::of([found.clone(), found]);
        assert_eq!((snapshot.monitoring.operators.len(), snapshot.left_out.len()), (1, 0));
    }

    #[test]
    fn one_that_cannot_be_read_is_left_out_and_the_rest_counts() {
        let prometheus =
            json!({"kind": "Prometheus", "metadata": {"name": "kps", "namespace": "monitoring"}, "spec": {}});
        let snapshot = Snapshot::of([operator(&json!(7)), prometheus]);
        assert_eq!((snapshot.monitoring.operators.len(), snapshot.monitoring.scrapers.len()), (0, 1));
        let [(left_out, _)] = &snapshot.left_out[..] else { panic!("{:?}", snapshot.left_out) };
        assert_eq!(left_out, "deployment.apps/kps-operator -n monitoring");
    }
}
