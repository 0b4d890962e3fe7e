//! `gwmon preview`: the webhook's decision and the controller's plan, without touching anything. One document after the other
//! is read, decided and printed, so that a stream may be as long as it likes.

mod cluster;
pub(super) mod input;
pub(super) mod report;
pub(super) mod workload;

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cli::{ClusterArgs, Preview};
use crate::cluster::Snapshot;
use crate::commands::connection::Connection;
use crate::config::Config;
use crate::injection::predict::template_path;
use crate::manifest::{self, display_name, namespace_of};
use crate::reason::{Reason, shown};
use crate::reload;
use input::{Document, Source, sources};
use report::{Report, note};
use workload::{advice, ask, malformed, preview};

/// Prints what gwmon would make of the manifests.
///
/// The exit code is 0 where everything that asks for injection gets it, 1 where something is refused or a document cannot be
/// read, with the reason on standard error.
///
/// # Errors
/// A file that is not there, or a cluster that cannot be asked: exit code 2.
pub fn run(args: Preview) -> Result<ExitCode> {
    let sources = sources(&args.manifests.filename, args.manifests.recursive)?;
    let is_connected = args.cluster || args.server;
    if !is_connected && args.connection != ClusterArgs::default() {
        bail!("the flags of a cluster take effect with --cluster or --server only");
    }
    let cluster = is_connected.then(|| Connection::open(&args.connection)).transpose()?;
    let mut snapshot = match (&args.prometheus, &cluster) {
        (Some(file), _) => snapshot_of(file)?,
        (None, Some(cluster)) if args.cluster => cluster.snapshot()?,
        (None, _) => Snapshot::default(),
    };
    let context_namespace = cluster.as_ref().map(|cluster| cluster.namespace.clone());
    let namespace = args.namespace.or(context_namespace).unwrap_or_else(|| "default".to_owned());
    if let Some(cluster) = cluster.as_ref().filter(|_| !args.cluster) {
        snapshot.kubernetes = cluster.version()?;
    }
    let is_prometheus_known = args.cluster || args.prometheus.is_some();
    let mut report = Report::new(args.output, is_prometheus_known);
    for (object, why) in std::mem::take(&mut snapshot.left_out) {
        note(&object, &format!("left out, since it cannot be read: {why}"))?;
    }
    for source in &sources {
        for document in source.documents(&Snapshot::NAMESPACE_KINDS)? {
            let Document { place, value } = document?;
            // What cannot be read is reported in the second pass.
            for object in value.into_iter().flat_map(manifest::objects) {
                let is_read = object["kind"].as_str().is_some_and(|kind| Snapshot::NAMESPACE_KINDS.contains(&kind));
                if is_read && let Err(finding) = snapshot.take(&object, &namespace) {
                    report.unreadable(&place, &format!("{}: {finding}", display_name(&object, &namespace)))?;
                }
            }
        }
    }
    let file = args.config.config.as_deref().map(reload::read).transpose()?.unwrap_or_default();
    let config = args.config.config(&file, snapshot.kubernetes);
    let mut previewer = Previewer {
        config,
        snapshot,
        namespace,
        // The right to create pods does not imply cluster-wide reads.
        server: cluster.filter(|_| args.server),
        asks_for_limits: args.server && !args.cluster,
        injects: args.inject,
        tells_changes: args.exit_code,
        report,
        objects: 0,
        workloads: 0,
        unreadable: 0,
    };
    // One thread reads ahead, by a few documents.
    std::thread::scope(|scope| {
        let (read, documents) = mpsc::sync_channel(AHEAD);
        scope.spawn(move || read_all(&sources, &read));
        for document in documents {
            previewer.document(document?)?;
            if previewer.report.is_closed() {
                return previewer.report.finish(args.exit_code);
            }
        }
        previewer.finish()
    })
}

/// The cluster as a file has it.
///
/// # Errors
/// A file that is not there, or an object in it that cannot be read: the file is the user's own.
pub(super) fn snapshot_of(file: &PathBuf) -> Result<Snapshot> {
    let sources = input::sources(std::slice::from_ref(file), false)?;
    let objects: Result<Vec<_>> = sources.iter().map(Source::objects).collect();
    let snapshot = Snapshot::of(objects?.concat());
    match snapshot.left_out.first() {
        Some((object, why)) => bail!("{object}: {why}"),
        None => Ok(snapshot),
    }
}

/// Documents that are read before they are due.
const AHEAD: usize = 16;

/// Passes on every document, until the receiver is gone.
fn read_all(sources: &[Source], read: &mpsc::SyncSender<Result<Document>>) {
    for source in sources {
        match source.documents(&[]) {
            Ok(mut documents) => {
                if documents.any(|document| read.send(document).is_err()) {
                    return;
                }
            }
            Err(error) => {
                let _ = read.send(Err(error));
            }
        }
    }
}

struct Previewer {
    config: Config,
    snapshot: Snapshot,
    /// The namespace of objects that name none.
    namespace: String,
    server: Option<Connection>,
    /// Reads the LimitRanges of a namespace when it first occurs.
    asks_for_limits: bool,
    /// Treats gateways without an annotation as if they asked for injection.
    injects: bool,
    /// Exits with another code if something would change.
    tells_changes: bool,
    report: Report,
    objects: usize,
    workloads: usize,
    unreadable: usize,
}

impl Previewer {
    fn document(&mut self, Document { place, value }: Document) -> Result<()> {
        let objects = match value {
            Ok(value) => manifest::objects(value),
            Err(why) => {
                self.unreadable += 1;
                return self.report.unreadable(&place, &why);
            }
        };
        for object in objects {
            self.objects += 1;
            if !object.is_object() {
                self.unreadable += 1;
                let text = object.as_str().map_or_else(|| object.to_string(), str::to_owned);
                let why = format!("{} is not a Kubernetes object", shown(&text));
                self.report.unreadable(&place, &why)?;
            } else if let Some(why) = malformed(&object) {
                self.unreadable += 1;
                self.report.unreadable(&place, &why)?;
            } else if let Some(path) = template_path(&object) {
                self.workload(&object, path)?;
            }
        }
        Ok(())
    }

    fn workload(&mut self, before: &Value, path: &str) -> Result<()> {
        self.workloads += 1;
        let namespace = namespace_of(before, &self.namespace).to_owned();
        if self.asks_for_limits
            && !self.snapshot.limit_ranges.contains_key(&namespace)
            && let Some(cluster) = &self.server
        {
            self.snapshot.limit_ranges.entry(namespace.clone()).or_default();
            for range in cluster.limit_ranges(&namespace)? {
                if let Err(finding) = self.snapshot.take(&range, &namespace) {
                    let name = display_name(&range, &namespace);
                    note(&name, &format!("left out, since it cannot be read: {finding}"))?;
                }
            }
        }
        let name = display_name(before, &namespace);
        let mut object = Cow::Borrowed(before);
        if self.injects {
            ask(object.to_mut(), path);
        }
        match preview(&self.config, &self.snapshot, &object, path, &namespace) {
            Ok(previewed) => {
                let tried = self.server.as_ref().map(|cluster| {
                    let pod = |object: &Value| object.pointer(path).cloned().unwrap_or_default();
                    let workload = object["metadata"]["name"].as_str().unwrap_or_default();
                    cluster.admit(&namespace, workload, pod(&previewed.after), pod(&object))
                });
                self.report.add(&name, &namespace, before, previewed)?;
                match tried.transpose()? {
                    Some(Ok(())) => note(&name, "the API server admits the pod with what gwmon adds"),
                    Some(Err(refusal)) => self.report.refuse(&name, &refusal),
                    None => Ok(()),
                }
            }
            Err(refusal) if refusal.is_warning() => self.report.refuse(&name, &refusal),
            Err(refusal) => {
                let advice = advice(&object, path, &namespace).filter(|_| refusal.reason == Reason::NotRequested);
                note(&name, &advice.map_or_else(|| refusal.to_string(), |advice| format!("{refusal}; {advice}")))
            }
        }
    }

    fn finish(self) -> Result<ExitCode> {
        if self.workloads == 0 && self.unreadable == 0 {
            if self.objects == 0 {
                bail!("there are no objects in what --filename names");
            }
            bail!(
                "no workload among the {} objects; gwmon previews Deployments and whatever else has a pod template",
                self.objects
            );
        }
        self.report.finish(self.tells_changes).context("cannot end the output")
    }
}
