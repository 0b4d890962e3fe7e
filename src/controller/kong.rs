//! Whether Kong shows its traffic: that takes a global prometheus plugin, which is an object of Kong's. gwmon looks for
//! it and says what is missing; a plugin changes every route, so it makes none.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};

use super::held::Held;
use super::world::api_resource;
use crate::annotations::Version;
use crate::injection::gateway::kong::{PLUGIN, is_global_prometheus, plugin};
use crate::reason::{Finding, Reason};

/// How long an answer holds.
const SPAN: Duration = Duration::from_mins(1);

/// Asks for Kong's plugins, once in a while.
pub(super) struct Plugins {
    client: Client,
    held: Held<(), bool>,
}

impl Plugins {
    pub(super) fn new(client: Client) -> Self {
        Self { client, held: Held::new(SPAN) }
    }

    /// What is missing for a Kong of this version, if anything. A Kong that is configured otherwise, or by objects that
    /// gwmon may not read, is not spoken of.
    pub(super) async fn missing(&self, version: Option<Version>) -> Option<Finding> {
        let is_there = if let Some(answer) = self.held.get(&()) {
            answer
        } else {
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &api_resource(PLUGIN.0, PLUGIN.1));
            let plugins = api.list(&ListParams::default()).await.ok()?;
            let is_there = plugins.items.iter().any(|plugin| is_global_prometheus(&serde_json::json!(plugin)));
            self.held.put((), is_there);
            is_there
        };
        let detail = || {
            format!(
                "Kong serves few metrics and none of the traffic without a global prometheus plugin; echo '{}' | kubectl apply -f -",
                plugin(version)
            )
        };
        (!is_there).then(|| Finding::new(Reason::KongPluginMissing, detail()))
    }
}
