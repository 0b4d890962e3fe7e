//! The parts of a pod that decisions read. A view only: it is never written back, so nothing that it does
//! not know can be lost (R16).

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::bounded::{self, CONTAINERS, ENTRIES, PORTS, VARIABLES};
use crate::kubernetes::quantity::Quantity;
use crate::kubernetes::{Annotations, Version};
use crate::reason::{Finding, Reason};

/// Kubernetes takes `null` for "absent"; serde's `default` covers only the absent field.
pub(crate) fn or_null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Option::deserialize(d).map(Option::unwrap_or_default)
}

/// `metadata` of a pod, a template or a workload.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Absent on a pod that the API server is still to name.
    #[serde(default, deserialize_with = "or_null")]
    pub name: String,
    /// The prefix of a generated name.
    #[serde(default, deserialize_with = "or_null")]
    pub generate_name: String,
    /// `None` where a patch must make the map first.
    #[serde(default, deserialize_with = "bounded::map_if_any")]
    pub labels: Option<BTreeMap<String, String>>,
    /// `None` where a patch must make the map first.
    #[serde(default, deserialize_with = "bounded::map_if_any")]
    pub annotations: Option<Annotations>,
    /// The owners.
    #[serde(default, deserialize_with = "bounded::list::<_, _, ENTRIES>")]
    pub owner_references: Vec<OwnerReference>,
}

impl Metadata {
    /// The owner with `controller: true`.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }

    /// Returns true if nobody owns the pod and its name is its own, as with `kubectl run`. A generated name is another one for each
    /// pod, and is not there yet at admission.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.owner_references.is_empty() && !self.name.is_empty() && self.generate_name.is_empty()
    }

    /// One annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// One label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// True if this owner manages the object.
    pub controller: Option<bool>,
}

/// A pod, or the template of one.
#[derive(Debug, Deserialize)]
pub struct Pod<'a> {
    /// Labels, annotations, owners.
    #[serde(default, deserialize_with = "or_null")]
    pub metadata: Metadata,
    /// The specification.
    #[serde(borrow)]
    pub spec: PodSpec<'a>,
    /// True if the pod has a container of Contour; computed once.
    #[serde(skip)]
    pub(crate) has_contour: OnceCell<bool>,
}

impl<'a> Pod<'a> {
    /// Reads a pod, or a pod template, from its JSON.
    ///
    /// # Errors
    /// [`Reason::MalformedObject`], naming the field that has the wrong shape.
    pub fn parse(json: &'a str) -> Result<Self, Finding> {
        parse(json)
    }

    /// Returns true if the pod is to complete: a Job's, or one that is not started again.
    #[must_use]
    pub fn completes(&self) -> bool {
        self.metadata.controller().is_some_and(|owner| owner.kind == "Job")
            || matches!(self.spec.restart_policy.as_str(), "Never" | "OnFailure")
    }

    /// Every container, those that run before the others first.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container<'a>> {
        self.spec.init_containers.iter().flatten().chain(self.spec.containers.iter().flatten())
    }

    /// The user that a container inherits.
    #[must_use]
    pub fn run_as_user(&self) -> Option<i64> {
        self.spec.security_context.as_ref()?.run_as_user
    }

    /// The containers that run as long as the pod does.
    pub fn lasting_containers(&self) -> impl Iterator<Item = &Container<'a>> {
        let sidecars =
            self.spec.init_containers.iter().flatten().filter(|container| container.restart_policy == "Always");
        sidecars.chain(self.spec.containers.iter().flatten())
    }

    /// The container that declares this port.
    #[must_use]
    pub fn holder(&self, port: u16, protocol: &str) -> Option<&Container<'a>> {
        self.all_containers().find(|container| container.declares(port, protocol))
    }

    /// The first port from this one on that no container declares.
    #[must_use]
    pub fn free_port(&self, from: u16, protocol: &str) -> u16 {
        let declared = self.all_containers().flat_map(|container| container.declared(protocol));
        let taken: BTreeSet<u16> = declared.filter(|port| *port >= from).collect();
        (from..=u16::MAX).find(|port| !taken.contains(port)).unwrap_or(from)
    }
}

/// Reads a view of an object; on failure reads it again, more slowly, to name the field.
pub(crate) fn parse<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, Finding> {
    serde_json::from_str(json).map_err(|_| {
        let error = match serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(json)) {
            Err(error) => error.to_string(),
            Ok(_) => "trailing characters".to_owned(),
        };
        let reason = if error.contains(bounded::TOO_LARGE) { Reason::TooLarge } else { Reason::MalformedObject };
        Finding::new(reason, error)
    })
}

/// The read part of `spec`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec<'a> {
    /// `None` where a patch must make the list first.
    #[serde(borrow, default, deserialize_with = "bounded::list_if_any::<_, _, CONTAINERS>")]
    pub init_containers: Option<Vec<Container<'a>>>,
    /// The pod's own containers.
    #[serde(borrow, default, deserialize_with = "bounded::list_if_any::<_, _, CONTAINERS>")]
    pub containers: Option<Vec<Container<'a>>>,
    /// `None` where a patch must make the list first: so with `automountServiceAccountToken: false` (R20).
    #[serde(default, deserialize_with = "bounded::list_if_any::<_, _, ENTRIES>")]
    pub volumes: Option<Vec<Volume>>,
    /// `None` where a patch must make the list first.
    #[serde(default, deserialize_with = "bounded::list_if_any::<_, _, ENTRIES>")]
    pub image_pull_secrets: Option<Vec<SecretName>>,
    /// `Always`, `OnFailure` or `Never`; empty for the default, which is `Always`.
    #[serde(default, deserialize_with = "or_null")]
    pub restart_policy: String,
    /// True if the pod uses the node's network.
    #[serde(default, deserialize_with = "or_null")]
    pub host_network: bool,
    /// The users of its containers.
    pub security_context: Option<SecurityContext>,
    /// Requests and limits of the whole pod (Kubernetes 1.34).
    pub resources: Option<Requirements>,
    /// The operating system the pod asks for.
    pub os: Option<Os>,
    /// Labels the node must have.
    #[serde(default, deserialize_with = "bounded::map_if_any")]
    pub node_selector: Option<BTreeMap<String, String>>,
}

impl PodSpec<'_> {
    /// Returns true if the pod has a volume of this name.
    #[must_use]
    pub fn has_volume(&self, name: &str) -> bool {
        self.volumes.iter().flatten().any(|volume| volume.name == name)
    }
}

/// The read part of `spec.securityContext`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// The user of every container that names none.
    pub run_as_user: Option<i64>,
}

/// `spec.os`.
#[derive(Debug, Deserialize)]
pub struct Os {
    /// `linux` or `windows`.
    #[serde(default, deserialize_with = "or_null")]
    pub name: String,
}

/// The read part of a volume.
#[derive(Debug, Deserialize)]
pub struct Volume {
    /// Unique in the pod.
    pub name: String,
}

/// An entry of a pod's `imagePullSecrets`.
#[derive(Debug, Deserialize)]
pub struct SecretName {
    /// Of a Secret in the pod's namespace; it may be empty.
    #[serde(default, deserialize_with = "or_null")]
    pub name: String,
}

/// The read part of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// Unique in the pod.
    pub name: String,
    /// `Always` on an init container that runs on.
    #[serde(default, deserialize_with = "or_null")]
    pub restart_policy: String,
    /// Image reference; empty where a template leaves it to somebody else.
    #[serde(default, deserialize_with = "or_null")]
    pub image: String,
    /// Replaces the image's `ENTRYPOINT` and drops its `CMD`.
    #[serde(default, deserialize_with = "bounded::list::<_, _, ENTRIES>")]
    pub command: Vec<String>,
    /// Replaces the image's `CMD`. `None` where a patch must make the list first.
    #[serde(default, deserialize_with = "bounded::list_if_any::<_, _, ENTRIES>")]
    pub args: Option<Vec<String>>,
    /// Not decoded unless the gateway asks ([`Self::read_env`]): it may be most of the pod. `None` where a patch must
    /// make the list first.
    #[serde(borrow)]
    pub env: Option<&'a RawValue>,
    /// Whole config maps or secrets as environment: their keys cannot be seen here.
    #[serde(default, deserialize_with = "or_null")]
    pub env_from: Vec<serde::de::IgnoredAny>,
    /// Present where a patch finds the list.
    pub volume_mounts: Option<serde::de::IgnoredAny>,
    /// Requests and limits.
    pub resources: Option<Requirements>,
    /// Declared ports; a hint, not a promise.
    #[serde(default, deserialize_with = "bounded::list::<_, _, PORTS>")]
    pub ports: Vec<Port>,
}

/// Amounts of the two resources that a sidecar asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Amounts {
    /// Cores.
    #[serde(default, deserialize_with = "amount")]
    pub cpu: Option<Quantity>,
    /// Bytes.
    #[serde(default, deserialize_with = "amount")]
    pub memory: Option<Quantity>,
}

/// A quantity, which in a manifest may also be a number. The API server refuses what is none; here it is as good as
/// absent.
fn amount<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Quantity>, D::Error> {
    // Raw, so that nothing is built of what may be anything.
    let raw = <&RawValue>::deserialize(d)?.get();
    let text = raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(raw);
    Ok(text.parse().ok())
}

/// `resources` of a container or of a whole pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Requirements {
    /// The requests.
    #[serde(default, deserialize_with = "or_null")]
    pub requests: Amounts,
    /// The limits.
    #[serde(default, deserialize_with = "or_null")]
    pub limits: Amounts,
}

/// One environment variable.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Env {
    /// The variable's name.
    pub name: String,
    /// Its literal value; `None` together with `value_from`.
    pub value: Option<String>,
    /// Present where the value comes from elsewhere and cannot be seen here.
    pub value_from: Option<serde::de::IgnoredAny>,
}

/// One declared port.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The port in the pod.
    pub container_port: u16,
    /// `TCP` where absent.
    pub protocol: Option<String>,
    /// Unique in the pod.
    #[serde(default, deserialize_with = "or_null")]
    pub name: String,
}

impl Container<'_> {
    /// Returns true if this container declares the port.
    #[must_use]
    pub fn declares(&self, port: u16, protocol: &str) -> bool {
        self.declared(protocol).any(|declared| declared == port)
    }

    fn declared(&self, protocol: &str) -> impl Iterator<Item = u16> {
        self.ports.iter().filter(move |p| p.protocol.as_deref().unwrap_or("TCP") == protocol).map(|p| p.container_port)
    }

    /// The port that has this name.
    #[must_use]
    pub fn port_named(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|port| port.name == name).map(|port| port.container_port)
    }

    /// The environment variables.
    ///
    /// # Errors
    /// [`Reason::MalformedObject`], naming the field that has the wrong shape.
    pub fn read_env(&self) -> Result<Vec<Env>, Finding> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Variables {
            #[serde(deserialize_with = "bounded::list::<_, _, VARIABLES>")]
            list: Vec<Env>,
        }
        self.env.map_or_else(|| Ok(vec![]), |env| parse::<Variables>(env.get()).map(|variables| variables.list))
    }

    /// The last part of the image's repository path: what the image is called wherever it was pulled from.
    #[must_use]
    pub fn image_name(&self) -> &str {
        let (repository, _) = self.repository_and_tag();
        let name = repository.rsplit('/').next().unwrap_or_default();
        mirrored(name).map_or(name, |(_, name)| name)
    }

    /// The version in tags such as `v1.34.2`, `distroless-v1.36.0` and `contrib-v1.30-latest`. A digest or a name such
    /// as `latest` tells nothing, and no more does the `0.0.0` of builds between releases.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        let version = self.image_parts().1?.split('-').find_map(|part| part.parse().ok());
        version.filter(|version| *version > Version(0, 0))
    }

    /// The image's repository path, split at `/`, and its tag. A digest tells no version, so it is dropped.
    #[must_use]
    pub fn image_parts(&self) -> (Vec<&str>, Option<&str>) {
        let (repository, tag) = self.repository_and_tag();
        let mut path: Vec<_> = repository.split('/').collect();
        if let Some((organisation, name)) = path.last().copied().and_then(mirrored) {
            path.pop();
            path.extend([organisation, name]);
        }
        (path, tag)
    }

    fn repository_and_tag(&self) -> (&str, Option<&str>) {
        let named = self.image.split_once('@').map_or(self.image.as_str(), |(named, _)| named);
        let last = named.rfind('/').map_or(0, |slash| slash + 1);
        match named[last..].split_once(':') {
            Some((name, tag)) => (&named[..last + name.len()], Some(tag)),
            None => (named, None),
        }
    }
}

/// The organisation and name in the form of Rancher's mirrors, `mirrored-organisation-name`, used by k3s and RKE2.
fn mirrored(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("mirrored-")?.split_once('-')
}

#[cfg(test)]
mod tests;
