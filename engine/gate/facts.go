// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"portcullis/agentproto/agentpb"
	"portcullis/engine"
	"portcullis/measure/record"
)

// Record takes the facts of the pod's life. *record.Book is one.
type Record interface {
	// Before records a fact that is about to take effect. After an error it must not.
	Before(ctx context.Context, f record.Fact) error
	// Refused says that it has not taken effect, since the agent refused it or was not there.
	Refused(ctx context.Context, f record.Fact) error
	// Happened records a fact that has taken effect already.
	Happened(ctx context.Context, f record.Fact) error
	// Settle records what the latest facts make of the pod, once the policy's state follows them.
	Settle(ctx context.Context) error
}

// forwardRecorded forwards an allowed request, and records it first if it is a fact of the pod's life.
func (c *call) forwardRecorded(ctx context.Context, v *engine.Verdict) (*reply, error) {
	f, ok := c.fact()
	if !ok {
		return c.forwardAllowed(ctx, v)
	}
	if err := c.gate.record.Before(ctx, f); err != nil {
		v.Discard()
		c.gate.log.Error("launch record cannot be written", "request", c.method.EntryPoint(), "error", err)
		return nil, denial(c.method, "the launch record cannot be written")
	}
	r, err := c.forwardAllowed(ctx, v)
	switch {
	case err == nil && f.Kind == record.Started:
		c.late(c.gate.record.Settle(ctx))
	case err != nil && !c.doubtful:
		c.late(c.gate.record.Refused(ctx, f))
	}
	return r, err
}

// late says that the record is behind: further facts are denied until it is not.
func (c *call) late(err error) {
	if err != nil {
		c.gate.log.Error("launch record is behind", "request", c.method.EntryPoint(), "error", err)
	}
}

// fact is what the request is of the pod's life: nothing, for most.
func (c *call) fact() (record.Fact, bool) {
	if c.gate.record == nil {
		return record.Fact{}, false
	}
	switch r := c.request.(type) {
	case *agentpb.CreateSandboxRequest:
		return record.Fact{Kind: record.Sandbox, ID: r.GetSandboxId()}, true
	case *agentpb.CreateContainerRequest:
		return created(r), true
	case *agentpb.StartContainerRequest:
		return record.Fact{Kind: record.Started, ID: r.GetContainerId()}, true
	case *agentpb.RemoveContainerRequest:
		return record.Fact{Kind: record.Removed, ID: r.GetContainerId()}, true
	case *agentpb.ExecProcessRequest:
		return record.Fact{Kind: record.Exec, ID: r.GetContainerId(), Digest: record.ArgsDigest(r.GetProcess().GetArgs())}, true
	case *agentpb.SignalProcessRequest:
		own := ownProcess(r.GetExecId(), r.GetContainerId())
		return record.Fact{Kind: record.Signalled, ID: r.GetContainerId(), Signal: r.GetSignal()}, own
	}
	return record.Fact{}, false
}

// ownProcess says whether a request is about a container's own process, not one that was started in it later.
func ownProcess(execID, containerID string) bool { return execID == "" || execID == containerID }

// recordEnd records that a container's own process has ended, before the client hears of it.
func (c *call) recordEnd(ctx context.Context, answer []byte) {
	request, ok := c.request.(*agentpb.WaitProcessRequest)
	if !ok || c.gate.record == nil || !ownProcess(request.GetExecId(), request.GetContainerId()) {
		return
	}
	var resp agentpb.WaitProcessResponse
	if err := proto.Unmarshal(answer, &resp); err != nil {
		c.late(err)
		return
	}
	code := resp.GetStatus()
	c.late(c.gate.record.Happened(ctx, record.Fact{Kind: record.Ended, ID: request.GetContainerId(), Code: &code}))
}

// Annotations by which runtimes say what a container is. The policy has judged them.
var (
	nameKeys  = []string{"io.kubernetes.cri.container-name", "io.kubernetes.container.name"}
	imageKeys = []string{"io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"}
	typeKeys  = []string{"io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"}
)

// sandboxName stands for the name of the pod's own container, which has none.
const sandboxName = "$sandbox"

func created(r *agentpb.CreateContainerRequest) record.Fact {
	annotations := r.GetOCI().GetAnnotations()
	first := func(keys []string) string {
		for _, k := range keys {
			if v := annotations[k]; v != "" {
				return v
			}
		}
		return ""
	}
	f := record.Fact{Kind: record.Created, ID: r.GetContainerId(), Name: first(nameKeys), Image: first(imageKeys)}
	if f.Name == "" && first(typeKeys) == "sandbox" {
		f.Name = sandboxName
	}
	f.Digest = imageDigest(f.Image, r.GetStorages())
	return f
}

// rootHash is in an option of a layer that the guest verifies as it reads it.
var rootHash = regexp.MustCompile(`(?:^|[.,])root-hash=([0-9a-f]{64})$`)

// imageDigest is the digest of what the container is made of, as far as the request fixes it: of the reference that is pulled, or of
// the layers' dm-verity roots.
func imageDigest(image string, storages []*agentpb.Storage) string {
	var roots []string
	for _, s := range storages {
		if s.GetDriver() == "image_guest_pull" {
			image = s.GetSource()
		}
		i := slices.IndexFunc(s.GetOptions(), func(o string) bool { return rootHash.MatchString(o) })
		if i >= 0 && !strings.HasPrefix(s.GetFstype(), "fuse3") {
			roots = append(roots, rootHash.FindStringSubmatch(s.GetOptions()[i])[1])
		}
	}
	if len(roots) > 0 {
		return record.LayersDigest(roots)
	}
	return record.ReferenceDigest(image)
}
