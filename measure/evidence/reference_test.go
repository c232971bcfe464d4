// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"portcullis/measure/evidence"
)

func TestParseReference(t *testing.T) {
	value := strings.Repeat("4D", 48)
	r, err := evidence.ParseReference([]byte(`{"snp_launch_measurement": "` + value + `", "mr_td": ["` + value + `"], "rtmr_2": ["` + value +
		`"], "pcr_11": ["` + value[:64] + `"], "snp_id_key_digest": ["` + value + `"], "rtmr_4": ["x"], "rtmr_02": 1, "pcr_24": 1, "xfam": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Measurements) != 2 || len(r.IDKeys) != 1 || !bytes.Equal(r.RTMRs[2][0], launched) || !bytes.Equal(r.PCRs[11][0], launched[:32]) {
		t.Errorf("read %+v", r)
	}
	if want := []string{"pcr_24", "rtmr_02", "rtmr_4", "xfam"}; !slices.Equal(r.Ignored, want) {
		t.Errorf("ignored %q, want %q", r.Ignored, want)
	}
	for _, bad := range []string{``, `[]`, `{"mr_td": []}`, `{"mr_td": ["00"]}`, `{"mr_td": ["zz"]}`, `{"mr_td": [1]}`, `{"mr_td": null}`, `{"pcr_0": "` + value + `"}`} {
		if _, err := evidence.ParseReference([]byte(bad)); !errors.Is(err, evidence.ErrReference) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
