package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/blang/semver/v4"
	"k8s.io/client-go/rest"
	k8sflag "k8s.io/component-base/cli/flag"

	"github.com/prometheus-operator/prometheus-operator/pkg/operator"
	"github.com/prometheus-operator/prometheus-operator/pkg/server"
	"github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
)

// The flags for the version are variables of a package of the operator's.
var parsing sync.Mutex

// What an operator that is started so would run with, or why it would not: run() and start() of its cmd/operator/main.go,
// which is a program and cannot be imported.
func configOf(args []string) (operator.Config, error) {
	parsing.Lock()
	defer parsing.Unlock()
	config := operator.DefaultConfig("10m", "50Mi")
	config.KubernetesVersion = semver.MustParse("1.36.0")
	flags, gates := flagsOf(&config)
	if err := flags.Parse(args); err != nil {
		return config, err
	}
	if versionutil.ShouldPrintVersion() {
		return config, errors.New("prints its version and ends")
	}
	if flags.NArg() > 0 && flags.Arg(0) != "start" {
		return config, fmt.Errorf("command %q runs no controller", flags.Arg(0))
	}
	if err := config.Gates.UpdateFeatureGates(*gates.Map); err != nil {
		return config, err
	}
	return config, config.Namespaces.Finalize()
}

// The flags as parseFlags there registers them; tests/parts/oracle.rs compares them with what the operator itself prints.
func flagsOf(cfg *operator.Config) (*flag.FlagSet, *k8sflag.MapStringBool) {
	var (
		served   = server.DefaultConfig(":8080", false)
		tls      rest.TLSClientConfig
		text     string
		yes      bool
		number   float64
		duration time.Duration
		selector operator.LabelSelector
		priority operator.NodeAddressPriority
		gates    = k8sflag.NewMapStringBool(new(map[string]bool{}))
	)
	fs := flag.NewFlagSet("operator", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	server.RegisterFlags(fs, &served)
	fs.StringVar(&text, "as", "", "")
	fs.StringVar(&text, "apiserver", "", "")
	fs.StringVar(&tls.CertFile, "cert-file", "", "")
	fs.StringVar(&tls.KeyFile, "key-file", "", "")
	fs.StringVar(&tls.CAFile, "ca-file", "", "")
	fs.BoolVar(&tls.Insecure, "tls-insecure", false, "")
	fs.StringVar(&text, "kubelet-service", "", "")
	fs.Var(&selector, "kubelet-selector", "")
	fs.Var(&priority, "kubelet-node-address-priority", "")
	fs.BoolVar(&yes, "kubelet-endpointslice", false, "")
	fs.BoolVar(&yes, "kubelet-endpoints", true, "")
	fs.DurationVar(&duration, "kubelet-sync-period", 3*time.Minute, "")
	fs.BoolVar(&yes, "kubelet-http-metrics", true, "")
	fs.StringVar(&cfg.ReloaderConfig.Image, "prometheus-config-reloader", "", "")
	fs.Var(&cfg.ReloaderConfig.CPURequests, "config-reloader-cpu-request", "")
	fs.Var(&cfg.ReloaderConfig.CPULimits, "config-reloader-cpu-limit", "")
	fs.Var(&cfg.ReloaderConfig.MemoryRequests, "config-reloader-memory-request", "")
	fs.Var(&cfg.ReloaderConfig.MemoryLimits, "config-reloader-memory-limit", "")
	fs.BoolVar(&cfg.ReloaderConfig.EnableProbes, "enable-config-reloader-probes", false, "")
	fs.StringVar(&cfg.AlertmanagerDefaultBaseImage, "alertmanager-default-base-image", "", "")
	fs.StringVar(&cfg.PrometheusDefaultBaseImage, "prometheus-default-base-image", "", "")
	fs.StringVar(&cfg.ThanosDefaultBaseImage, "thanos-default-base-image", "", "")
	fs.StringVar(&cfg.ControllerID, "controller-id", "", "")
	fs.Var(&cfg.RepairPolicy, "repair-policy-for-statefulsets", "")
	fs.Var(cfg.Namespaces.AllowList, "namespaces", "")
	fs.Var(cfg.Namespaces.DenyList, "deny-namespaces", "")
	fs.Var(cfg.Namespaces.PrometheusAllowList, "prometheus-instance-namespaces", "")
	fs.Var(cfg.Namespaces.AlertmanagerAllowList, "alertmanager-instance-namespaces", "")
	fs.Var(cfg.Namespaces.AlertmanagerConfigAllowList, "alertmanager-config-namespaces", "")
	fs.Var(cfg.Namespaces.ThanosRulerAllowList, "thanos-ruler-instance-namespaces", "")
	fs.BoolVar(&cfg.WatchObjectRefsInAllNamespaces, "watch-referenced-objects-in-all-namespaces", false, "")
	fs.Var(&cfg.Annotations, "annotations", "")
	fs.Var(&cfg.Labels, "labels", "")
	fs.StringVar(&cfg.LocalHost, "localhost", "localhost", "")
	fs.StringVar(&cfg.ClusterDomain, "cluster-domain", "", "")
	fs.Var(&cfg.PromSelector, "prometheus-instance-selector", "")
	fs.Var(&cfg.AlertmanagerSelector, "alertmanager-instance-selector", "")
	fs.Var(&cfg.ThanosRulerSelector, "thanos-ruler-instance-selector", "")
	fs.Var(&cfg.SecretListWatchFieldSelector, "secret-field-selector", "")
	fs.Var(&cfg.SecretListWatchLabelSelector, "secret-label-selector", "")
	fs.Var(&cfg.ConfigMapListWatchFieldSelector, "configmap-field-selector", "")
	fs.Var(&cfg.ConfigMapListWatchLabelSelector, "configmap-label-selector", "")
	fs.Float64Var(&number, "auto-gomemlimit-ratio", 0, "")
	fs.BoolVar(&yes, "disable-unmanaged-prometheus-configuration", false, "")
	cfg.RegisterFeatureGatesFlags(fs, gates)
	fs.StringVar(&text, "log-level", "info", "")
	fs.StringVar(&text, "log-format", "logfmt", "")
	versionutil.RegisterFlags(fs)
	return fs, gates
}

// Every flag by its name, and whether it is true or false and so takes no word after it.
func listFlags(out *json.Encoder) error {
	config := operator.DefaultConfig("10m", "50Mi")
	flags, _ := flagsOf(&config)
	switches := map[string]bool{}
	flags.VisitAll(func(f *flag.Flag) {
		value, ok := f.Value.(interface{ IsBoolFlag() bool })
		switches[f.Name] = ok && value.IsBoolFlag()
	})
	return out.Encode(switches)
}
