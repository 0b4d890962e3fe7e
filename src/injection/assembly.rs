//! The plan of an injection: every addition to the pod, with its description for the status and its part in the hash
//! that tells two injections apart.

use super::exporter::{self, Exporter};
use super::naming::short_hash;
use super::patch::{ContainerPatch, PodPatch, quoted};
use super::status::Status;
use crate::annotations::{BOOTSTRAP, MAPPING, STATUS, Sidecar};
use crate::config::Config;

#[derive(Default)]
pub(super) struct InjectionPlan {
    patch: PodPatch,
    added: Vec<String>,
    contents: Vec<String>,
}

impl InjectionPlan {
    pub(super) fn label(&mut self, key: &'static str, value: &str) {
        self.added.push(format!("labels/{key}"));
        self.patch.labels.push((key, quoted(value)));
    }

    pub(super) fn annotation(&mut self, key: &'static str, value: String) {
        self.added.push(format!("annotations/{key}"));
        self.patch.annotations.push((key, quoted(&value)));
        self.contents.push(value);
    }

    pub(super) fn exporter(&mut self, config: &Config, exporter: &Exporter) {
        let list = if exporter.kind == Sidecar::Native { "initContainers" } else { "containers" };
        self.added.push(format!("{list}/{}", exporter::CONTAINER));
        self.added.push(format!("volumes/{}", exporter::MAPPING_VOLUME));
        let container = exporter.container(config);
        self.contents.extend([container.clone(), exporter.mapping.hash().to_owned()]);
        self.patch.annotations.push((MAPPING, exporter.mapping.text().into()));
        self.patch.volumes.push(exporter::MAPPING_VOLUME_OBJECT.as_str().into());
        self.patch.sidecar = Some((exporter.kind, container.into()));
    }

    /// Adds to the gateway's container, and the file that it reads.
    pub(super) fn container(&mut self, index: usize, name: &str, mut additions: ContainerPatch, file: Option<String>) {
        if let Some(file) = file {
            let (volume, mount) = exporter::bootstrap_file();
            self.added.push(format!("volumes/{}", exporter::BOOTSTRAP_VOLUME));
            self.patch.annotations.push((BOOTSTRAP, quoted(&file)));
            self.patch.volumes.push(volume);
            additions.mounts.push(mount);
            self.contents.push(file);
        }
        let part = |what: &str| format!("containers/{name}/{what}");
        self.added.extend((!additions.args.is_empty()).then(|| part("args")));
        self.added.extend(additions.env.iter().map(|(name, _)| part(&format!("env/{name}"))));
        self.added.extend(additions.merged.iter().map(|merged| part(&merged.path)));
        self.contents.extend(additions.args.iter().cloned());
        self.contents.extend(additions.env.iter().map(|(_, value)| value.clone()));
        self.contents.extend(additions.merged.iter().map(|merged| merged.to.clone()));
        self.patch.container = index;
        self.patch.additions = additions;
    }

    /// Completes the status, and notes it on the pod.
    pub(super) fn finish(mut self, status: Status) -> (PodPatch, Status) {
        let scraped = format!("{}{}", status.metrics_port, status.metrics_path);
        let parts: Vec<_> = self.contents.iter().chain(&self.added).chain([&scraped]).collect();
        let hash = short_hash(&parts);
        let status = Status { added: self.added, hash, ..status };
        self.patch.annotations.push((STATUS, quoted(&status.to_json())));
        (self.patch, status)
    }
}
