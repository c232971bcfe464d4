// SPDX-License-Identifier: Apache-2.0

package project_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The lists of places in CONTRIBUTING.md: none is longer than its bound, and each place is there.
func TestPlacesOfAChange(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	place := regexp.MustCompile("(?m)^\\d+\\. `([^`]+)`: .")
	for heading, most := range map[string]int{"## Add a request of the agent\n": 4, "## Add a Kubernetes field\n": 10} {
		_, section, found := strings.Cut(string(text), heading)
		section, _, _ = strings.Cut(section, "\n## ")
		places := place.FindAllStringSubmatch(section, -1)
		if !found || len(places) == 0 || len(places) > most {
			t.Errorf("%s has %d places, at most %d are allowed", strings.TrimSpace(heading), len(places), most)
		}
		for _, p := range places {
			if _, err := os.Stat(filepath.Join(root, p[1])); err != nil {
				t.Errorf("%s: %v", strings.TrimSpace(heading), err)
			}
		}
	}
}

// A request of the API that somebody adds has to be in exactly these places by hand: the rest is made from them.
func TestEveryRequestIsInThePlacesOfTheList(t *testing.T) {
	request := regexp.MustCompile(`rpc \w+\((\w+)\)`)
	proto := read(t, "agentproto/agentpb/agent.proto")
	table := read(t, "rules/requests.json")
	for _, m := range request.FindAllStringSubmatch(proto, -1) {
		if m[1] != "SetPolicyRequest" && !strings.Contains(table, `"`+m[1]+`"`) {
			t.Errorf("rules/requests.json does not have %s", m[1])
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
