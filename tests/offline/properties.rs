//! Properties that hold for every pod and every body, whatever is in them.

use std::sync::Arc;

use gwmon::config::Config;
use gwmon::injection::{self, Decision};
use gwmon::metrics::Metrics;
use gwmon::reason::Reason;
use gwmon::webhook::{Admission, Route};
use json_patch::PatchOperation;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// Any JSON value, not deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z/~ .-]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z/~]{1,5}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Present with this value, `null`, or not there at all.
fn maybe(value: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![3 => value.prop_map(Some), 1 => Just(Some(Value::Null)), 1 => Just(None)]
}

fn object(fields: Vec<(&'static str, Option<Value>)>, unknown: Value) -> Value {
    let mut map: Map<_, _> = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    map.insert("futureField".to_owned(), unknown);
    Value::Object(map)
}

fn annotations() -> impl Strategy<Value = Value> {
    let values = select(vec![
        "true",
        "true",
        "true",
        "false",
        "yes",
        "envoy",
        "kong",
        "istio",
        "0",
        "9102",
        "9125",
        "15s",
        "cpu=1m",
        "1.30",
        "native",
        "scrape",
        "statsd",
        "regular",
        "both",
        "annotations",
        "bakins",
        "a/b~c",
        "",
    ]);
    let keys =
        // Not `relay`, which alone puts a value in the place of another.
        select(vec![
            "interval", "metrics-port", "statsd-port", "gateway", "container", "resources", "typo", "status", "mode",
            "sidecar", "discovery", "profile", "envoy-version",
        ]);
    let noise = prop::collection::btree_map(keys.prop_map(|key| format!("gwmon.io/{key}")), values, 0..2);
    (noise, prop::collection::btree_map("[a-z]{1,4}/[a-z]{1,4}", "[a-z]{0,4}", 0..3), any::<bool>()).prop_map(
        |(noise, others, ask)| {
            let mut map = json!(others);
            for (key, value) in noise {
                map[key] = json!(value);
            }
            if ask {
                map["gwmon.io/inject"] = json!("true");
            }
            map
        },
    )
}

fn container() -> impl Strategy<Value = Value> {
    let image = select(vec![
        "envoyproxy/envoy:v1.34.0",
        "emissaryingress/emissary:3.9.1",
        "app:1",
        "envoyproxy/envoy@sha256:0",
        "datawire/ambassador:0.40.2",
        "kong:3.9",
        "aws-appmesh-envoy:v1.27",
        "x/envoy-wrapper:v2.1.0",
        "prom/statsd-exporter:v0.28.0",
        "",
    ]);
    let argument = select(vec![
        "-c",
        "/e.yaml",
        "envoy",
        "--config-yaml",
        "{}",
        "admin: {a: 'ü'}\nx:\n- y",
        "statsSinks:\n- name: z",
        "sh",
        "--config-path /x",
        "--",
    ]);
    let env =
        select(vec![("STATSD_HOST", "127.0.0.1"), ("STATSD_HOST", "far"), ("STATSD_ENABLED", "true"), ("X", "y")]);
    let list = |items| prop::collection::vec(items, 0..3).prop_map(Value::from);
    (
        maybe(image.prop_map(Value::from)),
        maybe(list(argument.clone())),
        maybe(list(argument)),
        maybe(prop::collection::vec(env.prop_map(|(n, v)| json!({"name": n, "value": v})), 0..3).prop_map(Value::from)),
        maybe(select(vec![
            json!([]),
            json!([{"containerPort": 9102}]),
            json!([{"containerPort": 80, "protocol": "TCP"}]),
        ])),
        any_json(),
    )
        .prop_map(|(image, command, args, env, ports, unknown)| {
            let fields = vec![
                ("name", Some(json!("c"))),
                ("image", image),
                ("command", command),
                ("args", args),
                ("env", env),
                ("ports", ports),
            ];
            object(fields, unknown)
        })
}

fn pod() -> impl Strategy<Value = Value> {
    let containers = || prop::collection::vec(container(), 0..3).prop_map(Value::from);
    let owner = json!([{"kind": "ReplicaSet", "name": "edge-6d4b", "controller": true}]);
    (
        maybe(annotations()),
        maybe(select(vec![json!({"pod-template-hash": "6d4b", "a/b": "c"}), json!({})])),
        maybe(Just(owner)),
        maybe(containers()),
        maybe(containers()),
        maybe(select(vec![json!([]), json!([{"name": "v", "emptyDir": {}}])])),
        (any_json(), any_json(), any_json()),
    )
        .prop_map(|(annotations, labels, owners, init, containers, volumes, unknown)| {
            let metadata =
                object(vec![("annotations", annotations), ("labels", labels), ("ownerReferences", owners)], unknown.0);
            let spec =
                object(vec![("initContainers", init), ("containers", containers), ("volumes", volumes)], unknown.1);
            object(vec![("metadata", Some(metadata)), ("spec", Some(spec))], unknown.2)
        })
}

/// Whether everything in `before` is still in `after`: lists keep their order and may have grown, maps may have
/// more keys, what was nothing may be something, a string may have something inserted at one place, and gwmon's own keys
/// are its own.
fn only_added(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Null, _) => true,
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .filter(|(key, _)| !key.starts_with("gwmon.io/"))
            .all(|(key, value)| after.get(key).is_some_and(|now| only_added(value, now))),
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            before.iter().all(|item| rest.any(|now| only_added(item, now)))
        }
        (Value::String(before), Value::String(after)) => {
            let front = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
            let back = before.bytes().rev().zip(after.bytes().rev()).take_while(|(a, b)| a == b).count();
            before == after || (before.len() < after.len() && front + back >= before.len())
        }
        _ => before == after,
    }
}

fn admission() -> Admission {
    Admission::new(Config::default(), Arc::default(), Metrics::new().0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_patch_applies_only_adds_and_is_the_last_one(pod in pod()) {
        let config = Config::default();
        if let Decision::Inject(injection) = injection::decide(&config, &[], &pod.to_string()) {
            let operations = injection.patch.to_operations().unwrap();
            let is_safe = |op: &PatchOperation| matches!(op, PatchOperation::Add(_) | PatchOperation::Replace(_));
            prop_assert!(operations.iter().all(is_safe), "{operations:?}");
            let mut after = pod.clone();
            json_patch::patch(&mut after, &operations).unwrap();
            prop_assert!(only_added(&pod, &after), "{pod}\n{after}");
            let again = injection::decide(&config, &[], &after.to_string()).injection().unwrap_err();
            prop_assert_eq!(again.reason, Reason::AlreadyInjected);
            prop_assert_eq!(injection::confirm(&after.to_string()), Ok(()));
            let same = injection::decide(&config, &[], &pod.to_string()).injection().unwrap();
            prop_assert_eq!(same.patch, injection.patch);
        }
    }

    #[test]
    fn a_workload_settles_after_one_admission(own in maybe(annotations()), template in maybe(annotations()), pod in pod()) {
        let config = Config::default();
        let metadata = object(vec![("annotations", own)], Value::Null);
        let template = json!({"metadata": object(vec![("annotations", template)], Value::Null), "spec": pod["spec"]});
        let mut workload = json!({"metadata": metadata, "spec": {"template": template}});
        let before = workload.clone();
        if let Ok(change) = injection::workload::decide(&config, &[], &workload.to_string()) {
            json_patch::patch(&mut workload, &change.patch.to_operations().unwrap()).unwrap();
            prop_assert!(only_added(&before, &workload));
            let again = injection::workload::decide(&config, &[], &workload.to_string()).unwrap();
            prop_assert!(again.patch.is_empty(), "{workload}");
        }
    }

    #[test]
    fn any_bytes_get_an_answer(body in prop::collection::vec(any::<u8>(), 0..200), route in select(vec![Route::Pods, Route::Workloads])) {
        let _ = admission().review(route, &body);
    }

    #[test]
    fn every_review_is_allowed_under_its_own_uid(object in any_json(), kind in select(vec!["Pod", "Deployment"]), cut in 0..400_usize) {
        let group = if kind == "Pod" { "" } else { "apps" };
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "u-1", "kind": {"group": group, "version": "v1", "kind": kind}, "operation": "CREATE", "object": object},
        }).to_string();
        let admission = Arc::new(admission());
        for route in [Route::Pods, Route::Workloads] {
            let reply = admission.review(route, review.as_bytes()).unwrap().to_json();
            let reply: Value = serde_json::from_str(&reply).unwrap();
            prop_assert_eq!(&reply["response"]["uid"], "u-1");
            prop_assert_eq!(&reply["response"]["allowed"], true);
            prop_assert_eq!(reply["response"]["patch"].is_null(), reply["response"]["patchType"].is_null());
            // Cut off anywhere: still an answer, and under the same uid where it can still be read.
            let part = &review.as_bytes()[..cut.min(review.len() - 1)];
            let bad = admission.review(route, part).unwrap_err();
            prop_assert!(bad.uid.is_none_or(|uid| uid == "u-1"));
        }
    }
}
