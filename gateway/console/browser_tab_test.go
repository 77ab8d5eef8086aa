package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// chromium is the browser of these tests, or the test is skipped; under CI=true it fails instead.
func chromium(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		missing(t, "chromium is not installed")
	}
	return path
}

// missing skips a test that lacks a program, except where everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("this test cannot run: " + what)
	}
	t.Skip(what)
}

// startBrowser starts a browser for several tabs.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), chromedp.Headless, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("lang", "en-GB"))
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("browser did not end cleanly: %v", err)
		}
		cancel()
	})
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start browser: %v", err)
	}
	return ctx
}

// tab is one page of the browser, at one size.
type tab struct {
	name string
	ctx  context.Context

	mu   sync.Mutex
	said []string // what the browser's console said
}

type size struct {
	name          string
	width, height int64
	mobile        bool
}

var (
	desk  = size{"desk", 1440, 900, false}
	phone = size{"phone", 390, 844, true}
)

// newTab opens an empty page. scheme is light or dark.
func newTab(t *testing.T, browser context.Context, s size, scheme string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	b := &tab{name: s.name, ctx: ctx}
	var options []chromedp.EmulateViewportOption
	if s.mobile {
		options = append(options, chromedp.EmulateMobile, chromedp.EmulateTouch)
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(s.width, s.height, options...)); err != nil {
		t.Fatalf("open tab: %v", err)
	}
	messages := chromedp.Console(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m, err := range messages {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.said = append(b.said, m.String()+" "+m.URL)
			b.mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	b.scheme(t, scheme)
	return b
}

// scheme makes the system light or dark.
func (b *tab) scheme(t *testing.T, scheme string) {
	t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		t.Fatalf("emulate %s: %v", scheme, err)
	}
}

// complaints are what the browser's console said since the last call.
func (b *tab) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	said := b.said
	b.said = nil
	return said
}

func (b *tab) open(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatalf("%s: open %s: %v", b.name, url, err)
	}
}

// eval runs a script, which may await, and returns what it returns.
func eval[T any](t *testing.T, b *tab, script string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 20*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("(async () => { const r = await (async () => { "+script+" })(); return JSON.stringify(r === undefined ? null : r); })()", chromedp.EvalAwaitPromise))
	var v T
	if err == nil {
		err = json.Unmarshal([]byte(text), &v)
	}
	if err != nil {
		t.Fatalf("%s: %s: %v", b.name, script, err)
	}
	return v
}

// wait polls until a JavaScript expression is true.
func (b *tab) wait(t *testing.T, what, expression string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !eval[bool](t, b, "return !!("+expression+")") {
		if time.Now().After(deadline) {
			b.shot(t, "failed")
			t.Fatalf("%s: %s: not so after 20 s; the page says: %.1500s", b.name, what, eval[string](t, b, "return document.body.innerText"))
		}
		tick(b.ctx, 40*time.Millisecond)
	}
}

// tick waits a moment between two looks at a page, or less when the page is gone.
func tick(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// show goes to a view and waits until it has what it shows.
func (b *tab) show(t *testing.T, hash string) {
	t.Helper()
	eval[any](t, b, fmt.Sprintf("location.hash = %q", hash))
	b.settled(t, hash)
}

func (b *tab) settled(t *testing.T, hash string) {
	t.Helper()
	b.wait(t, hash+" loads", `document.querySelector("main h1, .gate h1") && !document.querySelector(".bone") && [...document.querySelectorAll(".canvas")].every((c) => c.getBoundingClientRect().top > innerHeight + 300 || c.querySelector("canvas"))`)
}

// click clicks the first element that selector finds and that says text.
func (b *tab) click(t *testing.T, selector, text string) {
	t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%q)].find((e) => (e.innerText + " " + (e.getAttribute("aria-label") ?? "")).includes(%q))`, selector, text)
	b.wait(t, "there is "+selector+" "+text, find)
	eval[any](t, b, find+".click()")
}

// key presses keys one after the other.
func (b *tab) key(t *testing.T, keys string, options ...chromedp.KeyOption) {
	t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.KeyEvent(keys, options...)); err != nil {
		t.Fatalf("%s: press %q: %v", b.name, keys, err)
	}
}

// shot keeps a picture in the folder that SLUICE_SCREENSHOTS names, for people to look at.
func (b *tab) shot(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("SLUICE_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatalf("%s: picture of %s: %v", b.name, name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, b.name+"-"+name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// sound fails on what no view may do: complain in the console, be wider than the window, show a failure, take a name for markup.
func (b *tab) sound(t *testing.T, view string) {
	t.Helper()
	if said := b.complaints(); len(said) > 0 {
		t.Errorf("%s %s: the browser complained: %s", b.name, view, strings.Join(said, "\n"))
	}
	if wide := eval[[]string](t, b, `
		const w = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= w) return [];
		return ["page " + document.documentElement.scrollWidth + " of " + w, ...[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > w + 1).slice(0, 5).map((e) => e.tagName + "." + e.className)];`); len(wide) > 0 {
		b.shot(t, "wide")
		t.Errorf("%s %s: wider than the window: %v", b.name, view, wide)
	}
	if eval[bool](t, b, `return !!(window.owned || ({}).owned || document.querySelector("img[src=x], svg[onload], iframe, script:not([src]), [onerror], [onmouseover]"))`) {
		t.Errorf("%s %s: a name became markup", b.name, view)
	}
	if failed := eval[string](t, b, `return document.querySelector("main [role=alert]")?.innerText ?? ""`); failed != "" {
		t.Errorf("%s %s: shows a failure: %s", b.name, view, failed)
	}
}

// axe checks the page with axe-core and fails on serious and critical findings. No rules: all of them.
func (b *tab) axe(t *testing.T, view string, rules ...string) {
	t.Helper()
	for _, f := range b.findings(t, rules...) {
		t.Errorf("%s %s: %s", b.name, view, f)
	}
}

// findings are what axe-core finds serious or critical.
func (b *tab) findings(t *testing.T, rules ...string) []string {
	t.Helper()
	only := "undefined"
	if len(rules) > 0 {
		list, _ := json.Marshal(rules) // strings: cannot fail
		only = string(list)
	}
	return eval[[]string](t, b, `
		const r = await axe.run(document, { resultTypes: ["violations"], ...(`+only+` && { runOnly: { type: "rule", values: `+only+` } }) });
		return r.violations.filter((v) => v.impact === "serious" || v.impact === "critical").flatMap((v) => v.nodes.slice(0, 3).map((n) => v.id + ": " + n.html.slice(0, 200) + " " + (n.any[0]?.message ?? "")));`)
}
