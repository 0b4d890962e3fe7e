//! The gwmon that runs in a cluster, as far as a command can see it.

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::{Args, Command, FromArgMatches};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::certs::status::{Verdict, read};
use crate::cli::{ConfigArgs, Serve};
use crate::cluster::request::callers_error;
use crate::config::{Config, ConfigFile, Installation};
use crate::diagnosis::installation::{InstallationState, is_version, tag};
use crate::kubernetes::Version;
use crate::suspension::Suspensions;

/// The installation in a cluster, by its webhook configuration; the shipped one where that is not to be seen.
pub(super) struct Found {
    pub(super) installation: Installation,
    pub(super) webhooks: Result<Option<MutatingWebhookConfiguration>, String>,
}

/// Finds the installation.
///
/// # Errors
/// An API server that does not answer.
pub(super) async fn find(client: &Client) -> Result<Found> {
    let shipped = || Installation { namespace: "gwmon".to_owned(), name: "gwmon".to_owned() };
    let configurations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=gwmon");
    let list = match configurations.list(&ours).await {
        Ok(list) => list,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Ok(Found { installation: shipped(), webhooks: Err(status.message.clone()) });
        }
        Err(error) => return Err(callers_error(error)).context("cannot list MutatingWebhookConfigurations"),
    };
    let Some(found) = list.items.into_iter().next() else {
        return Ok(Found { installation: shipped(), webhooks: Ok(None) });
    };
    let service = found.webhooks.iter().flatten().find_map(|webhook| webhook.client_config.service.clone());
    let name = found.name_any();
    let installation = service.map_or_else(shipped, |service| Installation { namespace: service.namespace, name });
    Ok(Found { installation, webhooks: Ok(Some(found)) })
}

/// The configuration of the installation, from its Deployment's flags and its ConfigMap; and a note, if that is not all that
/// decides what it injects.
pub(super) async fn config(
    client: &Client,
    installation: &Installation,
    kubernetes: Option<Version>,
) -> (Config, Option<String>) {
    let Installation { namespace, name } = installation;
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let default = |why: String| {
        let note = format!("gwmon's configuration cannot be read, so its defaults count: {why}");
        (ConfigArgs::default().config(&ConfigFile::default(), kubernetes), Some(note))
    };
    let deployment = match deployments.get_opt(name).await {
        Ok(Some(deployment)) => deployment,
        Ok(None) => return default(format!("there is no Deployment {namespace}/{name}")),
        Err(error) => return default(format!("{:#}", callers_error(error))),
    };
    let file = match config_maps.get_opt(&installation.configuration()).await {
        Ok(found) => found.and_then(|found| found.data).and_then(|data| data.into_values().next()),
        Err(error) => return default(format!("{:#}", callers_error(error))),
    };
    let file = match file.map(|text| text.parse::<ConfigFile>()).transpose() {
        Ok(file) => file.unwrap_or_default(),
        Err(why) => return default(format!("ConfigMap {namespace}/{}: {why}", installation.configuration())),
    };
    let template = deployment.spec.and_then(|spec| spec.template.spec);
    let container = template.and_then(|spec| spec.containers.into_iter().find(|container| container.name == "gwmon"));
    match container.map(|container| Ok((flags(&container)?, container.image.unwrap_or_default()))).transpose() {
        Ok(Some((serve, image))) => {
            let other = tag(&image).filter(|tag| is_version(tag) && *tag != env!("CARGO_PKG_VERSION"));
            let note = other.map(|tag| {
                format!(
                    "gwmon {tag} runs in the cluster, and this command is {}: which pods are outdated cannot be told",
                    env!("CARGO_PKG_VERSION")
                )
            });
            (serve.config(&file, kubernetes), note)
        }
        Ok(None) => default(format!("Deployment {namespace}/{name} has no container gwmon")),
        Err::<_, clap::Error>(why) => {
            default(format!("the flags of Deployment {namespace}/{name} are not this version's: {why}"))
        }
    }
}

/// The flags of gwmon's container. The variables that stand for flags are those of the container, not of this process.
fn flags(container: &Container) -> Result<Serve, clap::Error> {
    let command = Serve::augment_args(Command::new("serve"));
    let mut words: Vec<OsString> = vec!["serve".into()];
    for variable in container.env.iter().flatten() {
        let flag = command.get_arguments().find(|flag| flag.get_env().is_some_and(|env| env == variable.name.as_str()));
        if let (Some(long), Some(value)) = (flag.and_then(clap::Arg::get_long), &variable.value) {
            words.push(format!("--{long}={value}").into());
        }
    }
    let is_path = |word: &&String| word.as_str() != "serve";
    words.extend(container.args.iter().flatten().filter(is_path).map(Into::into));
    let command = command.mut_args(|flag| flag.env(None::<&str>)).args_override_self(true);
    Serve::from_arg_matches(&command.try_get_matches_from(words)?)
}

/// Reads the state of the installation.
pub(super) async fn state(client: &Client, found: Found, suspensions: &Suspensions) -> InstallationState {
    let Found { installation, webhooks } = found;
    let Installation { namespace, name } = &installation;
    let told = |error: kube::Error| format!("{:#}", callers_error(error));
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let addresses = slices.list(&of_service).await.map(|list| {
        let endpoints = list.items.into_iter().flat_map(|slice| slice.endpoints);
        endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|known| known.ready) != Some(false)).count()
    });
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let own = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
    let images = pods.list(&own).await.map(|list| {
        let is_running = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let containers =
            list.items.into_iter().filter(is_running).filter_map(|pod| pod.spec).flat_map(|spec| spec.containers);
        containers.filter(|container| container.name == "gwmon").filter_map(|container| container.image).collect()
    });
    let certificate = match (&webhooks, read(client, &installation).await) {
        (Ok(Some(_)), Ok(report)) => {
            let why = report.served.iter().find_map(|served| match &served.verdict {
                Verdict::Fail(why) => Some(format!("{}: {why}", served.by)),
                Verdict::Ok => None,
            });
            match (why, report.notes.first()) {
                (Some(why), _) => Ok(Some(why)),
                (None, Some(note)) if report.served.is_empty() => Err(note.clone()),
                (None, _) => Ok(None),
            }
        }
        (Ok(Some(_)), Err(error)) => Err(format!("{error:#}")),
        (Ok(None), _) => Err("there is no webhook configuration".to_owned()),
        (Err(why), _) => Err(why.clone()),
    };
    let stops = suspensions.stopped().to_vec();
    InstallationState {
        webhooks,
        addresses: addresses.map_err(told),
        certificate,
        images: images.map_err(told),
        stops,
        installation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_containers_own_words_decide() {
        let container = json!({
            "name": "gwmon",
            "args": ["serve", "--exporter-image=mirror.example/exporter:1"],
            "env": [{"name": "GWMON_MIN_INTERVAL", "value": "7s"}, {"name": "OTHER", "value": "x"}, {"name": "POD_NAMESPACE", "valueFrom": {}}],
        });
        let serve = flags(&serde_json::from_value(container).unwrap()).unwrap();
        let config = serve.config(&ConfigFile::default(), None);
        assert_eq!(config.exporter_image.as_str(), "mirror.example/exporter:1");
        assert_eq!(config.bounds.min_interval.as_str(), "7s");
        let newer: Container = serde_json::from_value(json!({"name": "gwmon", "args": ["serve", "--new"]})).unwrap();
        assert!(flags(&newer).is_err());
    }
}
