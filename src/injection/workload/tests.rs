use super::*;
use crate::injection::claims::LAST_APPLIED;
use serde_json::Value;

fn deployment(own: &Value, template: &Value) -> Value {
    json!({
        "metadata": {"name": "edge", "annotations": own},
        "spec": {"template": {
            "metadata": template,
            "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0"}]},
        }},
    })
}

fn change(workload: &Value) -> WorkloadChange {
    decide(&Config::default(), &[], &workload.to_string()).unwrap()
}

/// The workload after its admission, and the template's annotations.
fn admitted(mut workload: Value) -> (Value, Value) {
    let patch = change(&workload).patch.to_operations().unwrap();
    json_patch::patch(&mut workload, &patch).unwrap();
    assert!(change(&workload).patch.is_empty(), "a second admission changes nothing");
    let annotations = workload.pointer("/spec/template/metadata/annotations").cloned().unwrap_or_default();
    (workload, annotations)
}

#[test]
fn the_annotation_goes_down_and_comes_off_again() {
    let asked = json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "9200", "other": "x"});
    for template in [Value::Null, json!({}), json!({"annotations": null}), json!({"annotations": {"mine": "1"}})] {
        let (mut workload, annotations) = admitted(deployment(&asked, &template));
        assert_eq!(annotations["gwmon.io/inject"], "true");
        assert_eq!(annotations["gwmon.io/metrics-port"], "9200");
        assert_eq!(annotations.get("other"), None);

        workload["metadata"]["annotations"] = json!({"gwmon.io/inject": "true"});
        let (mut workload, annotations) = admitted(workload);
        assert_eq!(annotations.get("gwmon.io/metrics-port"), None);

        workload["metadata"]["annotations"] = Value::Null;
        let (_, annotations) = admitted(workload);
        let left = template.get("annotations").filter(|a| a.is_object()).cloned().unwrap_or_else(|| json!({}));
        assert_eq!(annotations, left, "nothing of gwmon's is left, and all of the user's");
    }
}

#[test]
fn the_templates_own_annotation_wins_and_stays() {
    let own = json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "9200"});
    let template = json!({"annotations": {"gwmon.io/metrics-port": "9300"}});
    let (mut workload, annotations) = admitted(deployment(&own, &template));
    assert_eq!(annotations["gwmon.io/metrics-port"], "9300");
    workload["metadata"]["annotations"] = json!({});
    let (_, annotations) = admitted(workload);
    assert_eq!(annotations, template["annotations"]);
}

#[test]
fn a_copy_that_somebody_changed_is_theirs() {
    let own = json!({"gwmon.io/inject": "true", "gwmon.io/metrics-port": "9200"});
    let (mut workload, _) = admitted(deployment(&own, &json!({})));
    workload["spec"]["template"]["metadata"]["annotations"]["gwmon.io/metrics-port"] = json!("9400");
    let (mut workload, annotations) = admitted(workload);
    assert_eq!(annotations["gwmon.io/metrics-port"], "9400");
    workload["metadata"]["annotations"] = Value::Null;
    assert_eq!(admitted(workload).1, json!({"gwmon.io/metrics-port": "9400"}));
}

#[test]
fn an_annotation_that_moves_to_the_template_rolls_nothing_out() {
    let asked = json!({"gwmon.io/inject": "true"});
    let (copied, annotations) = admitted(deployment(&asked, &json!({})));
    let template = json!({"spec": {"template": {"metadata": {"annotations": {"gwmon.io/inject": "true"}}}}});
    let fields = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:gwmon.io/inject": {}}}}}});
    for claim in [
        json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": template.to_string()}}),
        json!({"annotations": null, "managedFields": [{"manager": "argocd", "fieldsV1": fields}]}),
    ] {
        let mut moved = copied.clone();
        moved["metadata"]["annotations"] = Value::Null;
        json_patch::merge(&mut moved["metadata"], &claim);
        let (mut moved, now) = admitted(moved);
        assert_eq!(now, annotations, "{claim}");
        // Taken off there, nothing is left.
        moved["metadata"]["managedFields"] = Value::Null;
        moved["metadata"]["annotations"] = Value::Null;
        moved["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove(INJECT);
        assert_eq!(admitted(moved).1, json!({}), "{claim}");
    }
    // What was got from the cluster and applied again is no claim.
    let got = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    let mut taken_off = copied;
    taken_off["metadata"]["annotations"] = json!({LAST_APPLIED: got.to_string()});
    assert_eq!(admitted(taken_off).1, json!({}));
}

#[test]
fn who_undoes_a_roll_out_of_the_copies_is_told() {
    let asked = json!({"gwmon.io/inject": "true"});
    let undone = deployment(&asked, &json!({}));
    let (before, _) = admitted(undone.clone());
    let told = |before: &Value, after: &Value| puts_back("DaemonSet", &before.to_string(), &after.to_string());
    let finding = told(&before, &undone).unwrap();
    assert!(finding.detail.ends_with("kubectl annotate daemonset/edge gwmon.io/inject-"), "{finding}");
    assert_eq!(told(&before, &before), None);
    assert_eq!(told(&undone, &undone), None);
    assert_eq!(told(&before, &deployment(&json!({}), &json!({}))), None);
}

#[test]
fn a_changed_value_reaches_the_template() {
    let (mut workload, _) =
        admitted(deployment(&json!({"gwmon.io/inject": "true", "gwmon.io/interval": "15s"}), &json!({})));
    workload["metadata"]["annotations"]["gwmon.io/interval"] = json!("30s");
    assert_eq!(admitted(workload).1["gwmon.io/interval"], "30s");
}

#[test]
fn what_was_pasted_from_a_pod_goes() {
    let pasted = json!({"annotations": {"gwmon.io/status": "{}", "gwmon.io/mapping": "x", "mine": "1"}});
    let (_, annotations) = admitted(deployment(&json!({"gwmon.io/inject": "true"}), &pasted));
    assert!(annotations["gwmon.io/status"].is_null() && annotations["gwmon.io/mapping"].is_null());
    assert_eq!(annotations["mine"], "1");
}

#[test]
fn what_a_preview_printed_is_left_whole() {
    let mut previewed = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
    let container = &mut previewed["spec"]["template"]["spec"]["containers"][0];
    *container = json!({"name": "gloo", "image": "quay.io/solo-io/gloo-envoy-wrapper:1.18.0"});
    let (mut previewed, _) = admitted(previewed);
    let mut pod = previewed["spec"]["template"].clone();
    let injection =
        decide_for(&Config::default(), &[], &Pod::parse(&pod.to_string()).unwrap(), Asker::Workload("edge")).unwrap();
    json_patch::patch(&mut pod, &injection.patch.to_operations().unwrap()).unwrap();
    previewed["spec"]["template"] = pod.clone();

    let change = change(&previewed);
    assert_eq!(
        (change.patch.to_json().as_str(), change.pods.injection().unwrap_err().reason),
        ("[]", Reason::AlreadyInjected)
    );

    for annotation in ["gwmon.io/mapping", "gwmon.io/envoy-bootstrap"] {
        let mut half = previewed.clone();
        half["spec"]["template"]["metadata"]["annotations"].as_object_mut().unwrap().remove(annotation).unwrap();
        let refused = decide(&Config::default(), &[], &half.to_string()).unwrap_err();
        assert_eq!(refused.reason, Reason::IncompleteInjection);
        assert!(refused.detail.contains(annotation), "{refused}");
    }
}

#[test]
fn a_proxy_that_is_to_come_is_left_to_the_pods() {
    let mut workload = deployment(&json!({"gwmon.io/inject": "true", "gwmon.io/gateway": "osm"}), &json!({}));
    workload["spec"]["template"]["spec"]["containers"][0] = json!({"name": "bookstore", "image": "shop:1"});
    let (workload, annotations) = admitted(workload);
    assert_eq!(annotations["gwmon.io/gateway"], "osm");
    assert_eq!(change(&workload).pods.injection().unwrap_err().reason, Reason::ProxyNotInjected);
}

#[test]
fn settings_without_inject_do_not_roll_anything_out() {
    assert!(change(&deployment(&json!({"gwmon.io/interval": "15s"}), &json!({}))).patch.is_empty());
}

#[test]
fn what_the_pods_would_be_refused_for_is_said_at_once() {
    let refused = |workload: Value| decide(&Config::default(), &[], &workload.to_string()).unwrap_err().reason;
    assert_eq!(refused(deployment(&json!({"gwmon.io/inject": "yes"}), &json!({}))), Reason::InvalidAnnotation);
    let mut other = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
    other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("nginx:1");
    assert_eq!(refused(other), Reason::NoGateway);
    let mut managed = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
    managed["metadata"]["ownerReferences"] = json!([{"kind": "EnvoyProxy", "name": "eg", "controller": true}]);
    assert_eq!(refused(managed.clone()), Reason::ManagedWorkload);
    managed["spec"]["template"]["metadata"] = json!({"labels": {"app.kubernetes.io/managed-by": "envoy-gateway"}});
    let finding = decide(&Config::default(), &[], &managed.to_string()).unwrap_err();
    assert!(finding.detail.contains("EnvoyProxy, spec.provider.kubernetes"), "{finding}");

    let mut provisioned = deployment(&json!({"gwmon.io/inject": "true"}), &json!({}));
    provisioned["kind"] = json!("Deployment");
    provisioned["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "contour-gateway-provisioner"});
    provisioned["spec"]["template"]["spec"]["initContainers"] = json!([{"name": "envoy-initconfig"}]);
    let finding = decide(&Config::default(), &[], &provisioned.to_string()).unwrap_err();
    assert!(finding.detail.contains("ContourDeployment, spec.envoy.podAnnotations"), "{finding}");
    provisioned["kind"] = json!("DaemonSet");
    assert!(!change(&provisioned).patch.is_empty());
}
