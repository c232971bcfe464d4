// SPDX-License-Identifier: Apache-2.0

// Reportcheck opens HTML pages in a headless Chromium as a phone and a desktop have them, in light and dark, and on paper. It
// fails if a page says anything on the console, loads anything, is wider than its window, has any of its five gravest warnings
// below the first screen, cannot be entered by keyboard, or if axe-core finds it hard to use. Screenshots and PDFs are left for a
// person to look at.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
)

func main() {
	var c checker
	flag.StringVar(&c.browser, "browser", "chromium", "browser to run")
	flag.StringVar(&c.out, "out", ".", "`directory` for screenshots and PDFs")
	axe := flag.String("axe", "", "`file` of axe-core, axe.min.js")
	flag.Parse()
	source, err := os.ReadFile(*axe)
	if err == nil {
		c.axe = string(source)
		err = c.run(flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// view is a window that a page is shown in.
type view struct {
	name       string
	wide, high int64
	mobile     bool
	scheme     string // prefers-color-scheme
}

var views = []view{
	{"phone", 390, 844, true, "light"},
	{"phone-dark", 390, 844, true, "dark"},
	{"desktop", 1280, 900, false, "light"},
	{"desktop-dark", 1280, 900, false, "dark"},
}

type checker struct{ browser, out, axe string }

// run checks each page in one browser with a profile of its own.
func (c checker) run(pages []string) error {
	if len(pages) == 0 {
		return errors.New("no page was given")
	}
	profile, err := os.MkdirTemp("", "reportcheck-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(profile)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(c.browser), chromedp.UserDataDir(profile), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	ctx, stop = context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	ctx, stop = chromedp.NewContext(ctx)
	defer stop()
	if err := chromedp.Do(ctx); err != nil {
		return fmt.Errorf("start %s: %w", c.browser, err)
	}
	var faults []error
	for _, page := range pages {
		faults = append(faults, c.page(ctx, page))
	}
	return errors.Join(faults...)
}

func (c checker) page(ctx context.Context, file string) error {
	url, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	base := filepath.Join(c.out, strings.TrimSuffix(filepath.Base(file), ".html"))
	var faults []error
	for _, v := range views {
		t := tab{view: v, url: "file://" + url, axe: c.axe}
		found, err := t.check(ctx, base+"-"+v.name+".png")
		if err != nil {
			return fmt.Errorf("%s, %s: %w", file, v.name, err)
		}
		for _, fault := range found {
			faults = append(faults, fmt.Errorf("%s, %s: %s", file, v.name, fault))
		}
		fmt.Printf("%s, %s: %d faults, %d passed rules of axe, %d to judge by eye\n", filepath.Base(file), v.name, len(found), t.result.Passes, t.result.Incomplete)
	}
	if err := printPage(ctx, "file://"+url, base+".pdf"); err != nil {
		return fmt.Errorf("%s on paper: %w", file, err)
	}
	return errors.Join(faults...)
}

// axeResult is what is taken over of axe's answer.
type axeResult struct {
	Passes     int
	Incomplete int
	Violations []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML string }
	}
}

// axeQuestion runs every rule of axe-core, its advice included.
const axeQuestion = `axe.run(document, {resultTypes: ["violations", "incomplete"]}).then(r => JSON.stringify(
	{Passes: r.passes.length, Incomplete: r.incomplete.length, Violations: r.violations.map(
		v => ({ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.map(n => ({HTML: n.html}))}))}))`

func (r *axeResult) faults(answer string) ([]string, error) {
	if err := json.Unmarshal([]byte(answer), r); err != nil {
		return nil, fmt.Errorf("read axe's answer: %w", err)
	}
	var out []string
	for _, v := range r.Violations {
		at := ""
		if len(v.Nodes) > 0 {
			at = v.Nodes[0].HTML
		}
		out = append(out, fmt.Sprintf("axe %s (%s): %s, %d times, first %s", v.ID, v.Impact, v.Help, len(v.Nodes), at))
	}
	if r.Passes == 0 {
		return nil, errors.New("axe held no rule")
	}
	return out, nil
}
