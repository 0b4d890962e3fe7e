//! Reads a Prometheus Operator's `Accepted` condition on a ServiceMonitor.

use std::collections::HashMap;

use anyhow::Result;
use kube::Client;

use super::object::NamespacedName;
use super::request::{api_error, objects};
use crate::diagnosis::binding::{Binding, binding};
use crate::monitoring::Scraper;
use crate::monitoring::objects::MONITOR;

/// The operator's conditions on the monitors of one gateway, by monitor and scraper, each read again when the monitor changes.
#[derive(Debug, Default)]
pub(crate) struct Bindings(HashMap<(NamespacedName, String), (Option<String>, Binding)>);

impl Bindings {
    /// The operator's condition on the monitor of this name, which has this resource version.
    pub(crate) async fn read(
        &mut self,
        client: &Client,
        reader: &Scraper,
        place: &NamespacedName,
        version: Option<String>,
    ) -> Result<Binding> {
        let object_key = (place.clone(), reader.place());
        if let Some((read, binding)) = self.0.get(&object_key)
            && *read == version
        {
            return Ok(binding.clone());
        }
        let monitor = objects(client, &place.0, MONITOR).get_opt(&place.1).await.map_err(api_error)?;
        let binding = monitor.map_or(Binding::Awaited, |monitor| {
            let (namespace, name) = place;
            binding(&monitor.data, monitor.metadata.generation.unwrap_or_default(), reader, (namespace, name))
        });
        self.0.insert(object_key, (version, binding.clone()));
        Ok(binding)
    }
}
