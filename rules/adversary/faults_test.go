// SPDX-License-Identifier: Apache-2.0

package adversary_test

import (
	"flag"
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
	"testing"
	"time"

	"portcullis/rules"
)

var faultsToTry = flag.String("faults", "", `faults to try: "all", a pattern of names, or "third TEXT" for the third that a text chooses; nothing for a few that are found at once`)

// fault is a check that is put out of force. More is a rule beside those that there are,
// as the rules allow what one of several bodies allows; what from matches is replaced by to.
type fault struct {
	name, more, from, to string
	finds                string // of what the adversary then says
	pods                 string // where
}

// longestSearch is how long the adversary may look for a fault.
const longestSearch = 2 * time.Minute

// faults are those of each kind that there was, put back one at a time.
var faults = []fault{
	// One path, two grammars.
	{name: "any id", more: "container_id_ok(_) if true", finds: "64 hexadecimal", pods: "order/g"},
	{name: "id of another", more: "same_id if true", finds: "", pods: "order/guest-pull$|volumes/guest-pull$"},
	{name: "any root", more: "id_ok if true", finds: "", pods: "volumes/guest-pull$"},
	{name: "any path of a file", more: "copy_path_ok if true", finds: "file", pods: "order/guest-pull$|nightly"},
	// What the host fills, and where mounts come from.
	{name: "any mount", more: "mounts_ok if true", finds: "OCI.Mounts", pods: "volumes/guest|order/g"},
	{name: "any source", more: "source_ok(_,_) if true", finds: "OCI.Mounts", pods: "volumes/guest|order/g"},
	{name: "any option of a mount", more: "options_ok(_,_) if true", finds: "OCI.Mounts", pods: "order/|volumes/"},
	{name: "any mount missing", more: "missing_mount_ok(_) if true", finds: "OCI.Mounts", pods: "order/|volumes/"},
	{name: "a mount over another", from: `\w\|\w\[true\];some \w in mounts_over\}`, to: "1|false}", finds: "mount", pods: "volumes/|order/g"},
	{name: "any directory for an emptyDir", more: "copied_ok(_,_,_) if true", finds: "OCI.Mounts", pods: "volumes/peer-pods"},
	{name: "several directories for one emptyDir", from: `\{"local","storage"\}`, to: `{"storage"}`, finds: "volume of device", pods: "volumes/peer-pods"},
	{name: "a file for an emptyDir", from: `input\.file_type=="Directory"\nsome`, to: "some", finds: "in an emptyDir", pods: "volumes/peer-pods"},
	// Contents.
	{name: "any contents", more: "copy_content_ok if true", finds: "", pods: "files/"},
	{name: "files left out", more: "contents_ok if true", finds: "was not copied", pods: "files/|shop/peer"},
	{name: "a directory for a link", from: `\[concat\("/",\["",split\(\w+,"/"\)\[0\]\]\)\]\[0\]`, to: `[concat("/",["",split(s,"/")[0]])]`, finds: "was not copied", pods: "files/"},
	{name: "files changed afterwards", more: "copy_kept if true", finds: "changed", pods: "files/"},
	{name: "any mode", more: "copy_mode_ok if true", finds: "set-id", pods: "files/|order/g"},
	{name: "any link", more: "copy_link_ok if true", finds: "link", pods: "files/"},
	{name: "any type of file", more: "copy_type_ok if true", finds: "another kind", pods: "files/"},
	{name: "a part of a file", from: `\[input\.offset,input\.file_size,.*?\),bits`, to: "[0,s.size,s.size,bits", finds: "copied", pods: "files/"},
	{name: "a file of any rights", from: `bits\.and\(input\.file_mode,511\)\]==\[0,(\w)\.size,\w\.size,\w\.mode\]`, to: "s.mode]==[0,s.size,s.size,s.mode]", finds: "cannot be read", pods: "files/"},
	// Relations over the pod.
	{name: "several of one name", more: "instance_ok if true", finds: "two containers", pods: "order/guest-pull$|volumes/g"},
	{name: "asked of any container", more: "container_ok if true", finds: "does not exist", pods: "order/g|volumes/g"},
	{name: "another pod", more: "pod_ok if true", finds: "identity", pods: "volumes/g|order/guest-pull$"},
	{name: "two volumes on one storage", more: "volumes_ok if true", finds: "device", pods: "volumes/guest-pull$"},
	{name: "any control group", more: "control_group_ok if true", finds: "CgroupsPath", pods: "order/g|volumes/"},
	{name: "sandbox twice", more: "sandbox_once_ok if true", finds: "made twice", pods: "order/guest-pull$"},
	{name: "outside of its sandbox", more: "sandbox_ok if true", finds: "sandbox", pods: "order/g|volumes/"},
	{name: "a process where none runs", more: "exec_container_ok if true", finds: "does not run", pods: "order/g|volumes/"},
	{name: "asked of one that was not started", more: "started_ok if true", finds: "does not exist", pods: "order/g|volumes/"},
	// Namespaces.
	{name: "any namespace", more: "namespaces_ok if true", finds: "OCI.Linux.Namespaces", pods: "order/g|volumes/"},
	// Order.
	{name: "any order", more: "order_ok if true", finds: "", pods: "order/.*ordered"},
	{name: "after one that ended", more: "step_ok(_) if true", finds: "does not run", pods: "order/.*ordered"},
	{name: "success by a signal", more: "not_signalled if true", finds: "succeeded", pods: "order/.*ordered"},
	{name: "a sidecar after a signal", from: `\w+\(\w\.state,\w\.container\)\n`, to: "is_boolean(was(e.state,e.container))\n", finds: "before verify has succeeded", pods: "order/.*ordered"},
	{name: "success by any exit code", from: `input\.response\.status==0`, to: "input.response.status>=0", finds: "succeeded", pods: "order/.*ordered"},
	{name: "again after success", from: `\nnot awaited\}`, to: "\n}", finds: "again, which has succeeded", pods: "order/.*ordered"},
	{name: "stopping signals", more: "signal_ok if true", finds: "signal that stops", pods: "order/g"},
	// Spelling.
	{name: "any address", more: "address_ok(_) if true\navoids(_,_) if true", finds: "loopback", pods: "order/g|volumes/g"},
	{name: "any hardware address", more: "hardware_address_ok(_) if true", finds: "hardware address", pods: "order/g|volumes/g"},
	{name: "variable twice", from: `\[count\(\w+\)\+count\(\w+-\w+\),\w+\]==\[count\(\w+\),set\(\)\]`, to: "true", finds: "Process.Env", pods: "volumes/|order/g"},
	{name: "unknown variable", more: "variable_ok(_,_,_) if true", finds: "rocess.Env", pods: "volumes/|order/g"},
	{name: "variable missing", from: `object\.get\(\{"optional":set\(\)\}.*\)==set\(\)`, to: "true", finds: "rocess.Env", pods: "volumes/|order/g|shop/"},
	{name: "any host name", more: "hostname_ok if true", finds: "Hostname", pods: "order/|volumes/"},
	{name: "any uid", more: "uid_ok(_) if true", finds: "uid", pods: "order/|volumes/"},
	{name: "a name of another pod", more: "identity_ok if true", finds: "", pods: "order/|volumes/"},
	// Devices.
	{name: "any device of the guest", more: "device_path_ok(_,_) if true", finds: "devices[]", pods: "ledger"},
	{name: "any device", more: "devices_ok if true", finds: "devices", pods: "ledger|volumes/g|order/g"},
	{name: "any storage", more: "storages_ok if true", finds: "storages", pods: "volumes/g|order/g"},
	{name: "one mount point for two", more: "literal_ok(_) if true", finds: "", pods: "volumes/g|order/g"},
	{name: "any option of an ephemeral mount", from: "`" + regexp.QuoteMeta("^(?:remount|size=[0-9]+)$") + "`", to: "`.`", finds: "option of a volume in memory", pods: "order/host-pull|order/non-coco"},
	{name: "any place of an ephemeral mount", from: `\w\.mount_point in \w+\n`, to: "true\n", finds: "volume in memory", pods: "order/host-pull|order/non-coco"},
	{name: "any source of an ephemeral mount", from: `\w\.source in \{"tmpfs","shm"\}`, to: "true", finds: "volume in memory", pods: "order/host-pull|order/non-coco"},
	// The process, as ever.
	{name: "any arguments", more: "args_ok if true", finds: "Process.Args", pods: "volumes/|order/"},
	{name: "any process", more: "process_ok if true", finds: "OCI.Process", pods: "volumes/|order/"},
	{name: "any user", more: "user_ok(_,_) if true", finds: "User", pods: "volumes/|order/"},
	{name: "any capability", more: "capabilities_ok if true", finds: "Capabilities", pods: "volumes/|order/"},
	{name: "any image", more: "image_ok if true", finds: "", pods: "volumes/g|order/g"},
	{name: "any annotation", more: "annotations_ok if true", finds: "Annotations", pods: "volumes/|order/"},
	{name: "pulled by other annotations", more: "pull_metadata_ok(_) if true", finds: "", pods: "nightly/g|volumes/g"},
	{name: "code of the host's", more: "plain_ok if true", finds: "", pods: "volumes/|order/"},
	{name: "any path not masked", more: "paths_ok if true", finds: "Paths", pods: "volumes/|order/"},
	{name: "any sysctl", more: "sysctl_ok if true", finds: "Sysctl", pods: "volumes/|order/"},
	{name: "any port", more: "port_ok(_,_) if true", finds: "_port", pods: "volumes/g|order/g"},
	{name: "any command", more: "exec_known if true", finds: "none of the container's", pods: "volumes/|order/"},
	{name: "command with a terminal", more: "exec_terminal_ok if true", finds: "Terminal", pods: "volumes/|order/"},
	{name: "process as another", more: "exec_process_ok if true", finds: "process.", pods: "volumes/|order/"},
	{name: "input from the host", more: "stdin_allowed if true", finds: "owner did not open", pods: "order/guest-pull$|volumes/"},
	{name: "any sandbox", more: "sandbox_plain_ok if true", finds: "CreateSandboxRequest", pods: "order/|volumes/"},
	{name: "any host name of the sandbox", more: "sandbox_hostname_ok if true", finds: "hostname", pods: "order/|volumes/"},
	{name: "any storage of the sandbox", more: "sandbox_storages_ok if true", finds: "storages", pods: "order/|volumes/"},
	{name: "what is closed", more: "listed(_) if true", finds: "owner did not open", pods: "order/|volumes/"},
}

// text are the rules with the fault.
func (f fault) text(t *testing.T) string {
	t.Helper()
	text := rules.Text()
	f.more, f.from, f.to = rules.WithNames(f.more), rules.WithNames(f.from), rules.WithNames(f.to)
	if f.from != "" {
		from := regexp.MustCompile(f.from)
		if n := len(from.FindAllString(text, -1)); n != 1 {
			t.Fatalf("the rules have %d of %s", n, f.from)
		}
		text = from.ReplaceAllLiteralString(text, f.to)
	}
	for _, line := range strings.Split(f.more, "\n") {
		name, arguments, _ := strings.Cut(strings.TrimSuffix(line, " if true"), "(")
		like := regexp.MustCompile(`(?m)^` + name + map[bool]string{true: `(?: |:)`, false: `\((?:[^,()]+,){` + fmt.Sprint(strings.Count(arguments, ",")) + `}[^,()]+\)`}[arguments == ""])
		if line != "" && !like.MatchString(text) {
			t.Fatalf("the rules have no %q", line)
		}
	}
	return strings.Replace(text, "import rego.v1\n", "import rego.v1\n"+f.more+"\n", 1) // the end counts for the digest
}

// With a check put out of force, the adversary finds what it held.
func TestTheAdversaryFindsEachFaultThatThereWas(t *testing.T) {
	all := pods(t, "")
	for i, f := range faults {
		if !f.chosen(i) {
			continue
		}
		t.Run(f.name, func(t *testing.T) { f.search(t, all) })
	}
}

// A fault is one of the rules that there are.
func TestEveryFaultFitsTheRules(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) { f.text(t) })
	}
}

// chosen is true for a fault to be tried.
func (f fault) chosen(i int) bool {
	third, isThird := strings.CutPrefix(*faultsToTry, "third ")
	switch {
	case *faultsToTry == "":
		return regexp.MustCompile(`^(files left out|any mode|another pod|sandbox twice|stopping signals)$`).MatchString(f.name)
	case *faultsToTry == "all":
		return true
	case isThird:
		h := fnv.New32a()
		h.Write([]byte(third))
		return uint32(i)%3 == h.Sum32()%3
	}
	return regexp.MustCompile(*faultsToTry).MatchString(f.name)
}

// search drives the faulty rules until they allow what they should not.
func (f fault) search(t *testing.T, all []*pod) {
	text := f.text(t)
	c := compiler(t, text)
	defer compilers.Delete(text)
	var where []*pod
	var gates []*gate
	for _, p := range all {
		if regexp.MustCompile(f.pods).MatchString(p.name) {
			g := p.gate(t, c, text, false)
			defer g.close()
			where, gates = append(where, p), append(gates, g)
		}
	}
	draw, began := sequences(), time.Now()
	for n := 0; time.Since(began) < longestSearch; n++ {
		p, g := where[n%len(where)], gates[n%len(where)]
		d := draw.Example(n)
		found, err := p.play(g, p.apply(d.Scene, d.Steps))
		if err != nil {
			t.Fatal(err)
		}
		if found != "" && strings.Contains(found, f.finds) {
			t.Logf("found in %.1f s, by sequence %d: %s: %.200s, after %v", time.Since(began).Seconds(), n+1, p.name, found, d)
			return
		}
	}
	t.Errorf("not found within %v", longestSearch)
}
