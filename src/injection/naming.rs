//! Names of a gateway's objects, and hashes.

use crate::kubernetes::labels::is_dns_part;
use crate::kubernetes::pod::Metadata;

/// The name of the workload that a pod belongs to, from the pod alone: admission sends no request. A Deployment's pod is owned
/// by a ReplicaSet named after the Deployment and the template hash that the pod is labelled with. A pod that nobody owns is
/// its own workload, if it has a name.
#[must_use]
pub fn workload_of(pod: &Metadata) -> Option<String> {
    match pod.controller() {
        // A static pod's copy in the API server.
        Some(owner) if owner.kind == "Node" => None,
        Some(owner) => Some(workload_named(&owner.kind, &owner.name, |label| pod.label(label))),
        None => pod.is_bare().then(|| pod.name.clone()),
    }
}

/// The same from its parts: kind and name of the pod's controller, and the pod's labels.
#[must_use]
pub fn workload_named<'l>(kind: &str, name: &str, label: impl Fn(&'static str) -> Option<&'l str>) -> String {
    let hashes = ["pod-template-hash", "rollouts-pod-template-hash"].into_iter().filter(|_| kind == "ReplicaSet");
    let stem = hashes.filter_map(label).find_map(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    stem.unwrap_or(name).to_owned()
}

/// The name of a workload's Service and ServiceMonitor, which is also the value of the pods' label: `<workload>-gwmon`. Both a
/// DNS-1035 label and a label value, 63 characters at the most; a workload name that does not fit is cut and made unique by a
/// hash.
#[must_use]
pub fn monitor_name(workload: &str) -> String {
    const SUFFIX: &str = "-gwmon";
    const HASH: usize = 8;
    let fits = workload.len() + SUFFIX.len() <= 63
        && workload.starts_with(|c: char| c.is_ascii_lowercase())
        && is_dns_part(workload);
    if fits {
        return format!("{workload}{SUFFIX}");
    }
    let mut name: String = workload
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(63 - SUFFIX.len() - HASH - 1 - 1)
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert(0, 'w');
    }
    let hash = short_hash(&[workload]);
    format!("{}-{}{SUFFIX}", name.trim_end_matches('-'), &hash[..HASH])
}

/// The length of a hash in the status, in hexadecimal digits.
pub(super) const HASH_LENGTH: usize = 32;

/// The first half of a SHA-256 over the parts, in hex.
pub(super) fn short_hash(parts: &[impl AsRef<str>]) -> String {
    use std::fmt::Write;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part.as_ref().as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref()[..HASH_LENGTH / 2].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_workload_is_read_off_the_pod() {
        let of = |kind: &str, name: &str| {
            let metadata = json!({
                "labels": {"pod-template-hash": "6d4b"},
                "ownerReferences": [{"kind": kind, "name": name, "controller": true}],
            });
            workload_of(&serde_json::from_value(metadata).unwrap())
        };
        assert_eq!(of("ReplicaSet", "edge-6d4b").as_deref(), Some("edge"));
        assert_eq!(of("StatefulSet", "edge").as_deref(), Some("edge"));
        assert_eq!(of("ReplicaSet", "alone").as_deref(), Some("alone"));
        assert_eq!(of("Node", "worker"), None);
    }

    #[test]
    fn a_monitor_name_is_a_legal_service_name_and_label_value() {
        assert_eq!(monitor_name("edge"), "edge-gwmon");
        let long = "a".repeat(63);
        let longer = format!("{long}b");
        let names = [&long, &longer, "a.b", "a-b", "1st", "-", "a.b-", &"x.".repeat(126)].map(monitor_name);
        for name in &names {
            assert!(name.len() <= 63 && name.ends_with("-gwmon"), "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        }
        assert_eq!(std::collections::BTreeSet::from(names.clone()).len(), names.len(), "{names:?}");
    }
}
