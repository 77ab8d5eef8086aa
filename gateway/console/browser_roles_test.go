package console

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// giveUp cuts the link and gives up what waits behind it.
func giveUp(t *testing.T, d *demoGateway, b *tab) {
	d.post(t, "/api/v1/demo", map[string]any{"link": "down"})
	b.show(t, "#/uplink/cloud")
	b.click(t, "main .card.picked button", "Give up what waits")
	b.shot(t, "purge-dialog")
	b.axe(t, "purge dialog")
	b.click(t, "dialog .danger", "Give it up")
	if !eval[bool](t, b, `return !!document.querySelector("dialog[open] input[name=reason]:invalid")`) {
		t.Error("it is given up without a reason")
	}
	eval[any](t, b, `document.querySelector("dialog input[name=reason]").value = "the bucket is gone"`)
	b.click(t, "dialog .danger", "Give it up")
	b.wait(t, "it is said what was given up", `/\d points? given up/.test(document.querySelector(".said").innerText)`)
	b.sound(t, "purge")
	b.show(t, "#/ledger")
	b.wait(t, "the loss is in the ledger", `document.querySelector("main").innerText.includes("purged")`)
	b.show(t, "#/audit")
	b.wait(t, "and who did it in the audit", `document.querySelector("main").innerText.includes("the bucket is gone")`)
	d.post(t, "/api/v1/demo", map[string]any{"link": "up"})
}

// makeToken makes a token on the page, uses it, and revokes it.
func makeToken(t *testing.T, d *demoGateway, b *tab) {
	b.show(t, "#/tokens")
	b.click(t, "main button", "Make a token")
	b.axe(t, "token dialog")
	b.shot(t, "token-dialog")
	eval[any](t, b, `const f = document.querySelector("dialog form"); f.elements.name.value = "<b>Grafana</b>"; f.elements.scope.value = "site"; f.requestSubmit()`)
	b.wait(t, "a scope that is none is said", `document.querySelector("dialog [role=alert]")?.innerText.includes("label=value")`)
	eval[any](t, b, `const f = document.querySelector("dialog form"); f.elements.scope.value = "device=pump-01"; f.requestSubmit()`)
	b.wait(t, "the token is shown", `document.querySelector("dialog .raw")?.innerText.startsWith("sluice_")`)
	b.shot(t, "token-made")
	b.axe(t, "token made")
	text := eval[string](t, b, `return document.querySelector("dialog .raw").innerText`)
	if code := d.getWith(t, "/api/v1/alerts", text); code != 200 {
		t.Errorf("with the token: %d", code)
	}
	if code := d.getWith(t, "/api/v1/outboxes", text); code != 403 {
		t.Errorf("with a token of one device, outboxes: %d", code)
	}
	b.click(t, "dialog button", "Done")
	b.wait(t, "it is listed, without its text", `document.querySelector("main").innerText.includes("<b>Grafana</b>") && !document.body.innerText.includes("`+text+`")`)
	b.shot(t, "tokens-listed")
	b.axe(t, "tokens listed")
	b.sound(t, "tokens listed")
	b.click(t, "main button", "Revoke")
	b.click(t, "dialog .danger", "Revoke it")
	b.wait(t, "it is gone", `document.querySelector("main").innerText.includes("There is no token")`)
	if code := d.getWith(t, "/api/v1/alerts", text); code != 401 {
		t.Errorf("with the revoked token: %d", code)
	}
}

// refuse answers every question of every view with an error, and the view says why it has nothing and what to do.
func refuse(t *testing.T, b *tab, base, device, alert string) {
	b.open(t, base+"#/nowhere")
	b.wait(t, "the page is there", `document.querySelector("main")?.innerText.includes("There is no such view")`)
	eval[any](t, b, `
		const real = window.fetch;
		window.refuse = 0;
		window.fetch = (path, init) => window.refuse && !String(path).includes("status") && !String(path).includes("session")
			? Promise.resolve(new Response(JSON.stringify({ type: "about:blank", title: "Refused", status: window.refuse, detail: "because of " + window.refuse }), { status: window.refuse }))
			: real(path, init);`)
	views := []string{
		"alerts", "alerts?tab=silences", "alerts/" + alert, "devices", "devices/" + device, "uplink", "quarantine", "rules", "ledger", "audit", "tokens", "demo",
	}
	for code, says := range map[int]string{403: "Ask an administrator", 404: "does not have it", 503: "Try again"} {
		for _, v := range views {
			eval[any](t, b, fmt.Sprintf(`window.refuse = %d; location.hash = "#/%s"`, code, v))
			b.wait(t, fmt.Sprintf("%s says why it is not there, at %d", v, code), fmt.Sprintf(
				`((m) => m.querySelector("[role=alert]") && m.innerText.includes("because of %d") && m.innerText.includes(%q))(document.querySelector("main"))`, code, says))
			eval[any](t, b, `location.hash = "#/nowhere"`)
		}
		b.shot(t, fmt.Sprintf("refused-%d", code))
	}
	eval[any](t, b, `window.refuse = 503; location.hash = "#/"`)
	b.wait(t, "the overview judges by the status alone", `document.querySelector("main h1") && document.querySelector(".tiles")`)
	if text := eval[string](t, b, `return document.querySelector("h1").innerText`); strings.Contains(text, "All is well") {
		t.Errorf("alerts fire, their list is not there, and the headline says: %s", text)
	}
	if said := b.complaints(); len(said) > 0 {
		t.Errorf("the browser complained: %s", strings.Join(said, "\n"))
	}
}

// seeLess logs in as a viewer, and as one who sees a part of the site: no view and no button is offered that the gateway refuses.
func seeLess(t *testing.T, d *demoGateway, b *tab, users string, fill func(map[string]string)) {
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(users, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f, "vic:viewer:%s\ntom:viewer:%s:site=a\n", hash, hash); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	as := func(before, name string) {
		t.Helper()
		b.show(t, "#/")
		b.complaints()
		// A view that arrives late closes the menu again.
		b.wait(t, before+" logs out", fmt.Sprintf(`((out) => out ? (out.click(), true) : (document.querySelector(".tabs nav button").click(), false))([...document.querySelectorAll(".more button")].find((e) => e.innerText.includes(%q)))`, "Log out "+before))
		b.wait(t, "one has to log in", `document.querySelector(".gate form")`)
		fill(map[string]string{"user": name, "password": "correct horse"})
		b.wait(t, name+" is in", `document.querySelector("main h1")`)
		b.complaints()
	}
	places := func() []string {
		t.Helper()
		b.click(t, ".tabs button", "More")
		defer b.click(t, ".tabs button", "More")
		return eval[[]string](t, b, `return [...document.querySelectorAll(".tabs a")].map((a) => a.getAttribute("href"))`)
	}
	changes := regexp.MustCompile(`Acknowledge|New silence|End now|Replay|Delete|Read files again|Try it$|Give up|Make a token|Revoke`)
	b.show(t, "#/")
	for _, who := range []struct {
		before, name string
		sees         int
	}{{"ada", "vic", 8}, {"vic", "tom", 3}} {
		as(who.before, who.name)
		offered := places()
		if len(offered) != who.sees {
			t.Errorf("%s is offered %v, want %d views", who.name, offered, who.sees)
		}
		for _, hash := range offered {
			b.show(t, hash)
			b.sound(t, who.name+" "+hash)
			b.shot(t, who.name+"-"+strings.Trim(hash, "#/"))
			for _, text := range eval[[]string](t, b, `return [...document.querySelectorAll("main button")].map((e) => e.innerText)`) {
				if changes.MatchString(text) {
					t.Errorf("%s is offered %q at %s", who.name, text, hash)
				}
			}
		}
	}
	b.show(t, "#/uplink")
	b.wait(t, "a bookmark that is not for tom says so", `document.querySelector("main [role=alert]").innerText.includes("Ask an administrator")`)
	b.complaints() // the refusal
}
