//! Checks that a Prometheus has the rights to discover its targets (`rbac.md` in its documentation). gwmon asks the
//! API server and grants nothing.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};

use super::api_error;
use super::ttl_cache::TtlCache;
use crate::monitoring::Scraper;
use crate::reason::{Finding, Reason};

/// The time for which an answer is cached.
const SPAN: Duration = Duration::from_mins(10);

/// Access reviews, each answer kept for a while.
pub(super) struct AccessReviews {
    client: Client,
    /// By reader and its user, what it discovers targets by, and namespace: what is lacking.
    answers: TtlCache<(String, &'static str, String), Option<Finding>>,
}

impl AccessReviews {
    pub(super) fn new(client: Client) -> Self {
        Self { client, answers: TtlCache::new(SPAN) }
    }

    /// The right that a Prometheus lacks to discover targets in a namespace.
    pub(super) async fn missing_permission(&self, reader: &Scraper, namespace: &str) -> Option<Finding> {
        let (user, group, resource) = reader.discovery()?;
        let object_key = (format!("{reader} as {user}"), resource, namespace.to_owned());
        if let Some(answer) = self.answers.get(&object_key) {
            return answer;
        }
        let groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", reader.key().0),
            "system:authenticated".to_owned(),
        ];
        let mut lacking = Vec::new();
        for (group, resource) in [("", "services"), ("", "pods"), (group, resource)] {
            let attributes = ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some("list".to_owned()),
                ..ResourceAttributes::default()
            };
            let review = SubjectAccessReview {
                spec: SubjectAccessReviewSpec {
                    user: Some(user.clone()),
                    groups: Some(groups.clone()),
                    resource_attributes: Some(attributes),
                    ..SubjectAccessReviewSpec::default()
                },
                ..SubjectAccessReview::default()
            };
            match Api::<SubjectAccessReview>::all(self.client.clone()).create(&PostParams::default(), &review).await {
                Ok(review) if review.status.as_ref().is_some_and(|status| !status.allowed) => lacking.push(resource),
                Ok(_) => {}
                // Not knowing is no finding.
                Err(error) => {
                    tracing::debug!("cannot ask about the rights of {user}: {:#}", api_error(error));
                    return None;
                }
            }
        }
        let answer = (!lacking.is_empty()).then(|| {
            let detail = format!(
                "{reader} runs as {user}, which may not list {} in {namespace}: bind it to a Role there with get, list and watch",
                lacking.join(", ")
            );
            Finding::new(Reason::ScrapeRBACMissing, detail)
        });
        self.answers.put(object_key, answer.clone());
        answer
    }
}
