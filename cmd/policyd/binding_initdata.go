// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"portcullis/engine/binding"
	"portcullis/hostdata/initdata"
	"portcullis/internal/atomicfile"
	"portcullis/internal/wait"
)

// readInitdata reads what the guest was started with, once: from the configured file, else from its disk, else, after a
// restart, from what the process before this one has kept.
func (b *binder) readInitdata(ctx context.Context) error {
	if b.config.Initdata == "off" {
		return b.wantInitdata(nil)
	}
	kept, err := b.keptInitdata()
	if err != nil {
		return err
	}
	var doc *initdata.Document
	disk := ""
	if b.config.Initdata != "auto" {
		doc, err = initdata.ReadFile(b.config.Initdata)
	} else {
		var found *initdata.Disk
		if found, err = b.guest.disks.Find(ctx); err == nil {
			doc, disk = found.Document, found.Name
		} else if errors.Is(err, initdata.ErrNoDisk) {
			err = nil
		}
	}
	switch {
	case err != nil:
		return err
	case doc == nil:
		doc = kept
	case kept != nil && !bytes.Equal(doc.Bytes(), kept.Bytes()):
		return refused(binding.CodeInitdataChanged, "initdata is not what was bound in this boot")
	}
	if doc != nil {
		if _, err := os.Lstat(b.nonePath()); !errors.Is(err, fs.ErrNotExist) {
			return refused(binding.CodeInitdataChanged, "there is initdata now, and there was none when this boot began")
		}
		b.useInitdata(doc, disk)
	} else if err := b.keepNone(); err != nil {
		return err
	}
	return b.wantInitdata(doc)
}

// nonePath is a file that says that this boot began without initdata.
func (b *binder) nonePath() string { return filepath.Join(b.runDir, "initdata-"+b.bootID+".none") }

// keepNone remembers that there is no initdata, for this process and those after it in this boot: a host may attach its disk once
// policyd has looked, and the agent, which starts later, reads what it finds.
func (b *binder) keepNone() error {
	err := os.MkdirAll(b.runDir, 0o700)
	if err == nil {
		err = touch(b.nonePath())
	}
	if err != nil {
		return refused(binding.CodeLogFailed, "remember that there is no initdata: %w", err)
	}
	g := b.guest
	b.out.NoInitdata = func(first bool) error {
		if err := initdata.CheckNone(g.initdata, g.copies...); err != nil {
			return copyError(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), laterLook)
		defer cancel()
		_, err := wait.Result(ctx, func() (struct{}, error) { return struct{}{}, g.disks.CheckNone(first) })
		return copyError(err)
	}
	return nil
}

// touch makes an empty file where there is none.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// laterLook bounds a look at the disks that requests wait for.
const laterLook = 10 * time.Second

// wantInitdata holds what was found against what the configuration binds.
func (b *binder) wantInitdata(doc *initdata.Document) error {
	switch {
	case b.config.Binding == "initdata" && doc == nil:
		return refused(binding.CodeInitdataInvalid, "binding.binding is initdata, and there is none")
	case b.config.Binding == "policy" && doc != nil:
		return refused(binding.CodeInitdataInvalid, "there is initdata, and binding.binding = policy does not bind it")
	}
	return nil
}

func (b *binder) useInitdata(doc *initdata.Document, disk string) {
	g := b.guest
	i := &binding.Initdata{Alg: string(doc.Algorithm()), Digest: doc.Digest(), Size: len(doc.Bytes()), Fragments: doc.Fragments()}
	if policy, ok := doc.Value(initdata.PolicyKey); ok {
		i.Policy = []byte(policy)
	}
	i.Unchanged = func() error { return copyError(doc.CheckCopies(append([]string{g.initdata}, g.copies...)...)) }
	i.Provide = func() error {
		if err := b.keepInitdata(doc); err != nil {
			return refused(binding.CodeLogFailed, "%w", err)
		}
		if disk != "" {
			ctx, cancel := context.WithTimeout(context.Background(), g.deadline)
			defer cancel()
			if err := g.disks.Detach(ctx, disk); err != nil {
				return err
			}
		}
		if err := doc.Install(g.initdata); err != nil {
			return copyError(err)
		}
		return i.Unchanged()
	}
	b.out.Initdata = i
}

// copyError gives a copy that differs, or that should not be there, a code of its own: something else in the guest consumes other
// initdata.
func copyError(err error) error {
	if errors.Is(err, initdata.ErrCopy) || errors.Is(err, initdata.ErrAppeared) {
		return &binding.Error{Code: binding.CodeInitdataChanged, Err: err}
	}
	return err
}

// keptPath is where the bound document is kept for a restart, since its disk is gone by then. The hardware or the journal has
// to confirm it again.
func (b *binder) keptPath() string {
	return filepath.Join(b.runDir, "initdata-"+b.bootID+".toml")
}

func (b *binder) keptInitdata() (*initdata.Document, error) {
	if _, err := os.Lstat(b.keptPath()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return initdata.ReadFile(b.keptPath())
}

func (b *binder) keepInitdata(doc *initdata.Document) error {
	if kept, err := b.keptInitdata(); err == nil && kept != nil && bytes.Equal(kept.Bytes(), doc.Bytes()) {
		return nil
	}
	if err := atomicfile.Write(b.keptPath(), doc.Bytes(), 0o600); err != nil {
		return fmt.Errorf("keep initdata: %w", err)
	}
	return nil
}
