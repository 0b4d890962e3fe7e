//! One file a command: wiring and printing only.

pub mod preview;
pub mod serve;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};

use crate::annotations::Version;

/// The version of the oldest among the API server and the kubelets, which may be three versions behind it, and are
/// during every upgrade. Where gwmon may not see the nodes, the API server's.
async fn oldest_version(client: &Client) -> kube::Result<Option<Version>> {
    let info = client.apiserver_version().await?;
    // Some providers write `29+`.
    let mut oldest = format!("{}.{}", info.major, info.minor.trim_end_matches('+')).parse().ok();
    let mut page = ListParams::default().limit(500);
    loop {
        let nodes = match Api::<Node>::all(client.clone()).list(&page).await {
            Ok(nodes) => nodes,
            Err(kube::Error::Api(status)) if status.code == 403 => return Ok(oldest),
            Err(error) => return Err(error),
        };
        let kubelets = nodes.items.iter().filter_map(|node| node.status.as_ref()?.node_info.as_ref());
        oldest = kubelets.filter_map(|info| info.kubelet_version.parse().ok()).chain(oldest).min();
        match nodes.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(oldest),
        }
    }
}
