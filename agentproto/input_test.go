// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/shareddata"
)

// vector is one line of inputs.jsonl: an encoding and the input that the agent's own serializer gives for it.
type vector struct {
	Message string          `json:"message"`
	Case    string          `json:"case"`
	Wire    string          `json:"wire"`
	Input   json.RawMessage `json:"input"`
}

const vectorCount = 84

func vectors(t testing.TB) []vector {
	t.Helper()
	file, err := os.Open(filepath.Join(shareddata.Dir(t, "wire"), "inputs.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var list []vector
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	if len(list) != vectorCount {
		t.Fatalf("found %d vectors, want %d", len(list), vectorCount)
	}
	return list
}

func (v vector) bytes(t testing.TB) []byte {
	t.Helper()
	wire, err := hex.DecodeString(v.Wire)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func messageType(t testing.TB, name string) protoreflect.MessageType {
	t.Helper()
	mt, ok := MessageByName(name)
	if !ok {
		t.Fatalf("no message %s", name)
	}
	return mt
}

// rawInput is the input of m without the special case of CopyFileRequest.
func rawInput(t testing.TB, m proto.Message) ast.Value {
	t.Helper()
	p, err := planOf(m.ProtoReflect().Descriptor())
	if err != nil {
		t.Fatal(err)
	}
	return p.object(m.ProtoReflect(), nil)
}

func parseValue(t testing.TB, text []byte) ast.Value {
	t.Helper()
	value, err := ast.ValueFromReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestInputEqualsTheAgentsSerializer(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Message+"/"+v.Case, func(t *testing.T) {
			m, err := Decode(messageType(t, v.Message), v.bytes(t))
			if err != nil {
				t.Fatal(err)
			}
			want := parseValue(t, v.Input)
			if got := rawInput(t, m); got.Compare(want) != 0 {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			if m.ProtoReflect().Type() == copyFileType {
				return
			}
			got, err := Input(m)
			if err != nil {
				t.Fatal(err)
			}
			if got.Compare(want) != 0 {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestEncodingIsTheAgentsOwn(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Message+"/"+v.Case, func(t *testing.T) {
			wire := v.bytes(t)
			m, err := Decode(messageType(t, v.Message), wire)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, wire) {
				t.Errorf("got  %x\nwant %x", got, wire)
			}
		})
	}
}

func TestCopyFileIsJudgedWithoutItsContents(t *testing.T) {
	tests := map[string]struct {
		mode       uint32
		data       string
		wantType   string
		wantTarget any
		wantErr    error
	}{
		"regular file":            {mode: 0o100644, data: "\xff secret", wantType: "Regular"},
		"directory":               {mode: 0o040755, wantType: "Directory"},
		"symbolic link":           {mode: 0o120777, data: "../a", wantType: "Symlink", wantTarget: "../a"},
		"empty symbolic link":     {mode: 0o120777, wantType: "Symlink", wantTarget: ""},
		"character device":        {mode: 0o020600, wantType: "Unknown"},
		"socket":                  {mode: 0o140600, wantType: "Directory"},
		"block device":            {mode: 0o060600, wantType: "Directory"},
		"more bits than a link":   {mode: 0o130777, data: "../a", wantType: "Symlink", wantTarget: "../a"},
		"mode without a type":     {mode: 0o644, wantType: "Unknown"},
		"target that is no UTF-8": {mode: 0o120777, data: "a\xff", wantErr: ErrSymlinkTarget},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m := &agentpb.CopyFileRequest{
				Path: "/p", FileSize: 1 << 40, FileMode: test.mode, DirMode: 0o755,
				Uid: -1, Gid: 7, Offset: 512, Data: []byte(test.data),
			}
			value, err := Input(m, []string{"data"}, []string{"path"})
			if !errors.Is(err, test.wantErr) {
				t.Fatalf("got error %v, want %v", err, test.wantErr)
			}
			if test.wantErr != nil {
				return
			}
			got, err := ast.JSON(value)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]any{
				"path": "/p", "file_type": test.wantType, "symlink_target": test.wantTarget,
				"file_size": json.Number("1099511627776"), "file_mode": json.Number(jsonNumber(test.mode)),
				"dir_mode": json.Number("493"), "uid": json.Number("-1"), "gid": json.Number("7"),
				"offset": json.Number("512"),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("input differs (-want +got):\n%s", diff)
			}
		})
	}
}

func jsonNumber(n uint32) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func TestOmittedBytesAreAbsent(t *testing.T) {
	m := &agentpb.WriteStreamRequest{ContainerId: "c", Data: []byte("secret")}
	for name, test := range map[string]struct {
		omit [][]string
		want string
	}{
		"nothing omitted":      {nil, `{"container_id":"c","exec_id":"","data":[115,101,99,114,101,116]}`},
		"data omitted":         {BytesFields(m.ProtoReflect().Type()), `{"container_id":"c","exec_id":""}`},
		"only bytes can be":    {[][]string{{"container_id"}, {"data", "x"}, {}}, `{"container_id":"c","exec_id":"","data":[115,101,99,114,101,116]}`},
		"among unknown fields": {[][]string{{"x"}, {"data"}}, `{"container_id":"c","exec_id":""}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Input(m, test.omit...)
			if err != nil {
				t.Fatal(err)
			}
			if want := parseValue(t, []byte(test.want)); got.Compare(want) != 0 {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestBytesFieldsOfTheAPI(t *testing.T) {
	got := make(map[string][][]string)
	for _, m := range Methods() {
		for _, mt := range []protoreflect.MessageType{m.Request, m.Response} {
			if paths := BytesFields(mt); paths != nil {
				got[string(mt.Descriptor().Name())] = paths
			}
		}
	}
	data := [][]string{{"data"}}
	want := map[string][][]string{
		"WriteStreamRequest": data, "ReadStreamResponse": data, "ReseedRandomDevRequest": data,
		"SetIPTablesRequest": data, "SetIPTablesResponse": data, "GetIPTablesResponse": data,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bytes fields differ (-want +got):\n%s", diff)
	}
}

func TestLargeNumbersKeepTheirValue(t *testing.T) {
	m := &agentpb.LinuxMemory{Limit: -1 << 63, Swap: -1, Kernel: 255, KernelTCP: 256, Swappiness: 1<<64 - 1}
	got := rawInput(t, m)
	want := parseValue(t, []byte(`{"Limit":-9223372036854775808,"Reservation":0,"Swap":-1,"Kernel":255,
		"KernelTCP":256,"Swappiness":18446744073709551615,"DisableOOMKiller":false}`))
	if got.Compare(want) != 0 {
		t.Errorf("got %v, want %v", got, want)
	}
}
