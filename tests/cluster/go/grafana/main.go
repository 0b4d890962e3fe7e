// Reads dashboards, one JSON file for each argument, into the types that Grafana publishes, and tells what they do not know.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	failed := false
	for _, name := range os.Args[1:] {
		text, err := os.ReadFile(name)
		if err == nil {
			var read dashboard.Dashboard
			err = read.UnmarshalJSONStrict(text)
		}
		// Of a dashboard without errors, the SDK returns an error without a text.
		if err != nil && err.Error() != "" {
			fmt.Printf("%s: %v\n", name, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
