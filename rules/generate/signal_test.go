// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"portcullis/images"
)

func TestStopSignalsAreNumbers(t *testing.T) {
	for name, want := range map[string]uint32{"": 15, "SIGQUIT": 3, "quit": 3, "3": 3, "SIGRTMIN+3": 37, "RTMAX-1": 63, "SIGKILL": 9,
		"SIGSTOP": 15, "SIGRTMIN+99": 15, "nothing": 15, "65": 15} {
		if got := stopSignal(placed{Container: &corev1.Container{}}, images.Config{StopSignal: name}); got != want {
			t.Errorf("%q: got %d, want %d", name, got, want)
		}
	}
	usr1 := corev1.Signal("SIGUSR1")
	own := placed{Container: &corev1.Container{Lifecycle: &corev1.Lifecycle{StopSignal: &usr1}}}
	if got := stopSignal(own, images.Config{StopSignal: "SIGQUIT"}); got != 10 {
		t.Errorf("the manifest's: got %d, want 10", got)
	}
}
