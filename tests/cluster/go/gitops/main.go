// Says which objects Argo CD would call out of sync, by its own engine: a JSON list of {"config", "live"} on standard input, and on
// standard output for each of them what the live object would become, or null where nothing differs.
package main

import (
	"encoding/json"
	"log"
	"os"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type pair struct {
	Config map[string]any `json:"config"`
	Live   map[string]any `json:"live"`
}

func main() {
	var pairs []pair
	if err := json.NewDecoder(os.Stdin).Decode(&pairs); err != nil {
		log.Fatal(err)
	}
	results := make([]json.RawMessage, len(pairs))
	for i, pair := range pairs {
		config, live := &unstructured.Unstructured{Object: pair.Config}, &unstructured.Unstructured{Object: pair.Live}
		result, err := diff.Diff(config, live, diff.WithNormalizer(diff.GetNoopNormalizer()))
		if err != nil {
			log.Fatalf("%s %s: %v", config.GetKind(), config.GetName(), err)
		}
		results[i] = json.RawMessage("null")
		if result.Modified {
			results[i] = result.PredictedLive
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}
