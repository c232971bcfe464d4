// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portcullis/images"
	"portcullis/internal/emulator/recordings"
	"portcullis/internal/generatetest"
	"portcullis/internal/rulestest"
	"portcullis/rules/generate"
	"portcullis/rules/policydata"
)

// recordedPods are pods whose recorded requests are changed: by folder, one for each kind of thing that a pod can have.
var recordedPods = []struct{ set, platform, images, pods string }{
	{"containerd-1.7.35_kubelet-1.34.4", "peer-pods", "images.tgz", "img-user"},
	{"containerd-2.4.2_kubelet-1.37.2", "peer-pods", "images.tgz", "caps-drop config links sysctls"},
	{"controllers_kubelet-1.37.2", "peer-pods", "images.tgz", "made-sts.0"},
	{"runtime-rs-4.1.0_peer-pods", "peer-pods", "images.tgz", "w-simple"},
	{"shim-go-4.1.0_shared-fs", "non-coco", "images-accounts.tgz", "w-deploy"},
}

// leaves are the changes of a single value; the others leave something out of a list or put it there twice.
var leaves = []rulestest.Change{rulestest.Append, rulestest.Prefix, rulestest.Empty, rulestest.Flip, rulestest.PlusOne}

// Recorded requests that make containers and processes are changed in one leaf, and judged in the state in which the recorded one
// was allowed. What is still allowed must be on the written list, and be at most 2 %.
func TestSingleLeafChangesOfRecordedRequestsAreDenied(t *testing.T) {
	folder := recordings.Folder(t)
	all := newTally()
	for _, set := range recordedPods {
		store := generatetest.Layout(t, filepath.Join(folder, set.images))
		for _, recorded := range recordings.Pods(t, folder, set.set) {
			if !slices.Contains(strings.Fields(set.pods), recorded.Name) {
				continue
			}
			t.Run(set.set+"/"+recorded.Name, func(t *testing.T) {
				all.addRecorded(t, policyOf(t, recorded, set.platform, store), recorded)
			})
		}
	}
	for _, kind := range strictKinds {
		leaf, list := all.split([]string{kind})
		t.Logf("%s: %d leaves changed, %d allowed; %d changes of lists, %d allowed", kind, leaf.tried, leaf.allowed, list.tried, list.allowed)
	}
	sum, _ := all.split(strictKinds)
	t.Logf("%d leaves were changed, %d allowed (%.2f %%)", sum.tried, sum.allowed, sum.percent())
	if sum.tried < 5000 || sum.percent() > mostValues {
		t.Errorf("%d changes, %.2f %% allowed, want at most %v %%", sum.tried, sum.percent(), mostValues)
	}
}

// split adds up the changes of values and those of lists, of some kinds of request.
func (m *mutationTally) split(kinds []string) (leaf, list count) {
	for at, changes := range m.counts {
		for change, c := range changes {
			switch {
			case !slices.Contains(kinds, at.kind):
			case slices.Contains(leaves, change):
				leaf = count{leaf.tried + c.tried, leaf.allowed + c.allowed}
			default:
				list = count{list.tried + c.tried, list.allowed + c.allowed}
			}
		}
	}
	return leaf, list
}

// addRecorded tries every change of the recorded requests of a pod.
func (m *mutationTally) addRecorded(t *testing.T, p *policydata.Policy, recorded recordings.Pod) {
	ctx := context.Background()
	j := judgeCompact(t, p)
	for _, q := range recorded.Requests {
		r := rulestest.Request{Kind: q.Kind, Input: q.Input}
		if !q.Allowed && q.Kind != "ExecProcessRequest" {
			continue
		}
		for mutation := range mutations(r, strictKinds) {
			d, err := j.Decide(ctx, r.Kind, value(t, mutation.Request))
			if err != nil {
				t.Fatal(err)
			}
			c := count{tried: 1}
			if d.Allowed {
				c.allowed = 1
				strictPod{node: []string{"NODE="}}.checkAllowed(t, r, mutation)
			}
			m.count(field{r.Kind, mutation.Path}, mutation.Change, c)
		}
		if d, err := j.Ask(ctx, r); q.Allowed && (err != nil || !d.Allowed) {
			t.Fatalf("%s is denied (%v): %s", r.Kind, err, why(t, j, r))
		}
	}
}

func policyOf(t *testing.T, recorded recordings.Pod, platform string, store images.Store) *policydata.Policy {
	t.Helper()
	m, err := generate.Parse(recorded.Name+".yaml", recorded.Manifest, generate.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made, _, err := generatetest.Policies(m, generatetest.Settings(t, platform), generatetest.Stored{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	return made[0]
}
