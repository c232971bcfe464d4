// SPDX-License-Identifier: Apache-2.0

// Command lab makes real kubelets and containerds ask for pods, and records what they ask for. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"portcullis/ci/lab/cluster"
	"portcullis/ci/lab/cni"
	"portcullis/ci/lab/pods"
	"portcullis/ci/lab/recording"
	"portcullis/ci/lab/registry"
	"portcullis/ci/lab/shim"
)

const (
	records = cluster.Dir + "/records"
	plan    = cluster.Dir + "/plan.json"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		if errors.Is(err, errChanged) {
			os.Exit(1)
		}
		os.Exit(3)
	}
}

// run goes by the name it was called with: containerd calls the same program as its shim and as its network plugin.
func run() error {
	switch filepath.Base(os.Args[0]) {
	case shim.Binary:
		return shim.Main(records, plan)
	case "lab-cni", "loopback":
		return cni.Main()
	}
	if len(os.Args) < 2 {
		return errUsage
	}
	switch verb, args := os.Args[1], os.Args[2:]; verb {
	case "record":
		return record(args)
	case "inside":
		return inside(args)
	case "drive":
		return drive(args)
	case "finish":
		return finish(args)
	case "images":
		return registry.WriteLayout(os.Stdout)
	case "diff":
		return compare(args)
	case "show":
		return show(args)
	}
	return errUsage
}

var errUsage = errors.New(`usage:
  lab record --parts DIR --containerd NAME --kubernetes NAME --manifests DIR --work DIR --out FILE
  lab finish --parts DIR --manifests DIR --work DIR --out FILE   rebuild the recordings of a run from what it wrote down
  lab images >FILE         the stub images, an OCI layout in a gzipped tar
  lab diff OLD NEW         what changed between two folders of recordings; exit 1 if something did
  lab show FILE [POD]      a recording as JSON`)

// options are those of record, handed on unchanged to the processes inside.
type options struct{ parts, containerd, kubernetes, servers, manifests, work, out string }

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("lab", flag.ContinueOnError)
	f.StringVar(&o.parts, "parts", "", "folder of the built parts")
	f.StringVar(&o.containerd, "containerd", "", "its folder below parts")
	f.StringVar(&o.kubernetes, "kubernetes", "", "its folder below parts")
	f.StringVar(&o.servers, "servers", "", "the folder below parts of the API server and controllers; that of kubernetes unless given")
	f.StringVar(&o.manifests, "manifests", "", "folder of manifests")
	f.StringVar(&o.work, "work", "", "folder for logs and state")
	f.StringVar(&o.out, "out", "", "file of the recordings")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.servers == "" {
		o.servers = o.kubernetes
	}
	for _, p := range []*string{&o.parts, &o.manifests, &o.work, &o.out} {
		if *p == "" {
			return o, errUsage
		}
		absolute, err := filepath.Abs(*p)
		if err != nil {
			return o, err
		}
		*p = absolute
	}
	return o, nil
}

// args are the options as a command line whose paths are absolute.
func (o options) args() []string {
	return []string{"--parts", o.parts, "--containerd", o.containerd, "--kubernetes", o.kubernetes, "--servers", o.servers, "--manifests", o.manifests, "--work", o.work, "--out", o.out}
}

// record runs one combination from outside: fresh folders, then the namespaces, then what is left in the control groups taken away.
func record(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, for namespaces, mounts and control groups")
	}
	if err := cluster.NoKubelet(); err != nil {
		return err
	}
	if err := os.RemoveAll(o.work); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(o.work, "records"), 0o755); err != nil {
		return err
	}
	start := time.Now()
	err = cluster.Inside(append([]string{"inside"}, o.args()...)...)
	if e := cluster.RemoveGroups(); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("%s with %s: %w (logs in %s/logs)", o.containerd, o.kubernetes, err, o.work)
	}
	recorded, err := recording.Read(filepath.Join(o.work, "recordings.jsonl.gz"))
	if err != nil {
		return err
	}
	if err := recording.Write(o.out, recorded); err != nil {
		return err
	}
	fmt.Printf("%s with %s: %d pods in %d s\n", o.containerd, o.kubernetes, len(recorded), int(time.Since(start).Seconds()))
	return nil
}

// inside is the first process of the namespaces.
func inside(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if err := cluster.Enter(o.work); err != nil {
		return err
	}
	status, err := cluster.Reap(append([]string{"drive"}, args...)...)
	if err != nil {
		return err
	}
	syscall.Exit(status)
	return nil
}

// drive starts the cluster and runs the manifests.
func drive(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	all, err := pods.Load(o.manifests)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	ready, done := context.WithTimeout(ctx, 4*time.Minute)
	defer done()
	api, err := cluster.Start(ready, cluster.Options{Parts: o.parts, Containerd: o.containerd, Kubernetes: o.kubernetes, Servers: o.servers, Records: records})
	if err != nil {
		return err
	}
	runner := &pods.Runner{API: api, Records: records, Plan: plan}
	if err := runner.Run(ctx, all); err != nil {
		return err
	}
	recorded, err := pods.Finish(records, all)
	if err != nil {
		return err
	}
	return recording.Write(cluster.Dir+"/recordings.jsonl.gz", recorded)
}

// finish makes recordings from the raw ones of a run that is over.
func finish(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	all, err := pods.Load(o.manifests)
	if err != nil {
		return err
	}
	recorded, err := pods.Finish(filepath.Join(o.work, "records"), all)
	if err != nil {
		return err
	}
	return recording.Write(o.out, recorded)
}
