// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
)

// Raw is everything that one run wrote down.
type Raw struct {
	Calls      []RawCall // in order
	Containers map[string]*Recorded
}

// Recorded is a container with what was executed in it.
type Recorded struct {
	RawContainer
	Execs []RawExec
}

// ReadRaw reads a folder of raw records. It may still be written to.
func ReadRaw(dir string) (Raw, error) {
	raw := Raw{Containers: map[string]*Recorded{}}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return raw, err
	}
	sort.Strings(names)
	for _, name := range names {
		if filepath.Ext(name) == ".json" {
			var c RawCall
			if err := readJSON(name, &c); err != nil {
				return raw, err
			}
			raw.Calls = append(raw.Calls, c)
			continue
		}
		c, err := readContainer(name)
		if err != nil {
			return raw, err
		}
		if c != nil {
			raw.Containers[c.ID] = c
		}
	}
	return raw, nil
}

func readContainer(dir string) (*Recorded, error) {
	var c Recorded
	if err := readJSON(filepath.Join(dir, "container.json"), &c.RawContainer); err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, err
	}
	execs, err := filepath.Glob(filepath.Join(dir, "exec-*.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range execs {
		var e RawExec
		if err := readJSON(name, &e); err != nil {
			return nil, err
		}
		c.Execs = append(c.Execs, e)
	}
	return &c, nil
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// Pod gives the containers of a pod by name, the sandbox by the empty name. The first of each name counts: later ones are restarts.
func (r Raw) Pod(namespace, pod string) map[string]*Recorded {
	found := map[string]*Recorded{}
	first := map[string]int{}
	for n, c := range r.Calls {
		if c.Method != "ExecSync" {
			first[c.ID] = n + 1
		}
	}
	for _, c := range r.Containers {
		if c.Namespace != namespace || c.Pod != pod || first[c.ID] == 0 && c.Name != "" {
			continue
		}
		if old := found[c.Name]; old == nil || first[c.ID] < first[old.ID] {
			found[c.Name] = c
		}
	}
	return found
}

// Commands counts the different commands that were executed in a container.
func (c *Recorded) Commands() int {
	seen := map[string]bool{}
	for _, e := range c.Execs {
		var p struct{ Args []string }
		if json.Unmarshal(e.Process, &p) == nil {
			seen[fmt.Sprint(p.Args)] = true
		}
	}
	return len(seen)
}
