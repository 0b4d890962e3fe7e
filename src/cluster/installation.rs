//! The objects that gwmon's own installation consists of.

use anyhow::{Context, Result};
use kube::{Client, ResourceExt};

use super::request::{api_error, objects};
use crate::config::Installation;
use crate::monitoring::Owner;

/// gwmon's own Deployment, where it runs from one.
pub(crate) async fn own_deployment(client: &Client, installation: &Installation) -> Result<Option<Owner>> {
    let Installation { namespace, name } = installation;
    let (api_version, kind) = ("apps/v1", "Deployment");
    let api = objects(client, namespace, (api_version, kind));
    let deployment =
        api.get_metadata_opt(name).await.map_err(api_error).context("cannot read gwmon's own Deployment")?;
    Ok(deployment.map(|deployment| Owner {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.clone(),
        uid: deployment.uid().unwrap_or_default(),
    }))
}
