// SPDX-License-Identifier: Apache-2.0

package rules_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// attacks are what hostile hosts were seen to do, by the name of the sample, and the tests of ours that hold against its kind.
var attacks = map[string][]string{
	"rules/01-container-id-unbinds-files":       {"TestNoFileOfAnIDThatIsNone", "TestNoIDThatNamesADirectoryOfTheAgent"},
	"rules/02-own-network-namespace":            {"TestNoNetworkNamespaceOfItsOwn"},
	"rules/03a-image-volume-is-the-hosts":       {"TestAVolumeOfTheImageTakesNothingOfTheHost", "TestVolumesOfImagesOverTheSystemAreRefused"},
	"rules/03b-peer-pods-emptydir-is-the-hosts": {"TestAnEmptyDirIsInTheGuestUnlessTheSettingsShareIt"},
	"rules/04-emptydirs-exchanged":              {"TestADeviceIsOneVolumeInEveryContainer", "TestTwoVolumesAreTwoStorages"},
	"rules/05a-mount-order":                     {"TestNoMountAfterOneBelowIt", "TestNothingBoundLiesBelowWhatTheHostFills"},
	"rules/06-files-left-out-or-swapped":        {"TestFilesAreNeitherSwappedNorLeftOutNorTakenAway", "TestNoChangedConfigMapFile"},
	"rules/07-ephemeral-bind":                   {"test_ephemeral_refused"},
	"rules/08-order-met-by-signals":             {"TestNoSuccessOfASignalledContainer", "TestNoContainerBesideOneThatWasEnded", "TestNoInitContainerAgainOnceItSucceeded"},
	"rules/11-reserved-ids":                     {"TestNoIDThatNamesADirectoryOfTheAgent"},
	"rules/14-cgroup-of-policyd":                {"TestNoControlGroupOfAnother", "TestNoSignalButThoseThatAKubeletSends"},
	"rules/15-binding-silently-off":             {"TestContentsAreBoundByDestinationAndKey"},
	"rules/18-compat-another-root":              {"TestNoContainerInTheRootOfAnother"},
	"gate/genpolicy/attack7_test.go":            {"TestOrderedPodsStartBehindTheGate"},
	"gate/genpolicy/attack10_test.go":           {"TestADeviceStandsWhereItsKindDoes"},
	"gate/genpolicy/attack10m_test.go":          {"TestADeviceStandsWhereItsKindDoes"},
	"gate/genpolicy/attack11_test.go":           {"TestAFileIsCopiedWholeOrNotAtAll", "TestContentsAreBoundByDestinationAndKey"},
	"gate/genpolicy/attack12_test.go":           {"test_ephemeral_refused"},
}

// Each sample of an attack has its test, where the samples are at hand all of them.
func TestEveryKnownAttackHasItsTest(t *testing.T) {
	tests := allTests(t)
	for attack, held := range attacks {
		for _, name := range held {
			if !tests[name] {
				t.Errorf("%s: there is no %s", attack, name)
			}
		}
	}
	for _, pattern := range []string{"rules/[0-9]*", "gate/genpolicy/*_test.go"} {
		found, err := filepath.Glob(sharedFile(t, "cases", strings.Split(pattern, "/")...))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			if name := filepath.ToSlash(filepath.Join(filepath.Dir(pattern), filepath.Base(path))); len(attacks[name]) == 0 {
				t.Errorf("%s has no test", name)
			}
		}
	}
}

var testName = regexp.MustCompile(`(?m)^(?:func ((?:Test|Fuzz)\w+)\(|(test_\w+) if)`)

// allTests are the names of the tests of the project, in Go and in Rego.
func allTests(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.ContainsFunc([]string{"_test.go", "_test.rego"}, func(end string) bool { return strings.HasSuffix(path, end) }) {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testName.FindAllStringSubmatch(string(text), -1) {
			out[m[1]+m[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
