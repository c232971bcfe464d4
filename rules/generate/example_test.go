// SPDX-License-Identifier: Apache-2.0

package generate_test

import (
	"context"
	"fmt"
	"strings"

	"portcullis/images"
	"portcullis/rules/generate"
	"portcullis/rules/settings"
)

// known stands for a registry: what is known of images by name. A program that asks registries hands generate.New an
// [images.Opener] with a store of package images/registry instead.
type known map[string]images.Config

func (k known) Image(_ context.Context, reference string) (*images.Image, error) {
	config, ok := k[reference]
	if !ok {
		return nil, fmt.Errorf("no image %s", reference)
	}
	ref, err := images.ParseReference(reference)
	return &images.Image{Reference: ref, Config: config}, err
}

// A manifest becomes a policy and the annotation that carries it.
func Example() {
	manifest, err := generate.Parse("pod.yaml", []byte(`
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  runtimeClassName: kata
  containers:
  - {name: web, image: "example.org/web:1", securityContext: {runAsUser: 1000}}
`), generate.ReadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	platform, err := settings.Load("guest-pull")
	if err != nil {
		fmt.Println(err)
		return
	}
	store := known{"example.org/web:1": {Entrypoint: []string{"/web"}, Env: []string{"PATH=/bin"}}}
	generator := generate.New(platform, store, nil, generate.Options{})
	for _, pod := range manifest.Pods() {
		policy, _, err := generator.Policy(context.Background(), pod)
		if err != nil {
			fmt.Println(err)
			return
		}
		rendered, _, err := generator.Render(pod, policy, generate.Output{Compact: true})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(pod.Name(), policy.Containers["web"].Args, strings.Contains(string(rendered.Text), "policy_data"))
		fmt.Println(rendered.Annotation)
	}
	// Output:
	// Pod web [/web] true
	// io.katacontainers.config.hypervisor.cc_init_data
}
