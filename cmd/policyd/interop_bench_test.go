// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"portcullis/agentproto/agentpb"
)

// startRealAgent starts the agent of `make interop`, and gives its socket another name.
func startRealAgent(b testing.TB, socket string) {
	b.Helper()
	agent := newRealAgent(b, agentBinary(b), "error")
	if err := errors.Join(os.Mkdir(gateDir, 0o700), os.Symlink(agentSocket, socket)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if b.Failed() {
			b.Logf("the agent printed:\n%s", agent.output.String())
		}
	})
	agent.start()
}

// writeRoots gives containers of a real agent their root file systems, each with the one program.
func writeRoots(b testing.TB, ids ...string) {
	b.Helper()
	program := buildProgram(b)
	for _, id := range ids {
		root := filepath.Join(agentTree, id, "rootfs")
		err := errors.Join(os.MkdirAll(filepath.Join(root, "proc"), 0o755), os.MkdirAll(filepath.Join(root, "dev"), 0o755))
		for _, name := range []string{id, "probe"} {
			err = errors.Join(err, os.WriteFile(filepath.Join(root, name), program, 0o755))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// benchContainer is a container that runs the program of its own name, as a real agent takes it.
func benchContainer(id string) *agentpb.CreateContainerRequest {
	create := container(id)
	create.OCI.Process = &agentpb.Process{Args: []string{"/" + id}, Cwd: "/", User: &agentpb.User{}, NoNewPrivileges: true, Capabilities: &agentpb.LinuxCapabilities{}}
	create.OCI.Mounts = []*agentpb.Mount{
		{Destination: "/proc", Source: "proc", Type: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "mode=755"}},
	}
	create.OCI.Linux = &agentpb.Linux{CgroupsPath: "/bench/" + id, Resources: &agentpb.LinuxResources{}}
	for _, kind := range []string{"mount", "ipc", "uts"} {
		create.OCI.Linux.Namespaces = append(create.OCI.Linux.Namespaces, &agentpb.LinuxNamespace{Type: kind})
	}
	return create
}
