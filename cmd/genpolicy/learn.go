// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"portcullis/engine/trace"
	"portcullis/rules/generate"
	"portcullis/rules/learn"
	"portcullis/rules/settings"
)

// maxRecording is the most bytes of requests that are held to learn from.
const maxRecording = 256 << 20

func newLearn(io stdio) *cobra.Command {
	var f flags
	var maps []string
	cmd := &cobra.Command{
		Use:   "learn -y MANIFEST RECORDING...",
		Short: "Write the settings under which a pod that a cluster ran is allowed",
		Long: `learn makes the policy of the one pod in MANIFEST, judges the requests of the recording in order, and adds for each that is denied the
narrowest setting that allows it, until the pod is allowed. It prints the settings as a drop-in for -j: each line with the
request and the field that ask for it, the loosest last, and none without which the pod is allowed too.

RECORDING is what the agent of a debug guest (AGENT_POLICY_DEBUG=yes) or policyd recorded of that pod, in the forms that policyctl
replay reads, "-" for stdin; several are taken as one, in order. Take it from a node that you trust, and read the lines: learn
takes what the runtime chooses for what it shall choose.

Only what the runtime chooses is learned. What binds image, command, user, variables, contents, namespaces, devices, root and
ids is refused with the request and the field. Requests that no pod needs to run (reading logs, stdin,
commands of kubectl exec) are listed and stay denied.

Exit codes: 0 done, 1 a request asks for what settings must not allow, 2 wrong usage, 3 something could not be read.`,
		Example: `  genpolicy settings learn --platform peer-pods -y pod.yaml policy.jsonl > cluster.toml
  genpolicy -y pod.yaml --platform peer-pods -j cluster.toml`,
		RunE: func(cmd *cobra.Command, recordings []string) error {
			f.takeMaps(maps, io.err)
			if len(f.yamlFiles) == 0 || len(recordings) == 0 {
				return usagef("learn wants -y MANIFEST and a RECORDING")
			}
			return withJob(f, io, f.yamlFiles, func(j *job) error { return j.learn(cmd.Context(), recordings) })
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringArrayVarP(&f.yamlFiles, "yaml-file", "y", nil, "manifest `FILE` of the pod that ran, or of what it refers to (repeatable)")
	f.addSources(cmd.Flags(), &maps)
	cmd.Flags().StringVar(&f.output, "output", "", "write the drop-in to `FILE` instead of standard output")
	completeSources(cmd)
	return cmd
}

// learn prints the drop-in that a recording of the job's one pod asks for.
func (j *job) learn(ctx context.Context, recordings []string) error {
	pod, err := j.onlyPod()
	if err != nil {
		return err
	}
	over, err := readOver(j.flags)
	if err != nil {
		return err
	}
	recording, err := readRecordings(recordings, j.io.in)
	if err != nil {
		return err
	}
	configs, err := j.configs()
	if err != nil {
		return err
	}
	s := &student{job: j, pod: pod, over: over, configs: configs}
	learner := learn.Learner{Make: s.policy, Recording: recording}
	learned, err := learner.Learn(ctx)
	if err != nil {
		return err
	}
	for _, left := range learned.Left {
		fmt.Fprintf(j.io.err, "genpolicy: note: stays denied: %s\n", left)
	}
	text, err := learn.Render(learned.Lessons, s.list)
	if err != nil {
		return err
	}
	if len(learned.Lessons) == 0 {
		text = []byte("# Nothing to learn: the pod is allowed under these settings.\n")
	}
	if j.flags.output != "" {
		return writeFile(j.flags.output, text)
	}
	_, err = j.io.out.Write(text)
	return err
}

func (j *job) onlyPod() (*generate.Pod, error) {
	var all []*generate.Pod
	for _, s := range j.sources {
		for _, p := range s.manifest.Pods() {
			if j.selected(p) {
				all = append(all, p)
			}
		}
	}
	if len(all) != 1 {
		return nil, usagef("the manifest has %d pods, and a recording is of one", len(all))
	}
	return all[0], nil
}

// readOver reads the drop-ins of -j. Upstream's settings cannot have any over them.
func readOver(f flags) ([]settings.DropIn, error) {
	if len(f.settings) > 0 {
		name := f.settings[0]
		if base, _, err := upstreamFiles(name); err != nil || base != nil {
			return nil, errors.Join(err, usagef("learn writes a drop-in, and -j %s is upstream's settings, over which none can be put", name))
		}
	}
	return allDropIns(f.settings)
}

func readRecordings(paths []string, in io.Reader) ([]trace.Record, error) {
	var all []trace.Record
	size := 0
	for _, path := range paths {
		records, err := readRecording(path, in)
		if err != nil {
			return nil, fmt.Errorf("read recording %s: %w", path, err)
		}
		for _, r := range records {
			size += len(r.Request)
		}
		if size > maxRecording {
			return nil, fmt.Errorf("read recording %s: more than %d bytes of requests", path, maxRecording)
		}
		all = append(all, records...)
	}
	if len(all) == 0 {
		return nil, errors.New("read recording: no request in it")
	}
	return all, nil
}

func readRecording(path string, in io.Reader) ([]trace.Record, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	reader := trace.NewReader(io.LimitReader(in, maxRecording))
	reader.Observations = true // what waits for an init container waits for the answer that it succeeded
	var all []trace.Record
	for {
		record, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, record)
	}
}

// student makes the policy of one pod under settings that grow.
type student struct {
	job     *job
	pod     *generate.Pod
	over    []settings.DropIn
	configs *generate.Configs
}

func (s *student) policy(ctx context.Context, lessons []learn.Lesson) ([]byte, error) {
	text, err := learn.Render(lessons, s.list)
	if err != nil {
		return nil, err
	}
	over := append(append([]settings.DropIn{}, s.over...), settings.DropIn{Name: "what was learned", Text: text})
	now, err := settings.Load(s.job.flags.platform, over...)
	if err != nil {
		return nil, err
	}
	generator := generate.New(now, s.job.images, s.configs, generate.Options{RequireDigests: s.job.flags.requireDigests()})
	made, _, err := generator.Policy(ctx, s.pod)
	if err != nil {
		return nil, err
	}
	form := s.job.output
	form.Compact = form.Rules == "" // the same decisions, and the rules need not be compiled each time
	out, _, err := generator.Render(s.pod, made, form)
	if err != nil {
		return nil, err
	}
	return out.Text, nil
}

// list gives what a list of the settings without lessons holds.
func (s *student) list(key []string) ([]any, error) {
	raw, err := json.Marshal(s.job.settings)
	if err != nil {
		return nil, err
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return nil, err
	}
	for _, part := range key {
		table, _ := value.(map[string]any)
		value = table[part]
	}
	values, _ := value.([]any)
	return values, nil
}
