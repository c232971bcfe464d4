package rest_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The two servers answer the same requests by the same policy in one run: BenchmarkREST/<request>/<server>. The figure to compare
// is p50-µs; on a busy machine, where waking a process up takes longest, the processor time of the server says more. Requests
// differ in the container id, which the policy does not read, so Portcullis decides them once; those named Afresh differ in a
// variable that it reads, and are evaluated each time.
func BenchmarkREST(b *testing.B) {
	const policy = "testdata/pod.rego"
	opa, opaProcess := startOPA(b, policy)
	ours, process := startServer(b, buildPolicyd(b), []string{"run", "--server", "--log-level", "error"}, policy)
	env := make([]string, 40)
	for i := range env {
		env[i] = strconv.Quote(fmt.Sprintf("KUBERNETES_SERVICE_%d_PORT=tcp://10.0.0.1:443", i))
	}
	variables := strings.Join(env, ",")
	servers := []server{{"OPA", opa, opaProcess}, {"Portcullis", ours, process}}
	for _, server := range servers {
		b.Run("Health/"+server.name, func(b *testing.B) { // what HTTP alone takes
			measure(b, probe{server, "GET", "/health", "", "{}\n"})
		})
	}
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
		for _, server := range servers {
			b.Run(request.name+"/"+server.name, func(b *testing.B) {
				measure(b, decision(server, strings.TrimSuffix(request.name, "Afresh"), request.input))
			})
		}
	}
	b.Logf("resident memory: OPA %s, Portcullis %s", resident(opaProcess.Pid), resident(process.Pid))
}

// buildPolicyd builds the binary as it is installed, under the name opa.
func buildPolicyd(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "opa")
	cmd := exec.Command("go", "build", "-tags=nethttpomithttp2", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "portcullis/cmd/policyd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build policyd: %v\n%s", err, out)
	}
	return path
}

type server struct {
	name, url string
	process   *os.Process
}

// probe is a request that is sent again and again.
type probe struct {
	server
	method, path string
	body         string // a format for a number, if it is not empty
	want         string
}

func decision(s server, name, input string) probe {
	return probe{s, "POST", "/v1/data/agent_policy/" + name + "Request", `{"input":` + input + `}`, yes}
}

// measure reports the median time of a request over one kept connection. Each has a number of its own.
func measure(b *testing.B, p probe) {
	var times []time.Duration
	n := 0
	before := processorTime(b, p.process)
	for b.Loop() {
		n++
		var body io.Reader
		if p.body != "" {
			body = strings.NewReader(fmt.Sprintf(p.body, n))
		}
		req, err := http.NewRequest(p.method, p.url+p.path, body)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		times = append(times, time.Since(began))
		if err != nil || string(answer) != p.want {
			b.Fatalf("got %s, %v", answer, err)
		}
	}
	b.ReportMetric(float64((processorTime(b, p.process)-before).Microseconds())/float64(len(times)), "server-cpu-µs/op")
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
}

// resident is the resident memory of a process as /proc says it.
func resident(pid int) string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}

// processorTime is what a process has used, from /proc/PID/stat in ticks of a hundredth of a second.
func processorTime(b *testing.B, p *os.Process) time.Duration {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid), "stat"))
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
