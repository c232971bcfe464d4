// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"portcullis/agentproto/agentpb"
	"portcullis/hostdata/initdata"
)

// initdataSource is a copy of the document that the disk carries, part of the image.
const initdataSource = "/guesttest/initdata.toml"

func source(t *testing.T) *initdata.Document {
	t.Helper()
	doc, err := initdata.Parse(read(t, initdataSource))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestInitdata runs with a disk of initdata.
func TestInitdata(t *testing.T) {
	skipOutside(t)
	doc := source(t)
	h := dial(t)
	create := readCases(t)[0]
	h.served(create) // by the document's policy; nobody called SetPolicy
	s := readStatus(t)
	if s.Binding != "initdata" || s.State == "" {
		t.Errorf("status %+v", s)
	}
	if got, want := pcr8(t), extended(sha256.Sum256(doc.Bytes())); got != want {
		t.Errorf("PCR 8 is %s, want %s, of the document", got, want)
	}
	for _, name := range []string{initdata.AAKey, initdata.CDHKey} {
		want, _ := doc.Value(name)
		if got := read(t, filepath.Join(initdata.Directory, name)); string(got) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	disks, err := filepath.Glob("/dev/vd*")
	if err != nil || len(disks) != 1 {
		t.Errorf("disks %v, %v: want the root's alone, the one with initdata detached", disks, err)
	}
	h.denied("SetPolicyRequest", &agentpb.SetPolicyRequest{Policy: "package agent_policy\n"}, codes.PermissionDenied, "initdata-locked")
	policy, _ := doc.Value(initdata.PolicyKey)
	if err := h.setPolicy([]byte(policy)); err != nil {
		t.Errorf("the document's own policy: %v", err)
	}
}

// TestInitdataChanged gives policyd another disk after it has read the first.
func TestInitdataChanged(t *testing.T) {
	skipOutside(t)
	h := dial(t)
	create := readCases(t)[0]
	h.served(create)
	disk := plugIn(t)
	other, err := initdata.New(initdata.SHA256, map[string]string{initdata.PolicyKey: "package agent_policy\n\nCreateContainerRequest := true\n"})
	if err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	if err := other.WriteImage(&image); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY|os.O_SYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(image.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	kill(t)
	dial(t).denied(create.Kind, create.message(t), codes.PermissionDenied, "initdata-changed")
}

// plugIn gives the detached disk back to its driver, as the host could with a new one, and returns its path.
func plugIn(t *testing.T) string {
	t.Helper()
	devices, err := filepath.Glob("/sys/bus/virtio/devices/virtio*")
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range devices {
		kind := strings.TrimSpace(string(read(t, device+"/device")))
		if _, err := os.Stat(device + "/driver"); err == nil || kind != "0x0002" {
			continue
		}
		if err := os.WriteFile("/sys/bus/virtio/drivers/virtio_blk/bind", []byte(filepath.Base(device)), 0); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(wait); ; time.Sleep(pause) {
			if disks, _ := filepath.Glob("/dev/vd*"); len(disks) == 2 {
				return disks[1]
			}
			if time.Now().After(deadline) {
				t.Fatal("the disk does not come back")
			}
		}
	}
	t.Fatal("no detached disk")
	return ""
}

// TestInitdataRefused runs with initdata that must not be taken.
func TestInitdataRefused(t *testing.T) {
	skipOutside(t)
	h := dial(t)
	code := cmdline["guesttest.code"]
	create := readCases(t)[0]
	h.denied(create.Kind, create.message(t), codes.PermissionDenied, code)
	if err := h.setPolicy(read(t, policyPath)); err == nil {
		t.Error("SetPolicy was taken")
	}
	for _, name := range []string{initdata.AAKey, initdata.CDHKey} {
		if _, err := os.Stat(filepath.Join(initdata.Directory, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	if s := readStatus(t); s.Code != code {
		t.Errorf("status has code %q, want %q", s.Code, code)
	}
}
