// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"testing"

	"google.golang.org/grpc/codes"
)

const (
	fragmentPath = "/guesttest/fragment.txt"
	updatesPath  = "/guesttest/update.jsonl"
)

// update sends the signed fragment that gives a container of the running pod another image, and what a host does then: the old
// one goes on until it is ended, and is made anew with the new image alone.
func update(t *testing.T) {
	h := dial(t)
	before := pcr8(t)
	fragment := read(t, fragmentPath)
	for range 2 { // the second time there is nothing to do
		if err := h.setPolicy(fragment); err != nil {
			t.Fatal(err)
		}
	}
	if pcr8(t) == before {
		t.Error("PCR 8 is as before the fragment")
	}
	if err := h.setPolicy(append([]byte("portcullis-fragment:"), fragment...)); err == nil {
		t.Error("a broken fragment was taken")
	}
	for _, c := range casesOf(t, updatesPath) {
		if c.Allowed {
			h.allowed(c.Kind, c.message(t))
		} else {
			h.denied(c.Kind, c.message(t), codes.PermissionDenied, "blocked by policy")
		}
	}
}
