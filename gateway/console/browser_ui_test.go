package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	mqtt "github.com/eclipse/paho.mqtt.golang"

	"sluice/gateway/e2e/proc"
)

// demoGateway is the built binary as `sluice demo`, which tests may kill and start again on the same addresses.
type demoGateway struct {
	binary     string
	http, mqtt string
	p          *proc.Proc
}

func (d *demoGateway) start(t *testing.T) {
	t.Helper()
	p, err := proc.Start("sluice demo", nil, d.binary, "demo", "--devices", "16", "--rate", "2", "--http", d.http, "--mqtt", d.mqtt)
	if err != nil {
		t.Fatal(err)
	}
	d.p = p
	t.Cleanup(p.Kill)
	if _, err := p.WaitAccept(d.http, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	d.await(t, "the gateway is ready", func() bool { return d.get(t, "/readyz") == http.StatusOK })
}

// await polls until ok.
func (d *demoGateway) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not so after 20 s; the gateway printed: %s", what, d.p.Log)
		}
		tick(t.Context(), 50*time.Millisecond)
	}
}

var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get asks for a path and returns the status, 0 for no answer.
func (d *demoGateway) get(t *testing.T, path string) int {
	t.Helper()
	r, err := client.Get("http://" + d.http + path)
	if err != nil {
		return 0
	}
	r.Body.Close()
	return r.StatusCode
}

// getWith asks for a path with a bearer token.
func (d *demoGateway) getWith(t *testing.T, path, token string) int {
	t.Helper()
	q, err := http.NewRequest(http.MethodGet, "http://"+d.http+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+token)
	r, err := client.Do(q)
	if err != nil {
		return 0
	}
	r.Body.Close()
	return r.StatusCode
}

// read decodes a JSON answer.
func read[T any](t *testing.T, d *demoGateway, path string) (v T) {
	t.Helper()
	r, err := client.Get("http://" + d.http + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return v
}

func (d *demoGateway) post(t *testing.T, path string, body any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Post("http://"+d.http+path, "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode >= 300 {
		text, _ := io.ReadAll(r.Body)
		t.Fatalf("POST %s: %d %s", path, r.StatusCode, text)
	}
}

// Names as somebody writes them who wants to run a script in an operator's browser. No / and no + and #, which topics treat their own way.
var hostile = []string{
	`<img src=x onerror=window.owned=1>`, `"><svg onload=window.owned=1>`, `'-window.owned--'`, `javascript:window.owned=1`,
	`{{constructor.constructor("window.owned=1")()}}`, `<iframe srcdoc="<script>parent.owned=1<`, "line\u202egnirts\u202c", `__proto__`, `%3Cscript%3Eowned=1`,
}

// publishHostile sends readings whose device, metric, label and payload are hostile, warm enough for an alert with them in its summary.
func publishHostile(t *testing.T, address string) {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + address).SetClientID("<b onmouseover=owned=1>").SetConnectTimeout(5 * time.Second))
	if token := c.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatalf("connect: %v", token.Error())
	}
	defer c.Disconnect(100)
	send := func(topic, payload string) {
		if token := c.Publish(topic, 1, false, payload); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
			t.Fatalf("publish to %q: %v", topic, token.Error())
		}
	}
	now := time.Now().UnixMilli()
	for i, name := range hostile {
		for n := range 6 { // over five seconds, so that FreezerWarm has held for three
			body, err := json.Marshal(map[string]any{"ts": now - int64(5-n)*1000, "seq": n, "line": `</script><script>window.owned=1</script>` + name, "temperature": 50 + i, name: n})
			if err != nil {
				t.Fatal(err)
			}
			send("sites/plant-1/devices/freezer-"+name+"/telemetry", string(body))
		}
		send("sites/plant-1/devices/"+name+"/telemetry", `{"temperature": "`+name) // for the quarantine
	}
}

// TestDashboard uses the dashboard as people do: the built binary, simulated devices, a real browser.
func TestDashboard(t *testing.T) {
	chromium(t)
	if !uiBuilt() {
		missing(t, "the dashboard is not built: make ui")
	}
	axe, err := os.ReadFile("ui/node_modules/axe-core/axe.min.js")
	if err != nil {
		missing(t, "axe-core is not installed: make ui")
	}
	d := &demoGateway{}
	if d.binary, err = proc.Build(t.TempDir(), "-ldflags=-s -w"); err != nil {
		t.Fatal(err)
	}
	for _, address := range []*string{&d.http, &d.mqtt} {
		port, err := proc.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		*address = fmt.Sprintf("127.0.0.1:%d", port)
	}
	d.start(t)
	// The switches take over from the demo's own script.
	for _, f := range read[DemoState](t, d, "/api/v1/demo").Faults {
		d.post(t, "/api/v1/demo", map[string]any{"fault": map[string]any{"name": f.Name, "on": false}})
	}
	d.post(t, "/api/v1/demo", map[string]any{"link": "up"})
	publishHostile(t, d.mqtt)
	d.await(t, "the hostile alerts fire", func() bool {
		firing := 0
		for _, a := range read[AlertList](t, d, "/api/v1/alerts").Alerts {
			if a.State == "firing" && strings.Contains(a.Annotations["summary"], "freezer-") {
				firing++
			}
		}
		return firing >= len(hostile)/2
	})
	d.post(t, "/api/v1/silences", map[string]any{"match": map[string]string{"device": hostile[0]}, "duration": "1h", "author": hostile[0], "comment": hostile[1]})

	browser := startBrowser(t)
	base := "http://" + d.http + "/"
	wide, small := newTab(t, browser, desk, "light"), newTab(t, browser, phone, "light")
	for _, b := range []*tab{wide, small} {
		b.open(t, base)
		b.settled(t, "#/")
		eval[any](t, b, string(axe)+"\n;window.axe = axe")
	}
	device := read[DeviceList](t, d, "/api/v1/devices?limit=1&search=pump").Devices[0]
	nasty := read[DeviceList](t, d, "/api/v1/devices?limit=1000&search=onerror").Devices[0]
	alert := read[AlertList](t, d, "/api/v1/alerts").Alerts[0]
	views := []struct{ name, hash, says string }{
		{"overview", "#/", "Waiting to be sent"},
		{"alerts", "#/alerts", "FreezerWarm"},
		{"history", "#/alerts?tab=over", "History"},
		{"silences", "#/alerts?tab=silences", "in force"},
		{"alert", "#/alerts/" + alert.Fingerprint, "What it saw"},
		{"devices", "#/devices", "Last heard"},
		{"device", "#/devices/" + device.ID, "Usual interval"},
		{"hostile-device", "#/devices/" + nasty.ID, "temperature"},
		{"uplink", "#/uplink", "Delivered"},
		{"quarantine", "#/quarantine", "Reasons"},
		{"rules", "#/rules/FreezerWarm", "What it saw"},
		{"trial", "#/rules/FreezerWarm?tab=test", "Rule file"},
		{"ledger", "#/ledger", "By destination"},
		{"audit", "#/audit", "silence"},
		{"tokens", "#/tokens", "There is no token"},
		{"demo", "#/demo", "Faults of devices"},
	}

	t.Run("TheAccessibilityCheckFindsWhatIsWrong", func(t *testing.T) {
		eval[any](t, wide, `const b = document.createElement("button"); b.id = "planted"; document.querySelector("main").append(b)`)
		if found := wide.findings(t, "button-name"); len(found) != 1 {
			t.Errorf("a button without a name has %d findings, want 1: %v", len(found), found)
		}
		eval[any](t, wide, `document.querySelector("#planted").remove()`)
	})
	t.Run("EveryViewIsSoundAtBothSizesInBothSchemes", func(t *testing.T) {
		for _, v := range views {
			for _, b := range []*tab{wide, small} {
				b.show(t, v.hash)
				b.wait(t, v.name+" says "+v.says, fmt.Sprintf(`document.querySelector("main").innerText.includes(%q) || document.body.innerText.includes(%q) && innerWidth < 760`, v.says, v.says))
				b.sound(t, v.name)
				b.shot(t, v.name)
			}
			wide.axe(t, v.name)
			wide.scheme(t, "dark")
			wide.axe(t, v.name+" dark", "color-contrast")
			wide.shot(t, v.name+"-dark")
			wide.scheme(t, "light")
			if v.name == "overview" || v.name == "devices" || v.name == "alert" { // what only a phone shows
				small.axe(t, v.name, "target-size", "color-contrast", "button-name", "link-name", "label", "scrollable-region-focusable")
			}
		}
	})

	t.Run("HostileNamesStayText", func(t *testing.T) {
		wide.show(t, "#/devices?search=onerror")
		wide.wait(t, "the hostile device is listed", fmt.Sprintf(`document.querySelector(".rows")?.innerText.includes(%q)`, hostile[0]))
		wide.show(t, "#/quarantine")
		wide.click(t, ".items button", "")
		wide.wait(t, "the item is shown", `document.querySelector("dialog .raw")`)
		wide.sound(t, "quarantine item")
		wide.key(t, kb.Escape)
	})

	t.Run("TheChartOfAHostileMetricHasItsReadings", func(t *testing.T) {
		wide.show(t, "#/devices/"+nasty.ID)
		wide.wait(t, "charts are drawn", `document.querySelectorAll(".canvas canvas").length >= 2`)
		if n := eval[int](t, wide, `return document.querySelectorAll(".no-data").length`); n != 0 {
			t.Errorf("%d charts of a device that just sent are empty", n)
		}
	})

	t.Run("MarkingAChartZooms", func(t *testing.T) {
		wide.show(t, "#/devices/"+device.ID)
		wide.wait(t, "a chart is drawn", `document.querySelector(".u-over")`)
		at := eval[[]float64](t, wide, `const r = document.querySelector(".u-over").getBoundingClientRect(); return [r.left + r.width * 0.7, r.top + r.height / 2, r.left + r.width * 0.95]`)
		if err := chromedp.Do(wide.ctx, chromedp.DragAndDropXY(at[0], at[1], at[2], at[1])); err != nil {
			t.Fatal(err)
		}
		wide.wait(t, "the address has the range", `/[?&]from=\d+&to=\d+/.test(location.hash)`)
		span := eval[int](t, wide, `const q = new URLSearchParams(location.hash.split("?")[1]); return Number(q.get("to")) - Number(q.get("from"))`)
		if span < 100 || span > 400 { // a quarter of 15 minutes
			t.Errorf("marking a quarter of 15 minutes zooms to %d s", span)
		}
		wide.click(t, "button", "Back to now")
		wide.wait(t, "the range is the one before", `!location.hash.includes("from=")`)
		wide.sound(t, "zoomed chart")
	})
	t.Run("KeyboardReachesEverything", func(t *testing.T) { walkKeys(t, wide, string(axe)) })
	t.Run("AlertIsAcknowledgedAndSilenced", func(t *testing.T) { lookAfterAlert(t, d, wide, device.Name) })
	t.Run("QuarantineIsReplayedAndDeleted", func(t *testing.T) { emptyQuarantine(t, d, wide) })
	t.Run("RuleIsTriedOnThePast", func(t *testing.T) {
		small.show(t, "#/rules/FreezerWarm?tab=test")
		small.click(t, "button", "Try it")
		small.wait(t, "the outcome is shown", `document.querySelector("#outcome")`)
		small.sound(t, "outcome")
		small.shot(t, "outcome")
		if text := eval[string](t, small, `return document.querySelector("main").innerText`); !strings.Contains(text, "Alerts would have fired") {
			t.Errorf("alerts fired, and the trial says: %s", text)
		}
	})
	t.Run("CutLinkIsSeenAndRestored", func(t *testing.T) { cutLink(t, wide) })
	t.Run("OutboxIsGivenUp", func(t *testing.T) { giveUp(t, d, wide) })
	t.Run("TokenIsMadeAndRevoked", func(t *testing.T) { makeToken(t, d, wide) })
	t.Run("EveryViewSaysWhyItCannotBeShown", func(t *testing.T) { refuse(t, newTab(t, browser, desk, "light"), base, device.ID, alert.Fingerprint) })
	t.Run("FirstUserIsSetUpAndLogsIn", func(t *testing.T) { setUpAndLogIn(t, d.binary, newTab(t, browser, phone, "dark")) })
	t.Run("DisconnectedStateAndRecovery", func(t *testing.T) {
		for _, b := range []*tab{wide, small} {
			b.show(t, "#/")
			b.complaints()
		}
		d.p.Kill()
		for _, b := range []*tab{wide, small} {
			b.wait(t, "the page says that it is disconnected", `document.querySelector(".lost")?.innerText.includes("Disconnected since")`)
			b.shot(t, "disconnected")
			b.complaints() // each question that finds nobody is one
		}
		d.start(t)
		for _, b := range []*tab{wide, small} {
			b.wait(t, "the page is connected again", `!document.querySelector(".lost") && document.querySelector(".link-state").innerText.startsWith("Live")`)
			b.complaints()
			b.show(t, "#/devices")
			b.sound(t, "devices after the gateway came back")
		}
	})
}

// walkKeys uses the keyboard alone.
func walkKeys(t *testing.T, b *tab, axe string) {
	focused := func(what, expression string) {
		t.Helper()
		b.wait(t, what, "((a) => "+expression+")(document.activeElement)")
	}
	b.show(t, "#/devices")
	if err := chromedp.Do(b.ctx, chromedp.Reload()); err != nil {
		t.Fatal(err)
	}
	b.settled(t, "devices")
	eval[any](t, b, axe+"\n;window.axe = axe")
	b.key(t, kb.Tab)
	focused("the first Tab goes to the skip link", `a.className === "skip" && a.getBoundingClientRect().top >= 0`)
	b.key(t, kb.Enter)
	focused("it leads to the title", `a.id === "title"`)
	b.key(t, "/")
	focused("/ goes to the search", `a.type === "search"`)
	eval[any](t, b, "document.activeElement.select()") // the driver types the slash whatever the page says to it
	b.key(t, "pump")
	b.wait(t, "the list follows", `[...document.querySelectorAll(".rows li")].length > 0 && [...document.querySelectorAll(".rows li")].every((r) => r.innerText.includes("pump"))`)
	b.key(t, kb.Escape)
	b.key(t, "j")
	focused("j goes to the first row", `a.closest("[data-row]")?.dataset.row === "0"`)
	b.key(t, kb.ArrowDown)
	focused("arrow down goes to the next", `a.closest("[data-row]")?.dataset.row === "1"`)
	b.key(t, kb.End)
	focused("End goes to the last", `Number(a.closest("[data-row]")?.dataset.row) + 1 === Number(a.closest("li")?.ariaSetSize)`)
	b.key(t, kb.Enter)
	b.wait(t, "Enter opens the device", `/^#\/devices\/./.test(location.hash)`)
	b.key(t, "ga")
	b.wait(t, "g a goes to the alerts", `location.hash === "#/alerts"`)
	b.key(t, "?")
	focused("? opens the list of keys", `!!a.closest("dialog[open]")`)
	for range 4 {
		b.key(t, kb.Tab)
		focused("Tab stays in the dialog", `!!a.closest("dialog[open]") || a === document.body`)
	}
	b.key(t, kb.Escape)
	b.wait(t, "Escape closes it", `!document.querySelector("dialog[open]")`)
	b.click(t, "button", "New silence")
	for range 14 {
		b.key(t, kb.Tab)
		focused("Tab stays in the silence dialog", `!!a.closest("dialog[open]") || a === document.body`)
	}
	b.key(t, kb.Tab, chromedp.KeyModifiers(kb.ModifierShift))
	b.key(t, kb.Escape)
	b.wait(t, "Escape closes it", `!document.querySelector("dialog[open]")`)
	// Every control that can be reached shows that it was.
	b.show(t, "#/")
	eval[any](t, b, "document.activeElement.blur()")
	for i := range 16 {
		b.key(t, kb.Tab)
		if !eval[bool](t, b, `const a = document.activeElement, s = getComputedStyle(a); return a === document.body || s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2`) {
			t.Errorf("stop %d has no focus ring: %s", i, eval[string](t, b, "return document.activeElement.outerHTML.slice(0, 200)"))
		}
	}
	b.sound(t, "keyboard walk")
}

// lookAfterAlert breaks a pump, acknowledges its alert and silences it.
func lookAfterAlert(t *testing.T, d *demoGateway, b *tab, _ string) {
	b.show(t, "#/demo")
	b.click(t, "[role=switch]", "pump vibrates")
	b.show(t, "#/alerts?search=StrongVibration")
	b.wait(t, "the alert fires", `[...document.querySelectorAll(".alerts li")].some((r) => r.innerText.includes("StrongVibration") && r.innerText.includes("firing"))`)
	b.click(t, ".alerts a", "StrongVibration")
	b.settled(t, "alert")
	b.wait(t, "the chart is drawn", `document.querySelector(".canvas canvas")`)
	b.click(t, "button", "Acknowledge")
	eval[any](t, b, `const f = document.querySelector("dialog form"); f.author.value = "Ada"; f.comment.value = "on my way"; f.requestSubmit()`)
	b.wait(t, "it shows who has it", `document.querySelector("main").innerText.includes("taken by Ada") && document.querySelector("main").innerText.includes("on my way")`)
	b.click(t, "main button", "Silence")
	b.shot(t, "silence-dialog")
	b.axe(t, "silence dialog")
	eval[any](t, b, `const f = document.querySelector("dialog form"); f.comment.value = "maintenance"; f.requestSubmit()`)
	b.wait(t, "it shows that it is silenced", `document.querySelector("main header").innerText.includes("silenced")`)
	b.shot(t, "alert-taken")
	b.sound(t, "alert")
	b.show(t, "#/alerts?tab=silences")
	b.wait(t, "the silence is listed", `[...document.querySelectorAll(".list li")].some((r) => r.innerText.includes("maintenance") && r.innerText.includes("in force"))`)
	eval[any](t, b, `[...document.querySelectorAll(".list li")].find((r) => r.innerText.includes("maintenance")).querySelector("button").click()`)
	b.click(t, "dialog button", "End it")
	b.wait(t, "the silence is over", `[...document.querySelectorAll(".list li")].some((r) => r.innerText.includes("maintenance") && r.innerText.includes("over"))`)
	found := false
	for _, a := range read[AlertList](t, d, "/api/v1/alerts").Alerts {
		found = found || a.Name == "StrongVibration" && a.Acknowledged != nil && a.Acknowledged.Author == "Ada"
	}
	if !found {
		t.Error("the gateway knows of no acknowledgement by Ada")
	}
	b.show(t, "#/audit")
	b.wait(t, "the audit list names Ada", `document.querySelector("main").innerText.includes("Ada")`)
	for _, e := range read[AuditList](t, d, "/api/v1/audit?limit=1000").Entries {
		if strings.Contains(e.Detail, "/api/v1/demo") {
			t.Errorf("a visitor's play stands in the audit: %+v", e)
		}
	}
	d.post(t, "/api/v1/demo", map[string]any{"fault": map[string]any{"name": "pump vibrates", "on": false}})
}

// emptyQuarantine replays what cannot be read, which is refused again, and deletes it.
func emptyQuarantine(t *testing.T, d *demoGateway, b *tab) {
	b.show(t, "#/quarantine")
	b.click(t, ".items button", "")
	b.wait(t, "the payload is shown", `document.querySelector("dialog .raw")?.innerText.length > 0`)
	b.click(t, "dialog .choice button", "Hex")
	b.wait(t, "its bytes are shown", `/^000000  [0-9a-f]{2} /.test(document.querySelector("dialog .raw").innerText)`)
	b.shot(t, "quarantine-item")
	b.axe(t, "quarantine item")
	b.click(t, "dialog button", "Replay")
	b.click(t, "dialog footer .primary", "Replay")
	b.wait(t, "the job ends", `document.querySelector(".said").innerText.includes("replayed")`)
	held := read[QuarantineList](t, d, "/api/v1/quarantine").Held
	b.click(t, ".groups button", "Delete all")
	b.shot(t, "delete-dialog")
	b.click(t, "dialog .danger", "Delete")
	b.wait(t, "items are deleted", `document.querySelector(".said").innerText.includes("deleted")`)
	if now := read[QuarantineList](t, d, "/api/v1/quarantine").Held; now >= held {
		t.Errorf("%d items before the deletion, %d after", held, now)
	}
	b.sound(t, "quarantine")
}

// cutLink cuts and restores the demo's link from the overview.
func cutLink(t *testing.T, b *tab) {
	b.show(t, "#/")
	b.click(t, ".demo-strip button", "Cut the link")
	b.wait(t, "the headline says so", `/cannot be reached/.test(document.querySelector("h1").innerText + document.querySelector(".verdict").innerText)`)
	b.wait(t, "the waiting points are counted", `document.querySelector(".verdict").innerText.includes("safe on disk")`)
	b.shot(t, "link-cut")
	b.show(t, "#/uplink")
	b.wait(t, "the uplink explains it", `document.querySelector("main").innerText.includes("trying again") && document.querySelector("main").innerText.includes("nothing is lost")`)
	b.shot(t, "uplink-cut")
	b.sound(t, "uplink")
	b.show(t, "#/")
	b.click(t, ".demo-strip button", "Restore the link")
	b.wait(t, "the backlog goes", `!/cannot be reached/.test(document.querySelector(".verdict").innerText)`)
}

// setUpAndLogIn makes the first user of an empty gateway, sees that every view says what it would show, logs out and in again.
func setUpAndLogIn(t *testing.T, binary string, b *tab) {
	dir := t.TempDir()
	port, err := proc.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	d := &demoGateway{http: fmt.Sprintf("127.0.0.1:%d", port)}
	config := fmt.Sprintf("gateway: { id: empty-7, data_dir: %q }\nmqtt: { listeners: [ { address: \"127.0.0.1:0\" } ], allow_anonymous: true }\nhttp: { address: %q, users_file: %q }\n",
		filepath.Join(dir, "data"), d.http, filepath.Join(dir, "users"))
	if err := os.WriteFile(filepath.Join(dir, "sluice.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if d.p, err = proc.Start("sluice run", nil, binary, "run", "--config", filepath.Join(dir, "sluice.yaml")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.p.Kill)
	if _, err := d.p.WaitAccept(d.http, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	token := regexp.MustCompile(`setup_token=(\S+)`)
	d.await(t, "the gateway prints a set-up token", func() bool { return token.MatchString(d.p.Log.String()) })
	b.open(t, "http://"+d.http+"/")
	b.wait(t, "the set-up form is there", `document.querySelector(".gate form")?.token`)
	b.sound(t, "set-up")
	fill := func(fields map[string]string) {
		t.Helper()
		values, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		eval[any](t, b, `const f = document.querySelector("form"); for (const [k, v] of Object.entries(`+string(values)+`)) f[k].value = v; f.requestSubmit()`)
	}
	fill(map[string]string{"token": token.FindStringSubmatch(d.p.Log.String())[1], "user": "ada", "password": "correct horse", "again": "correct horse"})
	b.wait(t, "the overview is there", `document.querySelector("main h1")?.innerText.includes("No device has sent anything")`)
	for _, v := range []struct{ hash, says string }{
		{"#/alerts", "No alert is firing"}, {"#/alerts?tab=silences", "Nothing is silenced"}, {"#/devices", "No device has sent"}, {"#/uplink", "Nothing is sent anywhere"},
		{"#/quarantine", "Nothing is in quarantine"}, {"#/rules", "No rule is loaded"}, {"#/ledger", "Nothing was lost"}, {"#/audit", "ada"},
	} {
		b.show(t, v.hash)
		b.wait(t, v.hash+" says "+v.says, fmt.Sprintf(`document.querySelector("main").innerText.includes(%q)`, v.says))
		b.sound(t, "empty "+v.hash)
	}
	b.click(t, ".tabs button", "More")
	b.click(t, ".more button", "Log out ada")
	b.wait(t, "one has to log in", `document.querySelector(".gate form") && !document.querySelector(".gate form").token`)
	b.sound(t, "login")
	fill(map[string]string{"user": "ada", "password": "wrong horse"})
	b.wait(t, "it says what is wrong", `document.querySelector(".gate [role=alert]")?.innerText.includes("do not match")`)
	b.shot(t, "login-wrong")
	b.complaints() // the refusal itself
	fill(map[string]string{"user": "ada", "password": "correct horse"})
	b.wait(t, "the view is there again", `document.querySelector("main h1")?.innerText === "Audit"`)
	b.sound(t, "audit after login")
	seeLess(t, d, b, filepath.Join(dir, "users"), fill)
}
