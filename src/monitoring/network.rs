//! `NetworkPolicy` objects between Prometheus and what it scrapes (Kubernetes' `networking.k8s.io/v1`).

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::Scraper;
use super::predicate::{Cluster, NAMESPACE_NAME};
use super::selector::Selector;
use crate::kubernetes::labels::Labels;
use crate::reason::{Finding, Reason};

/// A policy on the traffic that comes into pods.
#[derive(Clone, Debug)]
pub struct NetworkPolicy {
    /// Its name.
    pub name: String,
    /// Its namespace, and that of its pods.
    pub namespace: String,
    pods: Selector,
    rules: Vec<Rule>,
}

/// An ingress rule. An empty list means everybody, or every port.
#[derive(Clone, Debug)]
struct Rule {
    peers: Vec<Peer>,
    ports: Vec<NetworkPolicyPort>,
}

#[derive(Clone, Debug)]
enum Peer {
    /// Pods of the namespaces that this selects. The podSelector is ignored: a Prometheus' pod labels are not known.
    Namespaces(Selector),
    /// Pods of the policy's own namespace.
    Own,
    /// Addresses, of which nothing is known.
    Addresses,
}

/// Pods that are scraped.
#[derive(Clone, Copy, Debug)]
pub struct Scraped<'a> {
    /// Their namespace.
    pub namespace: &'a str,
    /// Their labels.
    pub labels: &'a Labels,
    /// The port.
    pub port: u16,
    /// Its name, where it has one.
    pub name: Option<&'a str>,
}

impl NetworkPolicy {
    /// Reads a policy of this namespace. `None` if it is another kind, does not restrict ingress, or cannot be read.
    #[must_use]
    pub fn parse(object: &Value, namespace: &str) -> Option<Self> {
        if object["kind"] != "NetworkPolicy" {
            return None;
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let spec =
            serde_json::from_value::<k8s_openapi::api::networking::v1::NetworkPolicySpec>(object["spec"].clone());
        let spec = spec.ok()?;
        // Where no type is named, a policy is about what comes in.
        if spec.policy_types.is_some_and(|types| !types.is_empty() && types.iter().all(|type_| type_ != "Ingress")) {
            return None;
        }
        let rules = spec.ingress.unwrap_or_default().into_iter();
        let rules = rules.map(|rule| Rule {
            peers: rule.from.unwrap_or_default().iter().map(Peer::of).collect(),
            ports: rule.ports.unwrap_or_default(),
        });
        let pods = Selector::parse(&spec.pod_selector.unwrap_or_default()).ok()?;
        Some(Self { name, namespace: namespace.to_owned(), pods, rules: rules.collect() })
    }

    fn applies(&self, scraped: &Scraped) -> bool {
        self.namespace == scraped.namespace && self.pods.check(scraped.labels).is_ok()
    }
}

impl Peer {
    fn of(peer: &NetworkPolicyPeer) -> Self {
        match &peer.namespace_selector {
            // A selector that is not valid counts as admitting everybody.
            Some(selector) => Selector::parse(selector).map_or(Self::Addresses, Self::Namespaces),
            None if peer.ip_block.is_some() => Self::Addresses,
            None => Self::Own,
        }
    }

    fn admits(&self, policy: &NetworkPolicy, reader: Reader) -> bool {
        match self {
            Self::Namespaces(selector) => reader.labels.map_or_else(
                || {
                    let name = Labels::from([(NAMESPACE_NAME.to_owned(), reader.namespace.to_owned())]);
                    // Its other labels may be whatever is asked for.
                    selector.check(&name).is_ok() || selector.keys().any(|key| key != NAMESPACE_NAME)
                },
                |labels| selector.check(labels).is_ok(),
            ),
            Self::Own => reader.namespace == policy.namespace,
            Self::Addresses => true,
        }
    }
}

impl Rule {
    fn opens(&self, scraped: &Scraped) -> bool {
        let is_port = |port: &NetworkPolicyPort| {
            let number = i32::from(scraped.port);
            let is_tcp = port.protocol.as_ref().is_none_or(|protocol| protocol == "TCP");
            is_tcp
                && match &port.port {
                    None => true,
                    Some(IntOrString::Int(first)) => (*first..=port.end_port.unwrap_or(*first)).contains(&number),
                    Some(IntOrString::String(name)) => scraped.name == Some(name),
                }
        };
        self.ports.is_empty() || self.ports.iter().any(is_port)
    }
}

/// The namespace in which a Prometheus runs.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// That namespace's labels, where they are known.
    pub labels: Option<&'a Labels>,
}

impl<'a> Reader<'a> {
    /// The namespace of a scraper, with its labels where the cluster's namespaces are known.
    #[must_use]
    pub fn of(scraper: &'a Scraper, cluster: &'a Cluster) -> Self {
        let namespace = scraper.key().0;
        Self { namespace, labels: cluster.namespaces.get(namespace) }
    }
}

/// The finding that the policies on these pods keep one of these Prometheuses from them, with the rule to add.
#[must_use]
pub fn closes(policies: &[NetworkPolicy], scraped: &Scraped, readers: &[Reader]) -> Option<Finding> {
    let denying = denying(policies, scraped, readers);
    let first = denying.first()?;
    let (namespace, port) = (scraped.namespace, scraped.port);
    let peer =
        |reader: &Reader| format!("{{namespaceSelector: {{matchLabels: {{{NAMESPACE_NAME}: {}}}}}}}", reader.namespace);
    let peers: Vec<_> = readers.iter().map(peer).collect();
    let from = if peers.is_empty() { String::new() } else { format!("from: [{}], ", peers.join(", ")) };
    let names: Vec<_> = readers.iter().map(|reader| reader.namespace).collect();
    let who = if names.is_empty() { "nobody".to_owned() } else { format!("nothing of {}", names.join(", ")) };
    let detail = format!(
        "NetworkPolicy {namespace}/{} lets {who} in at port {port}, which Prometheus scrapes; add to its spec.ingress: {{{from}ports: [{{port: {port}}}]}}",
        first.name
    );
    Some(Finding::new(Reason::NetworkPolicyDenies, detail))
}

/// All policies on these pods, if they keep one of these Prometheuses from them; otherwise empty. Without a known Prometheus:
/// if they admit nobody. Policies are additive.
#[must_use]
pub fn denying<'p>(policies: &'p [NetworkPolicy], scraped: &Scraped, readers: &[Reader]) -> Vec<&'p NetworkPolicy> {
    let applying: Vec<_> = policies.iter().filter(|policy| policy.applies(scraped)).collect();
    let lets_in = |reader: Option<Reader>| {
        applying.iter().any(|policy| {
            let admits = |rule: &Rule| {
                let admitted = |reader| rule.peers.iter().any(|peer| peer.admits(policy, reader));
                rule.peers.is_empty() || reader.is_none_or(admitted)
            };
            policy.rules.iter().any(|rule| rule.opens(scraped) && admits(rule))
        })
    };
    let is_open = if readers.is_empty() { lets_in(None) } else { readers.iter().all(|reader| lets_in(Some(*reader))) };
    if is_open { vec![] } else { applying }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_add_up_and_the_rest_is_closed() {
        let policy = |spec: Value| {
            let object = json!({"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "edge"}, "spec": spec});
            NetworkPolicy::parse(&object, "edge")
        };
        let rule = |ingress: Value| {
            policy(json!({"podSelector": {"matchLabels": {"app": "envoy"}}, "ingress": ingress})).unwrap()
        };
        let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        let (pod, monitoring) = (label("app", "envoy"), label("team", "ops"));
        let scraped = Scraped { namespace: "edge", labels: &pod, port: 9102, name: Some("gwmon-metrics") };
        let reader = [Reader { namespace: "monitoring", labels: Some(&monitoring) }];
        let denied = |policies: &[NetworkPolicy]| {
            [denying(policies, &scraped, &[]).len(), denying(policies, &scraped, &reader).len()]
        };
        assert_eq!(denied(&[]), [0, 0]);
        assert_eq!(denied(&[rule(json!([]))]), [1, 1]);
        assert_eq!(denied(&[rule(json!([{}]))]), [0, 0]);
        assert_eq!(denied(&[rule(json!([{"ports": [{"port": 8080}]}])), rule(json!([]))]), [2, 2]);
        assert_eq!(
            denied(&[rule(json!([{"ports": [{"port": 8080}]}])), rule(json!([{"ports": [{"port": 9102}]}]))]),
            [0, 0]
        );
        assert_eq!(denied(&[rule(json!([{"ports": [{"port": 9102, "protocol": "UDP"}]}]))]), [1, 1]);
        assert_eq!(denied(&[rule(json!([{"ports": [{"port": 9000, "endPort": 9200}]}]))]), [0, 0]);
        assert_eq!(denied(&[rule(json!([{"ports": [{"port": "gwmon-metrics"}]}]))]), [0, 0]);
        // Somebody is let in; whether Prometheus is, shows where that is known.
        assert_eq!(denied(&[rule(json!([{"from": [{"podSelector": {}}]}]))]), [0, 1]);
        assert_eq!(
            denied(&[rule(json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]}]))]),
            [0, 0]
        );
        assert_eq!(denied(&[rule(json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]))]), [0, 0]);
        let unknown = [Reader { namespace: "monitoring", labels: None }];
        let by = |selector: Value| rule(json!([{"from": [{"namespaceSelector": {"matchLabels": selector}}]}]));
        assert!(denying(&[by(json!({"team": "ops"}))], &scraped, &unknown).is_empty());
        assert_eq!(denying(&[by(json!({NAMESPACE_NAME: "other"}))], &scraped, &unknown).len(), 1);
        // Other pods, or what goes out.
        assert_eq!(denied(&[policy(json!({"podSelector": {"matchLabels": {"app": "x"}}})).unwrap()]), [0, 0]);
        assert!(policy(json!({"podSelector": {}, "policyTypes": ["Egress"]})).is_none());
    }
}
