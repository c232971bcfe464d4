// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"portcullis/engine/binding"
	"portcullis/hostdata/initdata"
	"portcullis/internal/hostdatatest"
)

// pod is an initdata document with podPolicy in it.
func pod(t testing.TB, more map[string]string) *initdata.Document {
	t.Helper()
	data := map[string]string{"policy.rego": podPolicy, "aa.toml": "[token]\n", "cdh.toml": "[kbc]\n"}
	for k, v := range more {
		if data[k] = v; v == "" {
			delete(data, k)
		}
	}
	doc, err := initdata.New(initdata.SHA256, data)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// shimDisk makes the disk image of an annotation's value as the runtime does: base64 and gzip undone, compressed again, behind
// magic and length.
func shimDisk(t testing.TB, annotation string) []byte {
	t.Helper()
	compressed, err := base64.StdEncoding.DecodeString(annotation)
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	var payload bytes.Buffer
	zw := gzip.NewWriter(&payload)
	if _, err := zw.Write(text); err != nil || zw.Close() != nil {
		t.Fatal("compress")
	}
	image := binary.LittleEndian.AppendUint64([]byte("initdata"), uint64(payload.Len()))
	image = append(image, payload.Bytes()...)
	return append(image, make([]byte, 512-len(image)%512)...)
}

func image(t testing.TB, doc *initdata.Document) []byte {
	t.Helper()
	annotation, err := doc.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	return shimDisk(t, annotation)
}

// TestAnnotations: an annotation, decoded as the runtime's shim does, is accepted with exactly the value that policyctl digest
// prints for it.
func TestAnnotations(t *testing.T) {
	doc := pod(t, nil)
	annotation, err := doc.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, hostdatatest.Guest{})
	m.write("annotation", annotation)
	m.write("initdata.toml", string(doc.Bytes()))
	m.write("policy.rego", podPolicy)
	forms := map[string]digests{
		"initdata": m.digest("--initdata", m.path("annotation")),
		"policy":   m.digest(m.path("policy.rego")),
	}
	if toml := m.digest("--initdata", m.path("initdata.toml")); toml.HostData != forms["initdata"].HostData {
		t.Errorf("the digest of the TOML is %s, of its annotation %s", toml.HostData.Hex, forms["initdata"].HostData.Hex)
	}
	for form, d := range forms {
		for _, tee := range []string{"snp", "tdx"} {
			for _, bound := range []string{"as printed", "as the other form", "first bit", "last bit"} {
				t.Run(form+" on "+tee+" bound "+bound, func(t *testing.T) {
					value := d
					if bound == "as the other form" {
						value = forms[map[string]string{"initdata": "policy", "policy": "initdata"}[form]]
					}
					field, err := hex.DecodeString(map[string]string{"snp": value.HostData.Hex, "tdx": value.MRConfigID.Hex}[tee])
					if err != nil {
						t.Fatal(err)
					}
					switch bound {
					case "first bit":
						field[0] ^= 0x80
					case "last bit":
						field[len(field)-1] ^= 1
					}
					checkAnnotation(t, field, form == "initdata", map[bool]binding.Code{true: "", false: binding.CodeDigestMismatch}[bound == "as printed"])
				})
			}
		}
	}
}

// checkAnnotation starts a guest with the field, hands it initdata as a disk or the policy as SetPolicy, and requires the code.
func checkAnnotation(t *testing.T, field []byte, asInitdata bool, want binding.Code) {
	hardware := hostdatatest.Guest{SNP: &hostdatatest.SNP{}}
	if len(field) == 32 {
		copy(hardware.SNP.HostData[:], field)
	} else {
		hardware = hostdatatest.Guest{TDX: &hostdatatest.TDX{MRConfigID: [48]byte(field)}}
	}
	m := newMachine(t, hardware)
	if asInitdata {
		m.disks(hostdatatest.Disk{Name: "vda", Contents: image(t, pod(t, nil))})
	}
	m.boot()
	m.agentUp()
	if !asInitdata {
		policy, err := initdata.ParsePolicy(base64.StdEncoding.EncodeToString([]byte(podPolicy)))
		if err != nil {
			t.Fatal(err)
		}
		m.setPolicy(string(policy), want)
	}
	if want != "" && !asInitdata {
		m.sandbox(binding.CodeNotSet)
		return
	}
	m.sandbox(want)
}

func boundTo(doc *initdata.Document) hostdatatest.Guest {
	d := &hostdatatest.SNP{}
	copy(d.HostData[:], doc.Digest())
	return hostdatatest.Guest{SNP: d}
}

// TestInitdataIsReadOnceAndKeptForARestart: the disk is gone after binding, its parts are where their consumers look, and a
// restarted policyd goes on.
func TestInitdataIsReadOnceAndKeptForARestart(t *testing.T) {
	doc := pod(t, nil)
	m := newMachine(t, boundTo(doc))
	m.disks(hostdatatest.Disk{Name: "vdb", Contents: make([]byte, 512)}, hostdatatest.Disk{Name: "vda", Contents: image(t, doc)})
	first := m.boot()
	if _, err := os.Lstat(m.path("root/dev/vda")); !os.IsNotExist(err) {
		t.Error("the disk is still attached")
	}
	if m.read("cc/aa.toml") != "[token]\n" || m.read("cc/cdh.toml") != "[kbc]\n" {
		t.Error("aa.toml and cdh.toml are not the document's")
	}
	m.agentUp()
	m.sandbox("")
	m.setPolicy(podPolicy, "")
	m.setPolicy(otherPolicy, binding.CodeInitdataLocked)
	first.stop()
	second := m.boot()
	if second.d.chain.Denial() != nil {
		t.Fatal(second.d.chain.Denial())
	}
	m.setPolicy(podPolicy, "")
	m.sandbox("")
	if s := second.d.chain.Status(t.Context()); s.Binding != "initdata" || s.Initdata == nil || s.Initdata.Digest != hex.EncodeToString(doc.Digest()) {
		t.Errorf("status %+v", s)
	}
	second.stop()
	// The host attaches another one, or the same: only the same is what was bound.
	m.disks(hostdatatest.Disk{Name: "vdc", Contents: image(t, pod(t, map[string]string{"aa.toml": "[evil]\n"}))})
	third := m.boot()
	m.sandbox(binding.CodeInitdataChanged)
	third.stop()
	m.disks(hostdatatest.Disk{Name: "vdc", Contents: image(t, doc)})
	m.boot()
	m.sandbox("")
}

func TestInitdataThatIsNotTaken(t *testing.T) {
	doc := pod(t, nil)
	tests := []struct {
		name   string
		change func(*machine)
		code   binding.Code
	}{
		{"two disks", func(m *machine) {
			m.disks(hostdatatest.Disk{Name: "vda", Contents: image(m.t, doc)}, hostdatatest.Disk{Name: "vdb", Contents: image(m.t, doc)})
		}, binding.CodeInitdataInvalid},
		{"another document", func(m *machine) {
			m.disks(hostdatatest.Disk{Name: "vda", Contents: image(m.t, pod(m.t, map[string]string{"aa.toml": "[evil]\n"}))})
		}, binding.CodeDigestMismatch},
		{"the driver holds the disk", func(m *machine) {
			m.disks(hostdatatest.Disk{Name: "vda", Contents: image(m.t, doc), Stuck: true})
		}, binding.CodeInitdataInvalid},
		{"a disk that cannot be read", func(m *machine) {
			m.disks(hostdatatest.Disk{Name: "vda", ReadErr: syscall.EIO})
		}, binding.CodeInitdataInvalid},
		{"binding is policy", func(m *machine) { m.conf.Binding.Binding = "policy" }, binding.CodeInitdataInvalid},
		{"a copy that differs", func(m *machine) { m.write("cc/aa.toml", "[evil]\n") }, binding.CodeInitdataChanged},
		{"a copy of a part that the document lacks", func(m *machine) { m.write("peerpod/policy.rego", "package agent_policy\n") }, binding.CodeInitdataChanged},
		{"another copy of the document", func(m *machine) { m.write("cc/initdata.toml", "version = \"0.1.0\"\n") }, binding.CodeInitdataChanged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, boundTo(doc))
			m.disks(hostdatatest.Disk{Name: "vda", Contents: image(t, doc)})
			tt.change(m)
			m.boot()
			m.agentUp()
			m.sandbox(tt.code)
			m.setPolicy(podPolicy, tt.code)
			if m.agent.Calls("CreateSandbox") != 0 {
				t.Error("a request reached the agent")
			}
		})
	}
	t.Run("no policy in it", func(t *testing.T) {
		doc := pod(t, map[string]string{"policy.rego": ""})
		m := newMachine(t, boundTo(doc))
		m.disks(hostdatatest.Disk{Name: "vda", Contents: image(t, doc)})
		m.boot()
		m.sandbox(binding.CodeInitdataInvalid)
	})
}

// TestCopyChangedBeforeTheFirstRequest: what the agent wrote from a disk that was attached after policyd looked.
func TestCopyChangedBeforeTheFirstRequest(t *testing.T) {
	doc := pod(t, nil)
	m := newMachine(t, boundTo(doc))
	m.disks(hostdatatest.Disk{Name: "vda", Contents: image(t, doc)})
	m.boot()
	m.agentUp()
	if err := os.WriteFile(m.path("cc/aa.toml"), []byte("[evil]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.sandbox(binding.CodeInitdataChanged)
	m.setPolicy(podPolicy, binding.CodeInitdataChanged)
}

// TestPeerPod: initdata comes as a file, and on a vTPM either policyd extends its digest or another unit did before.
func TestPeerPod(t *testing.T) {
	doc := pod(t, nil)
	annotation, err := doc.Annotation()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		preextended bool
		before      []byte
		code        binding.Code
		digests     [][]byte
	}{
		"policyd extends":                   {false, nil, "", [][]byte{doc.Digest()}},
		"another unit extended":             {true, doc.Digest(), "", [][]byte{doc.Digest()}},
		"another unit was to extend":        {true, nil, binding.CodePCRUnexpected, nil},
		"another unit extended another":     {true, sum256("x"), binding.CodePCRUnexpected, [][]byte{sum256("x")}},
		"a second extender was there first": {false, doc.Digest(), binding.CodePCRUnexpected, [][]byte{doc.Digest()}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, hostdatatest.Guest{}).withTPM("azure-paravisor")
			m.conf.Binding.VTPM.ExpectPreextended = tt.preextended
			m.conf.Binding.Initdata = m.path("initdata")
			m.write("initdata", annotation+"\n")
			if tt.before != nil {
				if _, err := m.tpm.Tool(m.dir, "tpm2_pcrextend", "8:sha256="+hex.EncodeToString(tt.before)); err != nil {
					missing(t, err)
				}
			}
			first := m.boot()
			m.agentUp()
			m.sandbox(tt.code)
			m.extendedBy(tt.digests...)
			first.stop()
			if tt.code == "" {
				m.boot()
				m.sandbox("")
				m.extendedBy(tt.digests...)
			}
		})
	}
}

// TestInitdataOfAnotherHashOnAVTPM says so in one line.
func TestInitdataOfAnotherHashOnAVTPM(t *testing.T) {
	doc, err := initdata.New(initdata.SHA384, map[string]string{"policy.rego": podPolicy})
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.disks(hostdatatest.Disk{Name: "vda", Contents: image(t, doc)})
	r := m.boot()
	if err := r.d.chain.Denial(); err == nil || !strings.Contains(err.Error(), "sha256") || strings.Contains(err.Error(), "\n") {
		t.Errorf("denial: %v", err)
	}
	m.extendedBy()
}
