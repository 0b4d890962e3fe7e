//! gwmon beside the Prometheus Operator's own packages: which monitors are selected in random clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use gwmon::annotations::Target;
use gwmon::config::Bounds;
use gwmon::kubernetes::labels::Labels;
use gwmon::monitoring::selection::SelectionRequest;
use gwmon::monitoring::{Cluster, Operator, Scraper};
use gwmon::reason::Reason;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::{Union, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

const CLUSTERS: usize = 2_500;
const NAMESPACES: [&str; 3] = ["edge", "monitoring", "team"];
/// The operator's flags that have no say in what it selects, each with values that it takes. One of them looks like a flag
/// that has.
const OTHER_FLAGS: &[(&str, &[&str])] = &[
    ("alertmanager-config-namespaces", &["edge", ""]),
    ("alertmanager-default-base-image", &["quay.io/prometheus/alertmanager"]),
    ("alertmanager-instance-namespaces", &["edge,team", ""]),
    ("alertmanager-instance-selector", &["a=x", ""]),
    ("annotations", &["a=b", "--namespaces=gone", ""]),
    ("apiserver", &["http://127.0.0.1:8080"]),
    ("as", &["somebody", "--controller-id=blue"]),
    ("auto-gomemlimit-ratio", &["0.7"]),
    ("ca-file", &["ca.crt"]),
    ("cert-file", &["tls.crt"]),
    ("cluster-domain", &["cluster.local"]),
    ("config-reloader-cpu-limit", &["0", "10m"]),
    ("config-reloader-cpu-request", &["10m"]),
    ("config-reloader-memory-limit", &["0"]),
    ("config-reloader-memory-request", &["50Mi"]),
    ("configmap-field-selector", &["metadata.namespace!=gone"]),
    ("configmap-label-selector", &["a=x"]),
    ("feature-gates", &["PrometheusAgentDaemonSet=true", "StatusForConfigurationResources=true"]),
    ("key-file", &["tls.key"]),
    ("kubelet-node-address-priority", &["external"]),
    ("kubelet-selector", &["a=x"]),
    ("kubelet-service", &["kube-system/kubelet", "-"]),
    ("kubelet-sync-period", &["5m"]),
    ("labels", &["a=b", "--deny-namespaces=edge", "start=1"]),
    ("localhost", &["127.0.0.1", "--", "start"]),
    ("log-format", &["json"]),
    ("log-level", &["debug", "all"]),
    ("prometheus-config-reloader", &["quay.io/prometheus-operator/prometheus-config-reloader"]),
    ("prometheus-default-base-image", &["quay.io/prometheus/prometheus"]),
    ("repair-policy-for-statefulsets", &["evict"]),
    ("secret-field-selector", &["type!=kubernetes.io/service-account-token"]),
    ("secret-label-selector", &["a=x"]),
    ("thanos-default-base-image", &["quay.io/thanos/thanos"]),
    ("thanos-ruler-instance-namespaces", &["edge"]),
    ("thanos-ruler-instance-selector", &["a=x"]),
    ("web.cert-file", &["tls.crt"]),
    ("web.client-ca-file", &["ca.crt"]),
    ("web.key-file", &["tls.key"]),
    ("web.listen-address", &[":8080", "-namespaces=gone"]),
    ("web.tls-cipher-suites", &["TLS_AES_128_GCM_SHA256"]),
    ("web.tls-curves", &["X25519"]),
    ("web.tls-min-version", &["VersionTLS13"]),
    ("web.tls-reload-interval", &["1m"]),
];
/// Those that take no word after them.
const SWITCHES: &[&str] = &[
    "disable-unmanaged-prometheus-configuration",
    "enable-config-reloader-probes",
    "kubelet-endpoints",
    "kubelet-endpointslice",
    "kubelet-http-metrics",
    "tls-insecure",
    "watch-referenced-objects-in-all-namespaces",
    "web.enable-http2",
    "web.enable-tls",
];
/// Those after which it prints its version and ends.
const ENDING: &[&str] = &["short-version", "version"];
const SELECTING: &[&str] = &[
    "controller-id",
    "deny-namespaces",
    "namespaces",
    "prometheus-instance-namespaces",
    "prometheus-instance-selector",
];

/// The Go program that asks the operator's packages: a cluster a line, an answer a line.
struct Oracle {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Oracle {
    fn start() -> Self {
        gwmon_cluster::build().unwrap();
        let mut oracle = Command::new(gwmon_cluster::program("oracle"));
        let mut process = oracle.arg("selection").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, output }
    }

    fn ask(&mut self, clusters: &[Value]) -> Vec<Value> {
        let Self { input, output, .. } = self;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for cluster in clusters {
                    writeln!(input, "{cluster}").unwrap();
                }
                input.flush().unwrap();
            });
            let answers = output.lines().take(clusters.len());
            answers.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
        })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One or several words that Go's package `flag` takes for this flag.
fn forms(flag: &'static str, value: impl Strategy<Value = String> + 'static) -> BoxedStrategy<Vec<String>> {
    let words = move |(value, dashes, apart): (String, &str, bool)| {
        if apart { vec![format!("{dashes}{flag}"), value] } else { vec![format!("{dashes}{flag}={value}")] }
    };
    (value, select(vec!["--", "-"]), any::<bool>()).prop_map(words).boxed()
}

/// A list of namespaces: what is there, what is not, what an untidy hand writes, and the value of a variable.
fn names() -> impl Strategy<Value = String> {
    let one = prop_oneof![
        12 => select(NAMESPACES.to_vec()),
        1 => select(vec!["gone", "", " edge", "team ", "$(WHERE)"]),
    ];
    vec(one, 1..3).prop_map(|names| names.join(","))
}

fn instance_selector() -> impl Strategy<Value = String> {
    let texts = "a=x;a;!b;a!=x;a in (x,y);a notin (x);a==y;; a = x , !b ;b in ();a=;b>1;a<2;a in(x,1),!b";
    select(texts.split(';').collect::<Vec<_>>()).prop_map(str::to_owned)
}

fn controller_id() -> impl Strategy<Value = String> {
    select(vec!["blue", "", "green/one"]).prop_map(str::to_owned)
}

/// A flag that has no say.
fn other_flag() -> BoxedStrategy<Vec<String>> {
    let switch = |flag: &'static str| {
        select(vec!["", "=true", "=false", "=1"]).prop_flat_map(move |value| {
            select(vec!["--", "-"]).prop_map(move |dashes| vec![format!("{dashes}{flag}{value}")])
        })
    };
    let ending = |flag: &'static str| select(vec![vec![format!("--{flag}=false")], vec![format!("-{flag}=F")]]).boxed();
    let valued = OTHER_FLAGS.iter().map(|(flag, values)| forms(flag, select(values.to_vec()).prop_map(str::to_owned)));
    Union::new(
        valued.chain(SWITCHES.iter().map(|flag| switch(flag).boxed())).chain(ENDING.iter().map(|flag| ending(flag))),
    )
    .boxed()
}

/// What an operator is started with. Mostly either of the two lists, since it does not start with both.
fn arguments() -> impl Strategy<Value = Vec<String>> {
    let list = select(vec!["namespaces", "deny-namespaces"]).prop_flat_map(|list| {
        let flag = prop_oneof![
            4 => forms(list, names()),
            3 => forms("prometheus-instance-namespaces", names()),
            1 => forms("prometheus-instance-selector", instance_selector()),
            1 => forms("controller-id", controller_id()),
            2 => other_flag(),
        ];
        let flags = || vec(flag.clone(), 0..5).prop_map(|groups| groups.concat());
        // What stands behind a word that is no flag, or behind two dashes, is none.
        let end = select(vec![vec!["start"], vec!["--"], vec!["--", "start"]]);
        let tail = (end, flags()).prop_map(|(end, rest)| [end.into_iter().map(str::to_owned).collect(), rest].concat());
        (flags(), proptest::option::weighted(0.1, tail))
    });
    list.prop_map(|(flags, tail)| [flags, tail.unwrap_or_default()].concat())
}

fn operators() -> impl Strategy<Value = Vec<Value>> {
    let deployment = (arguments(), proptest::option::weighted(0.3, 0..3_usize), any::<bool>());
    vec(deployment, 1..4).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered.map(|(number, (words, command, beside))| deployment_of(number, words, command, beside)).collect()
    })
}

/// `command` words stand in the command, behind the program, and the rest in the arguments.
fn deployment_of(number: usize, mut words: Vec<String>, command: Option<usize>, beside: bool) -> Value {
    let mut operator = json!({
        "name": "prometheus-operator",
        "image": "quay.io/prometheus-operator/prometheus-operator:v0.93.1",
        "env": [{"name": "WHERE", "value": "edge,team"}],
    });
    if let Some(count) = command {
        let rest = words.split_off(count.min(words.len()));
        operator["command"] = [vec!["/bin/operator".to_owned()], words].concat().into();
        words = rest;
    }
    operator["args"] = words.into();
    let proxy = json!({"name": "proxy", "image": "kube-rbac-proxy", "args": ["--namespaces=gone"]});
    let containers = if beside { vec![proxy, operator] } else { vec![operator] };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "monitoring", "name": format!("operator-{number}")},
        "spec": {"template": {"spec": {"containers": containers}}},
    })
}

fn labels() -> impl Strategy<Value = Value> {
    let value = || proptest::option::weighted(0.5, select(vec!["x", "y", "", "1"]));
    (value(), value()).prop_map(|(a, b)| {
        let set = [("a", a), ("b", b)].into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
        Value::Object(set.collect())
    })
}

/// A label selector over these keys and values; now and then one that no operator takes.
fn selector(keys: &[&'static str], values: &[&'static str]) -> impl Strategy<Value = Value> + use<> {
    let (keys, values) = (keys.to_vec(), values.to_vec());
    let equal = (select(keys.clone()), select(values.clone())).prop_map(|(key, value)| json!({key: value}));
    let among = (select(keys.clone()), select(vec!["In", "NotIn"]), subsequence(values, 1..=2))
        .prop_map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}));
    let present = (select(keys), select(vec!["DoesNotExist", "Exists"]))
        .prop_map(|(key, operator)| json!({"key": key, "operator": operator}));
    let wrong = select(vec![
        json!({"key": "a", "operator": "Near", "values": ["x"]}),
        json!({"key": "a", "operator": "In"}),
        json!({"key": "a", "operator": "In", "values": []}),
        json!({"key": "a", "operator": "Exists", "values": ["x"]}),
        json!({"key": "a b", "operator": "Exists"}),
        json!({"key": "a", "operator": "In", "values": ["no label"]}),
        json!({"operator": "Exists"}),
    ]);
    let expression = prop_oneof![12 => among, 8 => present, 1 => wrong];
    prop_oneof![
        5 => Just(json!({})),
        3 => equal.clone().prop_map(|labels| json!({"matchLabels": labels})),
        3 => vec(expression.clone(), 1..3).prop_map(|all| json!({"matchExpressions": all})),
        1 => (equal, vec(expression, 0..2))
            .prop_map(|(labels, all)| json!({"matchLabels": labels, "matchExpressions": all})),
        1 => Just(json!({"matchLabels": null, "matchExpressions": []})),
    ]
}

/// `None` leaves the field out.
fn field(
    name: &'static str,
    value: impl Strategy<Value = Value>,
    often: f64,
) -> impl Strategy<Value = Option<(&'static str, Value)>> {
    proptest::option::weighted(often, value).prop_map(move |value| Some((name, value?)))
}

fn object_of<const N: usize>(fields: [Option<(&str, Value)>; N]) -> Value {
    Value::Object(fields.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn reader() -> impl Strategy<Value = Value> {
    let or_null = |selector| prop_oneof![12 => selector, 1 => Just(Value::Null)];
    let spec = (
        field("serviceMonitorSelector", or_null(selector(&["a", "b"], &["x", "y", ""]).boxed()), 0.9),
        field(
            "serviceMonitorNamespaceSelector",
            or_null(selector(&["a", "kubernetes.io/metadata.name"], &["x", "edge", "monitoring"]).boxed()),
            0.7,
        ),
        field("podMonitorSelector", Just(json!({})), 0.3),
        field("ignoreNamespaceSelectors", Just(json!(true)), 0.2),
        field("paused", select(vec![json!(false), json!(false), json!(true)]), 0.2),
    )
        .prop_map(|(labels, namespaces, pods, ignore, paused)| object_of([labels, namespaces, pods, ignore, paused]));
    let annotation = "operator.prometheus.io/controller-id";
    let metadata = (
        field("labels", labels(), 0.8),
        field("annotations", controller_id().prop_map(move |id| json!({annotation: id})), 0.3),
        field("deletionTimestamp", Just(json!("2026-01-01T00:00:00Z")), 0.05),
    )
        .prop_map(|(labels, annotations, deleted)| object_of([labels, annotations, deleted]));
    let kind =
        select(vec![("Prometheus", "monitoring.coreos.com/v1"), ("PrometheusAgent", "monitoring.coreos.com/v1alpha1")]);
    (kind, select(NAMESPACES.to_vec()), metadata, spec).prop_map(|((kind, version), namespace, mut metadata, spec)| {
        metadata["namespace"] = json!(namespace);
        json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
    })
}

fn monitor() -> impl Strategy<Value = Value> {
    (select(NAMESPACES.to_vec()), labels()).prop_map(|(namespace, labels)| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor",
            "metadata": {"namespace": namespace, "labels": labels},
            "spec": {"selector": {}, "endpoints": [{"port": "gwmon-metrics"}]},
        })
    })
}

fn namespaces() -> impl Strategy<Value = Vec<Value>> {
    vec(labels(), NAMESPACES.len()).prop_map(|all| {
        let namespace = |(name, mut labels): (&str, Value)| {
            labels["kubernetes.io/metadata.name"] = json!(name);
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        };
        NAMESPACES.into_iter().zip(all).map(namespace).collect()
    })
}

fn random_cluster() -> impl Strategy<Value = Value> {
    let named = |prefix: &'static str, all: Vec<Value>| -> Vec<Value> {
        let named = all.into_iter().enumerate().map(|(number, mut object)| {
            object["metadata"]["name"] = json!(format!("{prefix}-{number}"));
            object
        });
        named.collect()
    };
    (operators(), vec(reader(), 1..4), namespaces(), vec(monitor(), 1..5)).prop_map(
        move |(operators, readers, namespaces, monitors)| {
            json!({
                "operators": operators, "readers": named("reader", readers),
                "namespaces": namespaces, "monitors": named("monitor", monitors),
            })
        },
    )
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn labels_of(object: &Value) -> Labels {
    serde_json::from_value(object["metadata"]["labels"].clone()).unwrap()
}

/// What gwmon knows of the same cluster. An operator that does not start handles nothing, which its Deployment's status
/// tells; it is left out here.
fn known(cluster: &Value, ends: &Value) -> Cluster {
    let running = each(&cluster["operators"]).zip(each(ends)).filter(|(_, end)| *end == "");
    let named = |object: &Value| (object["metadata"]["name"].as_str().unwrap().to_owned(), labels_of(object));
    Cluster {
        scrapers: each(&cluster["readers"]).map(|o| Scraper::parse(&o.to_string()).unwrap().unwrap()).collect(),
        operators: running.map(|(o, _)| Operator::parse(&o.to_string()).unwrap().unwrap()).collect(),
        namespaces: each(&cluster["namespaces"]).map(named).collect(),
    }
}

/// What has been compared.
#[derive(Default)]
struct Count {
    clusters: usize,
    yes: usize,
    no: usize,
    /// Readers that no operator handles.
    unhandled: usize,
}

/// Compares all readers and monitors of a cluster.
fn compare(cluster: &Value, answer: &Value, count: &mut Count) -> Result<(), String> {
    let known = known(cluster, &answer["ends"]);
    if known.operators.is_empty() {
        return Ok(());
    }
    count.clusters += 1;
    for (number, scraper) in known.scrapers.iter().enumerate() {
        let handled = answer["handled"][number] == true;
        count.unhandled += usize::from(!handled);
        for (monitor, theirs) in each(&cluster["monitors"]).zip(each(&answer["selected"][number])) {
            let (namespace, theirs) = (monitor["metadata"]["namespace"].as_str().unwrap(), theirs == true);
            let ours = known.selects(scraper, namespace, &labels_of(monitor));
            *(if theirs { &mut count.yes } else { &mut count.no }) += usize::from(handled);
            // Another operator, which was not found, may run what none of these does.
            let granted = !handled && (ours.is_err() || warns(&known, scraper, namespace));
            if ours.is_ok() != theirs && !granted {
                let name = &monitor["metadata"]["name"];
                return Err(format!("{scraper} and monitor {name}: the operator says {theirs}, gwmon {ours:?}"));
            }
        }
    }
    Ok(())
}

/// Whether gwmon says that it does not know who runs this reader.
fn warns(known: &Cluster, scraper: &Scraper, namespace: &str) -> bool {
    let (owner, name) = scraper.key();
    let target = Target::Named { namespace: owner.to_owned(), name: name.to_owned() };
    let (none, bounds) = (Labels::new(), Bounds::default());
    let request = SelectionRequest {
        namespace,
        target: &target,
        required: &none,
        defaults: &none,
        existing_monitors: &[],
        reader: None,
        bounds: &bounds,
    };
    let told = |warnings: &[gwmon::reason::Finding]| warnings.iter().any(|w| w.reason == Reason::OperatorUnknown);
    known.select(&request).is_ok_and(|selection| told(&selection.warnings))
}

/// The smallest cluster found on which they still disagree, and how they do.
fn shrink(oracle: &mut Oracle, tree: &mut impl ValueTree<Value = Value>, mut told: String) -> (Value, String) {
    let mut smallest = tree.current();
    let mut smaller = tree.simplify();
    for _ in 0..2_000 {
        if !smaller {
            break;
        }
        let tried = tree.current();
        let answer = oracle.ask(std::slice::from_ref(&tried)).remove(0);
        smaller = match compare(&tried, &answer, &mut Count::default()) {
            Err(why) => {
                (smallest, told) = (tried, why);
                tree.simplify()
            }
            Ok(()) => tree.complicate(),
        };
    }
    (smallest, told)
}

#[test]
fn the_predicate_is_the_operators_own() {
    let mut oracle = Oracle::start();
    let mut runner = TestRunner::default();
    let strategy = random_cluster();
    let mut trees: Vec<_> = (0..CLUSTERS).map(|_| strategy.new_tree(&mut runner).unwrap()).collect();
    let clusters: Vec<_> = trees.iter().map(ValueTree::current).collect();
    let answers = oracle.ask(&clusters);
    let mut count = Count::default();
    for ((tree, cluster), answer) in trees.iter_mut().zip(&clusters).zip(&answers) {
        if let Err(told) = compare(cluster, answer, &mut count) {
            let (smallest, told) = shrink(&mut oracle, tree, told);
            panic!("{told}\n{smallest}");
        }
    }
    let Count { clusters, yes, no, unhandled } = count;
    assert!(clusters >= 2_000, "only {clusters} clusters have an operator that starts");
    assert!(
        yes > 500 && no > 2_000 && unhandled > 500,
        "all must be common: {yes} yes, {no} no, {unhandled} unhandled"
    );
}

#[test]
fn every_flag_of_the_operator_is_tried() {
    gwmon_cluster::build().unwrap();
    let help = Command::new(gwmon_cluster::program("operator")).arg("-help").output().unwrap();
    let text = String::from_utf8([help.stdout, help.stderr].concat()).unwrap();
    let real: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("  -")?.split_whitespace().next()).collect();
    let listed = Command::new(gwmon_cluster::program("oracle")).arg("flags").output().unwrap().stdout;
    let oracle: BTreeMap<String, bool> = serde_json::from_slice(&listed).unwrap();
    assert_eq!(oracle.keys().map(String::as_str).collect::<BTreeSet<_>>(), real, "go/monitoring/oracle/flags.go");
    let switches: BTreeSet<_> = SWITCHES.iter().chain(ENDING).copied().collect();
    let valued = OTHER_FLAGS.iter().map(|(flag, _)| flag).chain(SELECTING).copied();
    assert_eq!(valued.chain(switches.iter().copied()).collect::<BTreeSet<_>>(), real);
    let are_switches: BTreeSet<_> = oracle.iter().filter(|(_, is)| **is).map(|(flag, _)| flag.as_str()).collect();
    assert_eq!(are_switches, switches);
}
