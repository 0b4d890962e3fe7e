//! The rights that a Prometheus needs to discover its targets (`rbac.md` in its documentation). gwmon grants nothing.

use crate::monitoring::Scraper;
use crate::reason::{Finding, Reason};

/// The rights that a scraper needs in each namespace of its targets.
#[derive(Debug)]
pub struct Access<'s> {
    scraper: &'s Scraper,
    /// The scraper's user name at the API server.
    pub user: String,
    /// The groups of that user.
    pub groups: Vec<String>,
    /// The API group and the resource of each kind that it lists.
    pub resources: [(&'static str, &'static str); 3],
}

impl<'s> Access<'s> {
    /// The rights that a scraper needs; `None` if its service account is not known.
    #[must_use]
    pub fn of(scraper: &'s Scraper) -> Option<Self> {
        let (account, resource) = scraper.discovery()?;
        let group = if resource == "endpointslices" { "discovery.k8s.io" } else { "" };
        let namespace = scraper.key().0;
        Some(Self {
            scraper,
            user: format!("system:serviceaccount:{namespace}:{account}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            resources: [("", "services"), ("", "pods"), (group, resource)],
        })
    }

    /// The finding about the resources that it may not list in a namespace; `None` where it may list all.
    #[must_use]
    pub fn missing(&self, namespace: &str, denied: &[&str]) -> Option<Finding> {
        let detail = || {
            format!(
                "{} runs as {}, which may not list {} in {namespace}: bind it to a Role there with get, list and watch",
                self.scraper,
                self.user,
                denied.join(", ")
            )
        };
        (!denied.is_empty()).then(|| Finding::new(Reason::ScrapeRBACMissing, detail()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_role_decides_what_it_lists() {
        let scraper = |spec: serde_json::Value| {
            let object =
                json!({"kind": "Prometheus", "metadata": {"namespace": "monitoring", "name": "kps"}, "spec": spec});
            Scraper::parse(&object.to_string()).unwrap().unwrap()
        };
        let slices = scraper(json!({"serviceAccountName": "kps", "serviceDiscoveryRole": "EndpointSlice"}));
        let access = Access::of(&slices).unwrap();
        assert_eq!(access.user, "system:serviceaccount:monitoring:kps");
        assert_eq!(access.resources[2], ("discovery.k8s.io", "endpointslices"));
        assert_eq!(Access::of(&scraper(json!({}))).unwrap().resources[2], ("", "endpoints"));
        assert!(access.missing("edge", &[]).is_none());
        let finding = access.missing("edge", &["services", "pods"]).unwrap();
        assert!(finding.detail.contains("may not list services, pods in edge"), "{finding}");
    }
}
