//! The version of a cluster, and its clock.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;
use time::OffsetDateTime;

use super::request::{api_resource, next_page};
use crate::kubernetes::Version;

/// How long an answer of the API server is waited for where nobody sets another time: kube's client has no limit of its own.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The API server's clock. It decides whether a certificate is valid, not the clock of the machine that gwmon runs on, which may be
/// wrong by days.
pub(crate) async fn server_time(client: &Client) -> Result<OffsetDateTime> {
    let request = http::Request::get("/version").body(kube::client::Body::empty())?;
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, client.send(request)).await.context("no answer")??;
    let date =
        answer.headers().get(http::header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    Ok(date.unwrap_or_else(SystemTime::now).into())
}

/// How many minor versions a kubelet may be behind its API server (Kubernetes' version skew policy).
const OLDEST_KUBELET: u32 = 3;

/// The version of the oldest among the API server and the kubelets. If the nodes cannot be listed, the kubelets count as old as
/// Kubernetes allows.
pub(crate) async fn oldest_version(client: &Client) -> Result<Option<Version>> {
    let info = client.apiserver_version().await?;
    // Some providers write `29+`.
    let server = format!("{}.{}", info.major, info.minor.trim_end_matches('+')).parse().ok();
    Ok(match oldest_kubelet(client).await {
        Ok(kubelet) => kubelet.into_iter().chain(server).min(),
        // What may not be known is not asked again; what fails is.
        Err(error) if !is_forbidden(&error) => return Err(error.context("cannot list the nodes")),
        Err(error) => {
            let oldest = server.map(|Version(major, minor)| Version(major, minor.saturating_sub(OLDEST_KUBELET)));
            tracing::warn!(
                "cannot read the kubelets' versions, so they count as old as Kubernetes allows{}: {error:#}",
                oldest.map(|version| format!(" ({version})")).unwrap_or_default()
            );
            oldest
        }
    })
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403)
}

async fn oldest_kubelet(client: &Client) -> Result<Option<Version>> {
    let mut oldest = None;
    // Nodes are large, with a list of all their images.
    let mut page = ListParams::default().limit(50);
    let api = Api::<DynamicObject>::all_with(client.clone(), &api_resource("v1", "Node"));
    loop {
        let nodes = api.list(&page).await?;
        let kubelets = nodes.items.iter().filter_map(|node| node.data.pointer("/status/nodeInfo/kubeletVersion"));
        let versions = kubelets.filter_map(Value::as_str).filter_map(|version| version.parse().ok());
        oldest = versions.chain(oldest).min();
        match next_page(page, nodes.metadata) {
            Some(next) => page = next,
            None => return Ok(oldest),
        }
    }
}
