// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
	"slices"

	"portcullis/measure/record"
)

// errNotGiven says that a container came after a fragment of which the verifier has the digest alone: nobody here knows what it
// was to be.
var errNotGiven = errors.New("which was not given: give it with --fragment")

// judged adds a check of [Result.result], unknown where what it needs was not given.
func (r *Result) judged(name string, err error) {
	if errors.Is(err, errNotGiven) {
		r.unknown(name, err.Error())
		return
	}
	r.result(name, err)
}

// wantAt is what a container was to be when a fact came: by the policy, or by the latest fragment before it.
func (j *podJudge) wantAt(then func(record.Fact) bool, name string) (*PodContainer, error) {
	want := j.want
	for _, f := range j.facts {
		switch {
		case then(f):
			return want.find(name), nil
		case f.Kind == record.Policy:
			want.Containers = j.want.Containers
		case f.Kind == record.Fragment:
			updated, ok := j.want.Updated[f.Digest]
			if !ok {
				return nil, fmt.Errorf("container %s came after fragment %.16s of feed %s, %w", name, f.Digest, f.Feed, errNotGiven)
			}
			want.Containers = updated
		}
	}
	return want.find(name), nil
}

// find returns what is known of a container by its name.
func (p Pod) find(name string) *PodContainer {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// containers names one that the pod has not, one of another image, or one that was there twice.
func (j *podJudge) containers() error {
	for i, c := range j.pod.Containers {
		want, err := j.wantAt(func(f record.Fact) bool { return f.Kind == record.Created && f.ID == c.ID }, c.Name)
		switch {
		case err != nil:
			return err
		case want == nil:
			return fmt.Errorf("container %q is not of this pod", c.Name)
		case len(want.Images) > 0 && !slices.Contains(want.Images, c.Image):
			return fmt.Errorf("container %s is of image %q, want %q", c.Name, c.Image, want.Images[0])
		case want.Digest != "" && c.Digest != want.Digest:
			return fmt.Errorf("container %s is of an image with digest %q, want %s", c.Name, c.Digest, want.Digest)
		}
		for _, other := range j.pod.Containers[:i] {
			if other.Name == c.Name && !j.goneBefore(other, c) {
				return fmt.Errorf("container %s was there twice: %.12s beside %.12s", c.Name, c.ID, other.ID)
			}
		}
	}
	return nil
}

// goneBefore says whether a container had ended, or was never made, when another was created.
func (j *podJudge) goneBefore(c, then *record.Container) bool {
	for _, f := range j.facts {
		switch {
		case f.Kind == record.Created && f.ID == then.ID:
			return false
		case f.ID == c.ID && (f.Kind == record.Ended || f.Kind == record.Removed || f.Kind == record.Failed && f.Of != record.Removed):
			return true
		}
	}
	return false
}
