// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/yaml"

	"portcullis/engine/policytext"
	"portcullis/internal/bounded"
	"portcullis/internal/strictjson"
	"portcullis/internal/version"
	"portcullis/measure/evidence"
	"portcullis/measure/record"
	"portcullis/rules/policydata"
)

// podFlags are what the record of a pod's life is held against, and what becomes of the result.
type podFlags struct {
	pod      string
	complete bool
	record   string // answer of the record's socket
	log      string // event log, with record
	ear      string
	earKey   string

	read *expectedPod // once
}

// expectedPod is what the pod is to be, and what says so.
type expectedPod struct {
	pod   evidence.Pod
	bound boundText
}

// add adds the flags; signed those of a record that no register holds.
func (f *podFlags) add(cmd *cobra.Command, signed bool) {
	flags := cmd.Flags()
	flags.StringVar(&f.pod, "pod", "", "hold the record of the pod's life against this `file`, a manifest with its annotation or a policy")
	flags.BoolVar(&f.complete, "complete", false, "with --pod: a pod that is not complete is a failure")
	flags.StringVar(&f.ear, "ear", "", "write the result as an attestation result (EAR, a JWT) to this `file` too, \"-\" for standard output")
	flags.StringVar(&f.earKey, "ear-key", "", "PEM `file` with the private key that signs it, ECDSA on P-256 or Ed25519; without one the result is not signed")
	if signed {
		flags.StringVar(&f.record, "record", "", "what the record's socket answered to the nonce, a `file`; the report must vouch for its key")
		flags.StringVar(&f.log, "log", "", "policyd's event log, a `file`")
	}
}

// expected reads what the pod is to be, once; nil without --pod.
func (f *podFlags) expected(ctx context.Context) (*evidence.Pod, boundText, error) {
	if f.pod == "" {
		if f.complete || f.record != "" {
			return nil, boundText{}, usageError(errors.New("--complete and --record need --pod"))
		}
		return nil, boundText{}, nil
	}
	if f.read != nil {
		return &f.read.pod, f.read.bound, nil
	}
	text, err := bounded.ReadFile(f.pod, maxText)
	if err != nil {
		return nil, boundText{}, err
	}
	b, _, err := digestSource{}.of(ctx, f.pod, text)
	if err != nil {
		return nil, b, err
	}
	pod, err := podOf(b.policy)
	if err != nil {
		return nil, b, &exitError{exitFail, fmt.Errorf("%s: %w", f.pod, err)}
	}
	pod.Complete = f.complete
	if names := containerNames(text); len(names) > 0 {
		pod.order(names)
	}
	f.read = &expectedPod{pod.Pod, b}
	return &f.read.pod, b, nil
}

// signed reads the record that the report has to vouch for.
func (f *podFlags) signed(ctx context.Context) (*evidence.SignedRecord, error) {
	pod, _, err := f.expected(ctx)
	switch {
	case err != nil || pod == nil:
		return nil, err
	case f.record == "" || f.log == "":
		return nil, usageError(errors.New("--pod needs --record and --log"))
	}
	s := &evidence.SignedRecord{Pod: *pod}
	if err := optional(f.record, &s.Answer); err != nil {
		return nil, err
	}
	return s, optional(f.log, &s.Log)
}

// podData is what is read of policy_data, of this project's shape or the existing tools'.
type podData struct {
	Containers json.RawMessage `json:"containers"` // an object by name, or a list in the manifest's order
	Requests   struct {
		Exec struct {
			Commands [][]string `json:"commands"`
			Joined   []string   `json:"joined"`
		} `json:"exec"`
	} `json:"requests"`
	Defaults struct {
		Exec struct {
			Commands []string `json:"commands"`
			Regex    []string `json:"regex"`
		} `json:"ExecProcessRequest"`
	} `json:"request_defaults"`
}

type podContainer struct {
	After []struct{ Container, State string } `json:"after"`
	Exec  [][]string                          `json:"exec"`
	Image struct {
		Also   []string `json:"also"`
		Digest string   `json:"digest"`
		Layers []string `json:"layers"`
	} `json:"image"`
	OCI struct {
		Annotations map[string]string
	} `json:"OCI"`
	ExecCommands [][]string `json:"exec_commands"`
}

const (
	nameAnnotation  = "io.kubernetes.cri.container-name"
	imageAnnotation = "io.kubernetes.cri.image-name"
)

// podPolicy is a pod as its policy says it.
type podPolicy struct{ evidence.Pod }

// podOf reads the containers of a policy.
func podOf(policy []byte) (podPolicy, error) {
	parts, err := policytext.Split(policy)
	if err != nil {
		return podPolicy{}, err
	}
	if len(parts.Data) == 0 {
		return podPolicy{}, errors.New("the policy has no policy_data that says what the pod's containers are")
	}
	var data podData
	if err := strictjson.Unmarshal(parts.Data, &data); err != nil {
		return podPolicy{}, fmt.Errorf("policy_data: %w", err)
	}
	var out podPolicy
	byName := map[string]podContainer{}
	if err := strictjson.Unmarshal(data.Containers, &byName); err != nil {
		var list []podContainer
		if err := strictjson.Unmarshal(data.Containers, &list); err != nil {
			return podPolicy{}, fmt.Errorf("policy_data.containers: %w", err)
		}
		out.Ordered = true
		for _, c := range list {
			name := c.OCI.Annotations[nameAnnotation]
			if name == "" {
				name = policydata.SandboxContainer
			}
			out.Containers = append(out.Containers, data.container(name, c))
		}
		return out, nil
	}
	for name, c := range byName {
		out.Containers = append(out.Containers, data.container(name, c))
	}
	slices.SortFunc(out.Containers, func(a, b evidence.PodContainer) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (d podData) container(name string, c podContainer) evidence.PodContainer {
	out := evidence.PodContainer{Name: name, Digest: c.Image.Digest, AnyExec: len(d.Requests.Exec.Joined)+len(d.Defaults.Exec.Regex) > 0}
	if image := c.OCI.Annotations[imageAnnotation]; image != "" {
		out.Images = append([]string{image}, c.Image.Also...)
	}
	if len(c.Image.Layers) > 0 {
		out.Digest = record.LayersDigest(c.Image.Layers)
	}
	for _, args := range slices.Concat(c.Exec, c.ExecCommands, d.Requests.Exec.Commands) {
		out.Execs = append(out.Execs, evidence.Command{Digest: record.ArgsDigest(args), Text: strings.Join(args, " ")})
	}
	for _, line := range d.Defaults.Exec.Commands {
		out.Execs = append(out.Execs, evidence.Command{Digest: record.ArgsDigest(strings.Fields(line)), Text: line})
	}
	for _, a := range c.After {
		out.After = append(out.After, evidence.After{Container: a.Container, Succeeded: a.State == "succeeded"})
	}
	return out
}

// order puts the containers in the manifest's order, the pod's own before them.
func (p *podPolicy) order(names []string) {
	at := func(c evidence.PodContainer) int { return slices.Index(names, c.Name) }
	slices.SortStableFunc(p.Containers, func(a, b evidence.PodContainer) int { return at(a) - at(b) })
	p.Ordered = true
}

// containerNames returns the names of a manifest's containers in the order in which the kubelet makes them; nil for what is none.
func containerNames(text []byte) []string {
	objects := yaml.NewYAMLOrJSONDecoder(strings.NewReader(string(text)), 4096)
	for {
		var object map[string]any
		if err := objects.Decode(&object); err != nil {
			return nil
		}
		if names := namesIn(object, 0); len(names) > 0 {
			return names
		}
	}
}

// namesIn looks for the first pod in an object, which is at most a CronJob's depth below it.
func namesIn(object map[string]any, depth int) (names []string) {
	for _, key := range []string{"initContainers", "containers"} {
		list, _ := object[key].([]any)
		for _, c := range list {
			if c, ok := c.(map[string]any); ok {
				name, _ := c["name"].(string)
				names = append(names, name)
			}
		}
	}
	for _, key := range []string{"spec", "template", "jobTemplate"} {
		if inner, ok := object[key].(map[string]any); ok && len(names) == 0 && depth < 6 {
			names = namesIn(inner, depth+1)
		}
	}
	return names
}

// writeEAR writes the result as a token, if asked to.
func (f *podFlags) writeEAR(out io.Writer, r evidence.Result, nonce string, b evidence.Bound) error {
	if f.ear == "" {
		if f.earKey != "" {
			return usageError(errors.New("--ear-key needs --ear"))
		}
		return nil
	}
	e := evidence.EAR{Build: version.Build(), Issued: time.Now(), Policy: b.Digest}
	var err error
	if e.Nonce, err = hex.DecodeString(nonce); err != nil {
		return usageError(fmt.Errorf("--nonce: %w", err))
	}
	if f.earKey != "" {
		if e.Signer, err = readSigner(f.earKey); err != nil {
			return fmt.Errorf("--ear-key: %w", err)
		}
	}
	token, err := r.EAR(e)
	if err != nil {
		return err
	}
	if f.ear == "-" {
		_, err = fmt.Fprintln(out, token)
		return err
	}
	return os.WriteFile(f.ear, []byte(token+"\n"), 0o600)
}

// readSigner reads a private key, PKCS #8 or SEC 1.
func readSigner(path string) (crypto.Signer, error) {
	text, err := bounded.ReadFile(path, maxEvidence)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key, nil
		}
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
		}
	}
	return nil, fmt.Errorf("%s holds no private key in PEM", path)
}

// printPod prints what the record says.
func printPod(out io.Writer, p *evidence.PodResult) {
	printLine(out, fmt.Sprintf("pod     %s, %s", map[bool]string{true: "complete", false: "not complete"}[p.Complete], count(p.Events, "event", "events")))
	for i, c := range p.Containers {
		line := fmt.Sprintf("%d. %s %s", i+1, c.Name, c.State)
		if c.Code != nil {
			line += fmt.Sprintf(" with %d", *c.Code)
		}
		printLine(out, fmt.Sprintf("        %s  %s  %.12s", line, strings.TrimSpace(c.Image+" "+c.Digest), c.ID))
	}
	for _, e := range p.Execs {
		command := e.Command
		if command == "" {
			command = "arguments with digest " + e.Digest
		}
		printLine(out, fmt.Sprintf("        exec in %s, at least %s: %s", e.Container, count(e.Count, "time", "times"), command))
	}
}
