// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/api/runtime/task/v2"
	"google.golang.org/protobuf/types/known/anypb"

	"portcullis/ci/lab/recording"
)

func TestCommandLinesOfContainerds(t *testing.T) {
	for _, c := range []struct {
		args []string
		want call
	}{
		{[]string{"-namespace", "k8s.io", "-address", "/run/c.sock", "-publish-binary", "start", "-id", "abc", "start"}, call{id: "abc", action: "start"}},
		{[]string{"-namespace", "k8s.io", "-id", "abc", "-bundle", "/b", "-debug", "delete"}, call{id: "abc", bundle: "/b", action: "delete"}},
		{[]string{"-info"}, call{action: "info"}},
		{[]string{"-id"}, call{}},
	} {
		if got := parseCall(c.args); got != c.want {
			t.Errorf("%q: %+v", c.args, got)
		}
	}
}

func TestLifeOfAContainerIsRecorded(t *testing.T) {
	dir := t.TempDir()
	records, plan := filepath.Join(dir, "records"), filepath.Join(dir, "plan.json")
	source := filepath.Join(dir, "source")
	config := `{"annotations":{"io.kubernetes.cri.sandbox-id":"s","io.kubernetes.cri.sandbox-namespace":"n","io.kubernetes.cri.sandbox-name":"p","io.kubernetes.cri.container-name":"setup"},
		"mounts":[{"type":"bind","source":"` + source + `"},{"type":"proc","source":"proc"}]}`
	for name, content := range map[string]string{"source": "hello\n", "config.json": config, "plan.json": `[{"Namespace":"n","Pod":"p","Containers":["setup"]}]`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := newService(records, plan, func() {})
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Create(ctx, &task.CreateTaskRequest{ID: "c", Bundle: dir}))
	must(s.Exec(ctx, &task.ExecProcessRequest{ID: "c", ExecID: "e", Spec: &anypb.Any{Value: []byte(`{"args":["true"]}`)}}))
	must(s.Start(ctx, &task.StartRequest{ID: "c", ExecID: "e"}))
	must(s.Wait(ctx, &task.WaitRequest{ID: "c", ExecID: "e"}))
	must(s.Start(ctx, &task.StartRequest{ID: "c"}))
	end, err := s.Wait(ctx, &task.WaitRequest{ID: "c"})
	if err != nil || end.ExitStatus != 0 {
		t.Fatalf("an init container ends with %v (%v)", end, err)
	}
	must(s.Delete(ctx, &task.DeleteRequest{ID: "c"}))

	raw, err := recording.ReadRaw(records)
	if err != nil {
		t.Fatal(err)
	}
	c := raw.Containers["c"]
	if c == nil || c.Name != "setup" || c.Commands() != 1 || len(c.Files) != 1 || c.Files[source][0].Mode != "100644" {
		t.Errorf("recorded: %+v", c)
	}
}
