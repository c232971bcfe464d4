// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ChartError says that a folder is a Helm chart, whose templates become manifests only by values.
type ChartError struct{ Dir string }

func (e *ChartError) Error() string {
	return fmt.Sprintf("%s is a Helm chart, whose templates are no manifests: take what \"helm template %s\" prints", e.Dir, e.Dir)
}

// chartValues are files with values for a chart, as people name them.
var chartValues = regexp.MustCompile(`^values([-._].*)?\.ya?ml$`)

// Files lists the manifests that a path names, sorted: the file itself, or each .yaml, .yml and .json file of a folder and of the
// folders in it but for hidden ones. Nothing is rendered: passed are the files that kustomize or Helm alone reads, each with what
// to do. A folder with a chart in it is a [ChartError].
func Files(path string) (files []string, passed []*Finding, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil, nil
	}
	err = filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil:
			return err
		case at != path && strings.HasPrefix(name, "."):
			if entry.IsDir() {
				return filepath.SkipDir
			}
		case entry.IsDir():
		case name == "Chart.yaml":
			return &ChartError{filepath.Dir(at)}
		case name == "kustomization.yaml" || name == "kustomization.yml" || name == "Kustomization":
			passed = append(passed, &Finding{File: at, Text: "is passed over: what kustomize makes of it is what runs; take what \"kustomize build\" prints"})
		case chartValues.MatchString(name):
			passed = append(passed, &Finding{File: at, Text: "is passed over: it holds values of a chart, not a manifest; take what \"helm template\" prints"})
		case slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(at)):
			files = append(files, at)
		}
		return nil
	})
	if err != nil {
		return nil, passed, fmt.Errorf("read folder: %w", err)
	}
	if len(files) == 0 {
		return nil, passed, fmt.Errorf("read folder %s: it has no .yaml, .yml or .json file", path)
	}
	return files, passed, nil
}
