// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/yaml"

	"portcullis/hostdata/initdata"
)

// annotated is the annotation of a pod, or of what makes pods, that holds its policy.
type annotated struct{ key, value string }

// annotationOf finds in a manifest, YAML or JSON of one or several objects, the annotation that binds its pods. found is false for
// text that is no manifest.
func annotationOf(text []byte) (a annotated, found bool, err error) {
	var all []annotated
	objects := yaml.NewYAMLOrJSONDecoder(strings.NewReader(string(text)), 4096)
	manifest := false
	for {
		var object map[string]any
		err := objects.Decode(&object)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !manifest {
			return a, false, nil // a policy, or TOML
		}
		if err != nil {
			return a, false, fmt.Errorf("the manifest cannot be read: %w", err)
		}
		if object["apiVersion"] == nil || object["kind"] == nil {
			continue // a line of a recording has a kind too
		}
		manifest = true
		all = collect(all, object)
	}
	switch {
	case !manifest:
		return a, false, nil
	case len(all) == 0:
		return a, false, errors.New("the manifest has no annotation with a policy or initdata; genpolicy adds one")
	case len(all) > 1:
		return a, false, fmt.Errorf("the manifest has %d different annotations with a policy or initdata; give one pod's", len(all))
	}
	return all[0], true, nil
}

// collect adds the annotations of an object, and of the pods that it is a template of, that are not there yet.
func collect(all []annotated, object map[string]any) []annotated {
	if metadata, ok := object["metadata"].(map[string]any); ok {
		annotations, _ := metadata["annotations"].(map[string]any)
		for _, key := range []string{initdata.Annotation, initdata.OlderAnnotation, initdata.PolicyAnnotation} {
			value, ok := annotations[key].(string)
			if !ok {
				continue
			}
			// A runtime takes the first of them, and one value is one policy.
			if !slices.ContainsFunc(all, func(a annotated) bool { return a.value == value }) {
				all = append(all, annotated{key, value})
			}
			break
		}
	}
	for _, path := range [][]string{{"spec", "template"}, {"spec", "jobTemplate"}, {"template"}} {
		if inner := at(object, path); inner != nil {
			all = collect(all, inner)
		}
	}
	if items, ok := object["items"].([]any); ok {
		for _, item := range items {
			if inner, ok := item.(map[string]any); ok {
				all = collect(all, inner)
			}
		}
	}
	return all
}

func at(object map[string]any, path []string) map[string]any {
	for _, key := range path {
		object, _ = object[key].(map[string]any)
	}
	return object
}

// read digests what the annotation holds; alg is that of a policy.
func (a annotated) read(name, alg string) (boundText, error) {
	name += ", annotation " + a.key
	switch a.key {
	case initdata.PolicyAnnotation:
		text, err := initdata.ParsePolicy(a.value)
		if err != nil {
			return boundText{}, refusedText(name, err)
		}
		return boundPolicy(name, text, digestSource{alg: alg}.policyAlg())
	case initdata.OlderAnnotation:
		doc, _, err := initdata.ParseOlder(a.value)
		return boundInitdata(name, doc, err)
	}
	doc, err := initdata.ParseAnnotation(a.value)
	return boundInitdata(name, doc, err)
}
