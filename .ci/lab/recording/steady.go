// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strings"

	"portcullis/ci/lab/cni"
)

// replacer makes one pod's text the same in every run.
type replacer struct {
	pairs []string // old, new
	seed  string
}

// replacements knows the ids of the pod, and its name if a controller made it up.
func replacements(p Pod, name string) replacer {
	r := replacer{seed: p.Namespace + "/" + name}
	if name != p.Pod {
		r.pairs = append(r.pairs, p.Pod, name)
		if job, steady := stem(p.Pod), stem(name); job != steady {
			r.pairs = append(r.pairs, job, steady)
		}
	}
	r.pairs = append(r.pairs, cni.Address(p.Namespace, p.Pod), cni.Address(p.Namespace, name))
	for _, c := range append([]Container{p.Sandbox}, p.Containers...) {
		r.pairs = append(r.pairs, c.ID, r.digest("container "+c.Name))
	}
	return r
}

// stem is a pod's name without its last part: the name of its Job.
func stem(pod string) string {
	if i := strings.LastIndexByte(pod, '-'); i > 0 {
		return pod[:i]
	}
	return pod
}

func (r replacer) digest(of string) string {
	d := sha256.Sum256([]byte(r.seed + " " + of))
	return hex.EncodeToString(d[:])
}

var (
	uuids     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	tokens    = regexp.MustCompile(`kube-api-access-[a-z0-9]{5}\b`)
	messages  = regexp.MustCompile(`(/containers/[^/"]+/)[0-9a-f]{8}\b`) // the kubelet's name for a termination log
	moments   = regexp.MustCompile(`\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+`)
	seenAt    = regexp.MustCompile(`("kubernetes.io/config.seen":")[^"]*"`)
	volumes   = regexp.MustCompile(`/volumes/[0-9a-f]{64}\b`) // containerd's, of the image
	processes = regexp.MustCompile(`/proc/\d+/ns/`)
)

func (r replacer) apply(text []byte) []byte {
	s := strings.NewReplacer(r.pairs...).Replace(string(text))
	seen := map[string]string{}
	s = volumes.ReplaceAllStringFunc(s, func(old string) string {
		if seen[old] == "" {
			seen[old] = "/volumes/" + r.digest(fmt.Sprint("volume ", len(seen)))
		}
		return seen[old]
	})
	clear(seen)
	s = uuids.ReplaceAllStringFunc(s, func(old string) string {
		if seen[old] == "" {
			d := r.digest(fmt.Sprint("uuid ", len(seen)))
			seen[old] = fmt.Sprintf("%s-%s-4%s-8%s-%s", d[:8], d[8:12], d[13:16], d[17:20], d[20:32])
		}
		return seen[old]
	})
	s = tokens.ReplaceAllString(s, "kube-api-access-bcdfg")
	s = messages.ReplaceAllString(s, "${1}"+r.digest("message")[:8])
	s = moments.ReplaceAllString(s, "..2026_01_01_00_00_00.1")
	s = seenAt.ReplaceAllString(s, `${1}2026-01-01T00:00:00.000000001Z"`)
	s = processes.ReplaceAllString(s, "/proc/4242/ns/")
	return []byte(s)
}

// sortRandom puts the environments of the specification, the CRI configuration and the execs in order of name. The kubelet takes
// variables out of maps, so that their order is another one every time. A name that is there twice keeps its order.
func (c *Container) sortRandom() error {
	var err error
	if c.Spec, err = edit(c.Spec, func(o map[string]json.RawMessage) error { return sortProcess(o, "process") }); err != nil {
		return err
	}
	for i := range c.Execs {
		if c.Execs[i].Process, err = edit(c.Execs[i].Process, sortEnv); err != nil {
			return err
		}
	}
	c.CRI, err = edit(c.CRI, sortPairs)
	return err
}

func sortProcess(o map[string]json.RawMessage, key string) error {
	var err error
	if o[key] != nil {
		o[key], err = edit(o[key], sortEnv)
	}
	return err
}

// edit changes an object's fields. The result has them in order of name.
func edit(text json.RawMessage, change func(map[string]json.RawMessage) error) (json.RawMessage, error) {
	var o map[string]json.RawMessage
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	if err := change(o); err != nil {
		return nil, err
	}
	return encode(o)
}

func sortEnv(process map[string]json.RawMessage) error {
	if process["env"] == nil {
		return nil
	}
	var env []string
	if err := json.Unmarshal(process["env"], &env); err != nil {
		return err
	}
	name := func(i int) string { n, _, _ := strings.Cut(env[i], "="); return n }
	sort.SliceStable(env, func(i, j int) bool { return name(i) < name(j) })
	b, err := encode(env)
	process["env"] = b
	return err
}

func sortPairs(config map[string]json.RawMessage) error {
	if config["envs"] == nil {
		return nil
	}
	var envs []variable
	if err := json.Unmarshal(config["envs"], &envs); err != nil {
		return err
	}
	sort.SliceStable(envs, func(i, j int) bool { return envs[i].Key < envs[j].Key })
	b, err := encode(envs)
	config["envs"] = b
	return err
}

// variable is one of a CRI configuration.
type variable struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
}

// plainValues writes the values of variables as text: in the CRI they are bytes, in JSON base64, where no id would be found.
func plainValues(config map[string]json.RawMessage) error {
	if config["envs"] == nil {
		return nil
	}
	var coded []struct {
		Key   string
		Value []byte
	}
	if err := json.Unmarshal(config["envs"], &coded); err != nil {
		return err
	}
	plain := make([]variable, len(coded))
	for i, c := range coded {
		plain[i] = variable{c.Key, string(c.Value)}
	}
	b, err := encode(plain)
	config["envs"] = b
	return err
}
