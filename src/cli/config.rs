//! The flags that `gwmon serve` and `gwmon preview` share, and the arguments of `gwmon config`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};

use crate::annotations::Sidecar;
use crate::config::{Bounds, Config, ConfigFile, Image, Interval, NATIVE_SIDECARS_SINCE, Names, SidecarKind};
use crate::kubernetes::Version;
use crate::kubernetes::labels::{self, Labels};

/// The flags that `serve` and `preview` share. Each overrides its field of the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file (see `gwmon config default`). Flags override it. `gwmon serve` reads it again when it changes.
    #[arg(long, value_name = "FILE", env = "GWMON_CONFIG")]
    pub config: Option<PathBuf>,

    /// The exporter's image; set it if the cluster pulls through a mirror [default: the official image].
    #[arg(long, value_name = "IMAGE", env = "GWMON_EXPORTER_IMAGE")]
    pub exporter_image: Option<Image>,

    /// Run the exporter as a native sidecar (Kubernetes 1.29), as a regular container, or as the cluster's version allows
    /// [default: auto].
    #[arg(long, value_enum, value_name = "KIND", env = "GWMON_SIDECAR")]
    pub sidecar: Option<SidecarKind>,

    /// Labels for every ServiceMonitor, as key=value,key=value; for scrapers not configured by a Kubernetes object, such
    /// as Grafana Alloy.
    #[arg(long, value_name = "LABELS", env = "GWMON_MONITOR_LABELS", value_parser = labels::parse)]
    pub monitor_labels: Option<Labels>,

    /// The shortest scrape interval that an annotation may set [default: 5s].
    #[arg(long, value_name = "DURATION", env = "GWMON_MIN_INTERVAL")]
    pub min_interval: Option<Interval>,

    /// The label keys that an annotation may set on a ServiceMonitor, separated by commas; empty for none
    /// [default: any].
    #[arg(long, value_name = "KEYS", env = "GWMON_ALLOWED_MONITOR_LABELS", value_parser = keys)]
    pub allowed_monitor_labels: Option<LabelKeys>,

    /// Create a gateway's ServiceMonitor in its Prometheus' namespace if the Prometheus reads no other [default: true].
    #[arg(
        long,
        value_name = "BOOL",
        env = "GWMON_ALLOW_CROSS_NAMESPACE_MONITORS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub allow_cross_namespace_monitors: Option<bool>,
}

impl ValueEnum for SidecarKind {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Native, Self::Regular]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => PossibleValue::new("auto").help("A native sidecar if the cluster's version has them"),
            Self::Native => PossibleValue::new("native").help("An init container with restartPolicy Always"),
            Self::Regular => PossibleValue::new("regular").help("A regular container"),
        })
    }
}

/// Keys of labels.
type LabelKeys = BTreeSet<String>;

fn keys(value: &str) -> Result<LabelKeys, String> {
    let keys = value.split(',').map(str::trim).filter(|key| !key.is_empty());
    keys.map(|key| {
        labels::is_key(key).then(|| key.to_owned()).ok_or_else(|| format!("{key:?} is not a valid label key"))
    })
    .collect()
}

impl ConfigArgs {
    /// The configuration: the flags over the file over the defaults, for a cluster of this version; an unknown version counts as
    /// new.
    #[must_use]
    pub fn config(&self, file: &ConfigFile, kubernetes: Option<Version>) -> Config {
        let (default, bounds) = (Config::default(), Bounds::default());
        let ConfigFile { exporter, gateways, monitors, .. } = file.clone();
        let is_new = kubernetes.is_none_or(|version| version >= NATIVE_SIDECARS_SINCE);
        let sidecar = match self.sidecar.or(exporter.sidecar).unwrap_or(SidecarKind::Auto) {
            SidecarKind::Auto if is_new => Sidecar::Native,
            SidecarKind::Native => Sidecar::Native,
            SidecarKind::Auto | SidecarKind::Regular => Sidecar::Regular,
        };
        let cross_namespace = self
            .allow_cross_namespace_monitors
            .map(|is_allowed| if is_allowed { Names::Any } else { Names::Only(BTreeSet::new()) });
        Config {
            exporter_image: self.exporter_image.clone().or(exporter.image).unwrap_or(default.exporter_image),
            image_pull_policy: exporter.image_pull_policy,
            image_pull_secrets: exporter.image_pull_secrets,
            resources: exporter.resources.over(&default.resources),
            sidecar,
            mode: gateways.mode.and_then(Into::into),
            namespaces: gateways.namespaces.unwrap_or(default.namespaces),
            monitor_labels: self.monitor_labels.clone().unwrap_or(monitors.labels),
            bounds: Bounds {
                min_interval: self.min_interval.clone().or(monitors.min_interval).unwrap_or(bounds.min_interval),
                max_interval: monitors.max_interval,
                monitor_labels: self
                    .allowed_monitor_labels
                    .clone()
                    .map(Names::Only)
                    .or(monitors.allowed_labels)
                    .unwrap_or(bounds.monitor_labels),
                cross_namespace: cross_namespace.or(monitors.cross_namespace).unwrap_or(bounds.cross_namespace),
                readers: monitors.prometheus,
                gateways: gateways.max_per_namespace.unwrap_or(bounds.gateways),
            },
        }
    }
}

/// `gwmon config`.
#[derive(Debug, Args)]
pub struct ConfigFileArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The commands of `gwmon config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file.
    ///
    /// Exits with 0 if it is valid, with 2 and the place of the mistake if not.
    Check {
        /// The file, or - for standard input.
        #[arg(short, long, value_name = "FILE")]
        filename: PathBuf,
    },
    /// Print the configuration file with all defaults, and what each field means.
    Default,
    /// Print the JSON schema of the configuration file, for editors.
    Schema,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_version_decides_unless_somebody_does() {
        let kind = |sidecar, version| {
            let args = ConfigArgs { sidecar, ..ConfigArgs::default() };
            args.config(&ConfigFile::default(), version).sidecar
        };
        let (old, new) = (Some(Version(1, 28)), Some(Version(1, 29)));
        assert_eq!(kind(None, old), Sidecar::Regular);
        assert_eq!((kind(Some(SidecarKind::Auto), new), kind(None, None)), (Sidecar::Native, Sidecar::Native));
        assert_eq!(kind(Some(SidecarKind::Native), old), Sidecar::Native);
        assert_eq!(kind(Some(SidecarKind::Regular), new), Sidecar::Regular);
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let file: ConfigFile = "
apiVersion: gwmon.io/v1alpha1
kind: Configuration
exporter: {image: mirror.example/exporter:1, sidecar: regular, resources: {limits: {cpu: 60m, memory: 256Mi}}}
monitors: {minInterval: 10s, crossNamespace: [edge], allowedLabels: []}
"
        .parse()
        .unwrap();
        let config = ConfigArgs::default().config(&file, None);
        assert_eq!((config.exporter_image.as_str(), config.sidecar), ("mirror.example/exporter:1", Sidecar::Regular));
        let amounts = [config.resources.cpu.0, config.resources.cpu.1, config.resources.memory.1];
        assert_eq!(amounts.map(|amount| amount.to_string()), ["50m", "60m", "256Mi"]);
        assert!(config.bounds.cross_namespace.contains("edge") && !config.bounds.cross_namespace.contains("west"));
        assert!(!config.bounds.monitor_labels.contains("team"));
        let args = ConfigArgs {
            exporter_image: Some("other.example/exporter:2".parse().unwrap()),
            sidecar: Some(SidecarKind::Native),
            allow_cross_namespace_monitors: Some(true),
            ..ConfigArgs::default()
        };
        let config = args.config(&file, None);
        assert_eq!((config.exporter_image.as_str(), config.sidecar), ("other.example/exporter:2", Sidecar::Native));
        assert_eq!((&config.bounds.cross_namespace, config.bounds.min_interval.as_str()), (&Names::Any, "10s"));
    }
}
