// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"portcullis/agentproto/agentpb"
)

// FuzzFrames sends raw bytes to a live gate; the next client has to be served all the same.
func FuzzFrames(f *testing.F) {
	stats := request(f, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"})
	f.Add(frame(1, frameRequest, 0, stats))
	f.Add(append(frame(1, frameRequest, 0, request(f, "WaitProcess", &agentpb.WaitProcessRequest{ContainerId: "app"})), frame(1, frameData, remoteClosed, nil)...))
	f.Add(frame(1, frameRequest, 0, request(f, "SetPolicy", &agentpb.SetPolicyRequest{Policy: "package agent_policy"})))
	f.Add(frame(1, frameRequest, 0, request(f, "CreateContainer", createContainer("app", "sh"))))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0})
	f.Add([]byte{})
	r, good := blockedRig(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("unix", r.address.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(data) // it may be closed already
		_ = conn.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := good.do(ctx, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "app"}); err != nil {
			t.Fatalf("the next client: %v", err)
		}
	})
}
