package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	typedauthv1 "k8s.io/client-go/kubernetes/typed/authorization/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	monitoringv1alpha1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1alpha1"
	"github.com/prometheus-operator/prometheus-operator/pkg/assets"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/client/versioned"
	"github.com/prometheus-operator/prometheus-operator/pkg/informers"
	"github.com/prometheus-operator/prometheus-operator/pkg/listwatch"
	"github.com/prometheus-operator/prometheus-operator/pkg/operator"
	prompkg "github.com/prometheus-operator/prometheus-operator/pkg/prometheus"
)

var (
	kinds = map[string]schema.GroupVersionResource{
		"Prometheus":      monitoringv1.SchemeGroupVersion.WithResource(monitoringv1.PrometheusName),
		"PrometheusAgent": monitoringv1alpha1.SchemeGroupVersion.WithResource(monitoringv1alpha1.PrometheusAgentName),
	}
	silent = slog.New(slog.DiscardHandler)
)

// A reader of monitors: its kind, then namespace and name.
type reader struct{ kind, key string }

// What becomes of each reader that an operator takes for its own: the monitors that it selects.
type outcome map[reader]map[string]bool

// The operator's controller for one kind: New and Run of its pkg/prometheus/server and pkg/prometheus/agent, as far as
// monitors depend on that.
type controller struct {
	kind       string
	instances  *informers.ForResource
	monitors   *informers.ForResource
	namespaces cache.SharedIndexInformer
	metrics    *operator.Metrics
	rr         *operator.ResourceReconciler

	mutex    sync.Mutex
	selected outcome
}

// What an operator with this configuration makes of the cluster.
func operate(a *api, config operator.Config) (outcome, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	selected := outcome{}
	for kind, resource := range kinds {
		if len(a.objects[resource.Resource]) == 0 {
			continue
		}
		c, err := newController(ctx, a, config, kind)
		if err != nil {
			return nil, err
		}
		c.selected = selected
		if err := c.run(ctx, a); err != nil {
			return nil, err
		}
	}
	return selected, nil
}

func newController(ctx context.Context, a *api, config operator.Config, kind string) (*controller, error) {
	access := &rest.Config{Host: "http://api", Transport: a, QPS: -1}
	access.ContentType = runtime.ContentTypeJSON
	core, err := typedcorev1.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	reviews, err := typedauthv1.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	client, err := monitoring.NewForConfig(access)
	if err != nil {
		return nil, err
	}
	registry, allowed, denied := prometheus.NewRegistry(), config.Namespaces.AllowList, config.Namespaces.DenyList
	c := &controller{kind: kind, metrics: operator.NewMetrics(registry)}
	ours := func(options *metav1.ListOptions) { options.LabelSelector = config.PromSelector.String() }
	c.instances, err = informers.NewInformersForResource(
		informers.NewMonitoringInformerFactories(config.Namespaces.PrometheusAllowList, denied, client, 0, ours),
		kinds[kind],
	)
	if err != nil {
		return nil, err
	}
	c.monitors, err = informers.NewInformersForResource(
		informers.NewMonitoringInformerFactories(allowed, denied, client, 0, nil),
		monitoringv1.SchemeGroupVersion.WithResource(monitoringv1.ServiceMonitorName),
	)
	if err != nil {
		return nil, err
	}
	lw, _, err := listwatch.NewNamespaceListWatchFromClient(
		ctx, silent, config.KubernetesVersion, core, reviews.SelfSubjectAccessReviews(), allowed, denied,
	)
	if err != nil {
		return nil, err
	}
	c.namespaces = cache.NewSharedIndexInformer(
		c.metrics.NewInstrumentedListerWatcher(lw), &corev1.Namespace{}, 0, cache.Indexers{},
	)
	c.rr = operator.NewResourceReconciler(silent, c, c.instances, c.metrics, kind, registry, config.ControllerID)
	return c, nil
}

// Lets the informers fill, and every instance be reconciled once.
func (c *controller) run(ctx context.Context, a *api) error {
	c.instances.Start(ctx.Done())
	c.monitors.Start(ctx.Done())
	go c.namespaces.Run(ctx.Done())
	filled := func() bool { return c.instances.HasSynced() && c.monitors.HasSynced() && c.namespaces.HasSynced() }
	for end := time.Now().Add(10 * time.Second); !filled(); {
		if a.refused.Load() {
			return errors.New("the API server refuses its requests")
		}
		if time.Now().After(end) {
			return errors.New("the informers do not fill")
		}
		time.Sleep(100 * time.Microsecond)
	}
	c.rr.Run(ctx)
	err := c.instances.ListAll(labels.Everything(), func(instance any) { c.rr.OnAdd(instance, true) })
	c.rr.Stop() // with what is queued done
	return err
}

// Sync reconciles one instance, as far as that reads its monitors: sync of both controllers.
func (c *controller) Sync(ctx context.Context, key string) error {
	instance, err := c.instance(key)
	if err != nil || instance == nil {
		return err
	}
	if c.rr.DeletionInProgress(instance.GetObjectMeta()) {
		return nil
	}
	c.tell(key, nil)
	if instance.GetCommonPrometheusFields().Paused {
		return nil
	}
	selector, err := prompkg.NewResourceSelector(
		silent, instance, assets.NewTestStoreBuilder(), c.namespaces, c.metrics,
		operator.NewFakeRecorder(100, instance.(runtime.Object)),
	)
	if err != nil {
		return nil
	}
	monitors, err := selector.SelectServiceMonitors(ctx, c.monitors.ListAllByNamespace)
	if err != nil {
		// A selector that cannot be read: it is tried again and again, and nothing is written.
		return nil
	}
	for monitor := range monitors.ValidResources() {
		c.tell(key, &monitor)
	}
	return nil
}

// UpdateStatus does nothing: what an operator tells of an instance is of no matter here.
func (c *controller) UpdateStatus(context.Context, string) error { return nil }

func (c *controller) instance(key string) (monitoringv1.PrometheusInterface, error) {
	if c.kind == "Prometheus" {
		found, err := operator.GetObjectFromKey[*monitoringv1.Prometheus](c.instances, key)
		if found == nil {
			return nil, err
		}
		return found, err
	}
	found, err := operator.GetObjectFromKey[*monitoringv1alpha1.PrometheusAgent](c.instances, key)
	if found == nil {
		return nil, err
	}
	return found, err
}

func (c *controller) tell(key string, monitor *string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	who := reader{c.kind, key}
	if c.selected[who] == nil {
		c.selected[who] = map[string]bool{}
	}
	if monitor != nil {
		c.selected[who][*monitor] = true
	}
}
