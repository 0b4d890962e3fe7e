//! The JSON Patch of a pod, made of `add` operations only.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::{Map, Value, json};

use super::pod::Pod;

/// What to add to a pod. Collected by meaning first; [`PodPatch::build`] knows which parents are missing, so
/// that no list is made twice and none is taken to exist that does not (R20).
#[derive(Debug, Default)]
pub struct PodPatch {
    /// Labels of the pod.
    pub labels: Vec<(&'static str, String)>,
    /// Annotations of the pod.
    pub annotations: Vec<(&'static str, String)>,
    /// Volumes, appended.
    pub volumes: Vec<Value>,
    /// An init container that goes before all others, so that it runs before any of them needs it.
    pub first_init_container: Option<Value>,
    /// Additions to one of `spec.containers`.
    pub container: Option<(usize, ContainerPatch)>,
}

/// Additions to one container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ContainerPatch {
    /// Arguments, appended.
    pub args: Vec<String>,
    /// Environment variables, appended.
    pub env: Vec<(&'static str, String)>,
}

impl PodPatch {
    /// The operations that bring this about on just this pod, in an order that never varies. Their cost is
    /// that of what is added, not of what the pod holds (R22).
    #[must_use]
    pub fn build(self, pod: &Pod) -> Patch {
        let mut ops = Ops::default();
        ops.entries(&["metadata", "labels"], pod.metadata.labels.is_some(), self.labels);
        ops.entries(&["metadata", "annotations"], pod.metadata.annotations.is_some(), self.annotations);
        ops.items(&["spec", "volumes"], pod.spec.volumes.is_some(), self.volumes);
        if let Some(container) = self.first_init_container {
            if pod.spec.init_containers.is_some() {
                ops.add(&["spec", "initContainers", "0"], container);
            } else {
                ops.add(&["spec", "initContainers"], json!([container]));
            }
        }
        if let Some((index, added)) = self.container {
            let container = pod.spec.containers.iter().flatten().nth(index);
            let index = index.to_string();
            let at = |list| ["spec", "containers", index.as_str(), list];
            let args = added.args.into_iter().map(Value::from).collect();
            ops.items(&at("args"), container.is_some_and(|c| c.args.is_some()), args);
            let env = added.env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            ops.items(&at("env"), container.is_some_and(|c| c.env.is_some()), env);
        }
        Patch(ops.0)
    }
}

/// Operations in the making.
#[derive(Default)]
pub(crate) struct Ops(pub(crate) Vec<PatchOperation>);

impl Ops {
    pub(crate) fn add(&mut self, path: &[&str], value: Value) {
        self.0.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }

    /// Adds entries to a map that may have to be made.
    pub(crate) fn entries(&mut self, map: &[&str], exists: bool, entries: Vec<(&str, String)>) {
        if exists {
            for (key, value) in entries {
                self.add(&[map, &[key]].concat(), Value::from(value));
            }
        } else if !entries.is_empty() {
            let made: Map<_, _> = entries.into_iter().map(|(k, v)| (k.to_owned(), Value::from(v))).collect();
            self.add(map, Value::Object(made));
        }
    }

    /// Appends items to a list that may have to be made.
    fn items(&mut self, list: &[&str], exists: bool, items: Vec<Value>) {
        if exists {
            for item in items {
                self.add(&[list, &["-"]].concat(), item);
            }
        } else if !items.is_empty() {
            self.add(list, Value::Array(items));
        }
    }
}

/// A JSON pointer; `/` and `~` in the tokens are escaped.
pub(crate) fn pointer(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().copied())
}
