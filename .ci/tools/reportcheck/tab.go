// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// tab is one page in one window.
type tab struct {
	view
	url, axe string
	result   axeResult

	lock sync.Mutex
	said []string // on the console, and what was loaded beyond the page itself
}

// check shows the page and gives what is wrong with it; an error is one of the check itself.
func (t *tab) check(ctx context.Context, picture string) ([]string, error) {
	ctx, stop := chromedp.NewContext(ctx)
	defer stop()
	if err := t.open(ctx); err != nil {
		return nil, err
	}
	var faults []string
	for _, look := range []func(context.Context) (string, error){t.scripts, t.width, t.firstScreen, t.keyboard} {
		fault, err := look(ctx)
		if err != nil {
			return nil, err
		}
		if fault != "" {
			faults = append(faults, fault)
		}
	}
	if err := t.screenshot(ctx, picture); err != nil {
		return nil, fmt.Errorf("screenshot: %w", err)
	}
	found, err := t.askAxe(ctx)
	t.lock.Lock()
	defer t.lock.Unlock()
	return append(append(faults, found...), t.said...), err
}

// open shows the page in its window, and listens from before it is loaded.
func (t *tab) open(ctx context.Context) error {
	if err := chromedp.Listen(ctx, t.listen); err != nil {
		return err
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		return err
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		return err
	}
	window := emulation.SetDeviceMetricsOverrideParams{Width: t.wide, Height: t.high, DeviceScaleFactor: 1, Mobile: t.mobile}
	if _, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, window); err != nil {
		return err
	}
	wishes := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: t.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, wishes); err != nil {
		return err
	}
	return chromedp.Do(ctx, chromedp.Navigate(t.url))
}

func (t *tab) scripts(ctx context.Context) (string, error) {
	n, err := chromedp.Run(ctx, chromedp.Evaluate[int]("document.scripts.length"))
	if n > 0 {
		return fmt.Sprintf("holds %d scripts", n), err
	}
	return "", err
}

// width finds a page that has to be scrolled sideways.
func (t *tab) width(ctx context.Context) (string, error) {
	wide, err := chromedp.Run(ctx, chromedp.Evaluate[int64]("document.documentElement.scrollWidth"))
	if wide > t.wide {
		return fmt.Sprintf("is %d px wide in a window of %d px", wide, t.wide), err
	}
	return "", err
}

// firstScreen finds grave warnings, up to five, that are not seen without scrolling.
func (t *tab) firstScreen(ctx context.Context) (string, error) {
	const below = `Array.from(document.querySelectorAll(".warnings li.grave")).slice(0, 5).filter(w => w.getBoundingClientRect().bottom > innerHeight).length`
	n, err := chromedp.Run(ctx, chromedp.Evaluate[int](below))
	if n > 0 {
		return fmt.Sprintf("has %d of its gravest warnings below the first screen", n), err
	}
	return "", err
}

// keyboard enters the page as someone does who has no mouse.
func (t *tab) keyboard(ctx context.Context) (string, error) {
	if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
		return "", err
	}
	first, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.activeElement.className"))
	if err != nil {
		return "", err
	}
	if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
		return "", err
	}
	then, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.activeElement.id"))
	if err != nil {
		return "", err
	}
	if first != "skip" || then != "main" {
		return fmt.Sprintf("the first Tab goes to %q, and Enter there to %q; want the link that skips to the text", first, then), nil
	}
	_, err = chromedp.Run(ctx, chromedp.Evaluate[bool]("document.activeElement.blur(); scrollTo(0, 0); true"))
	return "", err
}

// tallest is the page, in pixels of CSS, that is photographed as a whole; of a taller one it is the first window.
const tallest = 16_000

func (t *tab) screenshot(ctx context.Context, file string) error {
	tall, err := chromedp.Run(ctx, chromedp.Evaluate[int64]("document.documentElement.scrollHeight"))
	if err != nil {
		return err
	}
	take := chromedp.FullScreenshot(100)
	if tall > tallest {
		take = chromedp.CaptureScreenshot()
	}
	image, err := chromedp.Run(ctx, take)
	if err != nil {
		return err
	}
	return os.WriteFile(file, image, 0o644)
}

func (t *tab) askAxe(ctx context.Context) ([]string, error) {
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](t.axe+"; true")); err != nil {
		return nil, fmt.Errorf("load axe: %w", err)
	}
	answer, err := chromedp.Run(ctx, chromedp.Evaluate[string](axeQuestion, chromedp.EvalAwaitPromise))
	if err != nil {
		return nil, fmt.Errorf("ask axe: %w", err)
	}
	return t.result.faults(answer)
}

func (t *tab) listen(event any) {
	t.lock.Lock()
	defer t.lock.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		t.said = append(t.said, fmt.Sprintf("console %s", e.Type))
	case *runtime.EventExceptionThrown:
		t.said = append(t.said, "exception: "+e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		t.said = append(t.said, fmt.Sprintf("console %s: %s", e.Entry.Level, e.Entry.Text))
	case *network.EventRequestWillBeSent:
		if e.Request.URL != t.url && e.Request.URL != "data:," {
			t.said = append(t.said, "loads "+e.Request.URL)
		}
	}
}

// printPage writes the page as it goes to a printer.
func printPage(ctx context.Context, url, file string) error {
	ctx, stop := chromedp.NewContext(ctx)
	defer stop()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		return err
	}
	pdf, err := chromedp.Run(ctx, chromedp.PrintToPDF(chromedp.PDFPaper(chromedp.PaperA4), chromedp.PDFOutlineAndTagged()))
	if err != nil {
		return err
	}
	return os.WriteFile(file, pdf, 0o644)
}
