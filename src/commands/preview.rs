//! `gwmon preview`: the webhook's decision and the controller's plan, without touching anything.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anstyle::AnsiColor;
use anyhow::{Context, Result, bail};
use kube::api::{Api, DynamicObject, ListParams};
use kube::config::KubeConfigOptions;
use kube::{Client, Config, ResourceExt};
use serde_json::{Value, json};
use similar::TextDiff;

use crate::annotations::{MONITORED_BY, Version, WORKLOAD_NAMESPACE};
use crate::cli::{Output, Preview};
use crate::injection::patch::Patch;
use crate::injection::{self, Injection, Status, monitor_name, workload, workload_of};
use crate::labels::Labels;
use crate::monitoring::consumer::Kind;
use crate::monitoring::objects::MONITOR;
use crate::monitoring::operator::OPERATOR_LABELS;
use crate::monitoring::{Cluster, Consumer, Gateway, Operator, Plan, plan};
use crate::policy::Policy;
use crate::reason::{Finding, Reason};

/// Prints what gwmon would make of the manifests.
///
/// The exit code is 0 where everything that asks for injection gets it, 1 where something is refused, with
/// the reason on standard error.
///
/// # Errors
/// A file that cannot be read, or a cluster that cannot be asked: exit code 2.
pub fn run(args: Preview) -> Result<ExitCode> {
    let mut objects = Vec::new();
    for file in &args.filename {
        objects.extend(read(file)?);
    }
    let (known, context_namespace) = match (&args.prometheus, args.cluster) {
        (Some(file), _) => (monitoring_of(&read(file)?)?, None),
        (None, true) => ask(args.context.as_deref())?,
        (None, false) => (Known::default(), None),
    };
    let namespace = args.namespace.or(context_namespace).unwrap_or_else(|| "default".to_owned());
    let policy = args.policy.policy(known.kubernetes);

    let mut report =
        Report { output: args.output, known: args.cluster || args.prometheus.is_some(), ..Report::default() };
    for object in objects.iter().filter(|object| template_of(object).is_some()) {
        let name = display_name(object);
        match preview(&policy, &known, object, &namespace) {
            Ok(previewed) => report.add(&name, object, previewed),
            Err(refusal) if refusal.is_warning() => report.refuse(&name, &refusal),
            Err(refusal) => report.note(&name, &refusal.to_string()),
        }
    }
    if objects.iter().all(|object| template_of(object).is_none()) {
        bail!(
            "no workload among the {} objects; gwmon previews Deployments and whatever else has a pod template",
            objects.len()
        );
    }
    report.finish()
}

/// What is known of the cluster.
#[derive(Default)]
struct Known {
    cluster: Cluster,
    /// The labels of other people's ServiceMonitors, by namespace.
    neighbours: BTreeMap<String, Vec<Labels>>,
    /// Which Kubernetes it is.
    kubernetes: Option<Version>,
}

/// One workload as it would run, and what would be made for it.
struct Previewed<'c> {
    after: Value,
    injection: Injection,
    /// `None` where the pod is to be found by its annotations only.
    plan: Option<Plan<'c>>,
}

fn preview<'c>(policy: &Policy, known: &'c Known, object: &Value, namespace: &str) -> Result<Previewed<'c>, Finding> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut after = object.clone();
    if object["kind"] != "Pod" && text("/apiVersion") == "apps/v1" && text("/kind") != "ReplicaSet" {
        apply(&mut after, &workload::decide(policy, &[], &object.to_string())?.patch)?;
    }
    // The pod that the API server would see.
    let template = template_of(&after).cloned().unwrap_or_default();
    let mut pod = template;
    if object["kind"] != "Pod" {
        pod["metadata"]["ownerReferences"] =
            json!([{"kind": object["kind"], "name": text("/metadata/name"), "controller": true}]);
    }
    let injection = injection::decide(policy, &[], &pod.to_string())?;
    apply(&mut pod, &injection.patch)?;

    let metadata = injection::pod::Pod::parse(&pod.to_string())?.metadata;
    let namespace = Some(text("/metadata/namespace")).filter(|own| !own.is_empty()).unwrap_or(namespace);
    let annotations = metadata.annotations.as_ref();
    let monitor = monitor_name(&workload_of(&metadata).unwrap_or_default());
    let gateway = Gateway::of_pod(policy, namespace, &monitor, annotations.unwrap_or(&BTreeMap::new()), None)?;
    if object["kind"] == "Pod" {
        after = pod;
    } else if let (Some(template), Some(map)) = (after.pointer_mut("/spec/template"), pod["metadata"].as_object_mut()) {
        map.remove("ownerReferences");
        *template = pod;
    }
    let neighbours = known.neighbours.get(namespace).map_or(&[][..], Vec::as_slice);
    let plan = metadata.label(MONITORED_BY).is_some().then(|| plan(&gateway, &known.cluster, neighbours));
    Ok(Previewed { after, injection, plan })
}

fn apply(object: &mut Value, patch: &Patch) -> Result<(), Finding> {
    let malformed = |error: &dyn std::fmt::Display| Finding::new(Reason::MalformedObject, error.to_string());
    let operations = patch.to_operations().map_err(|error| malformed(&error))?;
    json_patch::patch(object, &operations).map_err(|error| malformed(&error))
}

/// The pod, or the pod template, of an object that has one.
fn template_of(object: &Value) -> Option<&Value> {
    let template = if object["kind"] == "Pod" { Some(object) } else { object.pointer("/spec/template") };
    template.filter(|template| template.get("spec").is_some())
}

/// `deployment.apps/edge`, as kubectl names things.
fn display_name(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let group = text("/apiVersion").split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    format!("{}{group}/{}", text("/kind").to_lowercase(), text("/metadata/name"))
}

/// What goes to standard output and to standard error.
#[derive(Default)]
struct Report {
    output: Output,
    /// Whether somebody told which Prometheus there is.
    known: bool,
    diff: String,
    objects: Vec<Value>,
    patches: String,
    notes: String,
    refused: bool,
}

impl Report {
    fn add(&mut self, name: &str, before: &Value, previewed: Previewed) {
        let Previewed { after, injection, plan } = previewed;
        let status = &injection.status;
        let Status { container, gateway, metrics_port, metrics_path, .. } = status;
        let what = match (status.statsd_port, status.mode.as_str()) {
            (Some(port), _) => format!("container {container} is {gateway}; it sends statsd to port {port}"),
            (None, "existing") => format!("container {container} is an exporter already, for {gateway}"),
            (None, _) => format!("container {container} is {gateway} and serves metrics itself"),
        };
        self.note(name, &format!("{what}, Prometheus scrapes port {metrics_port}{metrics_path}"));
        for warning in &injection.warnings {
            self.warn(name, &warning.to_string());
        }
        let _ = writeln!(self.patches, "{}", injection.patch.to_json());
        self.diff(name, Some(before), &after);
        self.objects.push(after);
        let Some(plan) = plan else { return };
        let monitors = plan.monitors.as_deref().unwrap_or_default();
        for object in plan.service.iter().chain(monitors) {
            self.diff(&display_name(object), None, object);
            self.objects.push(object.clone());
        }
        if !self.known {
            self.warn(name, "its ServiceMonitor may need labels; tell which Prometheus there is with --prometheus FILE or --cluster");
            return;
        }
        for warning in &plan.warnings {
            self.warn(name, &warning.to_string());
        }
        match plan.monitors {
            Ok(_) => self.note(name, &plan.why),
            Err(refusal) => self.refuse(name, &refusal),
        }
    }

    fn diff(&mut self, name: &str, before: Option<&Value>, after: &Value) {
        let (old, new) = (before.map(yaml).unwrap_or_default(), yaml(after));
        let from = if before.is_some() { name } else { "/dev/null" };
        let diff = TextDiff::from_lines(&old, &new);
        for line in diff.unified_diff().header(from, name).to_string().lines() {
            let colour = match line.as_bytes().first() {
                _ if line.starts_with("---") || line.starts_with("+++") => None,
                Some(b'+') => Some(AnsiColor::Green),
                Some(b'-') => Some(AnsiColor::Red),
                Some(b'@') => Some(AnsiColor::Cyan),
                _ => None,
            };
            let style = colour.map(AnsiColor::on_default).unwrap_or_default();
            let _ = writeln!(self.diff, "{style}{line}{style:#}");
        }
    }

    fn note(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.notes, "{name}: {text}");
    }

    fn warn(&mut self, name: &str, text: &str) {
        let yellow = AnsiColor::Yellow.on_default();
        let _ = writeln!(self.notes, "{yellow}Warning:{yellow:#} {name}: {text}");
    }

    fn refuse(&mut self, name: &str, refusal: &Finding) {
        self.refused = true;
        self.warn(name, &refusal.to_string());
    }

    fn finish(self) -> Result<ExitCode> {
        let text = match self.output {
            Output::Diff => self.diff,
            Output::Yaml => self.objects.iter().map(yaml).collect::<Vec<_>>().join("---\n"),
            Output::Json => format!("{:#}\n", json!({"apiVersion": "v1", "kind": "List", "items": self.objects})),
            Output::Patch => self.patches,
        };
        anstream::stderr().write_all(self.notes.as_bytes())?;
        match anstream::stdout().write_all(text.as_bytes()) {
            // The reader has seen enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.context("cannot write to standard output")?,
        }
        Ok(ExitCode::from(u8::from(self.refused)))
    }
}

fn yaml(object: &Value) -> String {
    // A JSON value has nothing that YAML could not hold.
    let mut text = serde_saphyr::to_string(object).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The objects of a file of YAML documents or JSON; Lists are taken apart.
fn read(file: &Path) -> Result<Vec<Value>> {
    let shown = file.display();
    let text = if file == Path::new("-") {
        io::read_to_string(io::stdin().lock()).context("cannot read standard input")?
    } else {
        let mut text = String::new();
        std::fs::File::open(file)
            .and_then(|mut file| file.read_to_string(&mut text))
            .with_context(|| format!("cannot read {shown}"))?;
        text
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| format!("{shown} is not YAML"))?;
    let mut objects = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
                if let Some(Value::Array(items)) = list.remove("items") {
                    objects.extend(items);
                }
            }
            object @ Value::Object(_) => objects.push(object),
            other => bail!("{shown}: {other} is not a Kubernetes object"),
        }
    }
    if objects.is_empty() {
        bail!("{shown} holds no objects");
    }
    Ok(objects)
}

/// The cluster's monitoring, out of objects in a file.
fn monitoring_of(objects: &[Value]) -> Result<Known> {
    let Known { mut cluster, mut neighbours, .. } = Known::default();
    for object in objects {
        match object["kind"].as_str() {
            Some("Namespace") => {
                let labels = serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default();
                cluster.namespaces.insert(object["metadata"]["name"].as_str().unwrap_or_default().to_owned(), labels);
            }
            Some("ServiceMonitor") => {
                let metadata = &object["metadata"];
                let labels: Labels = serde_json::from_value(metadata["labels"].clone()).unwrap_or_default();
                if !labels.contains_key(WORKLOAD_NAMESPACE) {
                    let namespace = metadata["namespace"].as_str().unwrap_or_default();
                    neighbours.entry(namespace.to_owned()).or_default().push(labels);
                }
            }
            Some("Deployment") => {
                let operator = Operator::parse(&object.to_string()).with_context(|| display_name(object))?;
                cluster.operators.extend(operator);
            }
            _ => {
                let consumer = Consumer::parse(&object.to_string()).with_context(|| display_name(object))?;
                cluster.consumers.extend(consumer);
            }
        }
    }
    Ok(Known { cluster, neighbours, kubernetes: None })
}

/// The cluster's monitoring, out of the cluster of a kube context, and that context's namespace.
fn ask(context: Option<&str>) -> Result<(Known, Option<String>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config = Config::from_kubeconfig(&options).await.context("cannot use the kubeconfig")?;
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config)?;
        let mut objects = Vec::new();
        let kinds = Kind::ALL.map(|(kind, version)| (version, kind.as_str(), None));
        let rest = [("v1", "Namespace", None), (MONITOR.0, MONITOR.1, None)];
        let operators = OPERATOR_LABELS.map(|label| ("apps/v1", "Deployment", Some(label)));
        for (version, kind, label) in kinds.into_iter().chain(operators).chain(rest) {
            let api = Api::<DynamicObject>::all_with(client.clone(), &crate::controller::api_resource(version, kind));
            let params = label.map_or_else(ListParams::default, |label| ListParams::default().labels(label));
            match api.list(&params).await {
                Ok(list) => objects.extend(list.items.into_iter().map(|mut object| {
                    object.managed_fields_mut().clear();
                    let mut object = json!(object);
                    object["kind"] = json!(kind);
                    object
                })),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).with_context(|| format!("cannot list {kind} objects")),
            }
        }
        let kubernetes = super::oldest_version(&client).await.context("cannot ask the API server for its version")?;
        Ok((Known { kubernetes, ..monitoring_of(&objects)? }, Some(namespace)))
    })
}
