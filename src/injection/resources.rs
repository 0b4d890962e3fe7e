//! Requests and limits of the exporter: the user's, fitted to what the pod and its namespace allow, so that the
//! sidecar neither gets the pod refused nor changes its quality-of-service class.

use serde::Deserialize;
use serde_json::json;

use super::patch::Json;
use crate::annotations::{Resources, SMALLEST_MEMORY_LIMIT};
use crate::kubernetes::pod::{Amounts, Container, Pod, Requirements, or_null, parse};
use crate::kubernetes::quantity::Quantity;
use crate::reason::{Finding, Reason};

/// Requests and limits as JSON; what is not set is left out.
pub(super) fn to_json(requirements: Requirements) -> Json {
    let list = |amounts: Amounts| {
        let named = [("cpu", amounts.cpu), ("memory", amounts.memory)];
        let set = named.into_iter().filter_map(|(name, amount)| Some((name.to_owned(), json!(amount?.to_string()))));
        serde_json::Value::Object(set.collect())
    };
    json!({"requests": list(requirements.requests), "limits": list(requirements.limits)}).to_string().into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Cpu,
    Memory,
}

impl Resource {
    const ALL: [Self; 2] = [Self::Cpu, Self::Memory];

    const fn of(self, amounts: &Amounts) -> Option<Quantity> {
        match self {
            Self::Cpu => amounts.cpu,
            Self::Memory => amounts.memory,
        }
    }

    const fn slot(self, amounts: &mut Amounts) -> &mut Option<Quantity> {
        match self {
            Self::Cpu => &mut amounts.cpu,
            Self::Memory => &mut amounts.memory,
        }
    }

    /// The least limit with which an exporter is of use.
    const fn smallest_limit(self) -> Quantity {
        match self {
            Self::Cpu => Quantity::from_thousandths(10),
            Self::Memory => SMALLEST_MEMORY_LIMIT,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// A `LimitRange`: what a namespace allows its pods and containers.
/// <https://kubernetes.io/docs/concepts/policy/limit-range/>
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LimitRange {
    metadata: Metadata,
    #[serde(default, deserialize_with = "or_null")]
    spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Metadata {
    #[serde(default, deserialize_with = "or_null")]
    name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Spec {
    #[serde(default, deserialize_with = "or_null")]
    limits: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    /// `Container`, `Pod`, or what does not concern pods.
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "or_null")]
    min: Amounts,
    #[serde(default, deserialize_with = "or_null")]
    max: Amounts,
    #[serde(default, deserialize_with = "or_null")]
    default: Amounts,
    #[serde(default, deserialize_with = "or_null")]
    max_limit_request_ratio: Amounts,
}

impl LimitRange {
    /// Reads a `LimitRange` from its JSON.
    ///
    /// # Errors
    /// [`Reason::MalformedObject`], naming the field that has the wrong shape.
    pub fn parse(json: &str) -> Result<Self, Finding> {
        parse(json)
    }
}

/// The CPU and memory of an exporter.
#[derive(Debug)]
pub struct Fitted {
    /// Its requests and limits.
    pub requirements: Requirements,
    /// The memory that it may use: its own limit, or its part of a limit for the whole pod.
    pub memory_limit: Quantity,
}

/// Fits the exporter's CPU and memory into this pod.
///
/// - Where the pod itself sets a resource (`spec.resources`, Kubernetes 1.34), the exporter sets nothing of it: the API
///   server refuses a pod whose containers ask for more than the pod does.
/// - In a pod of the class Guaranteed, requests are limits: any other container would make it Burstable.
/// - What a `LimitRange` of the namespace bounds is brought within it.
///
/// # Errors
/// [`Reason::LimitRangeExceeded`] where a `LimitRange` leaves too little for any exporter, [`Reason::PodMemoryTooSmall`] where
/// the limit of the pod does.
pub(super) fn fit(pod: &Pod, asked: &Resources, ranges: &[LimitRange]) -> Result<Fitted, Finding> {
    let requirements = requirements(pod, asked, ranges)?;
    let memory_limit = memory_limit(pod, &requirements, asked)?;
    Ok(Fitted { requirements, memory_limit })
}

fn requirements(pod: &Pod, asked: &Resources, ranges: &[LimitRange]) -> Result<Requirements, Finding> {
    let mut fitted = Requirements::default();
    let is_guaranteed = is_guaranteed(pod);
    for resource in Resource::ALL {
        let own = pod.spec.resources.unwrap_or_default();
        if resource.of(&own.requests).is_some() || resource.of(&own.limits).is_some() {
            continue;
        }
        let (mut request, mut limit) = match resource {
            Resource::Cpu => asked.cpu,
            Resource::Memory => asked.memory,
        };
        if is_guaranteed {
            request = limit;
        }
        let of_containers = items(ranges).filter(|(_, item)| item.kind == "Container");
        let least = of_containers.filter_map(|(_, item)| resource.of(&item.min)).max().unwrap_or_default();
        (request, limit) = (request.max(least), limit.max(least));
        for (range, item) in items(ranges) {
            if let Some(most) = most(pod, resource, item, ranges) {
                if most < resource.smallest_limit().max(least) {
                    return Err(exceeded(range, resource, item, most, least));
                }
                limit = limit.min(most);
                request = request.min(limit);
            }
        }
        // Last, since it depends on the limit. The limit stays: with less memory the exporter would end early.
        for (_, item) in items(ranges).filter(|(_, item)| matches!(item.kind.as_str(), "Container" | "Pod")) {
            if let Some(ratio) = resource.of(&item.max_limit_request_ratio) {
                request = request.max(limit.divided_by(ratio));
            }
        }
        *resource.slot(&mut fitted.requests) = Some(request);
        *resource.slot(&mut fitted.limits) = Some(limit);
    }
    Ok(fitted)
}

fn items(ranges: &[LimitRange]) -> impl Iterator<Item = (&LimitRange, &Item)> {
    ranges.iter().flat_map(|range| range.spec.limits.iter().map(move |item| (range, item)))
}

/// The largest limit that this item leaves the exporter.
fn most(pod: &Pod, resource: Resource, item: &Item, ranges: &[LimitRange]) -> Option<Quantity> {
    let max = resource.of(&item.max)?;
    match item.kind.as_str() {
        "Container" => Some(max),
        "Pod" => Some(max - others(pod, resource, ranges)),
        _ => None,
    }
}

/// The exporter's memory limit: its own or, in a pod with one limit for all, a quarter of that, so that the gateway
/// keeps the rest.
fn memory_limit(pod: &Pod, fitted: &Requirements, asked: &Resources) -> Result<Quantity, Finding> {
    const PARTS: u128 = 4;
    if let Some(limit) = fitted.limits.memory {
        return Ok(limit);
    }
    let Some(of_pod) = pod.spec.resources.and_then(|own| own.limits.memory) else { return Ok(asked.memory.1) };
    let part = Quantity::from_thousandths(of_pod.units() / PARTS * 1000);
    if part < SMALLEST_MEMORY_LIMIT {
        let needs = Quantity::from_thousandths(SMALLEST_MEMORY_LIMIT.units() * PARTS * 1000);
        let detail = format!(
            "spec.resources.limits.memory is {of_pod} for all containers of the pod; with less than {needs} the exporter would take too much of what is the gateway's"
        );
        return Err(Finding::new(Reason::PodMemoryTooSmall, detail));
    }
    Ok(part.min(asked.memory.1))
}

/// The sum of the limits of the pod's own containers as the API server counts them: all that run at the same time. A
/// template does not have the namespace's defaults yet.
fn others(pod: &Pod, resource: Resource, ranges: &[LimitRange]) -> Quantity {
    let default =
        items(ranges).filter(|(_, item)| item.kind == "Container").find_map(|(_, item)| resource.of(&item.default));
    let limit = |container: &Container| {
        let own = container.resources.unwrap_or_default();
        resource.of(&own.limits).or(default).or_else(|| resource.of(&own.requests)).unwrap_or_default()
    };
    let (mut sidecars, mut highest) = (Quantity::default(), Quantity::default());
    for container in pod.spec.init_containers.iter().flatten() {
        highest = highest.max(sidecars + limit(container));
        if container.restart_policy == "Always" {
            sidecars = sidecars + limit(container);
        }
    }
    highest.max(sidecars + pod.spec.containers.iter().flatten().map(limit).sum())
}

/// Returns true if the pod has the class Guaranteed: every container has limits for both resources, and equal
/// requests. <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
fn is_guaranteed(pod: &Pod) -> bool {
    pod.all_containers().all(|container| {
        let own = container.resources.unwrap_or_default();
        Resource::ALL.iter().all(|resource| {
            let limit = resource.of(&own.limits);
            limit.is_some() && resource.of(&own.requests).is_none_or(|request| Some(request) == limit)
        })
    })
}

fn exceeded(range: &LimitRange, resource: Resource, item: &Item, most: Quantity, least: Quantity) -> Finding {
    let (name, needs) = (resource.name(), resource.smallest_limit().max(least));
    let max = resource.of(&item.max).unwrap_or_default();
    let detail = format!(
        "LimitRange {} allows {max} of {name} for each {}, which leaves {most} for the exporter; it needs {needs}: raise max.{name}, or lower the limits of the pod's containers",
        range.metadata.name, item.kind
    );
    Finding::new(Reason::LimitRangeExceeded, detail)
}

#[cfg(test)]
mod tests {
    use super::super::gateway::testing::pod;
    use super::*;
    use serde_json::Value;

    const GUARANTEED: &str =
        r#"{"resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": 2, "memory": "1024Mi"}}}"#;

    fn range(items: &Value) -> LimitRange {
        LimitRange::parse(&json!({"metadata": {"name": "limits"}, "spec": {"limits": items}}).to_string()).unwrap()
    }

    /// CPU request and limit, memory request and limit; `-` where there is none.
    fn fitted(container: &Value, extra: &Value, items: &Value) -> Result<String, Finding> {
        let fitted = fit(&pod(container, extra), &Resources::default(), &[range(items)])?.requirements;
        let Requirements { requests, limits } = fitted;
        let shown = [requests.cpu, limits.cpu, requests.memory, limits.memory]
            .map(|amount| amount.map_or_else(|| "-".to_owned(), |amount| amount.to_string()));
        Ok(shown.join(" "))
    }

    #[test]
    fn the_pods_class_and_its_own_resources_are_kept() {
        let none = json!([]);
        let guaranteed: Value = serde_json::from_str(GUARANTEED).unwrap();
        let burstable = json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}});
        let plain = "50m 500m 32Mi 192Mi";
        assert_eq!(fitted(&json!({}), &json!({}), &none).unwrap(), plain);
        assert_eq!(fitted(&burstable, &json!({}), &none).unwrap(), plain);
        assert_eq!(fitted(&guaranteed, &json!({}), &none).unwrap(), "500m 500m 192Mi 192Mi");
        let by_limits = json!({"resources": {"limits": {"cpu": "2", "memory": "1Gi"}}});
        assert_eq!(fitted(&by_limits, &json!({}), &none).unwrap(), "500m 500m 192Mi 192Mi");
        let with_init = json!({"spec": {"initContainers": [{"name": "i"}]}});
        assert_eq!(fitted(&guaranteed, &with_init, &none).unwrap(), plain, "Burstable by its init container");
        for (resources, expected) in [
            (json!({"requests": {"cpu": "1", "memory": "1Gi"}}), "- - - -"),
            (json!({"limits": {"memory": "1Gi"}}), "50m 500m - -"),
            (json!({"requests": {"cpu": "1"}}), "- - 32Mi 192Mi"),
            (json!({}), plain),
            (Value::Null, plain),
        ] {
            let own = json!({"spec": {"resources": resources}});
            assert_eq!(fitted(&json!({}), &own, &none).unwrap(), expected, "{own}");
        }
    }

    #[test]
    fn of_a_limit_for_the_whole_pod_a_quarter_is_the_exporters() {
        let limit = |own: Value| {
            let (extra, asked) = (json!({"spec": {"resources": own}}), Resources::default());
            let pod = pod(&json!({}), &extra);
            let fitted = fit(&pod, &asked, &[]);
            fitted.map(|fitted| fitted.memory_limit.to_string()).map_err(|finding| finding.reason)
        };
        assert_eq!(limit(json!({})).as_deref(), Ok("192Mi"));
        assert_eq!(limit(json!({"requests": {"memory": "64Mi"}})).as_deref(), Ok("192Mi"));
        assert_eq!(limit(json!({"limits": {"memory": "512Mi"}})).as_deref(), Ok("128Mi"));
        assert_eq!(limit(json!({"limits": {"memory": "8Gi"}})).as_deref(), Ok("192Mi"));
        assert_eq!(limit(json!({"limits": {"memory": "64Mi"}})), Err(Reason::PodMemoryTooSmall));
    }

    #[test]
    fn a_limit_range_is_respected() {
        let container = |item: Value| {
            let mut item = item;
            item["type"] = json!("Container");
            fitted(&json!({}), &json!({}), &json!([item])).unwrap()
        };
        assert_eq!(container(json!({"min": {"cpu": "100m", "memory": "64Mi"}})), "100m 500m 64Mi 192Mi");
        assert_eq!(container(json!({"min": {"memory": "256Mi"}})), "50m 500m 256Mi 256Mi");
        assert_eq!(container(json!({"max": {"cpu": "200m", "memory": "64Mi"}})), "50m 200m 32Mi 64Mi");
        assert_eq!(container(json!({"max": {"cpu": "20m"}})), "20m 20m 32Mi 192Mi");
        assert_eq!(container(json!({"maxLimitRequestRatio": {"cpu": "2", "memory": "1"}})), "250m 500m 192Mi 192Mi");
        let claims = json!([{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]);
        assert_eq!(fitted(&json!({}), &json!({}), &claims).unwrap(), "50m 500m 32Mi 192Mi");
    }

    #[test]
    fn what_is_left_of_a_pods_limit_is_taken_or_the_pod_left_alone() {
        let of_pod = |max: &str, extra: Value| {
            let own = json!({"resources": {"requests": {"cpu": "1"}, "limits": {"memory": "512Mi"}}});
            fitted(&own, &extra, &json!([{"type": "Pod", "max": {"memory": max}}]))
        };
        assert_eq!(of_pod("1Gi", json!({})).unwrap(), "50m 500m 32Mi 192Mi");
        assert_eq!(of_pod("576Mi", json!({})).unwrap(), "50m 500m 32Mi 64Mi");
        let refused = of_pod("520Mi", json!({})).unwrap_err();
        assert_eq!(refused.reason, Reason::LimitRangeExceeded);
        assert!(refused.detail.contains("520Mi") && refused.detail.contains("leaves 8Mi"), "{refused}");
        let init = json!({"spec": {"initContainers": [{"name": "i", "resources": {"limits": {"memory": "560Mi"}}}]}});
        assert!(of_pod("576Mi", init).is_err(), "an init container runs beside the exporter");
        let min =
            json!([{"type": "Pod", "max": {"memory": "576Mi"}}, {"type": "Container", "min": {"memory": "128Mi"}}]);
        let own = json!({"resources": {"limits": {"memory": "512Mi"}}});
        let refused = fitted(&own, &json!({}), &min).unwrap_err();
        assert!(refused.detail.contains("leaves 64Mi for the exporter; it needs 128Mi"), "{refused}");
        let defaults = json!([
            {"type": "Container", "default": {"memory": "512Mi"}},
            {"type": "Pod", "max": {"memory": "600Mi"}},
        ]);
        assert_eq!(fitted(&json!({}), &json!({}), &defaults).unwrap(), "50m 500m 32Mi 88Mi");
    }
}
