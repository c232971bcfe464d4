// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// findingsOf reads one finding of the rules. It can be several, where lists of objects differ in several places.
func findingsOf(v any) []Finding {
	f := Finding{Check: text(at(v, "check")), Path: text(at(v, "path")), Wanted: worded(at(v, "wanted")), Got: worded(at(v, "got"))}
	f.Secret = at(v, "secret") == true && at(v, "wanted", "public") == nil
	wanted, got := list(f.Wanted), list(f.Got)
	switch {
	case f.Path == "storages" && areObjects(wanted) && areObjects(got):
		return pairUp(f, wanted, got)
	case !inOrder.MatchString(f.Path) && len(wanted) > 0 && len(texts(wanted)) == len(wanted) && len(texts(got)) == len(got):
		return []Finding{compareSets(f, wanted, got)}
	}
	f.Path, f.Wanted, f.Got = narrow(f.Path, f.Wanted, f.Got)
	return []Finding{f}
}

// worded is a value as the rules give it: a phrase, one of several, or the value itself.
func worded(v any) any {
	if phrase, ok := at(v, "phrase").(string); ok {
		return Phrase(phrase)
	}
	if public := at(v, "public"); public != nil {
		return public
	}
	choice, ok := object(v)["one of"]
	if !ok {
		return v
	}
	if items := list(choice); len(items) > 0 && len(list(items[0])) > 0 {
		var commands [][]string
		for _, item := range items {
			commands = append(commands, texts(item))
		}
		return commands
	}
	words := oneOf{}
	for _, item := range list(choice) {
		words = append(words, fmt.Sprint(normal(item)))
	}
	return words
}

// inOrder are the lists of strings whose order counts: what differs in them has a number.
var inOrder = regexp.MustCompile(`Args$`)

func areObjects(items []any) bool {
	return !slices.ContainsFunc(items, func(item any) bool { return object(item) == nil })
}

// pairUp finds what differs between two lists of storages in any order: each that is wanted goes with the one that is most like it.
func pairUp(f Finding, wanted, got []any) []Finding {
	var left []any
	for _, w := range wanted {
		if i := slices.IndexFunc(got, func(g any) bool { return len(differences(f, w, g)) == 0 }); i >= 0 {
			got = slices.Delete(slices.Clone(got), i, i+1)
			continue
		}
		left = append(left, w)
	}
	var out []Finding
	for len(left) > 0 && len(got) > 0 {
		w, g := mostAlike(left, got)
		out = append(out, differences(f, left[w], got[g])...)
		left, got = slices.Delete(left, w, w+1), slices.Delete(got, g, g+1)
	}
	for _, g := range got {
		f.Path, f.Wanted, f.Got = itemPath("storages", g), Phrase("no such storage"), text(at(g, "driver"))+" "+text(at(g, "source"))
		out = append(out, f)
	}
	for _, w := range left {
		f.Path, f.Wanted, f.Got = itemPath("storages", w), Phrase(text(at(w, "driver"))+" "+text(at(w, "source"))), missing
		if text(at(w, "driver")) == "$(block)" {
			f.Wanted = Phrase("a block device with " + text(at(w, "fstype")))
		}
		out = append(out, f)
	}
	return out
}

// itemPath is the path of a storage, by its mount point unless the host chooses that.
func itemPath(path string, item any) string {
	point := text(at(item, "mount_point"))
	if point == "" || strings.HasPrefix(point, "$(") {
		return path
	}
	return path + "[" + point + "]"
}

func mostAlike(wanted, got []any) (w, g int) {
	most := -1
	for i := range wanted {
		for j := range got {
			n := 0
			for key, value := range object(wanted[i]) {
				if same(value, at(got[j], key)) {
					n++
				}
			}
			if n > most {
				w, g, most = i, j, n
			}
		}
	}
	return w, g
}

// sameItems compares lists of strings in any order.
func sameItems(a, b any) bool {
	x, y := texts(a), texts(b)
	return len(x) == len(list(a)) && len(y) == len(list(b)) && slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
}

// placeholders are what stands in a policy for what the host chooses.
var placeholders = map[string]Phrase{
	"$(block)":  "blk or scsi, with the address of a device",
	"$(device)": "what fits a block device",
	"$(root)":   "the container's root",
}

// differences are the fields in which a storage differs from the one that is wanted.
func differences(f Finding, wanted, got any) []Finding {
	var out []Finding
	for _, key := range []string{"driver", "source", "fstype", "mount_point", "options", "driver_options", "fs_group", "shared"} {
		w, g := at(wanted, key), at(got, key)
		if same(w, g) || key == "driver" && w == "$(block)" && (g == "blk" || g == "scsi") || strings.HasSuffix(key, "options") && sameItems(w, g) {
			continue
		}
		f.Path, f.Wanted, f.Got = "storages["+text(at(got, "mount_point"))+"]."+key, w, g
		if phrase, ok := placeholders[text(w)]; ok {
			f.Wanted = phrase
		}
		out = append(out, f)
	}
	return out
}
