// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"portcullis/internal/opatest"
	"portcullis/internal/policydtest"
)

// The two servers answer the same requests by the same policy, in turns of one run. The figures to compare are the medians,
// OPA-p50-µs and p50-µs, and their ratio; where waking a process up takes long, the processor time of the servers says more.
//
// Requests differ in the container id, which the policy does not read, so Portcullis decides them once, as it decides a probe that
// comes again and again. Those named Afresh differ in a variable that it reads, and are evaluated each time.
func BenchmarkREST(b *testing.B) {
	const policy = "testdata/pod.rego"
	address, process := startOPA(b, policy)
	opa := dialServer(b, address, process)
	binary := buildPolicyd(b)
	address, process = startServer(b, binary, []string{"run", "--server", "--log-level", "error"}, policy)
	ours := dialServer(b, address, process)
	env := make([]string, 40)
	for i := range env {
		env[i] = strconv.Quote(fmt.Sprintf("KUBERNETES_SERVICE_%d_PORT=tcp://10.0.0.1:443", i))
	}
	variables := strings.Join(env, ",")
	b.Run("Health", func(b *testing.B) { // what HTTP alone takes
		compare(b, opa, ours, func(int) []byte { return message("GET", "/health", "") }, none)
	})
	for _, request := range []struct{ name, input string }{
		{"ExecProcess", `{"container_id":"%d","exec_id":"e","stdin_port":null,"process":{"Args":["/bin/probe","--live"],"Cwd":"/","Env":["PATH=/bin","HOSTNAME=pod"],"Terminal":false,"User":{"UID":0,"GID":0}}}`},
		{"ExecProcessAfresh", `{"container_id":"1","exec_id":"e","stdin_port":null,"process":{"Args":["/bin/probe","--live"],"Cwd":"/","Env":["PATH=/bin","N=%d"],"Terminal":false,"User":{"UID":0,"GID":0}}}`},
		{"CreateContainer", `{"container_id":"%d","OCI":{"Annotations":{"io.kubernetes.cri.container-name":"app"},"Root":{"Path":"/run/kata","Readonly":true},
			"Process":{"Args":["/bin/app","--serve"],"Env":[` + variables + `],"NoNewPrivileges":true,"Terminal":false},
			"Mounts":[{"destination":"/proc","source":"proc","type_":"proc","options":["nosuid","noexec","nodev"]}]},"storages":[],"devices":[]}`},
		{"CreateContainerAfresh", `{"container_id":"1","OCI":{"Annotations":{"io.kubernetes.cri.container-name":"app"},"Root":{"Path":"/run/kata","Readonly":true},
			"Process":{"Args":["/bin/app","--serve"],"Env":["N=%d",` + variables + `],"NoNewPrivileges":true,"Terminal":false},
			"Mounts":[{"destination":"/proc","source":"proc","type_":"proc","options":["nosuid","noexec","nodev"]}]},"storages":[],"devices":[]}`},
	} {
		b.Run(request.name, func(b *testing.B) {
			target := "/v1/data/agent_policy/" + strings.TrimSuffix(request.name, "Afresh") + "Request"
			compare(b, opa, ours, func(n int) []byte {
				return message("POST", target, fmt.Sprintf(`{"input":`+request.input+`}`, n))
			}, yes)
		})
	}
	b.Run("Resident", func(b *testing.B) { // after all that
		sizes(b, opa.resident(b), ours.resident(b))
	})
	b.Run("Binary", func(b *testing.B) {
		sizes(b, strippedSize(b, opatest.Binary(b)), strippedSize(b, binary))
	})
}

// buildPolicyd builds the binary as it is installed, under the name opa.
func buildPolicyd(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "opa")
	if err := policydtest.Build(path); err != nil {
		b.Fatal(err)
	}
	return path
}

// message is a request as it is on the wire.
func message(method, target, body string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:8181\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
}

// server is one of the two, with a connection that is kept and does no more than it must, so that the servers are measured
// and not what asks them.
type server struct {
	conn    net.Conn
	answers *bufio.Reader
	process *os.Process
	times   []time.Duration
	used    time.Duration // of the processor
}

func dialServer(b *testing.B, url string, process *os.Process) *server {
	b.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &server{conn: conn, answers: bufio.NewReader(conn), process: process}
}

// ask sends a request and returns the body of the answer.
func (s *server) ask(b *testing.B, request []byte) []byte {
	began := time.Now()
	if _, err := s.conn.Write(request); err != nil {
		b.Fatal(err)
	}
	length := 0
	for {
		line, err := s.answers.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		if rest, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(rest))); err != nil {
				b.Fatal(err)
			}
		}
		if len(line) == len("\r\n") {
			break
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(s.answers, body); err != nil {
		b.Fatal(err)
	}
	s.times = append(s.times, time.Since(began))
	return body
}

// turn is how many requests a server gets before it is the other's turn.
const turn = 50

// compare reports what a request takes, which is made for a number. Each has one of its own.
func compare(b *testing.B, opa, ours *server, request func(n int) []byte, want string) {
	b.Helper()
	n := 0
	for _, s := range []*server{opa, ours} {
		s.times, s.used = s.times[:0], s.processorTime(b)
	}
	for b.Loop() {
		n++
		for _, s := range []*server{opa, ours} {
			for i := range turn {
				if got := s.ask(b, request(n*turn+i)); string(got) != want {
					b.Fatalf("got %s, want %s", got, want)
				}
			}
		}
	}
	for _, s := range []*server{opa, ours} {
		s.used = (s.processorTime(b) - s.used) / time.Duration(len(s.times))
		slices.Sort(s.times)
	}
	b.ReportMetric(0, "ns/op") // of both and all their turns
	b.ReportMetric(opa.median(), "OPA-p50-µs")
	b.ReportMetric(ours.median(), "p50-µs")
	b.ReportMetric(ours.median()/opa.median(), "ratio")
	b.ReportMetric(micro(opa.used), "OPA-cpu-µs")
	b.ReportMetric(micro(ours.used), "cpu-µs")
}

// sizes reports two numbers of bytes.
func sizes(b *testing.B, opa, ours int64) {
	for b.Loop() { // nothing is done
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(opa)/1e6, "OPA-MB")
	b.ReportMetric(float64(ours)/1e6, "MB")
	b.ReportMetric(float64(ours)/float64(opa), "ratio")
}

// strippedSize is the size of a binary without its symbols and what debuggers read.
func strippedSize(b *testing.B, path string) int64 {
	f, err := elf.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	size := info.Size()
	for _, s := range f.Sections {
		if s.Name == ".symtab" || s.Name == ".strtab" || strings.HasPrefix(s.Name, ".debug_") {
			size -= int64(s.FileSize)
		}
	}
	return size
}

func (s *server) median() float64 { return micro(s.times[len(s.times)/2]) }

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// resident is the server's resident memory in bytes as /proc says it.
func (s *server) resident(b *testing.B) int64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.process.Pid), "status"))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kilobytes int64
	if _, err := fmt.Sscanf(rest, "%d kB", &kilobytes); err != nil {
		b.Fatal(err)
	}
	return kilobytes << 10
}

// processorTime is what the server has used, from /proc/PID/stat in ticks of a hundredth of a second.
func (s *server) processorTime(b *testing.B) time.Duration {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.process.Pid), "stat"))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
