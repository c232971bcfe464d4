// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"portcullis/internal/shareddata"
)

// Every recorded request gives the recorded input, by its full and its short name. The recorder shows a copied file's raw
// message, the policy its judged shape.
func TestInputOfEveryRecordedRequest(t *testing.T) {
	f, err := os.Open(filepath.Join(shareddata.Dir(t, "wire"), "inputs.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	n := 0
	for lines.Scan() {
		var line struct {
			Message, Case, Wire string
			Input               map[string]any
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		n++
		if line.Message == "grpc.CopyFileRequest" {
			line.Input = judgedShape(line.Input)
		}
		for _, name := range []string{line.Message, strings.TrimPrefix(line.Message, "grpc.")} {
			t.Run(fmt.Sprintf("%s/%s", name, line.Case), func(t *testing.T) {
				var out, errs bytes.Buffer
				args := []string{"input", "--hex", name}
				if code := run(context.Background(), args, stdio{strings.NewReader(line.Wire), &out, &errs}); code != exitOK {
					t.Fatalf("exit code %d: %s", code, errs.String())
				}
				var got map[string]any
				if err := json.Unmarshal(out.Bytes(), &got); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(line.Input, got); diff != "" {
					t.Errorf("(-recorded +printed):\n%s", diff)
				}
			})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if n != 84 {
		t.Errorf("%d recorded requests, want 84", n)
	}
}

// judgedShape is what a policy sees of a recorded CopyFileRequest; the recorded modes are no file type.
func judgedShape(raw map[string]any) map[string]any {
	judged := map[string]any{"file_type": "Unknown", "symlink_target": nil}
	for key, value := range raw {
		if key != "data" {
			judged[key] = value
		}
	}
	return judged
}
