// A program of somebody else: it links the gate, and a package of its own whose protobuf package is called grpc.
package main

import (
	"fmt"

	"example.org/stranger/grpcpb"
	"example.org/you/portcullis/agentproto"
	"example.org/you/portcullis/engine/gate"
)

func main() {
	theirs := new(grpcpb.CreateContainerRequest).ProtoReflect().Descriptor()
	ours, _ := agentproto.Lookup("grpc.AgentService", "CreateContainer")
	fmt.Println(theirs.FullName(), ours.EntryPoint(), agentproto.WireName(ours.Request.Descriptor()), gate.DefaultLimits() != gate.Limits{})
}
