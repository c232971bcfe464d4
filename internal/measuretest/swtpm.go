// SPDX-License-Identifier: Apache-2.0

// Package measuretest has TPMs for tests: a real swtpm process, and a transport that injects faults in front of any TPM.
package measuretest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// ErrMissing is returned when swtpm or a tpm2-tools program is not installed.
var ErrMissing = errors.New("tool is not installed")

// SWTPM is a running software TPM, started up, on a unix socket of its own.
type SWTPM struct {
	dir   string
	cmd   *exec.Cmd
	files []*os.File // the listening sockets, which outlive the process so that a restart keeps the address
	log   *os.File
}

// Start starts a fresh TPM with all of swtpm's banks (sha1, sha256, sha384, sha512) and every PCR zero. Its state and sockets
// are in a temporary directory that Close removes. It returns [ErrMissing] when there is no swtpm.
func Start() (*SWTPM, error) {
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		return nil, err
	}
	s := &SWTPM{dir: dir}
	if err := s.listen(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// listen opens the command socket, and the control socket where tpm2-tools look for it. The process inherits them, so that a
// client can connect at once, without waiting for swtpm to bind.
func (s *SWTPM) listen() error {
	for _, path := range []string{s.socket(), s.socket() + ".ctrl"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		l.Close()
		if err != nil {
			return err
		}
		s.files = append(s.files, f)
	}
	return nil
}

func (s *SWTPM) start() error {
	path, err := exec.LookPath("swtpm")
	if err != nil {
		return fmt.Errorf("swtpm: %w: %w", ErrMissing, err)
	}
	if s.log == nil {
		if s.log, err = os.Create(filepath.Join(s.dir, "swtpm.log")); err != nil {
			return err
		}
	}
	s.cmd = exec.Command(path, "socket", "--tpm2", "--tpmstate", "dir="+s.dir,
		"--server", "type=unixio,fd=3", "--ctrl", "type=unixio,fd=4", "--flags", "not-need-init,startup-clear")
	s.cmd.ExtraFiles, s.cmd.Stdout, s.cmd.Stderr = s.files, s.log, s.log
	return s.cmd.Start()
}

func (s *SWTPM) socket() string { return filepath.Join(s.dir, "sock") }

// Device returns the address in the form of the configuration: unix:///path.
func (s *SWTPM) Device() string { return "unix://" + s.socket() }

// TCTI returns the address as tpm2-tools take it in TPM2TOOLS_TCTI.
func (s *SWTPM) TCTI() string { return "swtpm:path=" + s.socket() }

func (s *SWTPM) stop() error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	err := s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
	return err
}

// Hang stops the process from answering until [SWTPM.Continue]; connections are accepted.
func (s *SWTPM) Hang() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

// Continue ends [SWTPM.Hang].
func (s *SWTPM) Continue() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Restart resets the TPM: PCRs go to zero, and a bank allocation made before comes into force.
func (s *SWTPM) Restart() error { return errors.Join(s.stop(), s.start()) }

// Close kills the process and removes its files.
func (s *SWTPM) Close() error {
	err := s.stop()
	for _, f := range s.files {
		f.Close()
	}
	if s.log != nil {
		s.log.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Tool runs a program of tpm2-tools against the TPM, in directory dir, and returns what it prints. It returns [ErrMissing]
// when the program is not installed.
func (s *SWTPM) Tool(dir, name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrMissing, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), "TPM2TOOLS_TCTI="+s.TCTI())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return out, nil
}
