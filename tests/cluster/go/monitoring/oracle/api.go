package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// As much of an API server as informers need, without a network: lists by namespace, labels and fields, and watches that
// tell nothing. The operator's own clients talk to it.
type api struct {
	objects map[string][]object // by resource
	refused atomic.Bool         // a request that a real API server would refuse as well
}

type object struct {
	meta metav1.ObjectMeta
	raw  json.RawMessage
}

func (a *api) add(resource string, raw json.RawMessage) error {
	var read struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &read); err != nil {
		return err
	}
	a.objects[resource] = append(a.objects[resource], object{read.Metadata, raw})
	return nil
}

func (a *api) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body != nil {
		request.Body.Close()
	}
	query := request.URL.Query()
	switch {
	case request.Method == http.MethodPost && strings.HasSuffix(request.URL.Path, "/selfsubjectaccessreviews"):
		return reply(request, http.StatusCreated, map[string]any{
			"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": map[string]bool{"allowed": true},
		})
	case request.Method != http.MethodGet:
		return a.refuse(request, "nothing can be written")
	case query.Get("watch") != "":
		return answer(request, http.StatusOK, silence(request.Context())), nil
	}
	byLabel, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		return a.refuse(request, err.Error())
	}
	byField, err := fields.ParseSelector(query.Get("fieldSelector"))
	if err != nil {
		return a.refuse(request, err.Error())
	}
	resource, namespace := place(request.URL.Path)
	items := []json.RawMessage{}
	for _, o := range a.objects[resource] {
		named := fields.Set{"metadata.name": o.meta.Name, "metadata.namespace": o.meta.Namespace}
		within := namespace == "" || namespace == o.meta.Namespace
		if within && byLabel.Matches(labels.Set(o.meta.Labels)) && byField.Matches(named) {
			items = append(items, o.raw)
		}
	}
	kind := listKinds[resource]
	return reply(request, http.StatusOK, map[string]any{
		"kind": kind[0], "apiVersion": kind[1], "metadata": map[string]string{"resourceVersion": "1"}, "items": items,
	})
}

var listKinds = map[string][2]string{
	"namespaces":       {"NamespaceList", "v1"},
	"prometheuses":     {"PrometheusList", "monitoring.coreos.com/v1"},
	"prometheusagents": {"PrometheusAgentList", "monitoring.coreos.com/v1alpha1"},
	"servicemonitors":  {"ServiceMonitorList", "monitoring.coreos.com/v1"},
}

// The resource that a path names, and the namespace where it names one: /api/v1/namespaces,
// /apis/monitoring.coreos.com/v1/namespaces/edge/servicemonitors.
func place(path string) (resource, namespace string) {
	words := strings.Split(path, "/")
	if resource = words[len(words)-1]; len(words) > 3 && words[len(words)-3] == "namespaces" {
		namespace = words[len(words)-2]
	}
	return resource, namespace
}

func (a *api) refuse(request *http.Request, why string) (*http.Response, error) {
	a.refused.Store(true)
	status := metav1.Status{Status: metav1.StatusFailure, Message: why, Code: http.StatusBadRequest}
	return reply(request, http.StatusBadRequest, status)
}

func reply(request *http.Request, code int, body any) (*http.Response, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return answer(request, code, io.NopCloser(bytes.NewReader(text))), nil
}

func answer(request *http.Request, code int, body io.ReadCloser) *http.Response {
	header := http.Header{"Content-Type": {"application/json"}}
	return &http.Response{StatusCode: code, Header: header, Body: body, Request: request, ProtoMajor: 1, ProtoMinor: 1}
}

// A body that says nothing until the request ends.
func silence(ctx context.Context) io.ReadCloser {
	reader, writer := io.Pipe()
	context.AfterFunc(ctx, func() { writer.CloseWithError(ctx.Err()) })
	return reader
}
