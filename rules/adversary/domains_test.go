// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"portcullis/internal/rulestest"
	"portcullis/rules"
)

// drawsOf is how many values of a pattern are drawn for each field.
const drawsOf = 2

// mostOfField bounds the changes of a field in all containers of a pod.
const mostOfField = 40

// Values from inside of a field's domain let the pod start, and values from outside are denied.
func TestFieldsAreFreeWithinTheirDomains(t *testing.T) {
	for _, p := range pods(t, "^(ledger/guest|agent/guest)") {
		t.Run(p.name, func(t *testing.T) {
			d := &domains{T: t, pod: p, gate: p.gate(t, compiler(t, rules.Text()), rules.Text(), false), tried: map[string]bool{}, changes: map[string]int{}}
			for n, e := range p.life {
				if e.kind == "CreateContainerRequest" || e.kind == "ExecProcessRequest" || e.kind == "CreateSandboxRequest" {
					d.fields(n, e)
				}
			}
			d.everywhere()
			t.Logf("%d values from inside, %d from outside", d.inside, d.outside)
			if d.inside < 100 || d.outside < 100 {
				t.Error("too few values were drawn")
			}
		})
	}
}

type domains struct {
	*testing.T
	*pod
	gate            *gate
	tried           map[string]bool // texts of requests
	changes         map[string]int  // of each field
	inside, outside int
}

// domainOf finds the domain of a field.
func (d *domains) domainOf(kind, path string) (rules.Domain, bool) {
	for _, h := range d.facts.chosen {
		if domain, ok := h.Domain(kind, path); ok {
			return domain, true
		}
	}
	return rules.Domain{}, false
}

// fields tries values for every free field of a request.
func (d *domains) fields(n int, e event) {
	about := d.about(e)
	for i, at := range places(clone(e.input)) {
		if domain, ok := d.domainOf(e.kind, at.path); ok {
			for _, v := range valuesOf(domain, about, at) {
				d.with(n, e, at.path, !domain.Everywhere, func(in object) { places(in)[i].set(v) })
			}
		}
		items, isList := at.value.([]any)
		domain, ok := d.domainOf(e.kind, at.path+"[]")
		if !isList || !ok {
			continue
		}
		for k := range items {
			d.with(n, e, at.path, true, func(in object) { places(in)[i].set(slices.Delete(slices.Clone(items), k, k+1)) })
		}
		for _, v := range append(within(domain, about), "x", "LD_PRELOAD=/x") {
			if raw, _ := v.(string); len(items) > 0 && reflect.TypeOf(items[0]) != reflect.TypeOf(v) || strings.HasPrefix(raw, "{") {
				continue // what the message cannot hold
			}
			d.with(n, e, at.path, true, func(in object) { places(in)[i].set(append(slices.Clone(items), v)) })
		}
	}
}

// about is what names in the list stand for in a request.
func (d *domains) about(e event) rulestest.About {
	create := e.request
	switch e.kind {
	case "ExecProcessRequest":
		create = d.facts.create[d.container(e.id())]
	case "CreateSandboxRequest":
		create = d.anyCreate(0)
	}
	return d.facts.about(create.input, create.input)
}

// valuesOf are values for a field, inside and outside of its domain.
func valuesOf(domain rules.Domain, about rulestest.About, at place) []any {
	out := within(domain, about)
	if domain.Null {
		out = append(out, nil)
		if at.value == nil {
			out = append(out, first[at.path])
		}
	}
	if domain.Missing != "" && strings.HasSuffix(at.path, "]") && !strings.HasSuffix(at.path, "[]") {
		out = append(out, nil)
	}
	switch v := at.value.(type) {
	case string:
		out = append(out, v+"x", "x"+v, v+"\n", "", v+"/..", strings.ToUpper(v), "../x", v+" ", "-"+v, v+"\x00")
	case json.Number:
		if least := domain.Min; least != nil && *least > math.MinInt64 {
			out = append(out, json.Number(fmt.Sprint(*least)), json.Number(fmt.Sprint(*least+1)))
			if *least != 0 { // a field from zero has no sign
				out = append(out, json.Number(fmt.Sprint(*least-1)))
			}
		}
		if most := domain.Max; most != nil {
			out = append(out, json.Number(fmt.Sprint(*most)), json.Number(fmt.Sprint(*most-1)))
			if !slices.Contains([]uint64{math.MaxUint32, math.MaxInt64, math.MaxUint64}, *most) { // there is no more in such a field
				out = append(out, json.Number(fmt.Sprint(*most+1)))
			}
		}
	case bool:
		out = append(out, !v)
	}
	_, text := at.value.(string)
	return slices.DeleteFunc(out, func(v any) bool { // what the message cannot hold
		_, isText := v.(string)
		return isText != text && v != nil && at.value != nil || text && v == nil && !strings.HasSuffix(at.path, "]")
	})
}

// within are values from inside of a domain.
func within(domain rules.Domain, about rulestest.About) []any {
	var out []any
	for _, pattern := range append(slices.Clone(domain.Is), domain.Pattern) {
		filled := about.Fill(pattern)
		if pattern == domain.Pattern && pattern != "" && !strings.Contains(filled, rulestest.Nothing) {
			for i := range drawsOf {
				out = append(out, rapid.StringMatching(strings.NewReplacer("^", "", "$", "").Replace(filled)).Example(i))
			}
		} else if pattern == "" || !strings.Contains(pattern, "{") {
			out = append(out, pattern)
		} else if !strings.Contains(filled, rulestest.Nothing) {
			out = append(out, rapid.StringMatching(filled).Example(0))
		}
	}
	if domain.Min != nil {
		for _, n := range []int64{0, 1, 1000} {
			if n >= *domain.Min && uint64(n) <= *domain.Max {
				out = append(out, json.Number(fmt.Sprint(n)))
			}
		}
	}
	return out
}

// with asks for a changed request where the genuine one came, and, if it is within the
// domains and the pod goes on with it, for the rest of the pod's life.
func (d *domains) with(n int, e event, path string, goOn bool, change func(object)) {
	if d.changes[e.kind+path]++; d.changes[e.kind+path] > mostOfField {
		return
	}
	changed := d.edit([]event{e}, 0, change)[0]
	if d.tried[changed.text] {
		return
	}
	d.tried[changed.text] = true
	b, err := d.gate.boot()
	if err != nil {
		d.Fatal(err)
	}
	m := d.facts.begin()
	for _, before := range d.life[:n] {
		d.step(b, m, before)
	}
	broken := m.breaks(changed)
	allowed, err := b.ask(changed.request, done)
	switch {
	case err != nil:
		d.Fatal(err)
	case allowed && broken != "":
		d.Errorf("%s from outside is allowed: %s", e.kind, broken)
	case !allowed && broken == "" && !related(changed.input, e.input):
		d.Errorf("%s from inside is denied: %v", e.kind, rulestest.Deviations(changed.input, e.input))
	}
	if !allowed {
		d.outside++
		return
	}
	if d.inside++; !goOn {
		return
	}
	m.happened(changed, done)
	for _, after := range d.life[n+1:] {
		if !d.step(b, m, after) {
			d.Errorf("after %v %s is denied", rulestest.Deviations(changed.input, e.input), after.kind)
			return
		}
	}
}

// related is true for fields that fit only together with others, which these draws do
// not change: a device's type and its path, a storage and its mount.
func related(got, want object) bool {
	return slices.ContainsFunc(rulestest.Deviations(got, want), func(d rulestest.Deviation) bool {
		return strings.HasPrefix(d.Path, "devices") || strings.HasPrefix(d.Path, "storages[].") || strings.HasPrefix(d.Path, "OCI.Mounts[].options") ||
			d.Missing && d.Want == "TERM=xterm" || d.Missing && d.Path == "storages[]" && str(at(d.Want, "driver")) != "image_guest_pull"
	})
}

// step asks for a genuine event, and is false where it is denied and the pod needs it.
func (d *domains) step(b *boot, m *model, e event) bool {
	if _, comes := m.agent(e); !comes || slices.Contains(quiet, e.kind) {
		return true
	}
	allowed, err := b.ask(e.request, done)
	if err != nil {
		d.Fatal(err)
	}
	if allowed {
		m.happened(e, done)
	}
	return allowed || e.kind == "StatsContainerRequest" || e.kind == "SignalProcessRequest" || e.kind == "WaitProcessRequest"
}

// everywhere renames what is the same wherever it stands, in the whole life of the pod.
func (d *domains) everywhere() {
	for _, e := range d.life {
		if e.kind != "CreateContainerRequest" {
			continue
		}
		for _, at := range places(clone(e.input)) {
			was, _ := at.value.(string)
			domain, ok := d.domainOf(e.kind, at.path)
			if !ok || !domain.Everywhere || len(was) < 8 || d.tried[at.path+was] {
				continue
			}
			d.tried[at.path+was] = true
			for _, v := range append(within(domain, d.about(e)), was+"x", "--"+was, strings.Repeat("g", 64)) {
				now, _ := v.(string)
				d.rename(at.path, was, now, regexp.MustCompile(d.about(e).Fill(domain.Pattern)).MatchString(now))
			}
		}
	}
}

// rename asks for the pod's life with another text in place of one.
func (d *domains) rename(path, was, now string, inside bool) {
	if now == "" {
		return
	}
	b, err := d.gate.boot()
	if err != nil {
		d.Fatal(err)
	}
	m := d.facts.begin()
	all := true
	for _, e := range d.life {
		all = d.step(b, m, d.renamed(e, was, now)) && all
	}
	if all != inside {
		d.Errorf("%s %q everywhere: the pod starts: %v, inside of the domain: %v", path, now, all, inside)
	}
	if inside {
		d.inside++
		return
	}
	d.outside++
}
