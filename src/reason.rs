//! The closed list of reasons for every "no" that gwmon says.

use std::borrow::Cow;
use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Why gwmon left something alone. The same word stands in the admission warning, the log line
        /// and the metric label, so that one search finds them all (R14).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// Every reason, in the order of the source.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word itself, in the CamelCase that Kubernetes uses for reasons.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

reasons! {
    /// No `gwmon.io/inject` annotation: gwmon has nothing to do here.
    NotRequested,
    /// `gwmon.io/inject: "false"`.
    OptedOut,
    /// The pod carries gwmon's sidecar already: a second round of admission, or a `kubectl debug` copy.
    AlreadyInjected,
    /// A `gwmon.io/` annotation whose value makes no sense.
    InvalidAnnotation,
    /// The object does not have the shape that its kind demands.
    MalformedObject,
    /// A kind or operation that gwmon's webhooks do not ask for.
    UnexpectedObject,
    /// A request body over the limit, or a pod with more containers or ports than any real one has.
    TooLarge,
    /// The object is made by another controller, which would undo every change: Envoy Gateway's, Istio's and Consul's
    /// gateways are such.
    ManagedWorkload,
    /// A pod that no workload controller owns: nothing to name the monitor after, nothing to clean up with.
    NoWorkload,
    /// No container of the pod is a gateway that gwmon knows.
    NoGateway,
    /// Another webhook is still to add the gateway's container; gwmon is asked again then.
    ProxyToCome,
    /// More than one container could be the gateway.
    AmbiguousGateway,
    /// `gwmon.io/container` names a container that the pod does not have.
    ContainerNotFound,
    /// A version of the gateway that gwmon cannot tell to send statsd.
    UnsupportedVersion,
    /// The gateway's command line is not one that can be extended safely.
    UnpatchableCommand,
    /// A configuration that the pod carries, such as Envoy's `--config-yaml`, cannot be read, so nothing can be merged
    /// into it.
    UnreadableConfiguration,
    /// The gateway cannot be told to do what `gwmon.io/mode` asks, or not by its pod.
    UnsupportedMode,
    /// The gateway is told by an object that is not gwmon's to write.
    ToldElsewhere,
    /// Nothing tells at which port the gateway serves its metrics.
    EndpointUnknown,
    /// The gateway's metrics endpoint is off, or not to be reached from outside the pod.
    EndpointClosed,
    /// The port that is scraped serves the gateway's whole administration.
    AdminExposed,
    /// The gateway already sends its stats somewhere, or is told not to.
    ExistingStatsd,
    /// `envFrom` may hide a statsd setting that gwmon would override.
    HiddenEnvironment,
    /// `prometheus.io/` annotations of the pod that say something else.
    ExistingScrape,
    /// A Job's pod, which would never complete beside a container that runs for ever (R24).
    JobPod,
    /// Kong has no global prometheus plugin, without which it shows no traffic.
    KongPluginMissing,
    /// A pod's `gwmon.io/status` does not match the pod.
    UnconfirmedStatus,
    /// An annotation that has no effect on this gateway.
    NoEffect,
    /// The mesh lets nobody but its own reach the port that is scraped.
    MeshCaptures,
    /// The pod's annotations would be more than Kubernetes takes.
    AnnotationsFull,
    /// Another container declares the port that the sidecar needs.
    PortInUse,
    /// A `LimitRange` of the namespace leaves too little for the exporter.
    LimitRangeExceeded,
    /// The pod carries a part of what gwmon injects, without the annotations that this part reads.
    IncompleteInjection,
    /// The pod sets a memory limit for all its containers, of which the exporter would take too large a part.
    PodMemoryTooSmall,
    /// `hostNetwork`: the sidecar's ports would be the node's.
    HostNetwork,
    /// A Windows pod: there is no exporter image for it.
    WindowsPod,
    /// The cluster has no `Prometheus` or other object that reads ServiceMonitors.
    NoPrometheus,
    /// `gwmon.io/prometheus` names one that the cluster does not have.
    PrometheusNotFound,
    /// No Prometheus of the cluster can be made to select a monitor for this namespace.
    NotSelected,
    /// Several Prometheuses would do equally well.
    AmbiguousPrometheus,
    /// A Prometheus that was not asked for takes the gateway's series too, or one takes them twice.
    AlsoSelected,
    /// The Prometheus is paused and takes up nothing new.
    PrometheusPaused,
    /// More gateways in a namespace, or monitors of a gateway, than gwmon makes objects for.
    ShareExceeded,
    /// An annotation asks for what the operator of gwmon does not allow: an interval, a label.
    NotAllowed,
    /// No pod of the Prometheus scrapes, or its operator does not run it.
    PrometheusNotRunning,
    /// A default scrape class of the Prometheus changes what is scraped.
    ScrapeClassApplies,
    /// The operator of the Prometheus was not found, or a flag of it cannot be read.
    OperatorUnknown,
    /// The Prometheus asks for a label by which a GitOps tool knows its own objects.
    OwnershipLabel,
    /// The Prometheus Operator would reject the monitor.
    MonitorRejected,
    /// The Prometheus may not list what it discovers targets by.
    ScrapeRBACMissing,
    /// The cluster does not serve `ServiceMonitor`.
    NoServiceMonitorKind,
    /// `gwmon.io/inject` stands on an object whose annotations gwmon copies nowhere.
    AnnotationMisplaced,
    /// A `NetworkPolicy` keeps Prometheus from the port that it is to scrape.
    NetworkPolicyDenies,
    /// An object of the name that gwmon needs exists and is not gwmon's.
    NameTaken,
    /// gwmon's service account lacks a right.
    Forbidden,
    /// Pods that ask for injection run without: they were made while no gwmon answered.
    MissedInjection,
    /// A workload no longer asks for injection and its pod template still does: it was changed while no gwmon answered.
    MissedRemoval,
    /// A pod template gets its annotations back, since the workload still asks.
    InjectionKept,
    /// gwmon's webhook configuration leaves the namespace out.
    NamespaceExcluded,
    /// The API server refuses an object of gwmon's: by a quota, a policy or another webhook.
    ObjectRefused,
    /// The kubelet cannot pull the exporter's image.
    ImageNotPulled,
    /// The kubelet has been pulling the exporter's image for minutes.
    ImagePullSlow,
    /// The exporter's container ends again and again, or cannot be made.
    ExporterNotRunning,
    /// The gateway's container ends at once, perhaps because of what gwmon adds.
    GatewayNotStarting,
    /// The API server refuses the pod: by a quota, a policy or another webhook.
    PodRefused,
    /// No node has room for the pod.
    PodUnschedulable,
    /// gwmon has stepped aside: new pods of the workload are admitted without the exporter until it can run there.
    InjectionSuspended,
    /// gwmon has stepped aside from several workloads within minutes, and gives no new pod an exporter.
    InjectionStopped,
    /// New pods of the workload get the exporter again.
    InjectionResumed,
    /// The gateway's objects are as its Prometheus asks.
    Monitored,
}

impl Reason {
    /// Whether this can only be the exporter's fault, and not that of a node, a queue or a quota.
    #[must_use]
    pub const fn is_of_the_exporter(self) -> bool {
        matches!(self, Self::ImageNotPulled | Self::ExporterNotRunning | Self::GatewayNotStarting)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A [`Reason`] with the sentence that names the object, the field and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Finding {
    /// The word from the closed list.
    pub reason: Reason,
    /// What was found, what is needed and how to get there.
    pub detail: String,
}

impl Finding {
    /// A refusal with its sentence. What others have written may be in that, so it is cut: an Event's note has 1,024
    /// characters at the most.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        const MOST: usize = 1000;
        let detail = detail.into();
        // In bytes, the more cautious measure, so that a short one is not gone through.
        let detail = if detail.len() > MOST { cut(&detail, MOST).into_owned() } else { detail };
        Self { reason, detail }
    }

    /// Whether a person should be told: the user asked for something and does not get it.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        !matches!(self.reason, Reason::NotRequested | Reason::OptedOut | Reason::AlreadyInjected)
    }
}

/// A text, or as much of it as this many characters, visibly cut.
#[must_use]
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// A value as it is shown in a message: quoted, control characters escaped, and cut, since Kubernetes
/// truncates an admission warning at 256 characters.
#[must_use]
pub fn shown(value: &str) -> String {
    const MOST: usize = 48;
    match value.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", &value[..cut]),
        None => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_camel_case_and_stands_once() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert!(words.iter().all(|w| w.starts_with(char::is_uppercase) && w.chars().all(char::is_alphanumeric)));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn a_shown_value_is_short_and_printable() {
        assert_eq!(shown("yes"), "\"yes\"");
        assert_eq!(shown("a\nb"), "\"a\\nb\"");
        assert!(shown(&"ü".repeat(500)).chars().count() <= 51);
    }
}
