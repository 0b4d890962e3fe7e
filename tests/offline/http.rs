//! Bad input over HTTP: the right status, the uid where there is one, `allowed: true` and a reason.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use futures::{StreamExt, stream};
use gwmon::config::Config;
use gwmon::metrics::Metrics;
use gwmon::webhook::{Admission, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

fn webhook() -> Router {
    router(&Arc::new(Admission::new(Config::default(), Arc::default(), Metrics::new().0)))
}

async fn send(path: &str, content_type: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::post(path).header("content-type", content_type).body(body.into()).unwrap();
    let response = webhook().oneshot(request).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    send(path, "application/json", body).await
}

/// The response of a review that is answered.
async fn answer(path: &str, body: &str) -> Value {
    let (status, text) = post(path, body.to_owned()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let reply: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reply["response"]["allowed"], true);
    reply
}

fn warning(reply: &Value) -> String {
    let warnings = reply["response"]["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [one] = warnings else { panic!("not one warning: {reply}") };
    one.as_str().unwrap().to_owned()
}

fn review(changes: &Value) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "operation": "CREATE",
            "namespace": "edge",
            "object": {
                "metadata": {
                    "generateName": "edge-6d4b-",
                    "labels": {"pod-template-hash": "6d4b"},
                    "annotations": {"gwmon.io/inject": "true"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "edge-6d4b", "uid": "x", "controller": true}],
                },
                "spec": {"containers": [{"name": "envoy", "image": "envoyproxy/envoy:v1.34.0"}]},
            },
        },
    });
    json_patch::merge(&mut review, changes);
    review
}

const PODS: &str = "/mutate/pods";

#[tokio::test]
async fn what_has_no_uid_is_a_bad_request_that_says_why() {
    for (body, why) in [
        ("", "not an AdmissionReview"),
        ("not json", "not an AdmissionReview"),
        ("[]", "not an AdmissionReview"),
        ("{}", "is not an AdmissionReview"),
        (r#"{"apiVersion":"v1","kind":"Pod"}"#, "v1 Pod is not an AdmissionReview"),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "no request"),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":""}}"#, "uid is empty"),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#, "missing field `uid`"),
    ] {
        let (status, text) = post(PODS, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(text.contains(why), "{body}: {text}");
    }
}

#[tokio::test]
async fn the_wrong_content_type_method_or_path_is_named() {
    let (status, text) = send(PODS, "text/yaml", "{}").await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(text.contains("application/json"));
    let (status, _) = send(PODS, "application/json; charset=utf-8", review(&json!({})).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let get = Request::builder().method(Method::GET).uri(PODS).body(Body::empty()).unwrap();
    assert_eq!(webhook().oneshot(get).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(post("/mutate", "{}").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_review_too_large_is_allowed_by_its_uid_or_refused_without_one() {
    let padding = "x".repeat(9 << 20);
    let mut huge = review(&json!({}));
    huge["request"]["object"]["spec"]["padding"] = json!(padding);
    let reply = answer(PODS, &huge.to_string()).await;
    assert_eq!(reply["response"]["uid"], "u-1");
    assert!(warning(&reply).contains("TooLarge"), "{}", reply["response"]);
    assert!(reply["response"]["patch"].is_null());
    assert_eq!(post(PODS, padding).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Sixteen large ones that stop half-way, as somebody would send them who wants gwmon's memory: they wait for each other, lose
/// their share of it after a moment, and small ones are answered meanwhile.
#[tokio::test]
async fn who_stalls_a_large_review_keeps_no_small_one_waiting() {
    let webhook = webhook();
    let ask = |body: Body| {
        webhook.clone().oneshot(Request::post(PODS).header("content-type", "application/json").body(body).unwrap())
    };
    let stalled: Vec<_> = (0..16)
        .map(|_| {
            let chunks = stream::iter([Ok::<_, std::io::Error>(vec![b' '; 1 << 20]), Ok(vec![b' '; 1 << 20])]);
            tokio::spawn(ask(Body::from_stream(chunks.chain(stream::pending()))))
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for length in [0, 0, 0, 30 << 10, 200 << 10] {
        let sound = review(&json!({"request": {"object": {"metadata": {"padding": "x".repeat(length)}}}}));
        let answer = tokio::time::timeout(Duration::from_secs(1), ask(sound.to_string().into()));
        assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK, "{length}");
    }
    for request in stalled {
        let status = request.await.unwrap().unwrap().status();
        assert!([StatusCode::REQUEST_TIMEOUT, StatusCode::GATEWAY_TIMEOUT].contains(&status), "{status}");
    }
    let large = review(&json!({"request": {"object": {"metadata": {"padding": "x".repeat(3 << 20)}}}}));
    assert_eq!(ask(large.to_string().into()).await.unwrap().status(), StatusCode::OK, "the turn was given back");
}

/// What a client sends comes back in no log line whole; in the answer, which the client itself reads, it is short.
#[tokio::test]
async fn a_long_value_is_cut_wherever_it_is_shown() {
    let long = "x".repeat(1 << 20);
    for changes in [
        json!({"request": {"object": long}}),
        json!({"request": {"object": {"spec": {"containers": long}}}}),
        json!({"request": {"kind": {"kind": long}}}),
    ] {
        let reply = answer(PODS, &review(&changes).to_string()).await;
        assert!(reply["response"].to_string().len() < 2048, "{}", reply["response"].to_string().len());
    }
    let refused = post(PODS, format!("{{\"apiVersion\": \"{long}\"}}")).await.1;
    assert!(refused.len() < 2048, "{}", refused.len());
}

#[tokio::test]
async fn three_mebibytes_are_a_review_like_any_other() {
    let large = review(&json!({"request": {"object": {"metadata": {"padding": "x".repeat(3 << 20)}}}}));
    assert_eq!(answer(PODS, &large.to_string()).await["response"]["patchType"], "JSONPatch");
}

#[tokio::test]
async fn v1beta1_is_answered_in_v1beta1() {
    let reply = answer(PODS, &review(&json!({"apiVersion": "admission.k8s.io/v1beta1"})).to_string()).await;
    assert_eq!(reply["apiVersion"], "admission.k8s.io/v1beta1");
    let reply = answer(PODS, &review(&json!({"apiVersion": "admission.k8s.io/v2"})).to_string()).await;
    assert!(warning(&reply).contains("UnexpectedObject"));
}

#[tokio::test]
async fn an_object_that_was_not_asked_for_is_let_through() {
    for (path, changes) in [
        (PODS, json!({"request": {"kind": {"kind": "ConfigMap"}}})),
        (PODS, json!({"request": {"operation": "DELETE", "object": null}})),
        (PODS, json!({"request": {"kind": {"group": "apps", "kind": "Deployment"}}})),
        ("/mutate/workloads", json!({})),
        ("/mutate/workloads", json!({"request": {"kind": {"group": "batch", "kind": "Job"}}})),
    ] {
        let reply = answer(path, &review(&changes).to_string()).await;
        assert!(warning(&reply).contains("UnexpectedObject"), "{path} {changes}");
        assert!(reply["response"]["patch"].is_null());
    }
}

#[tokio::test]
async fn an_object_of_the_wrong_shape_is_let_through_and_its_field_is_named() {
    for (object, field) in [
        (json!({}), "missing field `spec`"),
        (json!([]), "invalid length"),
        (json!("pod"), "invalid type"),
        (json!({"spec": {"containers": {}}}), "spec.containers"),
        (json!({"metadata": {"annotations": {"gwmon.io/inject": true}}, "spec": {}}), "metadata.annotations"),
    ] {
        let mut review = review(&json!({}));
        review["request"]["object"] = object.clone();
        let warning = warning(&answer(PODS, &review.to_string()).await);
        assert!(warning.contains("MalformedObject") && warning.contains(field), "{object}: {warning}");
    }
}

#[tokio::test]
async fn nesting_beyond_all_reason_is_let_through() {
    let body = review(&json!({})).to_string();
    for depth in [200, 100_000] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let unread = body.replace(r#""spec":{"#, &format!(r#""spec":{{"affinity":{nested},"#));
        assert_eq!(answer(PODS, &unread).await["response"]["patchType"], "JSONPatch", "{depth}");
        let read = body.replace(r#""spec":{"#, &format!(r#""spec":{{"volumes":{nested},"#));
        assert!(warning(&answer(PODS, &read).await).contains("MalformedObject"), "{depth}");
    }
}

#[tokio::test]
async fn null_lists_a_generated_name_and_a_dry_run_change_nothing_about_the_answer() {
    let expected = answer(PODS, &review(&json!({})).to_string()).await;
    assert_eq!(expected["response"]["patchType"], "JSONPatch");
    let dry = answer(PODS, &review(&json!({"request": {"dryRun": true}})).to_string()).await;
    assert_eq!(dry, expected);
    let mut null = review(&json!({}));
    for field in ["initContainers", "volumes", "hostNetwork", "nodeSelector"] {
        null["request"]["object"]["spec"][field] = Value::Null;
    }
    assert_eq!(answer(PODS, &null.to_string()).await, expected);
}

#[tokio::test]
async fn an_invalid_annotation_is_a_warning_with_key_value_and_fix() {
    for (key, value, fix) in [
        ("gwmon.io/inject", "yes", "\"true\", \"false\""),
        ("gwmon.io/metrics-port", "0", "1 to 65535"),
        ("gwmon.io/resources", "cpu=lots", "such as 100m"),
    ] {
        let reply = answer(
            PODS,
            &review(&json!({"request": {"object": {"metadata": {"annotations": {key: value}}}}})).to_string(),
        )
        .await;
        let warning = warning(&reply);
        for part in [key, value, fix] {
            assert!(warning.contains(part), "{warning}");
        }
        assert!(reply["response"]["patch"].is_null());
    }
}
