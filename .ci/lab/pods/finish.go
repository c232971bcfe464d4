// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"regexp"
	"sort"
	"strings"

	"portcullis/ci/lab/cluster"
	"portcullis/ci/lab/recording"
)

var (
	madeUp = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{5}$`) // what controllers add to a name
	minute = regexp.MustCompile(`-\d{8}$`)                            // what a CronJob adds to a Job's
)

// Finish makes the recordings of the pods; names that controllers made up become the same in every run.
func Finish(records string, all []*Manifest) ([]recording.Pod, error) {
	raw, err := recording.ReadRaw(records)
	if err != nil {
		return nil, err
	}
	made := find(raw, all)
	sort.Slice(made, func(i, j int) bool { return made[i].Name < made[j].Name })
	var (
		pods   []recording.Pod
		failed []error
		taken  = map[string]bool{}
	)
	for _, m := range made {
		name := steadyName(m, taken)
		p, err := raw.Finish(m.Manifest, m.Namespace, m.Name, name)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		pods = append(pods, p)
	}
	return pods, errors.Join(failed...)
}

// find gives the recorded pods of the manifests.
func find(raw recording.Raw, all []*Manifest) []Made {
	var made []Made
	for _, c := range raw.Containers {
		if c.Name != "" || raw.Pod(c.Namespace, c.Pod)[""] != c {
			continue
		}
		for _, m := range all {
			for _, w := range m.workloads {
				if cluster.Namespace(w.object) == c.Namespace && w.makes(m, c.Pod) {
					made = append(made, Made{Manifest: m.Name, Namespace: c.Namespace, Name: c.Pod, Owned: !w.pod})
				}
			}
		}
	}
	return made
}

// makes tells by its name whether a pod is the workload's.
func (w workload) makes(m *Manifest, pod string) bool {
	switch {
	case m.static != nil:
		return pod == w.name+"-"+cluster.NodeName
	case w.pod:
		return pod == w.name
	}
	return strings.HasPrefix(pod, w.name+"-")
}

// steadyName gives pods of one workload the endings bbbbb, ccccc and so on.
func steadyName(m Made, taken map[string]bool) string {
	if !m.Owned || !madeUp.MatchString(m.Name) {
		return m.Name
	}
	stem := madeUp.ReplaceAllString(m.Name, "")
	stem = minute.ReplaceAllString(stem, "-29000000")
	for _, c := range "bcdfghjklmnpqrstvwxz" {
		name := stem + "-" + strings.Repeat(string(c), 5)
		if !taken[m.Namespace+"/"+name] {
			taken[m.Namespace+"/"+name] = true
			return name
		}
	}
	return m.Name
}
