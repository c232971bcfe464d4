// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"portcullis/rules/policydata"
	"portcullis/rules/prove/language"
)

// module compares what one check of the rules reads: whether all that passes it under b passes it under a.
type module struct {
	check   string   // name of the rule without _ok
	reads   []string // fields of policy_data that it compares, "containers[].args"
	compare func(*comparison)
}

// comparison collects the differences between two policies, as the modules find them.
type comparison struct {
	a, b        *policydata.Policy
	check       string // of the module that compares
	differences []difference
	read        map[string]language.Set // patterns, by their text
	err         error
}

// difference is a comparison that does not hold, with ways to show it by requests.
type difference struct {
	Open
	attempts []attempt
}

// differ notes that b may allow what a does not.
func (c *comparison) differ(path, says string, attempts ...attempt) {
	c.differences = append(c.differences, difference{Open{c.check, path, says}, attempts})
}

// each compares each container that both policies have.
func (c *comparison) each(compare func(k container)) {
	for _, name := range slices.Sorted(maps.Keys(c.b.Containers)) {
		if a := c.a.Containers[name]; a != nil {
			compare(container{c, name, a, c.b.Containers[name]})
		}
	}
}

// container is one container in both policies.
type container struct {
	*comparison
	name string
	a, b *policydata.Container
}

func (k container) at(field string) string { return "containers[" + k.name + "]." + field }

// create is an attempt at the creation of the container with its request changed.
func (k container) create(change func(input map[string]any)) attempt {
	return attempt{container: k.name, change: change}
}

// start is the plain start of the container, which shows what must be equal.
func (k container) start() attempt { return attempt{container: k.name} }

// equal notes a value that has to be the same in both.
func (k container) equal(field string, a, b any) {
	if !same(a, b) {
		k.differ(k.at(field), fmt.Sprintf("is %v in one and %v in the other", shown(a), shown(b)), k.start())
	}
}

// same compares values for which nil and empty are the same.
func same(a, b any) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if (x.Kind() == reflect.Slice || x.Kind() == reflect.Map) && x.Len() == 0 && y.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a, b)
}

func shown(v any) string {
	text := fmt.Sprintf("%+v", v)
	if len(text) > 80 {
		return text[:77] + "..."
	}
	return text
}

// lacking are the items of b that a does not have.
func lacking[T comparable](a, b []T) []T {
	var out []T
	for _, item := range b {
		if !slices.Contains(a, item) {
			out = append(out, item)
		}
	}
	return out
}

// pattern is the language of one pattern; what is wrong with it is kept as the comparison's error.
func (c *comparison) pattern(text string) language.Set {
	s, ok := c.read[text]
	if !ok {
		var err error
		if s, err = language.Pattern(text); err != nil {
			c.err = errors.Join(c.err, err)
		}
		c.read[text] = s
	}
	return s
}

func (c *comparison) patterns(texts []string) language.Set {
	sets := make([]language.Set, len(texts))
	for i, text := range texts {
		sets[i] = c.pattern(text)
	}
	return language.Union(sets...)
}

// within compares two languages. Where a lacks something of b, attempts makes ways to show it from an example; what cannot be
// compared is a difference that nothing shows.
func (c *comparison) within(path string, a, b language.Set, attempts func(example string) []attempt) {
	c.hidden(path, a, b, func(example string) (string, []attempt) {
		return fmt.Sprintf("%q is allowed by one and not by the other", example), attempts(example)
	})
}

// hidden is within for values that are not told, as they may be secrets: says has the words for an example, without it.
func (c *comparison) hidden(path string, a, b language.Set, says func(example string) (string, []attempt)) {
	ok, example, err := b.Within(a)
	switch {
	case err != nil:
		c.differ(path, err.Error())
	case !ok:
		words, attempts := says(example)
		c.differ(path, words, attempts...)
	}
}
