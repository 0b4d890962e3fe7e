//! Which Prometheus selects what: every case by its name, and the solver against one that only counts.

use std::collections::BTreeSet;

use gwmon::annotations::Target;
use gwmon::config::{Bounds, Config, Names};
use gwmon::kubernetes::labels::{self, Labels};
use gwmon::monitoring::predicate::Condition;
use gwmon::monitoring::scraper::Kind;
use gwmon::monitoring::selection::{Selection, SelectionRequest};
use gwmon::monitoring::selector::{Selector, solve};
use gwmon::monitoring::{Cluster, CurrentState, Operator, ScrapeTarget, Scraper, plan};
use gwmon::reason::{Finding, Reason};
use proptest::prelude::*;
use serde_json::{Value, json};

fn labels(text: &str) -> Labels {
    labels::parse(text).unwrap()
}

fn parse(object: &Value) -> Scraper {
    Scraper::parse(&object.to_string()).unwrap().unwrap()
}

/// A `Prometheus` of this spec in the namespace `monitoring`.
fn prometheus(name: &str, spec: &Value) -> Scraper {
    parse(&json!({"kind": "Prometheus", "metadata": {"namespace": "monitoring", "name": name}, "spec": spec}))
}

/// The shape of kube-prometheus: it reads everywhere.
fn everywhere(selector: &Value) -> Value {
    json!({"serviceMonitorSelector": selector, "serviceMonitorNamespaceSelector": {}})
}

fn text(selector: &str) -> Value {
    let expressions: Vec<_> = selector
        .split(';')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let mut words = part.split_whitespace();
            let (key, operator) = (words.next().unwrap(), words.next().unwrap());
            let values: Vec<_> = words.collect();
            if values.is_empty() {
                json!({"key": key, "operator": operator})
            } else {
                json!({"key": key, "operator": operator, "values": values})
            }
        })
        .collect();
    json!({"matchExpressions": expressions})
}

fn operator(args: &[&str]) -> Operator {
    let container =
        json!({"name": "o", "image": "quay.io/prometheus-operator/prometheus-operator:v0.93.1", "args": args});
    let deployment = json!({"metadata": {"name": "po", "namespace": "monitoring"}, "spec": {"template": {"spec": {"containers": [container]}}}});
    Operator::parse(&deployment.to_string()).unwrap().unwrap()
}

fn cluster(scrapers: Vec<Scraper>) -> Cluster {
    let named = |name: &str| (name.to_owned(), labels(&format!("kubernetes.io/metadata.name={name}")));
    Cluster { scrapers, operators: vec![operator(&[])], namespaces: ["edge", "monitoring"].map(named).into() }
}

struct Asked {
    target: Target,
    required: Labels,
    defaults: Labels,
    existing_monitors: Vec<Labels>,
    reader: Option<&'static str>,
    bounds: Bounds,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            target: Target::Best,
            required: Labels::new(),
            defaults: labels("managed-by=gwmon"),
            existing_monitors: vec![],
            reader: None,
            bounds: Bounds::default(),
        }
    }
}

fn select<'c>(cluster: &'c Cluster, asked: &Asked) -> Result<Selection<'c>, Finding> {
    let Asked { target, required, defaults, existing_monitors, reader, bounds } = asked;
    cluster.select(&SelectionRequest {
        namespace: "edge",
        target,
        required,
        defaults,
        existing_monitors,
        reader: *reader,
        bounds,
    })
}

/// Namespace and labels of the one monitor, without the default label.
fn one(cluster: &Cluster) -> Result<(String, Labels), String> {
    let selection = select(cluster, &Asked::default()).map_err(|finding| {
        assert_eq!(finding.reason, Reason::NotSelected);
        finding.detail
    })?;
    let [place] = &selection.placements[..] else { panic!("{:?}", selection.placements) };
    let mut labels = place.labels.clone();
    labels.remove("managed-by");
    Ok((place.namespace.clone(), labels))
}

fn labels_for(selector: &Value) -> Result<Labels, String> {
    one(&cluster(vec![prometheus("kps", &everywhere(selector))])).map(|(namespace, labels)| {
        assert_eq!(namespace, "edge");
        labels
    })
}

fn reasons(selection: &Selection) -> Vec<Reason> {
    selection.warnings.iter().map(|warning| warning.reason).collect()
}

#[test]
fn l1_an_absent_selector_selects_nothing() {
    for selector in [json!({"podMonitorSelector": {}}), json!({"serviceMonitorSelector": null, "probeSelector": {}})] {
        let error = one(&cluster(vec![prometheus("kps", &selector)])).unwrap_err();
        assert_eq!(error, "Prometheus monitoring/kps selects no ServiceMonitor: it has no spec.serviceMonitorSelector");
    }
}

#[test]
fn l2_an_empty_selector_needs_no_label() {
    assert_eq!(labels_for(&json!({})).unwrap(), labels(""));
}

#[test]
fn l3_l4_match_labels_are_what_the_monitor_gets() {
    for label in ["release=prometheus", "ambassador=monitoring"] {
        assert_eq!(labels_for(&json!({"matchLabels": labels(label)})).unwrap(), labels(label));
    }
}

fn two(one: &str, two: &str) -> Cluster {
    let by = |label: &str| everywhere(&json!({"matchLabels": labels(label)}));
    cluster(vec![prometheus("a", &by(one)), prometheus("b", &by(two))])
}

#[test]
fn l5_all_of_them_share_one_monitor_where_labels_allow() {
    let cluster = two("release=prometheus", "ambassador=monitoring");
    let selection = select(&cluster, &Asked { target: Target::All, ..Asked::default() }).unwrap();
    let [place] = &selection.placements[..] else { panic!("{:?}", selection.placements) };
    assert_eq!(place.labels, labels("release=prometheus,ambassador=monitoring,managed-by=gwmon"));
    assert_eq!((selection.readers.len(), reasons(&selection)), (2, vec![]));
}

#[test]
fn l6_where_they_cannot_agree_each_has_its_own() {
    let cluster = two("release=a", "release=b");
    let selection = select(&cluster, &Asked { target: Target::All, ..Asked::default() }).unwrap();
    let [a, b] = &selection.placements[..] else { panic!("{:?}", selection.placements) };
    assert_eq!((a.labels["release"].as_str(), a.suffix.as_str()), ("a", ""));
    assert_eq!((b.labels["release"].as_str(), b.suffix.as_str()), ("b", "-2"));
}

#[test]
fn l7_in_and_not_in() {
    assert_eq!(labels_for(&text("k In a b;k NotIn a")).unwrap(), labels("k=b"));
    assert!(labels_for(&text("k In a;k In b")).unwrap_err().contains("no value of label k meets k=a and k=b"));
}

#[test]
fn l8_exists() {
    assert_eq!(labels_for(&text("team Exists")).unwrap(), labels("team=true"));
    assert_eq!(labels_for(&text("team Exists;team NotIn true")).unwrap(), labels("team=gwmon"));
}

#[test]
fn l9_does_not_exist_takes_a_soft_label_and_not_a_hard_one() {
    let by = |key: &str| cluster(vec![prometheus("kps", &everywhere(&text(&format!("{key} DoesNotExist"))))]);
    let selected = by("managed-by");
    assert_eq!(select(&selected, &Asked::default()).unwrap().placements[0].labels, labels(""));
    let refused = by("team");
    let error = select(&refused, &Asked { required: labels("team=edge"), ..Asked::default() }).unwrap_err();
    assert_eq!(
        error.detail,
        "Prometheus monitoring/kps spec.serviceMonitorSelector: label team=edge is set, but !team is asked for"
    );
}

#[test]
fn l10_exists_and_does_not() {
    assert!(labels_for(&text("k Exists;k DoesNotExist")).unwrap_err().contains("no value of label k meets k and !k"));
}

#[test]
fn l11_not_in_alone_needs_no_label() {
    assert_eq!(labels_for(&text("user NotIn false")).unwrap(), labels(""));
}

#[test]
fn l12_a_users_label_is_kept_where_it_will_do() {
    let cluster = cluster(vec![prometheus("kps", &everywhere(&text("team In a b c")))]);
    let selection = select(&cluster, &Asked { required: labels("team=c"), ..Asked::default() }).unwrap();
    assert_eq!(selection.placements[0].labels["team"], "c");
}

#[test]
fn l13_what_can_be_no_label() {
    for selector in [
        json!({"matchLabels": {"release": "no label"}}),
        text("a..b/c Exists"),
        text(&format!("k In {}", "v".repeat(64))),
    ] {
        let error = labels_for(&selector).unwrap_err();
        assert!(
            error.contains("is not a valid label") && error.contains("spec.serviceMonitorSelector.match"),
            "{error}"
        );
    }
}

/// A Prometheus that reads its own namespace only, and what else its spec holds.
fn own_namespace(extra: &Value) -> Cluster {
    let mut spec = json!({"serviceMonitorSelector": {}});
    json_patch::merge(&mut spec, extra);
    cluster(vec![prometheus("kps", &spec)])
}

#[test]
fn n1_an_absent_namespace_selector_is_the_prometheus_own() {
    assert_eq!(one(&own_namespace(&json!({}))).unwrap().0, "monitoring");
}

#[test]
fn n2_which_does_not_help_where_monitors_stay_at_home() {
    let error = one(&own_namespace(&json!({"ignoreNamespaceSelectors": true}))).unwrap_err();
    assert!(error.contains("would not reach edge (spec.ignoreNamespaceSelectors)"), "{error}");
}

#[test]
fn n3_nor_where_the_series_would_pass_for_those_of_its_own_pods() {
    let error = one(&own_namespace(&json!({"enforcedNamespaceLabel": "namespace"}))).unwrap_err();
    assert!(error.contains("would set namespace=monitoring"), "{error}");
}

#[test]
fn what_crosses_namespaces_is_the_operators_to_allow() {
    let (away, home) = (json!({"serviceMonitorSelector": {}}), everywhere(&json!({"matchLabels": {"mine": "yes"}})));
    let cluster = cluster(vec![prometheus("platform", &away), prometheus("tenants", &home)]);
    let read = |asked: &Asked| {
        let selection = select(&cluster, asked).map_err(|finding| finding.detail)?;
        let [place] = selection.placements.as_slice() else { return Err("several".to_owned()) };
        let [reader] = selection.readers.as_slice() else { return Err("read by several".to_owned()) };
        Ok((place.namespace.clone(), reader.place()))
    };
    let at = |namespace: &str, name: &str| Ok((namespace.to_owned(), format!("monitoring/{name}")));
    assert_eq!(read(&Asked::default()), at("edge", "tenants"));
    // Who reads the gateway now keeps it, whatever else somebody creates.
    assert_eq!(read(&Asked { reader: Some("monitoring/platform"), ..Asked::default() }), at("monitoring", "platform"));
    assert_eq!(read(&Asked { reader: Some("monitoring/gone"), ..Asked::default() }), at("edge", "tenants"));
    // The operator's only reader.
    let only = |name: &str| Bounds { readers: vec![("monitoring".to_owned(), name.to_owned())], ..Bounds::default() };
    assert_eq!(read(&Asked { bounds: only("platform"), ..Asked::default() }), at("monitoring", "platform"));
    let error = read(&Asked { bounds: only("nobody"), ..Asked::default() }).unwrap_err();
    assert!(error.starts_with("gwmon's configuration, monitors.prometheus: monitoring/nobody names none"), "{error}");
    // No monitor outside the gateway's namespace, even for one that is asked for.
    let named = Target::Named { namespace: "monitoring".to_owned(), name: "platform".to_owned() };
    let bounds = Bounds { cross_namespace: Names::Only(BTreeSet::new()), ..Bounds::default() };
    let error = read(&Asked { target: named, bounds, ..Asked::default() }).unwrap_err();
    assert!(error.contains("monitors.crossNamespace"), "{error}");
}

#[test]
fn a_gateway_gets_so_many_monitors_and_no_more() {
    let asking = |count: usize| {
        let by = |number: usize| {
            prometheus(&number.to_string(), &everywhere(&json!({"matchLabels": {"by": number.to_string()}})))
        };
        let cluster = cluster((0..count).map(by).collect());
        let all = Asked { target: Target::All, ..Asked::default() };
        let selection = select(&cluster, &all).unwrap();
        (selection.placements.len(), selection.warnings.iter().any(|warning| warning.reason == Reason::TooManyObjects))
    };
    assert_eq!((asking(8), asking(9)), ((8, false), (8, true)));
}

fn by_namespace(selector: &Value) -> Cluster {
    let spec = json!({"serviceMonitorSelector": {}, "serviceMonitorNamespaceSelector": selector});
    cluster(vec![prometheus("kps", &spec)])
}

#[test]
fn n4_namespaces_by_name() {
    let cluster = by_namespace(&text("kubernetes.io/metadata.name In edge"));
    assert_eq!(one(&cluster).unwrap().0, "edge");
}

#[test]
fn n5_a_label_that_only_the_prometheus_namespace_has() {
    let mut cluster = by_namespace(&json!({"matchLabels": {"scraped": "yes"}}));
    cluster.namespaces.get_mut("monitoring").unwrap().extend(labels("scraped=yes"));
    let selection = select(&cluster, &Asked::default()).unwrap();
    assert_eq!(selection.placements[0].namespace, "monitoring");
    assert!(selection.why.contains("kubectl label namespace edge scraped=yes"), "{}", selection.why);
}

#[test]
fn n6_a_label_that_neither_has() {
    let error = one(&by_namespace(&json!({"matchLabels": {"scraped": "yes"}}))).unwrap_err();
    assert!(error.contains("needs scraped=yes, has none on namespace edge"), "{error}");
    assert!(error.contains("kubectl label namespace edge scraped=yes"), "{error}");
}

#[test]
fn n7_a_namespace_that_the_operator_does_not_watch() {
    for flag in ["--deny-namespaces=edge", "--namespaces=monitoring"] {
        let with = |extra: &Value| {
            let mut spec = everywhere(&json!({}));
            json_patch::merge(&mut spec, extra);
            let mut cluster = cluster(vec![prometheus("kps", &spec)]);
            cluster.operators = vec![operator(&[flag])];
            one(&cluster)
        };
        // Only the monitor has to be where the operator looks.
        assert_eq!(with(&json!({})).unwrap().0, "monitoring");
        let error = with(&json!({"ignoreNamespaceSelectors": true})).unwrap_err();
        assert!(error.contains("operator monitoring/po does not watch edge"), "{error}");
    }
    let mut nowhere = cluster(vec![prometheus("kps", &everywhere(&json!({})))]);
    nowhere.operators =
        vec![operator(&["--deny-namespaces=edge,monitoring", "--prometheus-instance-namespaces=monitoring"])];
    assert!(one(&nowhere).unwrap_err().contains("does not watch edge"));
}

#[test]
fn n8_instance_namespaces_do_not_widen_where_monitors_are_watched() {
    let mut cluster = own_namespace(&json!({}));
    cluster.operators = vec![operator(&["--namespaces=edge", "--prometheus-instance-namespaces=monitoring"])];
    let error = one(&cluster).unwrap_err();
    assert!(error.contains("spec.serviceMonitorNamespaceSelector is absent"), "{error}");
}

#[test]
fn n9_a_label_that_is_taken_off_moves_the_monitor() {
    let mut cluster = by_namespace(&json!({"matchLabels": {"scraped": "yes"}}));
    for namespace in ["edge", "monitoring"] {
        cluster.namespaces.get_mut(namespace).unwrap().extend(labels("scraped=yes"));
    }
    assert_eq!(one(&cluster).unwrap().0, "edge");
    cluster.namespaces.get_mut("edge").unwrap().remove("scraped");
    assert_eq!(one(&cluster).unwrap().0, "monitoring");
    cluster.namespaces.get_mut("monitoring").unwrap().remove("scraped");
    one(&cluster).unwrap_err();
}

#[test]
fn p1_a_prometheus_that_the_operator_leaves_to_others() {
    let with = |metadata: &Value, flags: &[&str]| {
        let mut object = json!({"kind": "Prometheus", "metadata": {"namespace": "monitoring", "name": "kps"}, "spec": everywhere(&json!({}))});
        json_patch::merge(&mut object["metadata"], metadata);
        let mut cluster = cluster(vec![parse(&object)]);
        cluster.operators = vec![operator(flags)];
        let unmet = cluster.selects(&cluster.scrapers[0], "edge", &labels("")).err();
        // Another operator may run it, which gwmon has not found: the monitor is made, with a warning that says why.
        let selection = select(&cluster, &Asked::default());
        match (unmet, selection) {
            (None, selection) => {
                assert_eq!(reasons(&selection.unwrap()), []);
                Ok(())
            }
            (Some(unmet), Ok(selection)) => {
                assert_eq!(unmet.condition, Condition::Handled);
                assert_eq!(reasons(&selection), [Reason::OperatorUnknown]);
                assert!(selection.warnings[0].detail.contains(&unmet.detail), "{:?}", selection.warnings);
                Err(unmet.detail)
            }
            (Some(_), Err(refusal)) => Err(refusal.detail),
        }
    };
    let id = json!({"annotations": {"operator.prometheus.io/controller-id": "blue"}});
    assert!(with(&id, &[]).unwrap_err().contains("--controller-id is none, the annotation"));
    assert!(
        with(&json!({}), &["--controller-id=blue"])
            .unwrap_err()
            .contains("--controller-id is \"blue\", the annotation")
    );
    assert!(with(&id, &["--controller-id=blue"]).is_ok());
    let error = with(&json!({}), &["--prometheus-instance-selector=tier in (gold)"]).unwrap_err();
    assert!(error.contains("needs tier=gold, has none"), "{error}");
    assert!(with(&json!({"labels": {"tier": "gold"}}), &["--prometheus-instance-selector=tier in (gold)"]).is_ok());
    assert!(with(&json!({}), &["--prometheus-instance-namespaces=other"]).unwrap_err().contains("does not look into"));
    assert!(with(&json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), &[]).unwrap_err().contains("is being deleted"));
}

/// A Prometheus that reads everything, with more in its spec and with these conditions: type, status, reason.
fn with_conditions(name: &str, extra: &Value, conditions: &[(&str, &str, &str)]) -> Scraper {
    let mut spec = everywhere(&json!({}));
    json_patch::merge(&mut spec, extra);
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(type_, status, reason)| json!({"type": type_, "status": status, "reason": reason}))
        .collect();
    let metadata = json!({"namespace": "monitoring", "name": name});
    parse(&json!({"kind": "Prometheus", "metadata": metadata, "spec": spec, "status": {"conditions": conditions}}))
}

#[test]
fn one_that_does_not_run_comes_last_and_is_told() {
    let down = json!({"metadata": {"name": "po", "namespace": "monitoring"}, "spec": {"replicas": 0, "template": {"spec": {"containers": [{"name": "prometheus-operator"}]}}}});
    let down = Operator::parse(&down.to_string()).unwrap().unwrap();
    let false_ = [("Reconciled", "False", "ReconciliationFailed")];
    for (ill, told) in [
        (with_conditions("a", &json!({"paused": true}), &[]), Some(Reason::PrometheusPaused)),
        (with_conditions("a", &json!({"replicas": 0}), &[]), Some(Reason::PrometheusNotRunning)),
        (with_conditions("a", &json!({}), &false_), Some(Reason::PrometheusNotRunning)),
        // For a moment, whenever its pods are replaced: it comes last, and nobody is told.
        (with_conditions("a", &json!({}), &[("Available", "False", "NoPodReady")]), None),
    ] {
        let well = with_conditions("z", &json!({}), &[("Reconciled", "True", ""), ("Available", "Degraded", "")]);
        let both = cluster(vec![ill.clone(), well]);
        assert_eq!(select(&both, &Asked::default()).unwrap().readers[0].key().1, "z", "{ill}");
        assert!(both.outage(&ill).is_some());
        // Who has read it before goes on, so that a restart moves nothing.
        let kept = Asked { reader: Some("monitoring/a"), ..Asked::default() };
        assert_eq!(select(&both, &kept).unwrap().readers[0].key().1, "a", "{ill}");
        let alone = cluster(vec![ill]);
        let selection = select(&alone, &Asked::default()).unwrap();
        assert_eq!(reasons(&selection), told.into_iter().collect::<Vec<_>>());
    }
    let mut cluster = cluster(vec![with_conditions("a", &json!({}), &[])]);
    // Its operator has not come to it yet.
    assert!(cluster.outage(&cluster.scrapers[0]).unwrap().is_passing);
    cluster.operators = vec![down.clone()];
    let outage = cluster.outage(&cluster.scrapers[0]).unwrap();
    assert_eq!((outage.finding.reason, outage.is_passing), (Reason::PrometheusNotRunning, false));
    assert!(outage.finding.detail.ends_with("its operator monitoring/po has no ready pod"), "{outage:?}");

    // A Deployment without pods that passes for an operator widens nothing.
    cluster.operators = vec![down, operator(&["--namespaces=monitoring"])];
    assert_eq!(one(&cluster).unwrap().0, "monitoring");
    // One that is not found is believed where the Prometheus says that it is reconciled.
    cluster.operators = vec![];
    assert_eq!(cluster.outage(&cluster.scrapers[0]).unwrap().finding.reason, Reason::OperatorUnknown);
    let reconciled = with_conditions("a", &json!({}), &[("Reconciled", "True", "")]);
    assert_eq!(cluster.outage(&reconciled), None);
}

#[test]
fn p2_a_paused_one_is_told() {
    let mut spec = everywhere(&json!({}));
    spec["paused"] = json!(true);
    let cluster = cluster(vec![prometheus("kps", &spec)]);
    let selection = select(&cluster, &Asked::default()).unwrap();
    assert_eq!(reasons(&selection), [Reason::PrometheusPaused]);
    let unmet = cluster.selects(&cluster.scrapers[0], "edge", &labels("")).unwrap_err();
    assert_eq!(unmet.condition, Condition::Handled);
}

#[test]
fn p3_an_agent_that_runs_as_a_daemon_set() {
    let agent = json!({"kind": "PrometheusAgent", "metadata": {"namespace": "monitoring", "name": "a"}, "spec": {"mode": "DaemonSet"}});
    assert!(one(&cluster(vec![parse(&agent)])).unwrap_err().contains("it needs a PodMonitor"));
}

#[test]
fn p4_no_reader_at_all() {
    let nobody = cluster(vec![]);
    assert_eq!(select(&nobody, &Asked::default()).unwrap_err().reason, Reason::NoPrometheus);
    let status = json!({
        "version": "0.1.0", "gateway": "envoy", "container": "envoy", "mode": "statsd", "statsdPort": 9125,
        "metricsPort": 9102, "added": [], "hash": "",
    });
    let annotations = [("gwmon.io/inject", "true".to_owned()), ("gwmon.io/status", status.to_string())];
    let pod = annotations.map(|(key, value)| (key.to_owned(), value)).into();
    let config = Config::default();
    let target = ScrapeTarget::of_pod(&config, "edge", "edge-gwmon", &pod, None).unwrap();
    let plan = plan(&target, &nobody, &config.bounds, &CurrentState::default());
    let monitors = plan.monitors.unwrap();
    let labels = monitors[0]["metadata"]["labels"].as_object().unwrap();
    let own = ["app.kubernetes.io/managed-by", "gwmon.io/metrics-for", "gwmon.io/workload-namespace"];
    assert_eq!((monitors.len(), labels.keys().map(String::as_str).collect::<Vec<_>>()), (1, own.to_vec()));
    assert_eq!(plan.warnings[0].reason, Reason::NoPrometheus);
}

#[test]
fn p5_one_of_two_is_taken_and_the_other_is_told() {
    let cluster = cluster(vec![prometheus("a", &everywhere(&json!({}))), prometheus("b", &everywhere(&json!({})))]);
    let selection = select(&cluster, &Asked::default()).unwrap();
    assert_eq!(selection.readers[0].key(), ("monitoring", "a"));
    assert_eq!(reasons(&selection), [Reason::AmbiguousPrometheus, Reason::SelectedTwice]);
    assert!(selection.warnings[1].detail.contains("monitoring/b"), "{}", selection.warnings[1]);
}

#[test]
fn p6_other_readers_by_their_own_tables() {
    let object = |kind: &str, spec: &Value| json!({"kind": kind, "metadata": {"namespace": "monitoring", "name": "x"}, "spec": spec});
    let place = |kind: &str, spec: &Value| one(&cluster(vec![parse(&object(kind, spec))]));
    let by = json!({"matchLabels": {"release": "vm"}});

    // Both absent: nothing, or everything. One alone: everything there, or this label in its own namespace.
    assert!(place("VMAgent", &json!({})).unwrap_err().contains("selectAllByDefault"));
    assert_eq!(place("VMAgent", &json!({"selectAllByDefault": true})).unwrap().0, "edge");
    assert_eq!(
        place("VMAgent", &json!({"serviceScrapeNamespaceSelector": {}})).unwrap(),
        ("edge".to_owned(), labels(""))
    );
    assert_eq!(
        place("VMAgent", &json!({"serviceScrapeSelector": by})).unwrap(),
        ("monitoring".to_owned(), labels("release=vm"))
    );

    // An absent namespace selector reads everywhere; an absent selector takes nothing.
    let allocator = |extra: &Value| {
        let mut cr = json!({"enabled": true, "serviceMonitorSelector": {}});
        json_patch::merge(&mut cr, extra);
        json!({"prometheusCR": cr})
    };
    assert_eq!(place("TargetAllocator", &allocator(&json!({}))).unwrap().0, "edge");
    assert!(
        place("TargetAllocator", &allocator(&json!({"serviceMonitorSelector": null})))
            .unwrap_err()
            .contains("selects no")
    );
    assert_eq!(place("TargetAllocator", &allocator(&json!({"denyNamespaces": ["edge"]}))).unwrap().0, "monitoring");
    let error = place("TargetAllocator", &allocator(&json!({"allowNamespaces": ["other"]}))).unwrap_err();
    assert!(error.contains("allowNamespaces"), "{error}");
    let mut collector = allocator(&json!({}));
    collector["enabled"] = json!(true);
    assert_eq!(place("OpenTelemetryCollector", &json!({"targetAllocator": collector})).unwrap().0, "edge");

    // Those that read no monitors are no readers.
    for (kind, spec) in [
        ("TargetAllocator", allocator(&json!({"enabled": false}))),
        ("OpenTelemetryCollector", json!({})),
        ("Deployment", json!({})),
    ] {
        assert!(Scraper::parse(&object(kind, &spec).to_string()).unwrap().is_none(), "{kind}");
    }
    assert_eq!(Kind::named("VMAgent"), Some(Kind::VMAgent));
}

#[test]
fn p7_no_selector_at_all_is_unmanaged() {
    assert!(one(&cluster(vec![prometheus("kps", &json!({}))])).unwrap_err().contains("unmanaged"));
}

#[test]
fn s1_the_rights_that_a_scrape_needs_are_known() {
    let mut spec = everywhere(&json!({}));
    assert_eq!(prometheus("kps", &spec).discovery().unwrap(), ("default", "endpoints"));
    spec["serviceAccountName"] = json!("prom");
    spec["serviceDiscoveryRole"] = json!("EndpointSlice");
    assert_eq!(prometheus("kps", &spec).discovery(), Some(("prom", "endpointslices")));
}

#[test]
fn s2_what_a_default_scrape_class_changes_is_told() {
    let told = |class: &Value| {
        let mut class = class.clone();
        json_patch::merge(&mut class, &json!({"name": "mesh", "default": true}));
        let mut spec = everywhere(&json!({}));
        spec["scrapeClasses"] = json!([{"name": "other", "relabelings": [{}]}, class]);
        let cluster = cluster(vec![prometheus("kps", &spec)]);
        select(&cluster, &Asked::default())
            .unwrap()
            .warnings
            .into_iter()
            .map(|warning| warning.to_string())
            .collect::<String>()
    };
    // The scheme is the monitor's: seen on operator 0.93.1 and Prometheus 3.13.1.
    assert_eq!(told(&json!({"tlsConfig": {"insecureSkipVerify": true}, "attachMetadata": {"node": true}})), "");
    let changed = told(&json!({"metricRelabelings": [{"action": "drop"}], "authorization": {"type": "Bearer"}}));
    assert!(
        changed.starts_with("ScrapeClassApplies: ") && changed.contains("metricRelabelings, authorization"),
        "{changed}"
    );
}

#[test]
fn limits_of_a_scrape_are_named() {
    let mut spec = everywhere(&json!({}));
    json_patch::merge(&mut spec, &json!({"enforcedSampleLimit": 1000, "bodySizeLimit": "5MB", "labelLimit": 0}));
    let cluster = cluster(vec![prometheus("kps", &spec)]);
    let why = select(&cluster, &Asked::default()).unwrap().why;
    assert!(why.ends_with("is lost whole (bodySizeLimit: 5MB, enforcedSampleLimit: 1000)"), "{why}");
}

#[test]
fn s3_a_timeout_longer_than_the_interval_would_be_rejected() {
    let mut spec = everywhere(&json!({}));
    spec["scrapeInterval"] = json!("15s");
    let kps = prometheus("kps", &spec);
    let monitor = |endpoint: Value| json!({"spec": {"endpoints": [endpoint]}});
    let why = kps.rejects(&monitor(json!({"scrapeTimeout": "30s"}))).unwrap();
    assert_eq!(why, "scrapeTimeout 30s is longer than the interval, 15s");
    assert_eq!(kps.rejects(&monitor(json!({"scrapeTimeout": "30s", "interval": "1m"}))), None);
    assert_eq!(kps.rejects(&monitor(json!({}))), None);
}

#[test]
fn openshift_user_workload_monitoring() {
    let spec = json!({
        "serviceMonitorSelector": text("openshift.io/user-monitoring NotIn false"),
        "serviceMonitorNamespaceSelector": text("openshift.io/cluster-monitoring NotIn true;openshift.io/user-monitoring NotIn false"),
        "ignoreNamespaceSelectors": true,
        "enforcedNamespaceLabel": "namespace",
        "overrideHonorLabels": true,
        "arbitraryFSAccessThroughSMs": {"deny": true},
        "serviceDiscoveryRole": "EndpointSlice",
        "scrapeClasses": [{"name": "global-config", "default": true}],
    });
    let uwm = json!({
        "kind": "Prometheus",
        "metadata": {
            "namespace": "openshift-user-workload-monitoring",
            "name": "user-workload",
            "annotations": {"operator.prometheus.io/controller-id": "openshift-user-workload-monitoring/prometheus-operator"},
        },
        "spec": spec,
    });
    let mut cluster = cluster(vec![parse(&uwm)]);
    cluster.operators = vec![operator(&[
        "--prometheus-instance-namespaces=openshift-user-workload-monitoring",
        "--deny-namespaces=openshift-monitoring",
        "--controller-id=openshift-user-workload-monitoring/prometheus-operator",
    ])];
    let selection = select(&cluster, &Asked::default()).unwrap();
    assert_eq!(selection.placements[0].namespace, "edge");
    assert_eq!(selection.placements[0].labels, labels("managed-by=gwmon"));
    assert_eq!(reasons(&selection), []);

    cluster.namespaces.get_mut("edge").unwrap().extend(labels("openshift.io/user-monitoring=false"));
    let error = one(&cluster).unwrap_err();
    assert!(error.contains("kubectl label namespace edge openshift.io/user-monitoring-"), "{error}");
}

#[test]
fn the_first_condition_that_fails_is_told_with_both_sides() {
    let spec = json!({"serviceMonitorSelector": {"matchLabels": {"release": "kps"}}, "serviceMonitorNamespaceSelector": {"matchLabels": {"scraped": "yes"}}});
    let mut cluster = cluster(vec![prometheus("kps", &spec)]);
    let told = |cluster: &Cluster, set: &str| {
        let unmet = cluster.selects(&cluster.scrapers[0], "edge", &labels(set)).unwrap_err();
        (unmet.condition, unmet.detail)
    };
    assert_eq!(
        told(&cluster, ""),
        (
            Condition::Namespace,
            "spec.serviceMonitorNamespaceSelector needs scraped=yes, has none on namespace edge".to_owned()
        )
    );
    cluster.namespaces.get_mut("edge").unwrap().extend(labels("scraped=yes"));
    assert_eq!(
        told(&cluster, ""),
        (Condition::Labels, "spec.serviceMonitorSelector needs release=kps, has none".to_owned())
    );
    assert_eq!(told(&cluster, "release=x").1, "spec.serviceMonitorSelector needs release=kps, has release=x");
    cluster.operators = vec![operator(&["--deny-namespaces=edge"])];
    assert_eq!(told(&cluster, "").0, Condition::Watched);
    assert!(cluster.selects(&cluster.scrapers[0], "monitoring", &labels("release=kps")).is_err());
    cluster.operators = vec![];
    assert_eq!(reasons(&select(&cluster, &Asked::default()).unwrap()), [Reason::OperatorUnknown]);
    assert_eq!(cluster.selects(&cluster.scrapers[0], "edge", &labels("release=kps")), Ok(()));
}

#[test]
fn who_comes_first() {
    let home = everywhere(&json!({"matchLabels": {"by": "home"}}));
    let away = json!({"serviceMonitorSelector": {}});
    let agent = parse(&json!({"kind": "PrometheusAgent", "metadata": {"namespace": "a", "name": "a"}, "spec": home}));
    let first = |scrapers: Vec<Scraper>, asked: &Asked| {
        let cluster = cluster(scrapers);
        select(&cluster, asked).map(|selection| selection.readers[0].to_string()).map_err(|finding| finding.reason)
    };
    let (b, c) = (prometheus("b", &home), prometheus("c", &everywhere(&json!({"matchLabels": {"by": "c"}}))));
    let best = Asked::default();
    // Who reads the gateway's namespace, before who does not; a Prometheus before an agent; then by name.
    assert_eq!(first(vec![prometheus("a", &away), c.clone()], &best).unwrap(), "Prometheus monitoring/c");
    assert_eq!(first(vec![agent.clone(), c.clone()], &best).unwrap(), "Prometheus monitoring/c");
    assert_eq!(first(vec![c.clone(), b.clone()], &best).unwrap(), "Prometheus monitoring/b");
    // Who reads a monitor that is there already, before who does not.
    let existing = Asked { existing_monitors: vec![labels("by=c")], ..Asked::default() };
    assert_eq!(first(vec![b.clone(), c.clone()], &existing).unwrap(), "Prometheus monitoring/c");
    // Who is named, before all.
    let named = |name: &str| Asked {
        target: Target::Named { namespace: "monitoring".to_owned(), name: name.to_owned() },
        ..Asked::default()
    };
    assert_eq!(first(vec![b.clone(), prometheus("z", &away)], &named("z")).unwrap(), "Prometheus monitoring/z");
    assert_eq!(first(vec![b], &named("nobody")).unwrap_err(), Reason::PrometheusNotFound);
}

#[test]
fn a_label_of_a_gitops_tool_is_set_and_told() {
    let cluster =
        cluster(vec![prometheus("kps", &everywhere(&json!({"matchLabels": {"app.kubernetes.io/instance": "apps"}})))]);
    let selection = select(&cluster, &Asked::default()).unwrap();
    assert_eq!(selection.placements[0].labels["app.kubernetes.io/instance"], "apps");
    assert_eq!(reasons(&selection), [Reason::TrackingLabelRequired]);
}

#[test]
fn what_cannot_be_read_is_an_obstacle_and_not_lost() {
    let broken = prometheus("kps", &json!({"serviceMonitorSelector": "all", "paused": 7}));
    let error = one(&cluster(vec![broken])).unwrap_err();
    assert!(error.contains("spec cannot be read: ") && error.contains("serviceMonitorSelector"), "{error}");
    let good = prometheus("good", &everywhere(&json!({})));
    let malformed = prometheus("a", &everywhere(&text("k Near x")));
    assert_eq!(one(&cluster(vec![malformed, good])).unwrap().0, "edge");
}

const KEYS: [&str; 3] = ["a", "b", "c"];
const VALUES: [&str; 5] = ["true", "gwmon", "gwmon-1", "x", "y"];

/// A selector as data: what the counting solver understands without the code under test.
type Conditions = Vec<(usize, u8, Vec<usize>)>;

fn conditions() -> impl Strategy<Value = Conditions> {
    // `gwmon-1` is never named, so that a value is left where any would do.
    let values = proptest::sample::subsequence(vec![0, 1, 3, 4], 1..=3);
    proptest::collection::vec((0..KEYS.len(), 0_u8..4, values), 0..4)
}

fn some_labels() -> impl Strategy<Value = Vec<Option<usize>>> {
    proptest::collection::vec(proptest::option::weighted(0.3, 0..VALUES.len()), KEYS.len())
}

fn holds(conditions: &Conditions, assignment: &[Option<usize>]) -> bool {
    conditions.iter().all(|(key, operator, values)| {
        let value = assignment[*key];
        match operator {
            0 => value.is_some_and(|value| values.contains(&value)),
            1 => !value.is_some_and(|value| values.contains(&value)),
            2 => value.is_some(),
            _ => value.is_none(),
        }
    })
}

fn selector_of(conditions: &Conditions) -> Selector {
    let parts: Vec<_> = conditions
        .iter()
        .map(|(key, operator, values)| {
            let (key, list) = (KEYS[*key], values.iter().map(|i| VALUES[*i]).collect::<Vec<_>>().join(","));
            match operator {
                0 => format!("{key} in ({list})"),
                1 => format!("{key} notin ({list})"),
                2 => key.to_owned(),
                _ => format!("!{key}"),
            }
        })
        .collect();
    Selector::parse_text(&parts.join(",")).unwrap()
}

fn as_labels(assignment: &[Option<usize>]) -> Labels {
    let pairs = assignment.iter().enumerate();
    pairs.filter_map(|(key, value)| Some((KEYS[key].to_owned(), VALUES[(*value)?].to_owned()))).collect()
}

/// Every assignment of a value, or none, to every key.
fn assignments() -> Vec<Vec<Option<usize>>> {
    let values = || (0..=VALUES.len()).map(|i| i.checked_sub(1));
    let mut all = vec![vec![]];
    for _ in KEYS {
        all = all
            .into_iter()
            .flat_map(|head: Vec<Option<usize>>| values().map(move |value| [head.clone(), vec![value]].concat()))
            .collect();
    }
    all
}

/// The solver agrees with one that tries everything, on 100,000 sets of one or two selectors with required and default labels:
/// it finds labels exactly where there are some, they satisfy every selector, required labels stay, and nothing is added,
/// changed or taken away that need not be.
#[test]
fn the_solver_agrees_with_one_that_tries_everything() {
    let all: Vec<_> = assignments().into_iter().map(|assignment| (as_labels(&assignment), assignment)).collect();
    let config = ProptestConfig { cases: 100_000, failure_persistence: None, ..ProptestConfig::default() };
    let inputs = (conditions(), proptest::option::of(conditions()), some_labels(), some_labels());
    let satisfiable = std::cell::Cell::new(0);
    proptest::test_runner::TestRunner::new(config)
        .run(&inputs, |(one, two, required, defaults)| {
            let sets: Vec<_> = [Some(one), two].into_iter().flatten().collect();
            let possible: Vec<_> = all
                .iter()
                .filter(|(_, values)| {
                    sets.iter().all(|set| holds(set, values))
                        && required.iter().zip(values).all(|(required, value)| required.is_none() || required == value)
                })
                .collect();
            let selectors: Vec<_> = sets.iter().map(selector_of).collect();
            let solved = solve(&selectors.iter().collect::<Vec<_>>(), &as_labels(&required), &as_labels(&defaults));
            prop_assert_eq!(solved.is_ok(), !possible.is_empty(), "{:?}", solved);
            let Ok(solved) = solved else { return Ok(()) };
            satisfiable.set(satisfiable.get() + 1);
            let start: Vec<_> =
                required.iter().zip(&defaults).map(|(required, defaults)| required.or(*defaults)).collect();
            let changes = |values: &[Option<usize>]| start.iter().zip(values).filter(|(old, new)| old != new).count();
            let found = possible.iter().find(|(labels, _)| *labels == solved).map(|(_, values)| changes(values));
            let fewest = possible.iter().map(|(_, values)| changes(values)).min();
            prop_assert_eq!(found, fewest, "{:?}", solved);
            Ok(())
        })
        .unwrap();
    let satisfiable = satisfiable.get();
    assert!((20_000..99_000).contains(&satisfiable), "both answers must be common: {satisfiable}");
}

#[test]
fn each_case_of_the_specification_has_its_test() {
    let page = include_str!("../../docs/design/selection.md");
    let is_case = |word: &&str| {
        let number = word.strip_prefix(['L', 'N', 'P', 'S']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    let mut cases: Vec<_> = rows.map(|(case, _)| case).filter(is_case).map(str::to_lowercase).collect();
    let names = include_str!("selection.rs").lines().filter_map(|line| line.strip_prefix("fn "));
    let mut tested: Vec<_> = names
        .flat_map(|name| name.split('_').map(str::to_uppercase).take_while(|word| is_case(&word.as_str())))
        .map(|case| case.to_lowercase())
        .collect();
    cases.sort();
    tested.sort();
    assert_eq!((cases.len(), &cases), (32, &tested));
}
