// SPDX-License-Identifier: Apache-2.0

package rulestest

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"portcullis/rules"
)

// Deviation is a place where a request differs from the one of the manifest's own pod.
type Deviation struct {
	Path    string // without indices: "OCI.Mounts[].source"
	Got     any    // what is there, unless Missing
	Want    any    // what the manifest gives, unless Added
	Missing bool   // the key or item is not there
	Added   bool   // there is no such key or item in the manifest's
	Twice   bool   // it is Added, and is there already
	In      any    // the item of a list that the place is in, as it came; nil for none
}

func (d Deviation) String() string {
	if in := textOf(member(d.In, "destination")); in != "null" {
		d.Path += " of " + in
	}
	switch {
	case d.Missing:
		return fmt.Sprintf("%s: without %.160s", d.Path, textOf(d.Want))
	case d.Added:
		return fmt.Sprintf("%s: more: %.160s", d.Path, textOf(d.Got))
	}
	return fmt.Sprintf("%s: %.160s instead of %.160s", d.Path, textOf(d.Got), textOf(d.Want))
}

// keys are the lists whose items are known by a field.
var keys = map[string]string{
	"OCI.Mounts": "destination", "devices": "container_path", "OCI.Linux.Devices": "Path",
}

// ordered are the lists whose order means something.
var ordered = []string{"OCI.Process.Args", "process.Args"}

// Deviations finds all places where got differs from want, two inputs of one kind of
// request. The order of lists counts only where it means something.
func Deviations(got, want map[string]any) []Deviation {
	var out deviations
	out.object("", got, want)
	return out.found
}

type deviations struct {
	found []Deviation
	in    any
}

func (f *deviations) add(d Deviation) {
	d.In = f.in
	f.found = append(f.found, d)
}

func (f *deviations) value(path string, got, want any) {
	gotObject, isObject := got.(map[string]any)
	wantObject, wasObject := want.(map[string]any)
	gotList, isList := got.([]any)
	wantList, wasList := want.([]any)
	switch {
	case isObject && wasObject:
		f.object(path, gotObject, wantObject)
	case isList && wasList:
		f.list(path, gotList, wantList)
	case isObject && want == nil:
		f.add(Deviation{Path: path, Got: got, Want: want})
		for _, name := range slices.Sorted(maps.Keys(gotObject)) {
			if !zero(gotObject[name]) {
				f.add(Deviation{Path: path + "." + name, Got: gotObject[name]})
			}
		}
	case textOf(got) != textOf(want):
		f.add(Deviation{Path: path, Got: got, Want: want})
	}
}

func zero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case json.Number:
		return v == "0"
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func (f *deviations) object(path string, got, want map[string]any) {
	next := func(name string) string {
		switch {
		case slices.Contains(keyed, path):
			return path + "[" + name + "]"
		case path == "":
			return name
		}
		return path + "." + name
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if value, ok := got[name]; ok {
			f.value(next(name), value, want[name])
		} else {
			f.add(Deviation{Path: next(name), Want: want[name], Missing: true})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			f.add(Deviation{Path: next(name), Got: got[name], Added: true})
		}
	}
}

func (f *deviations) list(path string, got, want []any) {
	if slices.Contains(ordered, path) {
		if len(got) != len(want) {
			f.add(Deviation{Path: path, Got: got, Want: want})
			return
		}
		for i := range got {
			f.value(path+"[]", got[i], want[i])
		}
		return
	}
	whole := want
	got, want = unpaired(got, want)
	if key, ok := keys[path]; ok {
		for i, g := range got {
			at := slices.IndexFunc(want, func(w any) bool { return textOf(member(w, key)) == textOf(member(g, key)) })
			if at < 0 {
				continue
			}
			outer := f.in
			f.in = g
			f.value(path+"[]", g, want[at])
			f.in = outer
			want = slices.Delete(slices.Clone(want), at, at+1)
			got[i] = nil
		}
	}
	if strings.HasSuffix(path, "Process.Env") || path == "process.Env" { // known by its name
		for i, g := range got {
			name, _, _ := strings.Cut(textOf(g), "=")
			at := slices.IndexFunc(want, func(w any) bool { return strings.HasPrefix(textOf(w), name+"=") })
			if at >= 0 {
				f.add(Deviation{Path: path + "[]", Got: g, Want: want[at]})
				want, got[i] = slices.Delete(slices.Clone(want), at, at+1), nil
			}
		}
	}
	for _, item := range want {
		f.add(Deviation{Path: path + "[]", Want: item, Missing: true})
	}
	for i, item := range got {
		if item != nil {
			equal := func(o any) bool { return textOf(o) == textOf(item) }
			f.add(Deviation{Path: path + "[]", Got: item, Added: true, Twice: slices.ContainsFunc(whole, equal) || slices.ContainsFunc(got[:i], equal)})
		}
	}
}

// unpaired are the items of each that the other does not have.
func unpaired(got, want []any) (more, less []any) {
	less = slices.Clone(want)
	for _, item := range got {
		text := textOf(item)
		if i := slices.IndexFunc(less, func(w any) bool { return textOf(w) == text }); i >= 0 {
			less = slices.Delete(less, i, i+1)
			continue
		}
		more = append(more, item)
	}
	return more, less
}

func member(v any, name string) any {
	o, _ := v.(map[string]any)
	return o[name]
}

// textOf is a value as text: strings as they are, others as JSON.
func textOf(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is JSON
	}
	return string(raw)
}

// About says what the names in braces of a domain stand for, as patterns, and where a field is free.
type About struct {
	Names map[string]string
	Where func(where string, d Deviation) bool
}

// Inside is true for a deviation that the domain of its field allows.
func (a About) Inside(domain rules.Domain, d Deviation) bool {
	if domain.Where != "" && !a.Where(domain.Where, d) {
		return false
	}
	if d.Missing {
		return domain.Missing != "" && a.matches(domain.Missing, textOf(d.Want))
	}
	if d.Twice && !domain.Twice {
		return false
	}
	return a.allows(domain, d)
}

// allows is true for a value of the domain.
func (a About) allows(domain rules.Domain, d Deviation) bool {
	got := textOf(d.Got)
	for _, is := range domain.Is {
		if a.matches("^"+regexp.QuoteMeta(is)+"$", got) {
			return true
		}
	}
	if domain.Pattern != "" && a.matches(domain.Pattern, got) {
		return true
	}
	if domain.Min != nil {
		if n, err := strconv.ParseUint(got, 10, 64); err == nil {
			return n <= *domain.Max && (*domain.Min <= 0 || n >= uint64(*domain.Min))
		}
		n, err := strconv.ParseInt(got, 10, 64)
		return err == nil && n >= *domain.Min
	}
	_, isList := d.Got.([]any)
	return domain.Null && (d.Got == nil || d.Want == nil || isList && got == "[]")
}

// Free finds the field's domain in the written list and says whether it allows the deviation.
func (a About) Free(list []rules.HostChosen, kind string, d Deviation) bool {
	for _, h := range list {
		if domain, ok := h.Domain(kind, d.Path); ok && a.Inside(domain, d) {
			return true
		}
	}
	return false
}

var braces = regexp.MustCompile(`\\?\{([a-z ]+)\\?\}`)

// Nothing is a pattern that nothing matches.
const Nothing = `[^\x00-\x{10FFFF}]`

// Fill puts in what names stand for, Nothing for those of nothing.
func (a About) Fill(pattern string) string {
	return braces.ReplaceAllStringFunc(pattern, func(name string) string {
		with, ok := a.Names[braces.FindStringSubmatch(name)[1]]
		if !ok {
			return Nothing
		}
		return with
	})
}

func (a About) matches(pattern, text string) bool {
	return compiled(a.Fill(pattern)).MatchString(text)
}

var patterns sync.Map // pattern -> *regexp.Regexp

func compiled(pattern string) *regexp.Regexp {
	if re, ok := patterns.Load(pattern); ok {
		return re.(*regexp.Regexp)
	}
	re := regexp.MustCompile(`\A(?:` + pattern + `)\z`)
	patterns.Store(pattern, re)
	return re
}
