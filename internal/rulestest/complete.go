// SPDX-License-Identifier: Apache-2.0

package rulestest

import (
	"encoding/json"
	"slices"
	"strings"

	"portcullis/rules/policydata"
)

// Complete returns a CreateContainer or ExecProcess request with what a real runtime would have sent beside what is there: the
// ids, as the root path has them, and the image name, variables, mounts and storages of the policy that are missing. What is
// there stays, but for a host name that is not the pod's. Every field of the message must be present. Other requests come back as
// they are.
func (e Emulator) Complete(r Request) Request {
	out := Request{r.Kind, plain(r.Input).(map[string]any)}
	switch r.Kind {
	case "CreateContainerRequest":
		e.completeCreate(out.Input)
	case "CreateSandboxRequest":
		if out.Input["sandbox_id"] == "" {
			out.Input["sandbox_id"] = e.Pod.SandboxID
		}
		if storages, _ := out.Input["storages"].([]any); len(storages) == 0 {
			out.Input["storages"] = wire(e.Policy.Sandbox.Storages)
		}
	}
	return out
}

// CompleteExec is Complete for a process in the named container.
func (e Emulator) CompleteExec(name string, r Request) Request {
	out := Request{r.Kind, plain(r.Input).(map[string]any)}
	c := e.Policy.Containers[name]
	process, ok := out.Input["process"].(map[string]any)
	if c == nil || !ok {
		return out
	}
	process["Env"] = e.completeEnv(c, process["Env"])
	return out
}

func (e Emulator) completeCreate(input map[string]any) {
	oci := input["OCI"].(map[string]any)
	annotations := oci["Annotations"].(map[string]any)
	name, ok := annotations["io.kubernetes.cri.container-name"].(string)
	if !ok {
		name = policydata.SandboxContainer
	}
	c := e.Policy.Containers[name]
	if c == nil {
		return
	}
	root := oci["Root"].(map[string]any)["Path"].(string)
	before, after, _ := strings.Cut(e.Policy.Common.RootPath, "$(container-id)")
	id := strings.TrimSuffix(strings.TrimPrefix(root, before), after)
	input["container_id"], input["exec_id"] = id, id
	whole := replaceID(e.CreateContainer(name), ID(name), id)
	if linux := oci["Linux"].(map[string]any); linux["CgroupsPath"] == "" {
		linux["CgroupsPath"] = whole["OCI"].(map[string]any)["Linux"].(map[string]any)["CgroupsPath"]
	}
	if c.OCI.Annotations.ImageName != "" && annotations["io.kubernetes.cri.image-name"] == nil {
		annotations["io.kubernetes.cri.image-name"] = c.OCI.Annotations.ImageName
	}
	process := oci["Process"].(map[string]any)
	process["Env"] = e.completeEnv(c, process["Env"])
	wholeOCI := whole["OCI"].(map[string]any)
	oci["Mounts"] = addMissing(oci["Mounts"], wholeOCI["Mounts"], "destination")
	input["storages"] = addStorages(input["storages"], whole["storages"], annotations)
}

// replaceID gives an emulated request another container id.
func replaceID(r Request, from, to string) map[string]any {
	raw, err := json.Marshal(r.Input)
	if err != nil {
		panic(err) // inputs are JSON
	}
	return plain(json.RawMessage(strings.ReplaceAll(string(raw), from, to))).(map[string]any)
}

func (e Emulator) completeEnv(c *policydata.Container, env any) []any {
	items, _ := env.([]any)
	have := map[string]bool{}
	for i, entry := range items {
		name, _, _ := strings.Cut(entry.(string), "=")
		if name == "HOSTNAME" && c.Env.Templates[name] != "" {
			items[i] = name + "=" + e.fill(c.Env.Templates[name])
		}
		have[name] = true
	}
	for _, entry := range e.env(c) {
		if name, _, _ := strings.Cut(entry, "="); !have[name] {
			items = append(items, entry)
		}
	}
	return items
}

func addMissing(have, whole any, key string) []any {
	items, _ := have.([]any)
	for _, item := range whole.([]any) {
		value := item.(map[string]any)[key]
		if !slices.ContainsFunc(items, func(h any) bool { return h.(map[string]any)[key] == value }) {
			items = append(items, item)
		}
	}
	return items
}

// addStorages adds the pull of the image where there is none, whose metadata are the annotations.
func addStorages(have, whole any, annotations map[string]any) []any {
	items, _ := have.([]any)
	isPull := func(item any) bool { return item.(map[string]any)["driver"] == "image_guest_pull" }
	if slices.ContainsFunc(items, isPull) {
		return items
	}
	for _, item := range whole.([]any) {
		s := item.(map[string]any)
		if !isPull(item) {
			continue
		}
		metadata, err := json.Marshal(map[string]any{"metadata": annotations})
		if err != nil {
			panic(err) // strings encode
		}
		s["driver_options"] = []any{"image_guest_pull=" + string(metadata)}
		items = append(items, s)
	}
	return items
}
