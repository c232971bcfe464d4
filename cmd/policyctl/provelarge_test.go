// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/rules/policydata"
)

// Bounds of one comparison of policies of twenty containers, as a process of its own, from the files to the answer.
const (
	mostProvingTime   = 2 * time.Second // of processor time, which a busy machine does not change much
	mostProvingMemory = 500 << 20       // bytes, at its peak
)

func TestTwentyContainersAreComparedInTwoSeconds(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "policyctl")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	was := twenty(shop(t))
	next := twenty(shop(t))
	for name, c := range next.Containers {
		if name != policydata.SandboxContainer {
			next := strings.NewReplacer("0303", "0404").Replace
			c.Image.Source, c.Image.Digest, c.OCI.Annotations.ImageName = next(c.Image.Source), next(c.Image.Digest), next(c.OCI.Annotations.ImageName)
			for i, name := range c.Image.Also {
				c.Image.Also[i] = next(name)
			}
		}
	}
	narrower := twenty(shop(t))
	for _, c := range narrower.Containers {
		c.Exec, c.OtherUsers = nil, nil
	}
	old := filepath.Join(dir, "old.rego")
	writePolicy(t, was, old)
	for _, test := range []struct {
		name   string
		policy *policydata.Policy
		code   int
	}{{"a next version", next, exitNo}, {"a narrower one", narrower, exitOK}} {
		file := filepath.Join(dir, test.name+".rego")
		writePolicy(t, test.policy, file)
		var said bytes.Buffer
		cmd := exec.Command(program, "prove", "--within", old, file)
		cmd.Stdout, cmd.Stderr = &said, &said
		began := time.Now()
		_ = cmd.Run() // its code is looked at
		took, usage := time.Since(began), cmd.ProcessState.SysUsage().(*syscall.Rusage)
		cpu, memory := cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), usage.Maxrss<<10
		t.Logf("%s: %v by the clock, %v of processor time, %d MB", test.name, took.Round(time.Millisecond), cpu.Round(time.Millisecond), memory>>20)
		if code := cmd.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%s: exit code %d, want %d\n%s", test.name, code, test.code, &said)
		}
		if cpu > mostProvingTime || memory > mostProvingMemory {
			t.Errorf("%s: %v, %d bytes; want at most %v, %d", test.name, cpu, memory, mostProvingTime, mostProvingMemory)
		}
	}
}

// twenty is the policy with copies of a container, so that it has twenty beside the sandbox.
func twenty(p *policydata.Policy) *policydata.Policy {
	for n := len(p.Containers); n <= 20; n++ {
		c := *p.Containers["web"]
		p.Containers[fmt.Sprintf("web-%d", n)] = &c
	}
	return p
}
