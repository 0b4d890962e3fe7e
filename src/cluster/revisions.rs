//! The annotations of pods, stored once for all pods of one roll-out, with a limit for each namespace, since whoever
//! creates pods may write any number.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::object::is_itself;
use crate::kubernetes::Annotations;
use crate::lock::lock;

/// Bytes of annotations in one namespace: those of some thousand gateways.
const SHARE: usize = 2 << 20;

/// The fields that all pods of one roll-out have in common.
#[derive(Debug, PartialEq)]
pub(crate) struct Revision {
    /// Those of gwmon's that are read; `None` where the pods of the namespace have too many.
    pub(crate) annotations: Option<Annotations>,
    /// The pod's controller.
    pub(crate) owner: Option<OwnerReference>,
}

impl Revision {
    /// Returns true if another object owns the pod of this name.
    pub(crate) fn is_owned(&self, pod: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| !is_itself(&owner.kind, &owner.name, pod))
    }

    fn bytes(&self) -> usize {
        let annotations = self.annotations.iter().flatten().map(|(key, value)| key.len() + value.len() + 64);
        let owner = self.owner.iter().map(|owner| owner.name.len() + owner.kind.len() + owner.api_version.len());
        annotations.chain(owner).sum()
    }
}

/// The revisions of all pods, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revisions(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    hasher: RandomState,
    /// By a hash of the namespace and the revision.
    revisions: HashMap<u64, Counted>,
    /// By namespace.
    bytes: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Counted {
    namespace: Arc<str>,
    revision: Arc<Revision>,
    pods: usize,
}

/// A pod's reference to its revision; dropping the last one removes the revision.
#[derive(Debug)]
pub(crate) struct RevisionRef {
    pub(crate) revision: Arc<Revision>,
    of: Revisions,
    /// `None` where it is not counted.
    hash: Option<u64>,
}

impl Revisions {
    /// Adds a pod's annotations and owner.
    pub(crate) fn take(&self, namespace: &str, annotations: Annotations, owner: Option<OwnerReference>) -> RevisionRef {
        let revision = Revision { annotations: Some(annotations), owner };
        let mut known = lock(&self.0);
        let known = &mut *known;
        let hash = known.hasher.hash_one((namespace, format!("{revision:?}")));
        if let Some(counted) = known.revisions.get_mut(&hash)
            && *counted.revision == revision
        {
            counted.pods += 1;
            return RevisionRef { revision: Arc::clone(&counted.revision), of: self.clone(), hash: Some(hash) };
        }
        let before = known.bytes.get_key_value(namespace);
        let (namespace, before) =
            before.map_or_else(|| (Arc::from(namespace), 0), |(namespace, bytes)| (Arc::clone(namespace), *bytes));
        let bytes = before + revision.bytes();
        if bytes > SHARE || known.revisions.contains_key(&hash) {
            let revision = Arc::new(Revision { annotations: None, owner: revision.owner });
            return RevisionRef { revision, of: self.clone(), hash: None };
        }
        known.bytes.insert(Arc::clone(&namespace), bytes);
        let revision = Arc::new(revision);
        known.revisions.insert(hash, Counted { namespace, revision: Arc::clone(&revision), pods: 1 });
        RevisionRef { revision, of: self.clone(), hash: Some(hash) }
    }
}

impl Drop for RevisionRef {
    fn drop(&mut self) {
        let Some(hash) = self.hash else { return };
        let mut known = lock(&self.of.0);
        let Some(counted) = known.revisions.get_mut(&hash) else { return };
        counted.pods -= 1;
        if counted.pods == 0
            && let Some(Counted { namespace, revision, .. }) = known.revisions.remove(&hash)
            && let Some(bytes) = known.bytes.get_mut(&namespace)
        {
            *bytes -= revision.bytes();
            if *bytes == 0 {
                known.bytes.remove(&namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(value: &str) -> Annotations {
        Annotations::from([("gwmon.io/status".to_owned(), value.to_owned())])
    }

    #[test]
    fn pods_of_one_roll_out_share_and_the_last_takes_it_along() {
        let revisions = Revisions::default();
        let one = revisions.take("edge", annotations("a"), None);
        let two = revisions.take("edge", annotations("a"), None);
        let elsewhere = revisions.take("west", annotations("a"), None);
        assert!(Arc::ptr_eq(&one.revision, &two.revision) && !Arc::ptr_eq(&one.revision, &elsewhere.revision));
        drop((one, elsewhere));
        assert_eq!(lock(&revisions.0).revisions.len(), 1);
        drop(two);
        let known = lock(&revisions.0);
        assert!(known.revisions.is_empty() && known.bytes.is_empty());
    }

    #[test]
    fn a_namespace_takes_no_more_than_its_share() {
        let revisions = Revisions::default();
        let kept: Vec<_> = (0..1000)
            .map(|i| revisions.take("hostile", annotations(&format!("{i}{}", "x".repeat(4000))), None))
            .collect();
        let known = kept.iter().filter(|part| part.revision.annotations.is_some()).count();
        assert!((500..530).contains(&known), "{known}");
        assert!(
            revisions.take("edge", annotations("a"), None).revision.annotations.is_some(),
            "nobody else's is touched"
        );
        drop(kept);
        assert!(revisions.take("hostile", annotations("a"), None).revision.annotations.is_some());
    }
}
