// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
)

func TestSelfProtectionComesBeforeThePolicy(t *testing.T) {
	c := newRig(t, rigOptions{policy: allowAll}).client()
	c.must("CreateSandbox", sandbox())
	mount := func(source string, options ...string) proto.Message {
		req := createContainer("app", "sh")
		req.OCI.Mounts = []*agentpb.Mount{{Destination: "/x", Source: source, Type: "bind", Options: options}}
		return req
	}
	storage := func(s *agentpb.Storage) proto.Message {
		req := createContainer("app", "sh")
		req.Storages = []*agentpb.Storage{s}
		return req
	}
	root := createContainer("app", "sh")
	root.OCI.Root.Path = "/etc/portcullis"
	device := createContainer("app", "sh")
	device.Devices = []*agentpb.Device{{VmPath: "/dev/tpm0"}}
	node := createContainer("app", "sh")
	node.OCI.Linux = &agentpb.Linux{Devices: []*agentpb.LinuxDevice{{Path: "/dev/sev-guest"}}}
	copyTo := func(path string, mode uint32, data string) proto.Message {
		return &agentpb.CopyFileRequest{Path: path, FileMode: mode, Data: []byte(data)}
	}
	for name, test := range map[string]struct {
		method string
		req    proto.Message
	}{
		"mount of the run directory":   {"CreateContainer", mount("/run/portcullis")},
		"mount of its parent":          {"CreateContainer", mount("/run")},
		"mount of the root":            {"CreateContainer", mount("/")},
		"mount, not clean":             {"CreateContainer", mount("/run/x/../portcullis/agent.sock")},
		"mount of a TPM":               {"CreateContainer", mount("/dev/tpmrm0")},
		"mount of TDX":                 {"CreateContainer", mount("/dev//tdx_guest")},
		"overlay layer in an option":   {"CreateContainer", mount("overlay", "lowerdir=/x:/etc/kata-opa")},
		"root path":                    {"CreateContainer", root},
		"device":                       {"CreateContainer", device},
		"device node":                  {"CreateContainer", node},
		"storage source":               {"CreateContainer", storage(&agentpb.Storage{Source: "/etc/portcullis/config.toml"})},
		"storage over the directory":   {"CreateContainer", storage(&agentpb.Storage{MountPoint: "/run/portcullis"})},
		"storage of the sandbox":       {"CreateSandbox", &agentpb.CreateSandboxRequest{Storages: []*agentpb.Storage{{MountPoint: "/etc"}}}},
		"ephemeral mount":              {"UpdateEphemeralMounts", &agentpb.UpdateEphemeralMountsRequest{Storages: []*agentpb.Storage{{MountPoint: "/run/portcullis/x"}}}},
		"file":                         {"CopyFile", copyTo("/run/portcullis/x", 0o100644, "")},
		"absolute symlink target":      {"CopyFile", copyTo("/run/kata-containers/shared/x", 0o120777, "/dev/sev-guest")},
		"relative symlink target":      {"CopyFile", copyTo("/run/kata-containers/shared/x", 0o120777, "../../portcullis")},
		"symlink target over the root": {"CopyFile", copyTo("/run/kata-containers/shared/x", 0o120777, "../../../../../../etc/portcullis")},
	} {
		t.Run(name, func(t *testing.T) {
			if msg := c.fails(codes.PermissionDenied, test.method, test.req); !strings.Contains(msg, "belongs to the policy gate") {
				t.Errorf("message %q", msg)
			}
		})
	}
	c.must("CreateContainer", mount("/run/kata-containers/shared/containers/a-1-hosts", "rbind", "rw"))
}
