// What others make of our input, for tests to compare with: `oracle yaml` reads manifests as kubectl does, `oracle
// selection` selects ServiceMonitors as the Prometheus Operator does, `oracle flags` lists that operator's flags.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/klog/v2"
)

func main() {
	// Informers then list and watch, which is all that there is to ask here; what they log is of no matter.
	os.Setenv("KUBE_FEATURE_WatchListClient", "false")
	klog.SetSlogLogger(silent)
	out := bufio.NewWriter(os.Stdout)
	err := run(os.Args[1:], os.Stdin, json.NewEncoder(out), out.Flush)
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out *json.Encoder, flush func() error) error {
	out.SetEscapeHTML(false)
	switch {
	case len(args) == 1 && args[0] == "yaml":
		return readManifests(in, out)
	case len(args) > 1 && args[0] == "yaml":
		return readFiles(args[1:], out)
	case len(args) == 1 && args[0] == "selection":
		return selectMonitors(in, out, flush)
	case len(args) == 1 && args[0] == "flags":
		return listFlags(out)
	}
	return fmt.Errorf("usage: oracle yaml [FILE…] | selection | flags")
}
