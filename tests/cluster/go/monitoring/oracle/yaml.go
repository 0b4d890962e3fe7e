package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsjson "sigs.k8s.io/json"
)

// A document of a manifest: what it holds, or why kubectl stops there.
type document struct {
	JSON  json.RawMessage `json:"json,omitempty"`
	Error string          `json:"error,omitempty"`
}

// For each of several files, the list of its documents.
func readFiles(paths []string, out *json.Encoder) error {
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		var documents []document
		err = eachDocument(file, func(found document) error {
			documents = append(documents, found)
			return nil
		})
		file.Close()
		if err == nil {
			err = out.Encode(map[string]any{"file": path, "documents": documents})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// One line for each document of the input.
func readManifests(in io.Reader, out *json.Encoder) error {
	return eachDocument(in, func(found document) error { return out.Encode(found) })
}

// Follows FileVisitor and StreamVisitor of k8s.io/cli-runtime/pkg/resource: documents without content are left out, the
// first error is the end, and what is left is decoded as unstructured objects are.
func eachDocument(in io.Reader, tell func(document) error) error {
	decoder := yaml.NewYAMLOrJSONDecoder(transform.NewReader(in, unicode.BOMOverride(unicode.UTF8.NewDecoder())), 4096)
	for {
		var object runtime.RawExtension
		if err := decoder.Decode(&object); err == io.EOF {
			return nil
		} else if err != nil {
			return tell(document{Error: err.Error()})
		}
		raw := bytes.TrimSpace(object.Raw)
		if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
			continue
		}
		sent, err := decoded(raw)
		if err != nil {
			return tell(document{Error: err.Error()})
		}
		if err := tell(document{JSON: sent}); err != nil {
			return err
		}
	}
}

// The object as it is sent: numbers are int64 or float64, of which whole ones print alike.
func decoded(raw []byte) (json.RawMessage, error) {
	var object any
	if err := sigsjson.UnmarshalCaseSensitivePreserveInts(raw, &object); err != nil {
		return nil, err
	}
	return json.Marshal(object)
}
