//! Objects of a kind of which only the name is known.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GetParams};
use kube::core::GroupVersionKind;

/// An object whole, as the API server sends it: nothing is built of it that is not read. `None` where it is not there.
pub(super) async fn text_of(
    client: &Client,
    namespace: &str,
    kind: (&str, &str),
    name: &str,
) -> kube::Result<Option<String>> {
    let request = kube::core::Request::new(objects(client, namespace, kind).resource_url());
    let request = request.get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
    match client.request_text(request).await {
        Ok(text) => Ok(Some(text)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The objects of a kind in a namespace.
pub(super) fn objects(client: &Client, namespace: &str, (version, kind): (&str, &str)) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &api_resource(version, kind))
}

/// A kind of which only the name is known.
pub(crate) fn api_resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}
