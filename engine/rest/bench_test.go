package rest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The two servers answer the same requests by the same policy in one run: BenchmarkREST/<request>/<server>. The figure to compare
// is p50-µs. Each request differs from the one before, so that no decision is remembered, but for those named repeated.
func BenchmarkREST(b *testing.B) {
	const policy = "testdata/pod.rego"
	text, err := os.ReadFile(policy)
	if err != nil {
		b.Fatal(err)
	}
	opa, process := startOPA(b, policy)
	ours := startRig(b, string(text), nil)
	env := make([]string, 40)
	for i := range env {
		env[i] = strconv.Quote(fmt.Sprintf("KUBERNETES_SERVICE_%d_PORT=tcp://10.0.0.1:443", i))
	}
	variables := strings.Join(env, ",")
	for _, request := range []struct{ name, input string }{
		{"ExecProcess", `{"container_id":"%d","exec_id":"e","stdin_port":null,"process":{"Args":["/bin/probe","--live"],"Cwd":"/","Env":["PATH=/bin","HOSTNAME=pod"],"Terminal":false,"User":{"UID":0,"GID":0}}}`},
		{"CreateContainer", `{"container_id":"%d","OCI":{"Annotations":{"io.kubernetes.cri.container-name":"app"},"Root":{"Path":"/run/kata","Readonly":true},
			"Process":{"Args":["/bin/app","--serve"],"Env":[` + variables + `],"NoNewPrivileges":true,"Terminal":false},
			"Mounts":[{"destination":"/proc","source":"proc","type_":"proc","options":["nosuid","noexec","nodev"]}]},"storages":[],"devices":[]}`},
	} {
		for _, server := range []struct{ name, url string }{{"OPA", opa}, {"Portcullis", ours.url}} {
			b.Run(request.name+"/"+server.name, func(b *testing.B) { measure(b, server.url, request.name, request.input, 1) })
		}
		b.Run(request.name+"/Portcullis-repeated", func(b *testing.B) { measure(b, ours.url, request.name, request.input, 0) })
	}
	b.Logf("resident memory of OPA: %s", resident(process.Pid))
}

// measure reports the median time of a request over one kept connection.
func measure(b *testing.B, url, name, input string, step int) {
	url += "/v1/data/agent_policy/" + name + "Request"
	var times []time.Duration
	n := 0
	for b.Loop() {
		n += step
		body := []byte(`{"input":` + fmt.Sprintf(input, n) + `}`)
		began := time.Now()
		resp, err := http.Post(url, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		times = append(times, time.Since(began))
		if err != nil || string(answer) != yes {
			b.Fatalf("got %s, %v", answer, err)
		}
	}
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
