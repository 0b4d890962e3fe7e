//! Every reason: its name, its severity, its meaning, and what a person does about it. `docs/troubleshooting.md` is made
//! from this file.

use super::Severity::{self, Error, Info, Warning};

macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $name:ident: $severity:ident, $remedy:literal,)+) => {
        /// The reason why gwmon did or did not do something. Admission warnings, Events, logs and metrics use the
        /// same word, so that one search finds them all (R14).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $meaning])+ $name,)+ }

        impl Reason {
            /// Every reason, in the order of the source.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason in CamelCase, as Kubernetes writes reasons.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The need to act.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => $severity,)+ }
            }

            /// One sentence or more, in Markdown.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),+).trim_ascii(),)+ }
            }

            /// The remedy, in Markdown.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }
        }
    };
}

reasons! {
    /// The workload has no `gwmon.io/inject` annotation.
    NotRequested: Info, "To have it monitored, annotate it: `kubectl annotate deployment NAME gwmon.io/inject=true`.",
    /// The namespace asks for all its gateways, and this pod is none, as far as gwmon can tell.
    NotAGateway: Info, "Nothing. If it is a gateway, annotate its workload: `kubectl annotate deployment NAME gwmon.io/inject=true`.",
    /// The workload has `gwmon.io/inject: "false"`.
    OptedOut: Info, "To have it monitored, set the annotation to `\"true\"`.",
    /// The pod has gwmon's sidecar already: the API server calls a webhook more than once, and `kubectl debug` copies pods.
    AlreadyInjected: Info, "Nothing.",
    /// An annotation under `gwmon.io/` has a key or a value that is not valid.
    InvalidAnnotation: Error, "Correct the value as the message says; see [the annotations](reference/annotations.md).",
    /// The object does not have the shape that its kind demands.
    MalformedObject: Error, "Correct the field that the message names.",
    /// The webhook was called for a kind or an operation that it does not handle.
    UnexpectedObject: Error, "Restore the rules of the MutatingWebhookConfiguration: apply `deploy/install.yaml` again.",
    /// The request, or a list in the pod, is larger than any that a real workload has.
    TooLarge: Error, "Make the object smaller; the message names the part and the limit.",
    /// Another controller makes this workload and would undo the change.
    ManagedWorkload: Error, "Set the annotation where the message says: on the object from which that controller makes the workload.",
    /// No workload owns the pod, and it has no name of its own: there is nothing to name the ServiceMonitor after.
    NoWorkload: Error, "Annotate a Deployment, StatefulSet or DaemonSet, or give the pod a `metadata.name`. Instead of a static pod, which the kubelet makes, use a DaemonSet.",
    /// The pod is injected, and since nobody owns it, its manifest cannot be applied a second time.
    PodNotReappliable: Warning, "Delete the pod before you apply its manifest again, or use a Deployment.",
    /// No container of the pod is a gateway that gwmon knows.
    NoGateway: Error, "Name the gateway with `gwmon.io/gateway` and its container with `gwmon.io/container`.",
    /// Another webhook has not added the gateway's proxy yet. The API server calls gwmon again when it has.
    ProxyNotInjected: Warning, "If the pods stay without metrics, check that the mesh injects them.",
    /// Several containers could be the gateway.
    AmbiguousGateway: Error, "Choose one with `gwmon.io/container`.",
    /// `gwmon.io/container` names a container that the pod does not have.
    ContainerNotFound: Error, "Name one of the containers that the message lists.",
    /// This version of the gateway cannot be configured to send statsd, or serves no metrics itself.
    UnsupportedVersion: Error, "Update the gateway. If its image tag is misleading, set `gwmon.io/gateway-version` or `gwmon.io/envoy-version`.",
    /// Arguments added to the gateway's command might not reach the gateway.
    UnpatchableCommand: Error, "Run the gateway itself as the container's command, or set `gwmon.io/mode: scrape`.",
    /// A configuration in the pod, such as Envoy's `--config-yaml`, cannot be parsed.
    UnreadableConfiguration: Error, "Correct the configuration that the message names.",
    /// The gateway does not support the mode that `gwmon.io/mode` asks for.
    UnsupportedMode: Error, "Remove `gwmon.io/mode`, or use the other mode.",
    /// The gateway's statsd is configured by an object that gwmon does not write.
    ConfiguredElsewhere: Error, "Configure that object as the message says, or set `gwmon.io/mode: scrape`.",
    /// The port of the gateway's metrics endpoint cannot be found out.
    EndpointUnknown: Error, "Name the port with `gwmon.io/metrics-port`.",
    /// The gateway's metrics endpoint is off, or listens on loopback only.
    EndpointUnreachable: Error, "Change the setting that the message names. A gateway that can send statsd can also use `gwmon.io/mode: statsd`.",
    /// Prometheus scrapes the gateway's admin port, by which whoever reaches it can read its configuration and stop it.
    AdminPortScraped: Warning, "Allow only Prometheus to reach the port, with a NetworkPolicy.",
    /// The gateway already sends statsd to another server, or is configured not to send any.
    ExistingStatsd: Error, "Remove the setting that the message names. With Ambassador, `gwmon.io/relay: \"true\"` forwards everything to the present server, if that is an IPv4 address.",
    /// A setting of the gateway comes from `envFrom` or `valueFrom`, which admission does not show.
    EnvironmentNotVisible: Error, "Set the variable in `env`. If it is the port of the gateway's own metrics, `gwmon.io/metrics-port` does as well.",
    /// The pod's `prometheus.io/` annotations point elsewhere.
    ScrapeAnnotationConflict: Error, "Remove them, or set `gwmon.io/discovery: monitor`.",
    /// The pod is to complete, as a Job's is, and never would beside a regular sidecar (R24).
    JobPod: Error, "Use Kubernetes 1.29 or newer, which has native sidecars, and remove `gwmon.io/sidecar: regular`.",
    /// Kong reports no traffic without its global Prometheus plugin.
    KongPluginMissing: Warning, "Apply the KongClusterPlugin that the message holds.",
    /// The pod's `gwmon.io/status` annotation does not match the pod.
    StatusMismatch: Error, "Delete the pod, so that it is injected again.",
    /// An annotation has no effect on this gateway.
    AnnotationIgnored: Warning, "Remove the annotation.",
    /// A service mesh intercepts the port that Prometheus scrapes.
    MeshInterceptsPort: Warning, "Exclude the port from interception with the annotation that the message names.",
    /// The pod's annotations and gwmon's together exceed the 256 KiB that Kubernetes allows.
    AnnotationsTooLarge: Error, "Remove large annotations from the pod template.",
    /// Another container uses the port that the exporter needs.
    PortInUse: Error, "Free the port, or choose another with `gwmon.io/statsd-port` or `gwmon.io/metrics-port`.",
    /// A LimitRange of the namespace leaves too little for the exporter.
    LimitRangeExceeded: Error, "Raise the maximum, or lower the limits of the other containers.",
    /// The pod has a part of what gwmon injects, and lacks an annotation that this part needs.
    IncompleteInjection: Error, "Apply the whole output of `gwmon preview`, or remove all that it added.",
    /// The memory limit of the whole pod is too small for the gateway and the exporter.
    PodMemoryTooSmall: Error, "Raise `spec.resources.limits.memory` of the pod.",
    /// The pod uses the node's network, where the exporter's ports would be the node's.
    HostNetwork: Error, "Set `gwmon.io/mode: scrape`.",
    /// The pod runs on Windows, for which there is no exporter image.
    WindowsPod: Error, "Remove the annotation.",
    /// The cluster has no Prometheus or other object that selects ServiceMonitors.
    NoPrometheus: Error, "Create one, or set the labels yourself with `gwmon.io/monitor-labels`.",
    /// The cluster does not have the Prometheus that `gwmon.io/prometheus` or gwmon's configuration (`monitors.prometheus`) names, or the one that scraped the gateway was deleted.
    PrometheusNotFound: Error, "Name one that exists: `kubectl get prometheuses -A`. A deleted one is awaited for ten minutes.",
    /// No Prometheus would select a ServiceMonitor for this namespace.
    NotSelected: Error, "Change what the message names: a selector of the Prometheus, a label of the namespace, or a flag of its operator.",
    /// Several Prometheuses match equally; gwmon uses the first.
    AmbiguousPrometheus: Warning, "Choose one with `gwmon.io/prometheus`.",
    /// A Prometheus other than the chosen one selects the ServiceMonitor as well, or one scrapes the gateway twice.
    SelectedTwice: Warning, "Restrict the selector that the message names, or accept the duplicate series.",
    /// The Prometheus is paused, so its operator applies no change.
    PrometheusPaused: Error, "Set `spec.paused: false` on it.",
    /// The namespace has more gateways, the gateway more ServiceMonitors, or its pods more annotations than gwmon handles.
    TooManyObjects: Error, "Raise `gateways.maxPerNamespace` in gwmon's configuration, name one Prometheus with `gwmon.io/prometheus`, or shorten the annotations, as the message says.",
    /// gwmon's configuration does not allow what an annotation asks for.
    NotAllowed: Warning, "Change the annotation, or have whoever runs gwmon allow it.",
    /// The Prometheus has no running pod, or its operator does not reconcile it.
    PrometheusNotRunning: Error, "Look at its status: `kubectl get prometheus -A`.",
    /// A default scrape class of the Prometheus changes what it scrapes.
    ScrapeClassApplies: Warning, "Check that the relabelings and the authorization that the message names suit the gateway.",
    /// The operator of the Prometheus was not found, or one of its flags cannot be read.
    OperatorUnknown: Warning, "If there are no metrics, compare the operator's namespace flags with the gateway's namespace.",
    /// The Prometheus selects by a label with which a GitOps tool tracks its own objects.
    TrackingLabelRequired: Warning, "Select by another label: the tool may delete the ServiceMonitor.",
    /// The Prometheus Operator rejects the ServiceMonitor.
    MonitorRejected: Error, "Correct what the message names.",
    /// The Prometheus lacks the rights to discover targets in the namespace.
    ScrapeRBACMissing: Error, "Apply the Role and RoleBinding that the message describes.",
    /// The cluster does not serve the kind ServiceMonitor.
    ServiceMonitorCRDMissing: Error, "Install the Prometheus Operator's CRDs.",
    /// `gwmon.io/inject` is on an object whose annotations gwmon does not copy to its pods.
    AnnotationMisplaced: Error, "Set the annotation where the message says.",
    /// A NetworkPolicy keeps Prometheus from the metrics port.
    NetworkPolicyDenies: Warning, "Add the rule that the message holds.",
    /// An object with the name that gwmon needs exists and was not made by gwmon.
    NameConflict: Error, "Rename or delete that object.",
    /// gwmon cannot make, read or use the certificate that the webhook is to serve, or the `caBundle` does not verify it. The certificate before stays in use.
    CertificateNotUpdated: Error, "Correct what the message names; gwmon tries again within a minute.",
    /// gwmon's configuration file cannot be read, or is not valid. The configuration before stays in use.
    ConfigurationNotUpdated: Error, "Correct the file (`gwmon config check -f FILE`); gwmon reads it again within seconds.",
    /// gwmon's service account lacks a right.
    Forbidden: Error, "Apply `deploy/install.yaml` again, or grant the right that the message names.",
    /// Pods ask for injection and run without, since they were created while the webhook was unavailable or injection suspended, or before they requested it.
    MissedInjection: Error, "Restart them with the command that the message holds.",
    /// The workload no longer asks for injection, but its pod template does: it was changed while the webhook was unavailable.
    MissedRemoval: Error, "Run the command that the message holds: the roll-out removes them.",
    /// The pod template gets its annotations back, since the workload still has them.
    InjectionKept: Warning, "To end injection, remove the annotation from the workload.",
    /// The `namespaceSelector` of gwmon's webhook configuration excludes the namespace.
    NamespaceExcluded: Error, "Change the selector, or the labels of the namespace.",
    /// The API server refuses one of gwmon's objects because of a quota, a policy or another webhook.
    ObjectRefused: Error, "Allow the object where the message says.",
    /// The kubelet cannot pull the exporter's image.
    ImageNotPulled: Error, "Make the image available, or set `--exporter-image`.",
    /// The kubelet has been pulling the exporter's image for minutes.
    ImagePullSlow: Warning, "Wait, or pull from a registry closer to the nodes.",
    /// The exporter's container cannot start, or keeps ending.
    ExporterNotRunning: Error, "Look at its log: `kubectl logs POD -c gwmon-statsd-exporter --previous`.",
    /// The gateway's container ends at once, perhaps because of what gwmon adds.
    GatewayNotStarting: Error, "Look at its log with `kubectl logs POD --previous`.",
    /// The API server refuses the pod because of a quota, a policy or another webhook.
    PodRefused: Error, "Allow the pod where the message says.",
    /// No node has room for the pod.
    PodUnschedulable: Warning, "Add a node, or lower the requests.",
    /// gwmon admits new pods of the workload without the exporter, until it can run there.
    InjectionSuspended: Error, "Remove the cause that the message names; gwmon tries again by itself.",
    /// gwmon has suspended injection for several workloads within minutes, and gives no new pod an exporter, in the namespace or in the whole cluster.
    InjectionStopped: Error, "Remove the common cause, most often the exporter's image.",
    /// The cluster has no MutatingWebhookConfiguration of gwmon's, or none that calls it for pods and workloads.
    WebhookMissing: Error, "Apply `deploy/install.yaml` again.",
    /// No replica of gwmon is ready, so the API server admits pods without calling it.
    WebhookUnreachable: Error, "Look at gwmon's pods: `kubectl -n gwmon get pods`, `kubectl -n gwmon logs deployment/gwmon`.",
    /// The `failurePolicy` of gwmon's webhook is not `Ignore`: while gwmon does not answer, pods are refused.
    WebhookBlocksPods: Error, "Set `failurePolicy: Ignore` on each webhook of the MutatingWebhookConfiguration.",
    /// The replicas of gwmon, or gwmon and this command, are of different versions.
    VersionSkew: Warning, "Finish the upgrade, and use the command of the version that runs in the cluster.",
    /// A webhook that the API server calls after gwmon's changes pods.
    WebhookRewritesPods: Warning, "Check that the probes and the ports of injected pods are as they should be: `kubectl get pod POD -o yaml`.",
    /// Pods run what another version or configuration of gwmon injected.
    OutdatedInjection: Warning, "Restart them when it suits you: `gwmon repair`.",
    /// The metrics Service or the ServiceMonitor is not there.
    ObjectMissing: Error, "gwmon makes it within seconds; if not, see gwmon's Events on the workload and its log.",
    /// Somebody changed the metrics Service or the ServiceMonitor, and they no longer lead to the gateway's pods.
    ObjectChanged: Error, "Delete the object that the message names; gwmon makes it anew.",
    /// The metrics Service has no ready address.
    NoEndpoints: Error, "Look at the pods: `kubectl get pods`, `kubectl describe pod POD`.",
    /// Prometheus has no target for the gateway although it selects the ServiceMonitor.
    NoTarget: Error, "Wait a minute after a change; then look at *Status → Service discovery* in Prometheus.",
    /// Prometheus cannot scrape the gateway's target.
    TargetDown: Error, "Correct what the error of the scrape names.",
    /// The exporter runs and receives nothing from the gateway.
    NoSamples: Error, "Send the gateway a request. If there is still nothing, restart the pods: somebody may have changed the gateway's configuration.",
    /// The exporter drops or rejects a part of what the gateway sends.
    SamplesLost: Warning, "See the exporter's log, and raise its resources with `gwmon.io/resources` if it is short of memory.",
    /// Histograms arrive as summaries, which cannot be added up and are in other units.
    SummariesExported: Warning, "Delete the pods with a changed mapping, so that they are injected again.",
    /// Prometheus renames labels of the gateway's metrics, since its target has labels of the same name.
    LabelsRenamed: Warning, "Query by the `exported_` label, or change what the message names.",
    /// Prometheus does not take its newest configuration.
    PrometheusNotReloaded: Error, "See the log of Prometheus: one job that is not valid stops all changes.",
    /// The CRD of the ServiceMonitor is older than what gwmon writes.
    CustomResourceOutdated: Warning, "Apply the CRDs of your operator's version; Helm does not upgrade CRDs.",
    /// No Prometheus loads a PrometheusRule that names the gateways' metrics.
    RuleNotSelected: Warning, "Give the rule the labels that the message names.",
    /// New pods of the workload get the exporter again.
    InjectionResumed: Info, "Nothing.",
    /// The gateway's Service and ServiceMonitor are in place, and a Prometheus selects them.
    Monitored: Info, "Nothing.",
}
