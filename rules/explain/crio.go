// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"strings"

	"portcullis/internal/strictjson"
)

// crio is the one finding of a container that CRI-O makes: all else follows from it.
var crio = Finding{
	Check: "type", Path: "OCI.Annotations",
	Wanted: Phrase("those of containerd (io.kubernetes.cri.…)"), Got: Phrase("those of CRI-O (io.kubernetes.cri-o.…), which no platform serves"),
}

const useContainerd = "run the pod on nodes with containerd: no settings make a policy that allows what CRI-O sends"

// fromCRIO says whether CRI-O made a container.
func fromCRIO(q Question) bool {
	var input struct {
		OCI struct{ Annotations map[string]any }
	}
	if q.Kind != createKind || strictjson.Unmarshal(q.Input, &input) != nil {
		return false
	}
	theirs := false
	for key := range input.OCI.Annotations {
		if strings.HasPrefix(key, "io.kubernetes.cri.") {
			return false
		}
		theirs = theirs || strings.HasPrefix(key, "io.kubernetes.cri-o.")
	}
	return theirs
}
