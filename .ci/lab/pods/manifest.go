// SPDX-License-Identifier: Apache-2.0

// Package pods runs each manifest of a folder once and waits until its containers are recorded.
package pods

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"

	"portcullis/ci/lab/cluster"
	"portcullis/ci/lab/recording"
)

// Manifest is one file.
type Manifest struct {
	Name      string // of the file
	static    []byte // the text, where the kubelet reads it from a folder: files named static-…
	objects   []cluster.Object
	workloads []workload
}

// workload is an object that pods come from.
type workload struct {
	object cluster.Object
	spec   cluster.Object // of its pods
	name   string
	pod    bool
	count  int
}

var separator = regexp.MustCompile(`(?m)^---.*$`)

// Load reads every *.yaml file of a folder.
func Load(dir string) ([]*Manifest, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no manifests in %s", dir)
	}
	sort.Strings(names)
	var all []*Manifest
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		m := &Manifest{Name: filepath.Base(name)}
		if strings.HasPrefix(m.Name, "static-") {
			m.static = content
		}
		for _, document := range separator.Split(string(content), -1) {
			if len(bytes.TrimSpace([]byte(document))) == 0 {
				continue
			}
			var o cluster.Object
			if err := yaml.Unmarshal([]byte(document), &o); err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			if o != nil {
				m.add(o)
			}
		}
		if len(m.workloads) == 0 {
			return nil, fmt.Errorf("read %s: no pod and nothing that makes one", name)
		}
		all = append(all, m)
	}
	return all, nil
}

// podSpecs says where each kind has the specification of its pods.
var podSpecs = map[string][]string{
	"Pod": {"spec"}, "Deployment": {"spec", "template", "spec"}, "ReplicaSet": {"spec", "template", "spec"}, "ReplicationController": {"spec", "template", "spec"},
	"StatefulSet": {"spec", "template", "spec"}, "DaemonSet": {"spec", "template", "spec"}, "Job": {"spec", "template", "spec"},
	"CronJob": {"spec", "jobTemplate", "spec", "template", "spec"},
}

func (m *Manifest) add(o cluster.Object) {
	if items, ok := o["items"].([]any); ok {
		for _, i := range items {
			if i, ok := i.(cluster.Object); ok {
				m.add(i)
			}
		}
		return
	}
	kind, _ := o["kind"].(string)
	spec, ok := cluster.Field(o, podSpecs[kind]...).(cluster.Object)
	if podSpecs[kind] == nil || !ok {
		m.objects = append(m.objects, o)
		return
	}
	name, _ := cluster.Field(o, "metadata", "name").(string)
	spec["nodeName"] = cluster.NodeName // there is no scheduler
	m.workloads = append(m.workloads, workload{object: o, spec: spec, name: name, pod: kind == "Pod", count: count(o)})
}

func count(o cluster.Object) int {
	for _, field := range []string{"replicas", "parallelism"} {
		if n, ok := cluster.Field(o, "spec", field).(float64); ok && n > 0 {
			return int(n)
		}
	}
	return 1
}

// containers lists the containers under a key of a pod's specification.
func containers(spec cluster.Object, key string) []cluster.Object {
	list, _ := spec[key].([]any)
	var all []cluster.Object
	for _, c := range list {
		if c, ok := c.(cluster.Object); ok {
			all = append(all, c)
		}
	}
	return all
}

// plan lets init containers end.
func (w workload) plan() recording.PlanEntry {
	e := recording.PlanEntry{Namespace: cluster.Namespace(w.object), Pod: w.name, Prefix: !w.pod}
	for _, c := range containers(w.spec, "initContainers") {
		if c["restartPolicy"] == nil {
			name, _ := c["name"].(string)
			e.Containers = append(e.Containers, name)
		}
	}
	return e
}

// wanted is what has to be recorded of each of the pods: the names of its containers, and how many different commands are
// executed in each while it runs.
func (w workload) wanted() map[string]int {
	want := map[string]int{}
	for _, key := range []string{"initContainers", "containers"} {
		for _, c := range containers(w.spec, key) {
			name, _ := c["name"].(string)
			commands := map[string]bool{}
			for _, path := range [][]string{{"livenessProbe"}, {"readinessProbe"}, {"startupProbe"}, {"lifecycle", "postStart"}} {
				if command := cluster.Field(c, append(path, "exec", "command")...); command != nil {
					commands[fmt.Sprint(command)] = true
				}
			}
			want[name] = len(commands)
		}
	}
	return want
}
