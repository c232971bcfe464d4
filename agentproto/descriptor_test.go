// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"portcullis/agentproto/agentpb"
	"portcullis/internal/shareddata"
)

// table is the form of agent-api.json.
type table struct {
	Services map[string][]tableMethod    `json:"services"`
	Enums    map[string]map[string]int32 `json:"enums"`
	Messages map[string][]tableField     `json:"messages"`
}

type tableMethod struct{ Method, Request, Response string }

type tableField struct {
	Number int32
	Name   string
	Type   string
}

func TestDescriptorsEqualTheAgentsAPI(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(shareddata.Dir(t, "wire"), "agent-api.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want table
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	got := table{
		Services: make(map[string][]tableMethod),
		Enums:    make(map[string]map[string]int32),
		Messages: make(map[string][]tableField),
	}
	for _, file := range files() {
		got.addFile(file)
	}
	if len(got.Messages) == 0 || len(got.Services["grpc.AgentService"]) == 0 {
		t.Fatalf("found %d messages and %d methods", len(got.Messages), len(got.Services["grpc.AgentService"]))
	}
	byMethod := cmp.Transformer("byMethod", func(list []tableMethod) map[string]tableMethod {
		index := make(map[string]tableMethod)
		for _, m := range list {
			index[m.Method] = m
		}
		return index
	})
	if diff := cmp.Diff(want, got, byMethod); diff != "" {
		t.Errorf("descriptors differ from the table (-table +ours):\n%s", diff)
	}
}

func files() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		agentpb.File_agentproto_agentpb_agent_proto, agentpb.File_agentproto_agentpb_container_proto,
		agentpb.File_agentproto_agentpb_health_proto, agentpb.File_agentproto_agentpb_memory_proto,
		agentpb.File_agentproto_agentpb_network_proto, agentpb.File_agentproto_agentpb_oci_proto,
		agentpb.File_agentproto_agentpb_oci_resources_proto, agentpb.File_agentproto_agentpb_oci_seccomp_proto,
		agentpb.File_agentproto_agentpb_sandbox_proto, agentpb.File_agentproto_agentpb_stats_proto,
		agentpb.File_agentproto_agentpb_storage_proto, agentpb.File_agentproto_agentpb_stream_proto,
		agentpb.File_agentproto_agentpb_types_proto, emptypb.File_google_protobuf_empty_proto,
	}
}

func (t *table) addFile(file protoreflect.FileDescriptor) {
	services := file.Services()
	for i := range services.Len() {
		service := services.Get(i)
		methods := service.Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			name := WireName(service)
			t.Services[name] = append(t.Services[name], tableMethod{
				string(m.Name()), WireName(m.Input()), WireName(m.Output()),
			})
		}
	}
	t.addEnums(file.Enums())
	messages := file.Messages()
	for i := range messages.Len() {
		t.addMessage(messages.Get(i))
	}
}

func (t *table) addEnums(enums protoreflect.EnumDescriptors) {
	for i := range enums.Len() {
		values := make(map[string]int32)
		list := enums.Get(i).Values()
		for j := range list.Len() {
			values[string(list.Get(j).Name())] = int32(list.Get(j).Number())
		}
		t.Enums[WireName(enums.Get(i))] = values
	}
}

func (t *table) addMessage(message protoreflect.MessageDescriptor) {
	t.addEnums(message.Enums())
	list := []tableField{}
	fields := message.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		list = append(list, tableField{int32(f.Number()), string(f.Name()), typeText(f)})
	}
	t.Messages[WireName(message)] = list
}

// typeText writes a field's type as the table has it.
func typeText(f protoreflect.FieldDescriptor) string {
	text := f.Kind().String()
	switch {
	case f.IsMap():
		return "map<" + typeText(f.MapKey()) + ", " + typeText(f.MapValue()) + ">"
	case f.Message() != nil:
		text = WireName(f.Message())
	case f.Enum() != nil:
		text = WireName(f.Enum())
	}
	switch oneof := f.ContainingOneof(); {
	case f.IsList():
		return "repeated " + text
	case f.HasOptionalKeyword():
		return "optional " + text
	case oneof != nil:
		return text + " oneof " + string(oneof.Name())
	}
	return text
}
