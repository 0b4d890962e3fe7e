//! Requests for objects of a kind of which only the name is known, and what an error of the API server's means.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GetParams, ListParams};
use kube::core::{GroupVersionKind, Status};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::reason::{Finding, Reason};

/// The raw JSON of an object, not decoded. `None` where it is not there.
pub(crate) async fn text_of(
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

/// Objects in one answer of the API server's.
const PAGE: u32 = 500;

/// Hands each object of a list to `each` as JSON, and holds one page of them at a time: of one namespace, or of all; whole, or
/// only their metadata.
pub(crate) async fn each_of_list(
    client: &Client,
    namespace: Option<&str>,
    resource: &ApiResource,
    params: ListParams,
    only_metadata: bool,
    each: &mut impl FnMut(&RawValue),
) -> kube::Result<()> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(default)]
        metadata: ListMeta,
        /// Null where a list of metadata is empty.
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let request = kube::core::Request::new(api.resource_url());
    let mut page = params.limit(PAGE);
    loop {
        let request = if only_metadata { request.list_metadata(&page) } else { request.list(&page) };
        let text = client.request_text(request.map_err(kube::Error::BuildRequest)?).await?;
        let list: List = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        list.items.into_iter().flatten().for_each(&mut *each);
        match next_page(page, list.metadata) {
            Some(next) => page = next,
            None => return Ok(()),
        }
    }
}

/// The parameters for the next page of a list; `None` after the last page.
pub(crate) fn next_page(page: ListParams, list: ListMeta) -> Option<ListParams> {
    list.continue_.filter(|token| !token.is_empty()).map(|token| page.continue_token(&token))
}

/// The objects of a kind in a namespace.
pub(crate) fn objects(client: &Client, namespace: &str, (version, kind): (&str, &str)) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &api_resource(version, kind))
}

/// A kind of which only the name is known.
pub(crate) fn api_resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Returns true if the API server's authorizer refused a request. Quotas, admission policies and terminating namespaces also
/// answer 403, with other messages.
pub(crate) fn is_right_lacking(status: &Status) -> bool {
    status.code == 403 && status.message.contains("forbidden: User \"") && status.message.contains(" cannot ")
}

/// An error of the API server's in its own words; kube would print the whole `Status` besides. A right that is lacking is
/// a finding, with the fix.
pub(crate) fn api_error(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if is_right_lacking(&status) => {
            let detail = format!("{}; apply deploy/install.yaml again, or grant it", status.message);
            Finding::new(Reason::Forbidden, detail).into()
        }
        other => callers_error(other),
    }
}

/// The same where not gwmon's account asks but whoever runs a command.
pub(crate) fn callers_error(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}
