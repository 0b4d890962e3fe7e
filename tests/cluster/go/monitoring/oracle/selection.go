package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A cluster's objects as an API server would give them.
type cluster struct {
	Operators  []appsv1.Deployment `json:"operators"`
	Readers    []json.RawMessage   `json:"readers"` // of kind Prometheus or PrometheusAgent
	Namespaces []json.RawMessage   `json:"namespaces"`
	Monitors   []json.RawMessage   `json:"monitors"`
}

type verdict struct {
	// Why this operator does not run; empty where it does.
	Ends []string `json:"ends"`
	// Whether any operator takes this reader for its own.
	Handled []bool `json:"handled"`
	// For each reader, whether it selects each monitor.
	Selected [][]bool `json:"selected"`
}

// Answers each line with one, in the same order.
func selectMonitors(in io.Reader, out *json.Encoder, flush func() error) error {
	type pending struct {
		verdict verdict
		err     error
	}
	answers := make(chan chan pending, 4*runtime.NumCPU())
	lines := bufio.NewReader(in)
	failed := make(chan error, 1)
	go func() {
		defer close(answers)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				if err != io.EOF {
					failed <- err
				}
				return
			}
			answer := make(chan pending, 1)
			answers <- answer
			go func() {
				found, err := judge(line)
				answer <- pending{found, err}
			}()
		}
	}()
	for answer := range answers {
		found := <-answer
		if found.err != nil {
			return found.err
		}
		if err := out.Encode(found.verdict); err != nil {
			return err
		}
		if err := flush(); err != nil {
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func judge(line []byte) (verdict, error) {
	var given cluster
	if err := json.Unmarshal(line, &given); err != nil {
		return verdict{}, err
	}
	var answer verdict
	all := outcome{}
	for _, deployment := range given.Operators {
		selected, err := judgeOperator(given, deployment)
		if err != nil {
			answer.Ends = append(answer.Ends, err.Error())
			continue
		}
		answer.Ends = append(answer.Ends, "")
		for who, monitors := range selected {
			if all[who] == nil {
				all[who] = map[string]bool{}
			}
			for monitor := range monitors {
				all[who][monitor] = true
			}
		}
	}
	for _, raw := range given.Readers {
		kind, key, err := identity(raw)
		if err != nil {
			return answer, err
		}
		monitors, handled := all[reader{kind, key}]
		answer.Handled = append(answer.Handled, handled)
		var row []bool
		for _, raw := range given.Monitors {
			_, monitor, err := identity(raw)
			if err != nil {
				return answer, err
			}
			row = append(row, monitors[monitor])
		}
		answer.Selected = append(answer.Selected, row)
	}
	return answer, nil
}

func judgeOperator(given cluster, deployment appsv1.Deployment) (outcome, error) {
	config, err := configOf(argumentsOf(deployment.Spec.Template.Spec))
	if err != nil {
		return nil, err
	}
	a := &api{objects: map[string][]object{}}
	add := func(resource string, all []json.RawMessage) {
		for _, raw := range all {
			if err == nil {
				err = a.add(resource, raw)
			}
		}
	}
	add("namespaces", given.Namespaces)
	add("servicemonitors", given.Monitors)
	for _, raw := range given.Readers {
		kind, _, err := identity(raw)
		if err != nil {
			return nil, err
		}
		add(kinds[kind].Resource, []json.RawMessage{raw})
	}
	if err != nil {
		return nil, err
	}
	return operate(a, config)
}

// The words behind the program's own, of the container that is called prometheus-operator.
func argumentsOf(pod corev1.PodSpec) []string {
	for _, container := range pod.Containers {
		if container.Name == "prometheus-operator" {
			words := append(append([]string{}, container.Command...), container.Args...)
			if len(container.Command) > 0 {
				words = words[1:]
			}
			return expand(words, container.Env)
		}
	}
	return nil
}

// Replaces $(NAME) as the kubelet does for variables that have a value.
func expand(words []string, env []corev1.EnvVar) []string {
	for i := range words {
		for _, variable := range env {
			words[i] = strings.ReplaceAll(words[i], "$("+variable.Name+")", variable.Value)
		}
	}
	return words
}

func identity(raw json.RawMessage) (kind, key string, err error) {
	var read struct {
		Kind     string            `json:"kind"`
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &read); err != nil {
		return "", "", fmt.Errorf("no object: %w", err)
	}
	return read.Kind, read.Metadata.Namespace + "/" + read.Metadata.Name, nil
}
