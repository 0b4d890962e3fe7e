//! `gwmon preview`: the webhook's decision and the controller's plan, without touching anything.

mod cluster;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anstyle::AnsiColor;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use similar::TextDiff;

use crate::annotations::{MONITORED_BY, Version, WORKLOAD_NAMESPACE};
use crate::cli::{Output, Preview};
use crate::injection::patch::Patch;
use crate::injection::resources::LimitRange;
use crate::injection::{self, Injection, Status, workload};
use crate::labels::Labels;
use crate::monitoring::{Beside, Cluster, Consumer, Gateway, Operator, Plan, plan};
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
    let connect = || cluster::Cluster::connect(args.context.as_deref());
    let cluster = (args.cluster || args.server).then(connect).transpose()?;
    let mut known = match (&args.prometheus, &cluster) {
        (Some(file), _) => known_from(&read(file)?)?,
        (None, Some(cluster)) if args.cluster => cluster.ask()?,
        (None, _) => Known::default(),
    };
    let context_namespace = cluster.as_ref().map(|cluster| cluster.namespace.clone());
    let namespace = args.namespace.or(context_namespace).unwrap_or_else(|| "default".to_owned());
    let mut ranges: Vec<_> = objects.iter().filter(|object| object["kind"] == "LimitRange").cloned().collect();
    if let Some(cluster) = cluster.as_ref().filter(|_| !args.cluster) {
        // Whoever may create pods somewhere may not read everywhere.
        ranges.extend(cluster.limit_ranges(objects.iter().map(|object| namespace_of(object, &namespace)).collect())?);
        known.kubernetes = cluster.version()?;
    }
    for range in &ranges {
        known.limit(range, &namespace)?;
    }
    let policy = args.policy.policy(known.kubernetes);

    let mut report =
        Report { output: args.output, known: args.cluster || args.prometheus.is_some(), ..Report::default() };
    for object in objects.iter().filter(|object| template_of(object).is_some()) {
        let name = display_name(object);
        match preview(&policy, &known, object, &namespace) {
            Ok(previewed) => {
                let tried = cluster.as_ref().filter(|_| args.server).map(|cluster| {
                    let pod = |object| template_of(object).cloned().unwrap_or_default();
                    let workload = object["metadata"]["name"].as_str().unwrap_or_default();
                    cluster.admit(namespace_of(object, &namespace), workload, pod(&previewed.after), pod(object))
                });
                report.add(&name, object, previewed);
                match tried.transpose()? {
                    Some(Ok(())) => report.note(&name, "the API server admits the pod with what gwmon adds"),
                    Some(Err(refusal)) => report.refuse(&name, &refusal),
                    None => {}
                }
            }
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
    /// What namespaces allow their containers.
    limits: BTreeMap<String, Vec<LimitRange>>,
}

impl Known {
    /// Takes in a LimitRange.
    fn limit(&mut self, object: &Value, namespace: &str) -> Result<()> {
        let range = LimitRange::parse(&object.to_string()).with_context(|| display_name(object))?;
        self.limits.entry(namespace_of(object, namespace).to_owned()).or_default().push(range);
        Ok(())
    }
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
    let namespace = namespace_of(object, namespace);
    let limits = known.limits.get(namespace).map_or(&[][..], Vec::as_slice);
    let mut after = object.clone();
    if object["kind"] != "Pod" && text("/apiVersion") == "apps/v1" && text("/kind") != "ReplicaSet" {
        apply(&mut after, &workload::decide(policy, limits, &object.to_string())?.patch)?;
    }
    // The pod that the API server would see.
    let template = template_of(&after).cloned().unwrap_or_default();
    let mut pod = template;
    if object["kind"] != "Pod" {
        pod["metadata"]["ownerReferences"] =
            json!([{"kind": object["kind"], "name": text("/metadata/name"), "controller": true}]);
    }
    let injection = injection::decide(policy, limits, &pod.to_string())?;
    apply(&mut pod, &injection.patch)?;

    let metadata = injection::pod::Pod::parse(&pod.to_string())?.metadata;
    let annotations = metadata.annotations.as_ref();
    let none = BTreeMap::new();
    let annotations = annotations.unwrap_or(&none);
    let gateway = Gateway::of_pod(policy, namespace, &injection.monitor, annotations, None)?;
    if object["kind"] == "Pod" {
        after = pod;
    } else if let (Some(template), Some(map)) = (after.pointer_mut("/spec/template"), pod["metadata"].as_object_mut()) {
        map.remove("ownerReferences");
        *template = pod;
    }
    let neighbours = known.neighbours.get(namespace).map_or(&[][..], Vec::as_slice);
    let beside = Beside { neighbours, ..Beside::default() };
    let plan = metadata.label(MONITORED_BY).is_some().then(|| plan(&gateway, &known.cluster, &policy.bounds, &beside));
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

/// The object's own namespace, or the one of those that name none.
fn namespace_of<'o>(object: &'o Value, default: &'o str) -> &'o str {
    object["metadata"]["namespace"].as_str().filter(|own| !own.is_empty()).unwrap_or(default)
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
    objects_of(&text).with_context(|| shown.to_string())
}

/// The Kubernetes objects of a stream of YAML or JSON documents; those of a List one by one.
///
/// # Errors
/// What is no YAML, no object, or holds none.
pub fn objects_of(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
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
            other => bail!("{} is not a Kubernetes object", crate::reason::shown(&other.to_string())),
        }
    }
    if objects.is_empty() {
        bail!("it holds no objects");
    }
    Ok(objects)
}

/// What is known of a cluster from its objects.
fn known_from(objects: &[Value]) -> Result<Known> {
    let mut known = Known::default();
    for object in objects {
        let Known { cluster, neighbours, .. } = &mut known;
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
            Some("LimitRange") => known.limit(object, "default")?,
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
    Ok(known)
}
