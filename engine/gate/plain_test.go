// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/gate"
)

const readingPolicy = "package agent_policy\n\ndefault ReadStreamRequest := true\n\ndefault StatsContainerRequest := true\n"

// agentBy replaces the agent by answers, which gets each request's stream id and writes what it likes.
func agentBy(t *testing.T, answers func(conn net.Conn, id uint32)) *client {
	t.Helper()
	r := newRig(t, rigOptions{policy: readingPolicy, noAgent: true})
	l, err := net.Listen("unix", r.socket.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					id, _, err := readFrame(conn)
					if err != nil {
						return
					}
					answers(conn, id)
				}
			}()
		}
	}()
	return r.client()
}

func readFrame(conn net.Conn) (id uint32, message []byte, err error) {
	header := make([]byte, 10)
	if _, err := io.ReadFull(conn, header); err != nil {
		return 0, nil, err
	}
	message = make([]byte, binary.BigEndian.Uint32(header))
	_, err = io.ReadFull(conn, message)
	return binary.BigEndian.Uint32(header[4:]), message, err
}

// payload is an encoded ttrpc Response of a stream's data.
func payload(data []byte) []byte {
	answer := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), data)
	return protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), answer)
}

// Answers of all lengths arrive whole, in whatever pieces the agent sends them.
func TestAnswersArriveWhole(t *testing.T) {
	data := randomBytes(3 << 20)
	lengths := make(chan int, 1)
	c := agentBy(t, func(conn net.Conn, id uint32) {
		whole := frame(id, 2, 0, payload(data[:<-lengths]))
		for step := 1; len(whole) > 0; step = step*7 + 3 {
			n := min(step, len(whole))
			_, _ = conn.Write(whole[:n])
			whole = whole[n:]
		}
	})
	for _, n := range []int{0, 1, 16<<10 - 20, 16<<10 - 8, 16<<10 - 7, 16 << 10, 64<<10 - 10, 64 << 10, 64<<10 + 1, 1 << 20, 3 << 20} {
		for range 2 { // judged, and remembered
			lengths <- n
			got := c.must("ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "a", Len: 1}).(*agentpb.ReadStreamResponse)
			if string(got.GetData()) != string(data[:n]) {
				t.Fatalf("an answer of %d bytes arrived as another of %d", n, len(got.GetData()))
			}
		}
	}
}

// When the agent goes in the middle of an answer, its reader gets no other bytes in the place of the rest.
func TestHalfAnAnswerEndsTheConnection(t *testing.T) {
	c := agentBy(t, func(conn net.Conn, id uint32) {
		whole := frame(id, 2, 0, payload(make([]byte, 1<<20)))
		_, _ = conn.Write(whole[:len(whole)/2])
		conn.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.do(ctx, "ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "a", Len: 1}); err == nil || ctx.Err() != nil {
		t.Fatalf("half an answer was taken: %v", err)
	}
	if _, err := c.do(ctx, "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "a"}); err == nil {
		t.Fatal("the connection is still used")
	}
}

// A request whose deadline passes while the agent is at work is answered then, and the late answer reaches nobody.
func TestALateAnswerReachesNobody(t *testing.T) {
	late := make(chan struct{})
	first := true
	c := agentBy(t, func(conn net.Conn, id uint32) {
		if first {
			first = false
			go func() {
				<-late
				_, _ = conn.Write(frame(id, 2, 0, payload([]byte("late"))))
				_, _ = conn.Write(frame(id+2, 2, 0, payload([]byte("right"))))
			}()
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.do(ctx, "ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "a", Len: 1}); err == nil {
		t.Fatal("an answer came")
	}
	time.AfterFunc(200*time.Millisecond, func() { close(late) })
	got := c.must("ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "a", Len: 1}).(*agentpb.ReadStreamResponse)
	if string(got.GetData()) != "right" {
		t.Fatalf("the second request got %q", got.GetData())
	}
}

// An agent that goes takes the requests under way with it: each is answered.
func TestRequestsUnderWayAreAnsweredWhenTheAgentGoes(t *testing.T) {
	n := 0
	c := agentBy(t, func(conn net.Conn, _ uint32) {
		if n++; n == 8 {
			conn.Close()
		}
	})
	failed := make(chan error, 8)
	for range 8 {
		go func() {
			_, err := c.do(context.Background(), "StatsContainer", &agentpb.StatsContainerRequest{ContainerId: "a"})
			failed <- err
		}()
	}
	for range 8 {
		select {
		case err := <-failed:
			if status.Code(err) != codes.Unavailable {
				t.Errorf("got %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a request is not answered")
		}
	}
}

// A client that does not read its output is not asked for by more requests than fit before it, and ends in time.
func TestAnAgentIsNotAskedForAnswersThatNobodyTakes(t *testing.T) {
	limits := gate.DefaultLimits()
	limits.AnswerWait = 2 * time.Second
	source := make([]byte, 1<<20)
	r := newRig(t, rigOptions{policy: readingPolicy, noAgent: true, limits: limits})
	l, err := net.Listen("unix", r.socket.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked, begun := make(chan int, 1), make(chan struct{}, 1<<16)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		n := 0
		defer func() { asked <- n }()
		answers := make(chan uint32, 1<<16)
		go func() {
			for id := range answers {
				answer := frame(id, 2, 0, payload(source))
				begun <- struct{}{}
				_, _ = conn.Write(answer)
			}
		}()
		for {
			id, _, err := readFrame(conn)
			if err != nil {
				return
			}
			n++
			answers <- id
		}
	}()
	conn := r.raw(t)
	message := request(t, "ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "a", Len: 1})
	for id := uint32(1); id < 40_000; id += 2 {
		_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Second))
		if _, err = conn.Write(frame(id, frameRequest, 0, message)); err != nil {
			break
		}
		switch {
		case id == 1:
			<-begun // a slow agent is asked for more
		case id < 200:
			time.Sleep(5 * time.Millisecond) // so that the first answer reaches the client's buffers
		}
	}
	if err == nil || os.IsTimeout(err) {
		t.Fatalf("a client that reads nothing goes on: %v", err)
	}
	select {
	case n := <-asked:
		if n > 1000 { // of 20,000; those before the first answer are as many as a busy machine lets through
			t.Errorf("the agent was asked %d times", n)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the agent's connection stays open")
	}
}

// A container that writes nothing keeps no other request of its client waiting, also where its output is withheld.
func TestOutputThatIsWithheldKeepsNobodyWaiting(t *testing.T) {
	r := newRig(t, rigOptions{policy: "package agent_policy\n\ndefault StatsContainerRequest := true\n", noAgent: true})
	l, err := net.Listen("unix", r.socket.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	reads := make(chan struct{}, 8)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			id, message, err := readFrame(conn)
			var asked ttrpc.Request
			if err != nil || proto.Unmarshal(message, &asked) != nil {
				return
			}
			if asked.GetMethod() == "ReadStdout" {
				reads <- struct{}{}
				continue
			}
			_, _ = conn.Write(frame(id, 2, 0, nil))
		}
	}()
	c := r.client()
	stats := &agentpb.StatsContainerRequest{ContainerId: "a"}
	c.must("StatsContainer", stats)
	for range 3 { // judged, and remembered
		go func() { _, _ = c.do(t.Context(), "ReadStdout", &agentpb.ReadStreamRequest{ContainerId: "a", Len: 1}) }()
		select {
		case <-reads:
		case <-time.After(10 * time.Second):
			t.Fatal("a request for output waits for another")
		}
	}
	c.must("StatsContainer", stats)
}
