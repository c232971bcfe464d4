// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
)

// hostileProgram is one hostile client in a process of its own: SOCKET. It gives way to others, since a host's processors are not
// the guest's.
const hostileProgram = "be-hostile"

// attack is what one connection of the hostile client does until it is closed.
type attack func(conn net.Conn)

// hostileList is everything at once, each on a connection of its own, again and again.
var hostileList = map[string]attack{
	"answers that are never read":       unreadAnswers,
	"large answers that are never read": unreadOutput,
	"names that are no text":            namelessRequests,
	"empty storages, 4 MiB":             func(c net.Conn) { repeat(c, "CreateContainer", storages(4<<20-64)) },
	"empty storages, what just passes":  func(c net.Conn) { repeat(c, "CreateContainer", storages(12000)) },
	"packed numbers":                    func(c net.Conn) { repeat(c, "CreateContainer", groups(80000)) },
	"annotations":                       func(c net.Conn) { repeat(c, "CreateContainer", annotations(20000)) },
	"the largest writes": func(c net.Conn) {
		repeat(c, "WriteStdin", encoded(&agentpb.WriteStreamRequest{ContainerId: "app", Data: make([]byte, 4<<20-256)}))
	},
	"the largest files": func(c net.Conn) {
		repeat(c, "CopyFile", encoded(&agentpb.CopyFileRequest{Path: "/x", FileMode: 0o100644, Data: make([]byte, 4<<20-256)}))
	},
	"files that are let pass": func(c net.Conn) {
		repeat(c, "CopyFile", encoded(&agentpb.CopyFileRequest{Path: "/run/kata-containers/shared/containers/a", FileMode: 0o100644, Data: make([]byte, 3<<20)}))
	},
	"policies of 2 MiB": func(c net.Conn) {
		repeat(c, "SetPolicy", encoded(&agentpb.SetPolicyRequest{Policy: "package agent_policy\n" + strings.Repeat("p{x}\n", 400_000)}))
	},
	"half a frame":                       halfFrame,
	"garbage":                            garbage,
	"requests that block":                func(c net.Conn) { repeat(c, "WaitProcess", encoded(&agentpb.WaitProcessRequest{ContainerId: "app"})) },
	"requests that are given up at once": impatient,
	"frames longer than any":             func(c net.Conn) { send(c, 1, make([]byte, 15<<20)); drain(c) },
	"protected paths by the thousand":    func(c net.Conn) { repeat(c, "CreateContainer", protectedMounts(3000)) },
	"connections that come and go":       func(net.Conn) {},
}

// beHostile attacks until the process is ended.
func beHostile(socket string) int {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
	for _, a := range hostileList {
		go func() {
			for {
				conn, err := net.Dial("unix", socket)
				if err != nil {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				a(conn)
				conn.Close()
				time.Sleep(time.Millisecond)
			}
		}()
	}
	select {}
}

// send writes one request frame.
func send(conn net.Conn, id uint32, message []byte) bool {
	frame := make([]byte, 10, 10+len(message))
	binary.BigEndian.PutUint32(frame, uint32(len(message)))
	binary.BigEndian.PutUint32(frame[4:], id)
	frame[8] = 1
	_, err := conn.Write(append(frame, message...))
	return err == nil
}

func ttrpcRequest(method string, payload []byte) []byte {
	return encoded(&ttrpc.Request{Service: "grpc.AgentService", Method: method, Payload: payload})
}

func encoded(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func drain(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// repeat sends a request again and again, and reads the answers.
func repeat(conn net.Conn, method string, payload []byte) {
	go drain(conn)
	message := ttrpcRequest(method, payload)
	for id := uint32(1); send(conn, id, message); id += 2 {
	}
}

func unreadAnswers(conn net.Conn) {
	message := ttrpcRequest("PauseContainer", encoded(&agentpb.PauseContainerRequest{ContainerId: "x"}))
	for id := uint32(1); send(conn, id, message); id += 2 {
	}
}

func unreadOutput(conn net.Conn) {
	message := ttrpcRequest("ReadStdout", encoded(&agentpb.ReadStreamRequest{ContainerId: "other", Len: 64 << 10}))
	for id := uint32(1); send(conn, id, message); id += 2 {
	}
}

func namelessRequests(conn net.Conn) {
	go drain(conn)
	message := append([]byte{0x0a, 1, 0xff}, ttrpcRequest("GetGuestDetails", nil)...)
	for id := uint32(1); send(conn, id, message); id += 2 {
	}
}

// impatient lets each request's deadline pass while it is judged.
func impatient(conn net.Conn) {
	client := ttrpc.NewClient(conn)
	defer client.Close()
	for range 2000 {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Microsecond)
		_ = client.Call(ctx, "grpc.AgentService", "ExecProcess", &agentpb.ExecProcessRequest{ContainerId: "app", Process: &agentpb.Process{Env: make([]string, 2000)}}, &agentpb.CheckRequest{})
		cancel()
	}
}

func halfFrame(conn net.Conn) {
	_, _ = conn.Write([]byte{0, 63, 0, 0, 0, 0, 0, 1, 1, 0, 10})
	drain(conn)
}

func garbage(conn net.Conn) {
	b := make([]byte, 4096)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	_, _ = conn.Write(b)
}

func storages(size int) []byte {
	one := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), nil)
	return []byte(strings.Repeat(string(one), size/len(one)))
}

func groups(n int) []byte {
	list := make([]uint32, n)
	return encoded(&agentpb.CreateContainerRequest{ContainerId: "c", OCI: &agentpb.Spec{Process: &agentpb.Process{User: &agentpb.User{AdditionalGids: list}}}})
}

func annotations(n int) []byte {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint(i)] = ""
	}
	return encoded(&agentpb.CreateContainerRequest{ContainerId: "c", OCI: &agentpb.Spec{Annotations: m}})
}

func protectedMounts(n int) []byte {
	r := &agentpb.CreateContainerRequest{ContainerId: "c", OCI: &agentpb.Spec{}}
	for i := range n {
		r.OCI.Mounts = append(r.OCI.Mounts, &agentpb.Mount{Source: fmt.Sprintf("/opt/%d/a/b/c", i), Type: "bind"})
	}
	return encoded(r)
}
