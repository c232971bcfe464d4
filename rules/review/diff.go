// SPDX-License-Identifier: Apache-2.0

package review

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"portcullis/engine/policytext"
)

// Difference is what two policies allow differently.
type Difference struct {
	OnlyB     []Group  `json:"only_b"`    // what B allows and A does not
	OnlyA     []Group  `json:"only_a"`    // what A allows and B does not
	Uncertain []string `json:"uncertain"` // what could not be compared
	Same      bool     `json:"same"`      // the texts are the same bytes
}

// Group is what is said of one container, or of one other part.
type Group struct {
	Subject string   `json:"subject"`
	Words   []string `json:"words"`
}

// Equal says whether nothing was found to differ, and all could be compared.
func (d *Difference) Equal() bool {
	return len(d.OnlyA)+len(d.OnlyB)+len(d.Uncertain) == 0
}

// Compare says what each of two policies allows that the other does not. With secrets set, values of variables are shown.
func Compare(a, b *Subject, secrets bool) *Difference {
	d := &Difference{Same: bytes.Equal(a.Text, b.Text)}
	if d.Same {
		return d
	}
	inA, inB := a.sentences(secrets), b.sentences(secrets)
	d.OnlyB = group(inB, inA)
	d.OnlyA = group(inA, inB)
	tellApart(d.OnlyB, d.OnlyA)
	d.uncertain(a, b)
	if len(d.OnlyA)+len(d.OnlyB) == 0 && a.Data != nil && b.Data != nil && !reflect.DeepEqual(a.Data, b.Data) {
		d.Uncertain = append(d.Uncertain, "policy_data differs in what is not said here, such as how often or in which order something comes")
	}
	return d
}

// tellApart marks what reads alike on both sides, because its values are hidden.
func tellApart(a, b []Group) {
	for _, g := range a {
		i := slices.IndexFunc(b, func(other Group) bool { return other.Subject == g.Subject })
		if i < 0 {
			continue
		}
		for at, words := range g.Words {
			if j := slices.Index(b[i].Words, words); j >= 0 {
				g.Words[at], b[i].Words[j] = words+", not the same as in the other policy", words+", not the same as in the other policy"
			}
		}
	}
}

// group says what one policy allows beyond another: what it may and the other
// may not, and what the other insists on and it does not.
func group(mine, other []sentence) []Group {
	var out []Group
	add := func(subject, words string) {
		if i := slices.IndexFunc(out, func(g Group) bool { return g.Subject == subject }); i >= 0 {
			out[i].Words = append(out[i].Words, words)
			return
		}
		out = append(out, Group{subject, []string{words}})
	}
	type id struct{ subject, key string }
	has := func(list []sentence) map[id]bool {
		set := map[id]bool{}
		for _, s := range list {
			set[id{s.subject, s.key}] = true
		}
		return set
	}
	inMine, inOther := has(mine), has(other)
	speaksOf := map[string]bool{}
	for _, s := range mine {
		speaksOf[s.subject] = true
	}
	known := map[string]bool{}
	for _, s := range other {
		known[s.subject] = true
	}
	for _, s := range shortened(mine, known) {
		if !s.limit && s.key != "" && !inOther[id{s.subject, s.key}] {
			add(s.subject, s.words)
		}
	}
	for _, s := range other {
		// A container that only the other has is not less bound here: it is not here.
		if s.limit && !inMine[id{s.subject, s.key}] && speaksOf[s.subject] {
			add(s.subject, "no longer held to: "+s.words)
		}
	}
	return out
}

// shortened lists what there is much of by name alone, for subjects that the
// other policy does not know: a container that is there as a whole.
func shortened(list []sentence, known map[string]bool) []sentence {
	var out []sentence
	at := map[[2]string]int{}
	for _, s := range list {
		item := s.row.Name
		if item == "" || s.topic == topicAnnotations || known[s.subject] {
			out = append(out, s)
			continue
		}
		list := [2]string{s.subject, string(s.topic)}
		i, ok := at[list]
		if !ok {
			at[list] = len(out)
			s.words = strings.ToLower(string(s.topic)) + " " + item
			out = append(out, s)
		} else if !strings.Contains(out[i].words+",", " "+item+",") {
			out[i].words += ", " + item
		}
	}
	return out
}

func (d *Difference) uncertain(a, b *Subject) {
	say := func(format string, args ...any) { d.Uncertain = append(d.Uncertain, fmt.Sprintf(format, args...)) }
	if x, y := a.Parts.Digest, b.Parts.Digest; x != y {
		say("the rules differ (%s and %s): what is said holds as far as both read the data alike", short(x), short(y))
	}
	for name, s := range map[string]*Subject{"A": a, "B": b} {
		switch {
		case s.Data == nil:
			say("%s has no policy_data that could be read: only requests that it allows whatever they hold are compared", name)
		case s.Rules == Unknown:
			say("%s has rules from another tool: its data is read as this project's rules would", name)
		}
	}
	slices.Sort(d.Uncertain)
	if hasPattern(d.OnlyA) && hasPattern(d.OnlyB) {
		say("patterns are compared as text: two that match the same strings may be shown as a difference")
	}
}

// hasPattern says whether a pattern is among what differs.
func hasPattern(groups []Group) bool {
	return slices.ContainsFunc(groups, func(g Group) bool {
		return slices.ContainsFunc(g.Words, func(words string) bool { return strings.Contains(words, " match") })
	})
}

// short is enough of a digest to tell two apart.
func short(d policytext.Digest) string {
	if d == (policytext.Digest{}) {
		return "none"
	}
	return d.String()[:19] + "…"
}

// Write writes the difference as text.
func (d *Difference) Write(out io.Writer) error {
	return d.WriteAs(out, "B allows, and A does not:", "A allows, and B does not:")
}

// WriteAs writes the difference as text under titles of the caller.
func (d *Difference) WriteAs(out io.Writer, onlyB, onlyA string) error {
	var text strings.Builder
	part := func(title string, groups []Group) {
		if len(groups) == 0 {
			return
		}
		fmt.Fprintln(&text, title)
		for _, g := range groups {
			fmt.Fprintf(&text, "  %s\n", Printable(g.Subject))
			for _, words := range g.Words {
				fmt.Fprintf(&text, "    %s\n", Printable(words))
			}
		}
	}
	switch {
	case d.Same:
		text.WriteString("the policies are the same bytes\n")
	case d.Equal():
		text.WriteString("the policies allow the same\n")
	}
	part(onlyB, d.OnlyB)
	part(onlyA, d.OnlyA)
	if len(d.Uncertain) > 0 {
		text.WriteString("not certain:\n")
		for _, words := range d.Uncertain {
			fmt.Fprintf(&text, "  %s\n", Printable(words))
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}
