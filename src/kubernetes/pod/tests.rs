use super::*;

fn container(image: &str) -> Container<'static> {
    let container = serde_json::json!({"name": "c", "image": image}).to_string();
    serde_json::from_str(container.leak()).unwrap()
}

#[test]
fn an_image_splits_where_kubernetes_splits_it() {
    for (image, path, tag) in [
        ("envoyproxy/envoy:v1.34.0", "envoyproxy envoy", Some("v1.34.0")),
        ("mirror.corp:5000/envoyproxy/envoy", "mirror.corp:5000 envoyproxy envoy", None),
        ("a/b:1.2@sha256:00", "a b", Some("1.2")),
        ("envoy@sha256:00", "envoy", None),
        ("rancher/mirrored-library-traefik:3.3.2", "rancher library traefik", Some("3.3.2")),
        ("", "", None),
    ] {
        let container = container(image);
        let (parts, found) = container.image_parts();
        assert_eq!((parts.join(" ").as_str(), found), (path, tag), "{image}");
    }
}

#[test]
fn null_is_absent_and_a_wrong_shape_names_its_field() {
    let pod = Pod::parse(r#"{"metadata":null,"spec":{"containers":null,"volumes":null,"hostNetwork":null}}"#);
    assert!(pod.unwrap().spec.containers.is_none());
    let wrong = Pod::parse(r#"{"spec":{"containers":[{"name":"a","args":"-c"}]}}"#).unwrap_err();
    assert_eq!(wrong.reason, Reason::MalformedObject);
    assert!(wrong.detail.contains("spec.containers[0].args"), "{wrong}");
}

#[test]
fn deep_nesting_in_what_is_not_read_is_no_problem() {
    let deep = format!(r#"{{"spec":{{"affinity":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(Pod::parse(&deep).is_ok());
}
