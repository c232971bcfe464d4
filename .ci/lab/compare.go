// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"portcullis/ci/lab/recording"
)

// errChanged: the recordings are not those that are kept.
var errChanged = errors.New("recordings changed")

// compare shows, for every pod of two folders, each leaf that differs.
func compare(args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	files := map[string]bool{}
	for _, dir := range args {
		names, err := filepath.Glob(filepath.Join(dir, "*.jsonl.gz"))
		if err != nil {
			return err
		}
		for _, n := range names {
			files[filepath.Base(n)] = true
		}
	}
	if len(files) == 0 {
		return fmt.Errorf("no recordings in %s or %s", args[0], args[1])
	}
	changed := 0
	for _, name := range sorted(files) {
		n, err := compareFiles(name, filepath.Join(args[0], name), filepath.Join(args[1], name))
		if err != nil {
			return err
		}
		changed += n
	}
	if changed > 0 {
		return fmt.Errorf("%w: %d pods", errChanged, changed)
	}
	fmt.Println("recordings: nothing changed")
	return nil
}

func compareFiles(name, old, fresh string) (changed int, err error) {
	before, err := index(old)
	if err != nil {
		return 0, err
	}
	after, err := index(fresh)
	if err != nil {
		return 0, err
	}
	keys := map[string]bool{}
	for k := range before {
		keys[k] = true
	}
	for k := range after {
		keys[k] = true
	}
	for _, k := range sorted(keys) {
		var lines []string
		differences("", before[k], after[k], &lines)
		if len(lines) == 0 {
			continue
		}
		changed++
		fmt.Printf("%s %s:\n", name, k)
		for _, l := range lines {
			fmt.Println("  " + l)
		}
	}
	return changed, nil
}

// index reads recordings by manifest and pod; a file that is not there has none.
func index(name string) (map[string]any, error) {
	pods, err := recording.Read(name)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	all := map[string]any{}
	for _, p := range pods {
		b, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, err
		}
		all[p.Manifest+" "+p.Namespace+"/"+p.Pod] = v
	}
	return all, nil
}

func differences(path string, a, b any, out *[]string) {
	x, xok := a.(map[string]any)
	y, yok := b.(map[string]any)
	if xok && yok {
		keys := map[string]bool{}
		for k := range x {
			keys[k] = true
		}
		for k := range y {
			keys[k] = true
		}
		for _, k := range sorted(keys) {
			differences(path+"."+k, x[k], y[k], out)
		}
		return
	}
	l, lok := a.([]any)
	m, mok := b.([]any)
	if lok && mok && len(l) == len(m) {
		for i := range l {
			differences(fmt.Sprintf("%s[%d]", path, i), l[i], m[i], out)
		}
		return
	}
	if !reflect.DeepEqual(a, b) {
		*out = append(*out, fmt.Sprintf("%s: %s, was %s", path, short(b), short(a)))
	}
}

func short(v any) string {
	if v == nil {
		return "nothing"
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return "?"
	}
	text := bytes.TrimSpace(b.Bytes())
	if len(text) > 300 {
		return string(text[:300]) + "…"
	}
	return string(text)
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// show prints recordings, one pod or all.
func show(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	pods, err := recording.Read(args[0])
	if err != nil {
		return err
	}
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	for _, p := range pods {
		if len(args) > 1 && args[1] != p.Pod {
			continue
		}
		if err := e.Encode(p); err != nil {
			return err
		}
	}
	return nil
}
