//! Asks the API server which rights a Prometheus has.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};

use super::request::api_error;
use super::ttl_cache::TtlCache;
use crate::diagnosis::access::Access;
use crate::monitoring::Scraper;
use crate::reason::Finding;

/// The time for which an answer is cached.
const SPAN: Duration = Duration::from_mins(10);

/// Access reviews, each answer kept for a while.
pub(crate) struct AccessReviews {
    client: Client,
    /// By scraper and user, discovery resource and namespace: the missing right.
    answers: TtlCache<(String, &'static str, String), Option<Finding>>,
}

impl AccessReviews {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, answers: TtlCache::new(SPAN) }
    }

    /// The right that a Prometheus lacks to discover targets in a namespace.
    pub(crate) async fn missing_permission(&self, reader: &Scraper, namespace: &str) -> Option<Finding> {
        self.ask(reader, namespace).await.unwrap_or_else(|error| {
            let error = api_error(error);
            tracing::warn!("cannot tell whether {reader} may read targets in {namespace}: {error:#}");
            None
        })
    }

    /// The same; `Ok(None)` also where the scraper's service account is not known.
    ///
    /// # Errors
    /// An API server that does not tell. It is asked again after a while.
    pub(crate) async fn ask(&self, reader: &Scraper, namespace: &str) -> kube::Result<Option<Finding>> {
        let Some(access) = Access::of(reader) else { return Ok(None) };
        let key = (format!("{reader} as {}", access.user), access.resources[2].1, namespace.to_owned());
        if let Some(answer) = self.answers.get(&key) {
            return Ok(answer);
        }
        let mut denied = Vec::new();
        for (group, resource) in access.resources {
            match self.may_list(&access, namespace, (group, resource)).await {
                Ok(true) => {}
                Ok(false) => denied.push(resource),
                Err(error) => {
                    // Not asked again at once.
                    self.answers.put(key, None);
                    return Err(error);
                }
            }
        }
        let answer = access.missing(namespace, &denied);
        self.answers.put(key, answer.clone());
        Ok(answer)
    }

    async fn may_list(
        &self,
        access: &Access<'_>,
        namespace: &str,
        (group, resource): (&str, &str),
    ) -> kube::Result<bool> {
        let attributes = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some("list".to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(access.user.clone()),
                groups: Some(access.groups.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await?;
        Ok(review.status.is_none_or(|status| status.allowed))
    }
}
