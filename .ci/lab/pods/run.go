// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"portcullis/ci/lab/cluster"
	"portcullis/ci/lab/recording"
)

// Limits of a run.
const (
	atOnce  = 10               // manifests
	patient = 4 * time.Minute  // for one manifest's pods
	goodbye = 60 * time.Second // for their end
)

// Runner runs manifests against a cluster.
type Runner struct {
	API     *cluster.API
	Records string // raw records
	Plan    string // file

	mu   sync.Mutex
	plan recording.Plan
}

// Made is a pod that ran, and the manifest that it comes from.
type Made struct {
	Manifest, Namespace, Name string
	Owned                     bool // by a controller, which chose the name
}

// Run runs all manifests, several at a time. Errors name the manifest; the others run all the same.
func (r *Runner) Run(ctx context.Context, all []*Manifest) error {
	if err := r.prepare(ctx, all); err != nil {
		return err
	}
	var (
		wait   sync.WaitGroup
		mu     sync.Mutex
		failed []error
		slots  = make(chan struct{}, atOnce)
	)
	for _, m := range all {
		wait.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wait.Done() }()
			_, err := r.manifest(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", m.Name, err))
			}
		}()
	}
	wait.Wait()
	return errors.Join(failed...)
}

// prepare makes what all manifests need: namespaces with their service account, runtime classes, the plan.
func (r *Runner) prepare(ctx context.Context, all []*Manifest) error {
	namespaces, classes := map[string]bool{"default": true}, map[string]bool{}
	for _, m := range all {
		for _, w := range m.workloads {
			namespaces[cluster.Namespace(w.object)] = true
			if c, _ := w.spec["runtimeClassName"].(string); c != "" {
				classes[c] = true
			}
			r.plan = append(r.plan, w.plan())
		}
	}
	b, err := json.Marshal(r.plan)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.Plan, b, 0o600); err != nil {
		return fmt.Errorf("write the plan: %w", err)
	}
	for c := range classes {
		if err := r.create(cluster.Object{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": cluster.Object{"name": c}, "handler": "kata"}); err != nil {
			return err
		}
	}
	for n := range namespaces {
		if err := r.create(cluster.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": cluster.Object{"name": n}}); err != nil {
			return err
		}
		for _, needed := range []string{"/serviceaccounts/default", "/configmaps/kube-root-ca.crt"} {
			if err := r.wait(ctx, goodbye, func() (bool, error) { return r.exists("/api/v1/namespaces/" + n + needed) }); err != nil {
				return fmt.Errorf("namespace %s: %w", n, err)
			}
		}
	}
	return nil
}

func (r *Runner) create(o cluster.Object) error {
	if _, err := r.API.Create(o); err != nil && !cluster.IsStatus(err, http.StatusConflict) {
		return err
	}
	return nil
}

func (r *Runner) exists(path string) (bool, error) {
	_, err := r.API.Get(path)
	if cluster.IsStatus(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// wait asks until the answer is yes.
func (r *Runner) wait(ctx context.Context, limit time.Duration, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		yes, err := ask()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// manifest creates the objects, waits until the pods are recorded, and takes everything away.
func (r *Runner) manifest(ctx context.Context, m *Manifest) (made []Made, err error) {
	if m.static != nil {
		return r.static(ctx, m)
	}
	var paths []string
	defer func() {
		for _, p := range paths {
			err = errors.Join(err, r.API.Delete(p, 2))
		}
		err = errors.Join(err, r.gone(ctx, made))
	}()
	for _, o := range m.objects {
		path, err := r.API.Create(o)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	for _, w := range m.workloads {
		pods, created, err := r.workload(ctx, w)
		paths = append(paths, created...)
		for _, p := range pods {
			made = append(made, Made{m.Name, cluster.Namespace(w.object), p, !w.pod})
		}
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// gone waits until the API server has none of the pods any more.
func (r *Runner) gone(ctx context.Context, made []Made) error {
	for _, pod := range made {
		err := r.wait(ctx, goodbye, func() (bool, error) {
			there, err := r.exists("/api/v1/namespaces/" + pod.Namespace + "/pods/" + pod.Name)
			return !there, err
		})
		if err != nil {
			return fmt.Errorf("pod %s does not end: %w", pod.Name, err)
		}
	}
	return nil
}

// static puts a manifest where the kubelet itself looks for pods. Those are called after the node too.
func (r *Runner) static(ctx context.Context, m *Manifest) ([]Made, error) {
	file := filepath.Join(cluster.StaticPods, m.Name)
	if err := os.WriteFile(file, m.static, 0o600); err != nil {
		return nil, err
	}
	var made []Made
	for _, w := range m.workloads {
		pod := w.name + "-" + cluster.NodeName
		err := r.wait(ctx, patient, func() (bool, error) { return r.recorded(w, []string{pod}), nil })
		if err != nil {
			return made, fmt.Errorf("static pod %s is not recorded: %w", pod, err)
		}
		made = append(made, Made{Manifest: m.Name, Namespace: cluster.Namespace(w.object), Name: pod})
	}
	if err := os.Remove(file); err != nil {
		return made, err
	}
	return made, r.gone(ctx, made)
}

var (
	// errNoRoom: the node is full for now.
	errNoRoom = errors.New("no room on the node")
	// errRefused: the kubelet says that it cannot run such a pod, with this containerd.
	errRefused = errors.New("the kubelet refuses the pod")
)

func (r *Runner) workload(ctx context.Context, w workload) (pods, created []string, err error) {
	for {
		path, err := r.API.Create(w.object)
		if err != nil {
			return nil, nil, err
		}
		err = r.wait(ctx, patient, func() (bool, error) {
			pods, err = r.find(w)
			if err != nil {
				return false, err
			}
			return len(pods) >= w.count && r.recorded(w, pods), nil
		})
		if errors.Is(err, errNoRoom) {
			if err := r.API.Delete(path, 0); err != nil {
				return nil, nil, err
			}
			time.Sleep(3 * time.Second)
			continue
		}
		if errors.Is(err, errRefused) {
			fmt.Printf("lab: %s: not recorded: %v\n", w.name, err)
			return nil, []string{path}, nil
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("not recorded in time: pods %q: %s", pods, r.why(w, pods))
		}
		return pods, []string{path}, err
	}
}

// find gives the names of the workload's pods.
func (r *Runner) find(w workload) ([]string, error) {
	list, err := r.API.Object("/api/v1/namespaces/" + cluster.Namespace(w.object) + "/pods")
	if err != nil {
		return nil, err
	}
	var names []string
	items, _ := list["items"].([]any)
	for _, i := range items {
		pod, _ := i.(cluster.Object)
		name, _ := cluster.Field(pod, "metadata", "name").(string)
		owned := cluster.Field(pod, "metadata", "ownerReferences") != nil
		if w.pod && name != w.name || !w.pod && !(owned && strings.HasPrefix(name, w.name+"-")) {
			continue
		}
		reason, _ := cluster.Field(pod, "status", "reason").(string)
		if strings.HasPrefix(reason, "OutOf") {
			return nil, errNoRoom
		}
		if strings.HasSuffix(reason, "NotSupported") {
			return nil, fmt.Errorf("%w: %v", errRefused, cluster.Field(pod, "status", "message"))
		}
		names = append(names, name)
	}
	return names, nil
}

// recorded tells whether every container of the pods is there, with what is executed in it.
func (r *Runner) recorded(w workload, pods []string) bool {
	raw, err := recording.ReadRaw(r.Records)
	if err != nil {
		return false
	}
	for _, pod := range pods {
		found := raw.Pod(cluster.Namespace(w.object), pod)
		for name, execs := range w.wanted() {
			c := found[name]
			if c == nil || c.Commands() < execs {
				return false
			}
		}
	}
	return true
}

// why says what keeps a pod from running, as its events have it.
func (r *Runner) why(w workload, pods []string) string {
	list, err := r.API.Object("/api/v1/namespaces/" + cluster.Namespace(w.object) + "/events")
	if err != nil {
		return err.Error()
	}
	var said []string
	items, _ := list["items"].([]any)
	for _, i := range items {
		e, _ := i.(cluster.Object)
		name, _ := cluster.Field(e, "involvedObject", "name").(string)
		if e["type"] == "Warning" && strings.HasPrefix(name, w.name) {
			said = append(said, fmt.Sprint(e["message"]))
		}
	}
	return strings.Join(said, "; ")
}

// Clear removes raw records of an earlier run.
func Clear(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(n); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o700)
}
