// SPDX-License-Identifier: Apache-2.0

package emulator_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"portcullis/agentproto/agentpb"
	"portcullis/images"
	"portcullis/internal/emulator"
	"portcullis/internal/emulator/controller"
	"portcullis/internal/emulator/node"
	"portcullis/internal/emulator/recordings"
	"portcullis/internal/emulator/shim"
	"portcullis/internal/generatetest"
)

// Each pod of the recordings is emulated from its manifest. Each recorded request must be among those emulated, and each emulated
// one that makes something among those recorded, equal but for what names_test.go lists.
func TestEmulationEqualsRecordings(t *testing.T) {
	folder := recordings.Folder(t)
	stores := map[string]images.Store{}
	pods := 0
	for _, set := range recordings.Sets(t, folder) {
		r, ok := rigOf(set)
		if !ok {
			t.Errorf("%s: nothing is known of what it was recorded on", set)
			continue
		}
		if stores[r.layout] == nil {
			stores[r.layout] = generatetest.Layout(t, filepath.Join(folder, r.layout))
		}
		for _, recorded := range recordings.Pods(t, folder, set) {
			pods++
			t.Run(set+"/"+recorded.Name, func(t *testing.T) {
				life := emulate(t, r, stores[r.layout], recorded)
				checkEmulated(t, life, recorded)
				checkRecorded(t, life, recorded)
				if r.shim.Kind == shim.Go {
					checkOrder(t, life, recorded)
				}
			})
		}
	}
	t.Logf("%d recorded pods were emulated", pods)
}

// emulate makes the life of a recorded pod and the commands that somebody ran in it.
func emulate(t *testing.T, r rig, store images.Store, recorded recordings.Pod) []recordings.Request {
	t.Helper()
	m, err := controller.Decode(recorded.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	n := nodeOf(recorded)
	hosts := hostsOf(live(t, m, r, store, n, recorded))
	n.PodIP, n.Random = podIP(recorded, hosts), node.NewRandom(1)
	return inputs(t, live(t, m, r, store, n, recorded))
}

func live(t *testing.T, m *controller.Manifest, r rig, store images.Store, n *node.Node, recorded recordings.Pod) []emulator.Request {
	t.Helper()
	name, uid := recorded.Identity()
	pod, err := emulator.New(context.Background(), m, 0, emulator.Options{
		Node: n, Containerd: r.release, Shim: r.shim, Images: emulator.Stores{store}, HostImages: r.hostImages,
		Pause: "registry.k8s.io/pause:3.10", Capabilities: rigCapabilities(), Identity: controller.Identity{Name: name, UID: uid},
	})
	if err != nil {
		t.Fatal(err)
	}
	life, err := pod.Life()
	if err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"ls", "/"}, {"cat", "/etc/hostname"}, {"cat"}} {
		if !ran(recorded, argv) {
			continue
		}
		var stdin []byte
		if len(argv) == 1 {
			stdin = []byte("hi\n")
		}
		more, err := pod.Exec(pod.Containers()[0], argv, stdin)
		if err != nil {
			t.Fatal(err)
		}
		life = append(life, more...)
	}
	return life
}

// ran is true where the recording has a command.
func ran(recorded recordings.Pod, argv []string) bool {
	return slices.ContainsFunc(recorded.Requests, func(r recordings.Request) bool {
		process, ok := r.Input["process"].(map[string]any)
		return ok && slices.Equal(texts(process["Args"]), argv)
	})
}

func inputs(t *testing.T, life []emulator.Request) []recordings.Request {
	t.Helper()
	var out []recordings.Request
	for _, r := range life {
		kind, input, err := r.Input()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, recordings.Request{Kind: kind, Input: input})
	}
	return out
}

// hostsOf is the text of /etc/hosts of an emulated pod.
func hostsOf(life []emulator.Request) []byte {
	for _, r := range life {
		if c, ok := r.Message.(*agentpb.CopyFileRequest); ok && strings.HasSuffix(c.Path, "-hosts") {
			return c.Data
		}
	}
	return nil
}

// checkEmulated finds each recorded request among the emulated ones.
func checkEmulated(t *testing.T, life []recordings.Request, recorded recordings.Pod) {
	t.Helper()
	byText, byKey := index(life)
	names := learn(recorded.Requests)
	for _, r := range recorded.Requests {
		text, key := names.normal(r)
		switch {
		case byText[text]:
		case byKey[key] == "":
			t.Fatalf("not emulated: %s\n%.1500s", key, text)
		default:
			t.Fatalf("%s (-recorded +emulated):\n%s", key, gocmp.Diff(strings.Split(text, "\n"), strings.Split(byKey[key], "\n")))
		}
	}
}

// making are the requests that put something into the guest.
var making = []string{
	"CreateSandboxRequest", "CreateContainerRequest", "CopyFileRequest", "ExecProcessRequest", "UpdateInterfaceRequest",
	"UpdateRoutesRequest", "GuestDetailsRequest", "StartContainerRequest",
}

// checkRecorded finds each emulated request that makes something among those recorded, unless the recording ends before.
func checkRecorded(t *testing.T, life []recordings.Request, recorded recordings.Pod) {
	t.Helper()
	byText, _ := index(recorded.Requests)
	names := learn(life)
	created := containersOf(recorded.Requests)
	for _, r := range life {
		text, key := names.normal(r)
		container, _ := r.Input["container_id"].(string)
		ends := !slices.Contains(created, names[container])
		if !byText[text] && slices.Contains(making, r.Kind) && !ends && !recordedElsewhere(r, recorded) {
			t.Fatalf("emulated and not recorded: %s\n%.1500s", key, text)
		}
	}
}

// containersOf are the containers that were created, in order.
func containersOf(requests []recordings.Request) []string {
	names := learn(requests)
	var out []string
	for _, r := range requests {
		if id, _ := r.Input["container_id"].(string); r.Annotations() != nil && !slices.Contains(out, names[id]) {
			out = append(out, names[id])
		}
	}
	return out
}

// recordedElsewhere is true for an emulated request that a recording lacks as it was made: a hook before the end of a pod that
// was not ended, files of a container that could not be created.
func recordedElsewhere(r recordings.Request, recorded recordings.Pod) bool {
	ended := slices.ContainsFunc(recorded.Requests, func(r recordings.Request) bool { return r.Kind == "DestroySandboxRequest" })
	switch r.Kind {
	case "ExecProcessRequest":
		args := texts(r.Input["process"].(map[string]any)["Args"])
		return !ended && slices.Contains(args, "echo bye")
	case "CopyFileRequest":
		return recorded.Name == "hostpathdev" && !strings.HasSuffix(r.Input["path"].(string), "-resolv.conf")
	}
	return false
}

// checkOrder holds that sandbox and containers are made in the recorded order, and
// the files of each container before it in the order of its mounts.
func checkOrder(t *testing.T, life []recordings.Request, recorded recordings.Pod) {
	t.Helper()
	if got, want := containersOf(life), containersOf(recorded.Requests); len(want) <= len(got) && !slices.Equal(got[:len(want)], want) {
		t.Errorf("containers %q, recorded %q", got, want)
	}
	for _, container := range containersOf(recorded.Requests) {
		if got, want := filesOf(life, container), filesOf(recorded.Requests, container); !slices.Equal(got, want) {
			t.Errorf("files of %s (-recorded +emulated):\n%s", container, gocmp.Diff(want, got))
		}
	}
}

// filesOf are the files of the first container of a name, as they are copied.
func filesOf(requests []recordings.Request, container string) []string {
	names := learn(requests)
	var out []string
	for _, r := range requests {
		at, _ := r.Input["path"].(string)
		if strings.Contains(names.replace(at), "/"+container+"-") && r.Kind == "CopyFileRequest" {
			out = append(out, names.replace(at))
		}
		if id, _ := r.Input["container_id"].(string); r.Annotations() != nil && names[id] == container {
			return out
		}
	}
	return out
}
