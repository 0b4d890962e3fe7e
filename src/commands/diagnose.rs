//! What `explain` and `doctor` share: everything is read once, then each gateway is checked.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use kube::Client;

use super::installation::{self, Found};
use crate::cluster::access::AccessReviews;
use crate::cluster::observe::{Depth, Observation, Scope, observe};
use crate::cluster::prometheus::PrometheusApi;
use crate::cluster::request::callers_error;
use crate::config::Config;
use crate::diagnosis::check::Check;
use crate::diagnosis::gateway::Gateways;
use crate::diagnosis::installation::{InstallationState, check};
use crate::diagnosis::path::{Probes, Rights, Surroundings, readers, walk};
use crate::diagnosis::rules;
use crate::diagnosis::scope::WebhookScope;
use crate::diagnosis::series::{Query, Series};
use crate::monitoring::Scraper;
use crate::monitoring::scraper::Kind;

/// Requests about rights that are sent at a time.
const AT_ONCE: usize = 8;

/// Everything that was read.
pub(super) struct Read {
    pub(super) observation: Observation,
    pub(super) config: Config,
    /// Why the configuration is the default one, if it is.
    pub(super) config_note: Option<String>,
    pub(super) installation: InstallationState,
    scope: Option<WebhookScope>,
    probes: Probes,
}

impl Read {
    /// Reads all that the checks of a scope look at.
    ///
    /// # Errors
    /// An API server that does not answer.
    pub(super) async fn all(client: &Client, scope: Scope<'_>, progress: &Progress) -> Result<Self> {
        progress.says("reading the gateways");
        let found = installation::find(client).await?;
        let mut observation = observe(client, &found.installation, scope, Depth::Whole).await?;
        let kubernetes = observation.snapshot.kubernetes;
        let (config, config_note) = installation::config(client, &found.installation, kubernetes).await;
        let scope = match &found {
            Found { webhooks: Ok(Some(webhooks)), .. } => WebhookScope::of(Some(webhooks.clone())).ok(),
            _ => None,
        };
        let installation = installation::state(client, found, &observation.suspensions).await;
        // What asks only by its namespace's label is in no list of those that ask.
        observation.adopt_labelled();
        let mut read = Self { observation, config, config_note, installation, scope, probes: Probes::default() };
        read.probes = read.probe(client, progress).await;
        Ok(read)
    }

    /// The gateways, by namespace and the name of their objects.
    pub(super) fn gateways(&self) -> &Gateways {
        &self.observation.gateways
    }

    /// The checks of gwmon itself.
    pub(super) fn installation_checks(&self) -> Vec<Check> {
        check(&self.installation, env!("CARGO_PKG_VERSION"))
    }

    /// The checks of the rules about gateways' metrics.
    pub(super) fn rule_checks(&self) -> Vec<Check> {
        let Observation { snapshot, rules, has_thanos_ruler, .. } = &self.observation;
        rules::check(&snapshot.monitoring, rules, *has_thanos_ruler)
    }

    /// The checks of one gateway.
    pub(super) fn checks(&self, key: &(String, String)) -> Vec<Check> {
        let around = self.surroundings();
        self.gateways().get(key).map_or_else(Vec::new, |gateway| walk((&key.0, &key.1), gateway, &around))
    }

    fn surroundings(&self) -> Surroundings<'_> {
        let known = self.observation.surroundings(&self.config, self.config_note.is_none(), &self.probes);
        Surroundings { scope: self.scope.as_ref(), ..known }
    }

    /// Asks which rights the scrapers have, and what they have scraped.
    async fn probe(&self, client: &Client, progress: &Progress) -> Probes {
        let scrapers = &self.observation.snapshot.monitoring.scrapers;
        // Those that are to read a gateway, each with the namespaces of its gateways.
        let mut asked: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let around = self.surroundings();
        for ((namespace, monitor), gateway) in self.gateways() {
            for reader in readers((namespace, monitor), gateway, &around) {
                let namespaces = asked.entry(reader).or_default();
                if !namespaces.contains(&namespace.as_str()) {
                    namespaces.push(namespace);
                }
            }
        }
        // A monitor may be selected by others than gwmon would choose.
        let asked = scrapers.iter().filter_map(|scraper| Some((scraper, asked.get(&scraper.place())?)));
        let asked: Vec<_> = asked.collect();
        let reviews = AccessReviews::new(client.clone());
        let pairs = asked.iter().flat_map(|(scraper, namespaces)| namespaces.iter().map(move |one| (*scraper, *one)));
        progress.says("asking for the rights of each Prometheus");
        let rights =
            stream::iter(pairs.collect::<Vec<_>>()).map(|(scraper, namespace)| rights(&reviews, scraper, namespace));
        let rights = rights.buffer_unordered(AT_ONCE).collect().await;
        progress.says("asking each Prometheus what it has scraped");
        let names: Vec<_> =
            scrapers.iter().filter(|scraper| scraper.kind() == Kind::Prometheus).map(Scraper::key).collect();
        let mut series = std::collections::HashMap::new();
        for (scraper, _) in asked.iter().filter(|(scraper, _)| scraper.kind() == Kind::Prometheus) {
            let others: Vec<_> =
                names.iter().filter(|(namespace, _)| *namespace == scraper.key().0).map(|(_, name)| *name).collect();
            series.insert(scraper.place(), scraped(client, scraper, &others).await);
        }
        Probes { rights, series }
    }
}

async fn rights(reviews: &AccessReviews, scraper: &Scraper, namespace: &str) -> ((String, String), Rights) {
    let rights = match reviews.ask(scraper, namespace).await {
        Ok(None) if scraper.discovery().is_none() => Rights::Unknown("its service account is not known".to_owned()),
        Ok(None) => Rights::Granted,
        Ok(Some(finding)) => Rights::Missing(finding),
        Err(error) => Rights::Unknown(format!("{:#}", callers_error(error))),
    };
    ((scraper.place(), namespace.to_owned()), rights)
}

async fn scraped(client: &Client, scraper: &Scraper, others: &[&str]) -> Result<Series, String> {
    let api = PrometheusApi::of(client, scraper, others).await?;
    let mut series = api.ask(&Query::ALL).await?;
    api.explain(&mut series).await;
    Ok(series)
}

/// Says on a terminal what takes a while.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new() -> Self {
        let bar = stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self(bar)
    }

    pub(super) fn says(&self, what: &'static str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
