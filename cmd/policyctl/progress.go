// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"io/fs"
	"time"
)

const (
	progressFrom = 16 << 20 // bytes of input from which progress is shown without a terminal too
	progressTick = 200 * time.Millisecond
	logTick      = 5 * time.Second // between lines where they cannot be overwritten
)

// progress tells how much of a long input was read, on one line of a terminal, or now and then a line elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	total    int64 // 0: not known
	read     int64
	start    time.Time
	last     time.Time
	shown    bool
}

type statter interface{ Stat() (fs.FileInfo, error) }

// sizeOf is the size of a regular file, else 0.
func sizeOf(f statter) int64 {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

func newProgress(out io.Writer, total int64) *progress {
	now := time.Now()
	return &progress{out: out, terminal: isTerminal(out), total: total, start: now, last: now}
}

// reader counts what is read from in.
func (p *progress) reader(in io.Reader) io.Reader { return &counted{in, p} }

type counted struct {
	in io.Reader
	p  *progress
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	c.p.add(n)
	return n, err
}

func (p *progress) add(n int) {
	before := p.read
	p.read += int64(n)
	now := time.Now()
	crossed := before < progressFrom && p.read >= progressFrom
	switch since := now.Sub(p.last); {
	case p.terminal && since >= progressTick:
	case !p.terminal && crossed, !p.terminal && p.read >= progressFrom && since >= logTick:
	default:
		return
	}
	p.last = now
	p.show(now)
}

func (p *progress) show(now time.Time) {
	line := fmt.Sprintf("%d MB", p.read>>20)
	seconds := now.Sub(p.start).Seconds()
	rate := float64(p.read) / max(seconds, 0.001)
	if p.total > 0 {
		left := time.Duration(float64(p.total-p.read) / rate * float64(time.Second))
		line += fmt.Sprintf(" of %d MB (%d %%), %s left", p.total>>20, 100*p.read/p.total, left.Round(time.Second))
	}
	line += fmt.Sprintf(", %.1f MB/s", rate/(1<<20))
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", line)
		p.shown = true
		return
	}
	fmt.Fprintln(p.out, line)
}

// done takes the line away.
func (p *progress) done() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
