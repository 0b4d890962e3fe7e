//! Checks that Kong has a global Prometheus plugin, without which it reports no traffic. gwmon creates none, since a
//! plugin affects every route.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::objects::api_resource;
use super::ttl_cache::TtlCache;
use crate::annotations::Version;
use crate::injection::gateway::kong::{PLUGIN, counts_traffic, plugin};
use crate::reason::{Finding, Reason};

/// The time for which an answer is cached.
const SPAN: Duration = Duration::from_mins(1);

/// Asks for Kong's plugins, once in a while.
pub(super) struct Plugins {
    client: Client,
    /// `None` where gwmon cannot tell: Kong is configured otherwise, or by objects that gwmon may not read.
    answers: TtlCache<(), Option<Vec<Value>>>,
}

impl Plugins {
    pub(super) fn new(client: Client) -> Self {
        Self { client, answers: TtlCache::new(SPAN) }
    }

    /// The plugin or setting that a Kong of this version lacks.
    pub(super) async fn missing(&self, version: Option<Version>) -> Option<Finding> {
        let plugins = if let Some(answer) = self.answers.get(&()) {
            answer
        } else {
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &api_resource(PLUGIN.0, PLUGIN.1));
            let list = api.list(&ListParams::default()).await.ok();
            let plugins = list.map(|list| list.items.into_iter().map(|plugin| json!(plugin)).collect());
            self.answers.put((), plugins.clone());
            plugins
        };
        let is_there = plugins?.iter().any(|plugin| counts_traffic(plugin, version));
        let detail = || {
            format!(
                "Kong serves few metrics and none of the traffic without a global prometheus plugin; echo '{}' | kubectl apply -f -",
                plugin(version)
            )
        };
        (!is_there).then(|| Finding::new(Reason::KongPluginMissing, detail()))
    }
}
