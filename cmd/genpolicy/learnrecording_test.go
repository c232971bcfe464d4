// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// A recording of policyd holds how an init container ended; without it what waits for one could not be judged.
func TestDumpsAreLearnedFromWithTheirAnswers(t *testing.T) {
	records, err := readRecording("-", strings.NewReader(`{"kind":"WaitProcessRequest","request":{"container_id":"a","exec_id":"a"}}
{"observed":"WaitProcessResponse","request":{"request":{"container_id":"a","exec_id":"a"},"response":{"status":0}}}
`))
	if err != nil || len(records) != 2 || !records[1].Observed {
		t.Errorf("got %+v (%v), want a request and an answer", records, err)
	}
}
