// SPDX-License-Identifier: Apache-2.0

// Package genuine reads the specifications that real kubelets and containerds made in the lab (.ci/lab): the folder
// rules/testdata/genuine, whose README describes the format.
package genuine

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"portcullis/internal/emulator/hostfs"
)

// Pod is the recording of one pod.
type Pod struct {
	Manifest       string // file below manifests
	Namespace, Pod string
	Sandbox        Container
	Containers     []Container // in order of creation
}

// Container is a container of the pod; the sandbox has no name and no execs.
type Container struct {
	Name, ID string
	Terminal bool
	CRI      json.RawMessage // RunPodSandboxRequest of a sandbox, ContainerConfig of a container
	Spec     *specs.Spec
	Files    map[string][]File // by the source of a mount
	Execs    []Exec
}

// Exec is a process that a probe or a hook added.
type Exec struct {
	Terminal bool
	Process  *specs.Process
}

// File is a file at or below the source of a mount.
type File struct {
	Path, Mode, Target, Text, FileSystem string
	UID, GID                             uint32
	Data                                 []byte
	Varies                               bool // a token or certificate, whose content was left out
}

// Combinations are the files of recordings in a folder, by name without extension: "containerd-2_kubernetes-1.37".
func Combinations(folder string) (map[string]string, error) {
	const extension = ".jsonl.gz"
	files, err := filepath.Glob(filepath.Join(folder, "*"+extension))
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, file := range files {
		name := filepath.Base(file)
		found[name[:len(name)-len(extension)]] = file
	}
	return found, nil
}

// Read reads a file of recordings.
func Read(file string) ([]Pod, error) {
	packed, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read recordings: %w", err)
	}
	defer packed.Close()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var pods []Pod
	decoder := json.NewDecoder(bufio.NewReader(plain))
	for {
		var p Pod
		err := decoder.Decode(&p)
		if err == io.EOF {
			return pods, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		pods = append(pods, p)
	}
}

// HostFiles are the files of the node that the pod's mounts showed when its containers were created.
func (p Pod) HostFiles() (hostfs.FS, error) {
	all := hostfs.FS{}
	for _, c := range append([]Container{p.Sandbox}, p.Containers...) {
		for source, files := range c.Files {
			for _, f := range files {
				file, err := f.hostFile()
				if err != nil {
					return nil, fmt.Errorf("pod %s: %s of %s: %w", p.Pod, f.Path, source, err)
				}
				all[path.Join(source, f.Path)] = file
			}
		}
	}
	return all, nil
}

func (f File) hostFile() (hostfs.File, error) {
	mode, err := strconv.ParseUint(f.Mode, 8, 32)
	if err != nil {
		return hostfs.File{}, fmt.Errorf("mode %q: %w", f.Mode, err)
	}
	content := f.Data
	switch {
	case f.Varies:
		content = []byte("varies")
	case f.Target != "":
		content = []byte(f.Target)
	case content == nil:
		content = []byte(f.Text)
	}
	return hostfs.File{Mode: uint32(mode), UID: f.UID, GID: f.GID, Data: content, FileSystem: f.FileSystem}, nil
}
