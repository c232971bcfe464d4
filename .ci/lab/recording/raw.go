// SPDX-License-Identifier: Apache-2.0

// Package recording holds what the lab records: raw, as the stand-in runtime and the CRI proxy write it down, and finished, as it
// is kept in rules/testdata/genuine, with everything that differs from run to run replaced.
package recording

import (
	"encoding/json"
	"os"
	"strings"
)

// RawContainer is one container as containerd asked for it. Name is empty for the sandbox.
type RawContainer struct {
	ID, Sandbox, Namespace, Pod, Name string
	Terminal                          bool
	Pid                               int // of the shim, which containerd takes for the container's
	Rootfs                            []string
	Spec                              json.RawMessage
	Files                             map[string][]File // by the source of each bind mount
}

// RawExec is one process that was added to a container.
type RawExec struct {
	Terminal, Stdin bool
	Process         json.RawMessage
}

// RawCall is one request of the kubelet that makes a sandbox, a container or an exec, and the id it got.
type RawCall struct {
	Method  string
	ID      string // of the sandbox for RunPodSandbox, of the container otherwise
	Sandbox string
	Request json.RawMessage
}

// Plan says which containers end, with success, as soon as they run. All others run until they are stopped.
type Plan []PlanEntry

// PlanEntry is about the pod of that name, or all pods whose name begins so when Prefix is set.
type PlanEntry struct {
	Namespace, Pod string
	Prefix         bool
	Containers     []string
}

// ReadPlan is empty where there is no plan (yet).
func ReadPlan(name string) Plan {
	var p Plan
	b, err := os.ReadFile(name)
	if err != nil || json.Unmarshal(b, &p) != nil {
		return nil
	}
	return p
}

// EndsAtOnce tells whether the plan names the container.
func (p Plan) EndsAtOnce(namespace, pod, container string) bool {
	for _, e := range p {
		if e.Namespace != namespace || e.Pod != pod && !(e.Prefix && strings.HasPrefix(pod, e.Pod)) {
			continue
		}
		for _, c := range e.Containers {
			if c == container {
				return true
			}
		}
	}
	return false
}
