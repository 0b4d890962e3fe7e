//! Reads the objects that a kind of gateway needs in the cluster. gwmon creates none of them.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::request::{api_error, api_resource};
use super::ttl_cache::TtlCache;
use crate::injection::gateway;
use crate::kubernetes::Version;
use crate::reason::Finding;

/// The time for which an answer is cached.
const SPAN: Duration = Duration::from_mins(1);

/// The prerequisites of gateways, read once in a while.
pub(crate) struct Prerequisites {
    client: Client,
    /// By kind of object. `None` where gwmon cannot tell: the kind is not served, or gwmon may not read it.
    objects: TtlCache<&'static str, Option<Vec<Value>>>,
}

impl Prerequisites {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, objects: TtlCache::new(SPAN) }
    }

    /// The finding about what a gateway of this kind and version lacks.
    pub(crate) async fn missing(&self, gateway: &str, version: Option<Version>) -> Option<Finding> {
        let prerequisite = gateway::prerequisite(gateway)?;
        let (api_version, kind) = prerequisite.resource;
        let objects = if let Some(answer) = self.objects.get(&kind) {
            answer
        } else {
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &api_resource(api_version, kind));
            let list = match api.list(&ListParams::default()).await {
                Ok(list) => Some(list),
                // Not served.
                Err(kube::Error::Api(status)) if status.code == 404 => None,
                Err(error) => {
                    let error = api_error(error);
                    tracing::warn!("cannot tell whether the cluster has what {gateway} needs, a {kind}: {error:#}");
                    None
                }
            };
            let objects = list.map(|list| list.items.into_iter().map(|object| json!(object)).collect());
            self.objects.put(kind, objects.clone());
            objects
        };
        (prerequisite.missing)(&objects?, version)
    }
}
