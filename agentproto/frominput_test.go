// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/shareddata"
)

func TestMessagesComeBackFromTheirInput(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Message+"/"+v.Case, func(t *testing.T) {
			mt := messageType(t, v.Message)
			want, err := Decode(mt, v.bytes(t))
			if err != nil {
				t.Fatal(err)
			}
			got, err := FromInput(mt, v.Input)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestCopyFileComesBackFromTheJudgedShape(t *testing.T) {
	for name, test := range map[string]struct {
		input string
		want  *agentpb.CopyFileRequest
	}{
		"regular file without a mode": {`{"path":"/p","file_type":"Regular"}`, &agentpb.CopyFileRequest{Path: "/p", FileMode: 0o100000}},
		"directory with permissions":  {`{"file_type":"Directory","file_mode":493}`, &agentpb.CopyFileRequest{FileMode: 0o040755}},
		"mode that tells the same":    {`{"file_type":"Regular","file_mode":33188,"symlink_target":null}`, &agentpb.CopyFileRequest{FileMode: 0o100644}},
		"symbolic link":               {`{"file_type":"Symlink","symlink_target":"é"}`, &agentpb.CopyFileRequest{FileMode: 0o120000, Data: []byte("é")}},
		"unknown type":                {`{"file_type":"Unknown","file_mode":420}`, &agentpb.CopyFileRequest{FileMode: 0o644}},
		"contents as text":            {`{"file_mode":33188,"data":"é\n"}`, &agentpb.CopyFileRequest{FileMode: 0o100644, Data: []byte("é\n")}},
		"contents in base64":          {`{"file_mode":33188,"data":{"base64":"Af8="}}`, &agentpb.CopyFileRequest{FileMode: 0o100644, Data: []byte{1, 255}}},
		"message as it is":            {`{"file_mode":33188,"data":[1,255]}`, &agentpb.CopyFileRequest{FileMode: 0o100644, Data: []byte{1, 255}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := FromInput(copyFileType, []byte(test.input))
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestWrongInputIsRefusedWithItsPath(t *testing.T) {
	for name, test := range map[string]struct{ message, input, want string }{
		"unknown key":               {"CreateContainerRequest", `{"OCI":{"Mounts":[{},{"type":"x"}]}}`, `OCI.Mounts[1].type: unknown key`},
		"key with a line break":     {"CheckRequest", `{"a\nb":1}`, `"a\nb": unknown key`},
		"empty key in a message":    {"CreateContainerRequest", `{"OCI":{"":1}}`, `OCI."": unknown key`},
		"wrong type":                {"ExecProcessRequest", `{"process":{"Args":["a",1]}}`, `process.Args[1]: want string, got number`},
		"null in a list":            {"CreateSandboxRequest", `{"dns":[null]}`, `dns[0]: want string, got null`},
		"list for a message":        {"ExecProcessRequest", `{"process":[]}`, `process: want object, got array`},
		"number out of range":       {"TtyWinResizeRequest", `{"row":4294967296}`, `row: 4294967296 is no uint32`},
		"negative unsigned number":  {"ResizeVolumeRequest", `{"size":-1}`, `size: -1 is no uint64`},
		"fraction":                  {"TtyWinResizeRequest", `{"row":1.5}`, `row: 1.5 is no uint32`},
		"no byte":                   {"WriteStreamRequest", `{"data":[1,256]}`, `data[1]: 256 is no byte`},
		"no base64":                 {"WriteStreamRequest", `{"data":{"base64":"?"}}`, `data.base64: illegal base64 data at input byte 0`},
		"base64 and more":           {"WriteStreamRequest", `{"data":{"base64":"","x":1}}`, `data: want array of numbers, text or {"base64": text}, got object`},
		"map value":                 {"CreateContainerRequest", `{"OCI":{"Annotations":{"a b":1}}}`, `OCI.Annotations.a b: want string, got number`},
		"unknown member of a oneof": {"CreateContainerRequest", `{"OCI":{"Linux":{"Seccomp":{"Syscalls":[{"ErrnoRet":{"x":1}}]}}}}`, `OCI.Linux.Seccomp.Syscalls[0].ErrnoRet.x: unknown key`},
		"oneof with two members":    {"CreateContainerRequest", `{"OCI":{"Linux":{"Seccomp":{"Syscalls":[{"ErrnoRet":{"x":1,"y":2}}]}}}}`, `ErrnoRet: want one key, got 2`},
		"both names of a field":     {"UpdateInterfaceRequest", `{"interface":{"pciPath":"","devicePath":""}}`, `interface.pciPath: also given as devicePath`},
		"name of another request":   {"CheckRequest", `{"type":"CopyFile"}`, `type: unknown key`},
		"no object":                 {"CheckRequest", `[]`, `want object, got array`},
		"two values":                {"CheckRequest", `{} {}`, `after top-level value`},
		"no JSON":                   {"CheckRequest", `{`, `unexpected end of JSON input`},
		"type against the mode":     {"CopyFileRequest", `{"file_type":"Symlink","file_mode":33188}`, `file_type: Symlink, but file_mode says Regular`},
		"no such file type":         {"CopyFileRequest", `{"file_type":["x"]}`, `file_type: want Regular, Directory, Symlink or Unknown`},
		"target of a regular file":  {"CopyFileRequest", `{"file_type":"Regular","symlink_target":"x"}`, `symlink_target: file_type is not Symlink`},
		"target and data":           {"CopyFileRequest", `{"file_type":"Symlink","symlink_target":"x","data":[]}`, `symlink_target: data is given too`},
		"target that is no text":    {"CopyFileRequest", `{"file_type":"Symlink","symlink_target":1}`, `symlink_target: want string, got number`},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := FromInput(messageType(t, test.message), []byte(test.input))
			if err == nil {
				t.Fatalf("read %v", m)
			}
			if !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("got %q, want ... %q", err, test.want)
			}
		})
	}
}

func TestFormerNamesAreTaken(t *testing.T) {
	m, err := FromInput(messageType(t, "UpdateInterfaceRequest"), []byte(`{"interface":{"pciPath":"01/02","type_":"x"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &agentpb.UpdateInterfaceRequest{Interface: &agentpb.Interface{DevicePath: "01/02", Type: "x"}}
	if !proto.Equal(m, want) {
		t.Errorf("got %v", m)
	}
}

func TestRequestsMayCarryTheirName(t *testing.T) {
	for _, name := range []string{"CopyFile", "CopyFileRequest"} {
		m, err := FromInput(copyFileType, []byte(`{"type":"`+name+`","path":"/p"}`))
		if err != nil || !proto.Equal(m, &agentpb.CopyFileRequest{Path: "/p"}) {
			t.Errorf("%s: got %v, %v", name, m, err)
		}
	}
}

// Every request of the corpus has a message, and the input of that message is the request again where the request says something.
func TestCorpusRequestsHaveMessages(t *testing.T) {
	count := 0
	err := filepath.WalkDir(shareddata.Dir(t, "corpus"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "testcases.json" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var cases []struct {
			Description, Kind string
			Request           json.RawMessage
		}
		if err := json.Unmarshal(data, &cases); err != nil {
			return err
		}
		for _, c := range cases {
			count++
			mt, ok := MessageByName(c.Kind)
			if !ok {
				t.Errorf("%s: %s: no message %s", path, c.Description, c.Kind)
				continue
			}
			m, err := FromInput(mt, c.Request)
			if err != nil {
				t.Errorf("%s: %s: %v", path, c.Description, err)
				continue
			}
			checkRoundTrip(t, m)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count == 0 {
		t.Fatal("the corpus has no cases")
	}
}

// checkRoundTrip encodes an accepted message, decodes it, and compares inputs.
func checkRoundTrip(t testing.TB, m proto.Message) {
	t.Helper()
	wire, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(m.ProtoReflect().Type(), wire)
	if err != nil {
		t.Fatalf("re-encoding is not decoded: %v", err)
	}
	before, after := rawInput(t, m), rawInput(t, again)
	if before.Compare(after) != 0 {
		t.Fatalf("input %v became %v", before, after)
	}
	judged, err := Input(m)
	if err != nil {
		return // a symlink target; Input says the same of both
	}
	judgedAgain, err := Input(again)
	if err != nil || judged.Compare(judgedAgain) != 0 {
		t.Fatalf("input %v became %v, %v", judged, judgedAgain, err)
	}
}

// checkReversible reads the input of m back into a message.
func checkReversible(t testing.TB, m proto.Message, input any) {
	t.Helper()
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromInput(m.ProtoReflect().Type(), text)
	if err != nil {
		t.Fatalf("input is not read back: %v", err)
	}
	if !proto.Equal(m, again) {
		t.Fatalf("got  %v\nwant %v", again, m)
	}
}
