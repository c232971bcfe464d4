// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"portcullis/agentproto/agentpb"
)

// Method is one method of the agent's API.
type Method struct {
	Service  string // full name on the wire, such as "grpc.AgentService"
	Name     string // such as "CreateContainer"
	Request  protoreflect.MessageType
	Response protoreflect.MessageType

	entryPoint string
}

// EntryPoint is the name of the policy rule that decides the method: the
// request's message name without its package. Two methods may share one.
func (m Method) EntryPoint() string {
	return m.entryPoint
}

// Methods returns all methods of all services, in the order of the descriptors.
func Methods() []Method {
	return slices.Clone(schema.methods)
}

// Lookup finds a method by the full name of its service and its own name. What is not found is to be denied.
func Lookup(service, name string) (Method, bool) {
	i, ok := schema.methodIndex[methodKey{service, name}]
	if !ok {
		return Method{}, false
	}
	return schema.methods[i], true
}

// MessageByName finds a message type of the API by its full name on
// the wire ("grpc.CreateContainerRequest") or its short one ("CreateContainerRequest").
func MessageByName(name string) (protoreflect.MessageType, bool) {
	mt, ok := schema.messages[name]
	return mt, ok
}

type methodKey struct{ service, name string }

// api is what the descriptors say, in the form the package asks for it. It is built once and never changes.
type api struct {
	methods     []Method
	methodIndex map[methodKey]int
	messages    map[string]protoreflect.MessageType
	plans       map[protoreflect.MessageDescriptor]*plan
}

var schema = newAPI(agentpb.File_agentproto_agentpb_agent_proto, agentpb.File_agentproto_agentpb_health_proto)

// newAPI reads the services of files, and the messages of files and of all they
// import. It panics on what the generated code cannot contain.
func newAPI(files ...protoreflect.FileDescriptor) *api {
	a := &api{
		methodIndex: make(map[methodKey]int),
		messages:    make(map[string]protoreflect.MessageType),
		plans:       make(map[protoreflect.MessageDescriptor]*plan),
	}
	for _, file := range files {
		a.addMessages(file)
		services := file.Services()
		for i := range services.Len() {
			a.addService(services.Get(i))
		}
	}
	return a
}

func (a *api) addMessages(file protoreflect.FileDescriptor) {
	imports := file.Imports()
	for i := range imports.Len() {
		a.addMessages(imports.Get(i).FileDescriptor)
	}
	messages := file.Messages()
	for i := range messages.Len() {
		desc := messages.Get(i)
		mt := mustMessageType(desc)
		a.messages[WireName(desc)] = mt
		a.messages[string(desc.Name())] = mt
		a.plan(desc)
	}
}

func (a *api) addService(service protoreflect.ServiceDescriptor) {
	methods := service.Methods()
	for i := range methods.Len() {
		method := methods.Get(i)
		key := methodKey{WireName(service), string(method.Name())}
		a.methodIndex[key] = len(a.methods)
		a.methods = append(a.methods, Method{
			Service:  key.service,
			Name:     key.name,
			Request:  mustMessageType(method.Input()),
			Response: mustMessageType(method.Output()),

			entryPoint: string(method.Input().Name()),
		})
	}
}

func mustMessageType(desc protoreflect.MessageDescriptor) protoreflect.MessageType {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(desc.FullName())
	if err != nil {
		panic(fmt.Sprintf("agentproto: message type %s: %v", desc.FullName(), err))
	}
	return mt
}
