package notify

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway/telemetry"
	"sluice/rules"
)

const (
	sec  = int64(time.Second)
	mins = 60 * sec
	hour = 60 * mins
	t0   = 1_800_000_000 * sec
)

// world drives a policy as the fold does, and writes down what goes out. With cut set, the policy is replaced by its own snapshot
// before every call.
type world struct {
	testing.TB
	p         *Policy
	receivers []Receiver
	set       *rules.Set
	now       int64 // since t0
	wall      int64 // wall clock minus Time.Now
	cut       bool
	lines     []string
}

func newWorld(t testing.TB, ruleText string, receivers ...Receiver) *world {
	w := &world{TB: t, p: New(), receivers: receivers}
	w.configure(ruleText, receivers...)
	return w
}

func (w *world) configure(ruleText string, receivers ...Receiver) {
	w.Helper()
	set, err := rules.Parse([]rules.File{{Name: "r.yaml", Data: []byte(ruleText)}})
	if err != nil {
		w.Fatal(err)
	}
	w.crash()
	w.receivers, w.set = receivers, set
	w.p.Configure(w.time(), receivers, set, w.emit)
}

func (w *world) time() Time { return Time{Now: t0 + w.now, Wall: t0 + w.now + w.wall} }

func (w *world) crash() {
	w.Helper()
	if !w.cut {
		return
	}
	b := w.p.Snapshot(nil)
	p, err := Restore(b, w.receivers, w.set)
	if err != nil {
		w.Fatalf("at %v: %v", time.Duration(w.now), err)
	}
	if again := p.Snapshot(nil); !bytes.Equal(again, b) {
		w.Fatalf("at %v: a restored policy has another snapshot", time.Duration(w.now))
	}
	if p.Due() != w.p.Due() {
		w.Fatalf("at %v: a restored policy is due at %d, want %d", time.Duration(w.now), p.Due(), w.p.Due())
	}
	w.p = p
}

func (w *world) emit(n *Notification) {
	var alerts []string
	for _, a := range n.Alerts {
		text := a.Labels.Get("alertname") + "/" + a.Labels.Get("device")
		if !a.Firing {
			text += "=ok"
		}
		if a.Flaps > 0 {
			text += fmt.Sprintf("~%d", a.Flaps)
		}
		alerts = append(alerts, text)
	}
	w.lines = append(w.lines, fmt.Sprintf("%v %s %v: %s", time.Duration(w.now), n.Receiver, n.Reason, strings.Join(alerts, " ")))
}

func event(alert, device string, firing bool, at int64) rules.Event {
	labels := telemetry.NewLabels(telemetry.Label{Name: "alertname", Value: alert}, telemetry.Label{Name: "device", Value: device})
	e := rules.Event{Alert: alert, State: rules.Resolved, Labels: labels, Fingerprint: rules.Fingerprint(labels), StartsAt: at, EndsAt: at}
	if firing {
		e.State, e.EndsAt = rules.Firing, 0
	}
	return e
}

// take plays transitions such as "+Hot/a -Hot/b" at a time; a name in parentheses is inhibited.
func (w *world) take(at int64, transitions string) {
	w.Helper()
	w.until(at)
	var events []rules.Event
	for one := range strings.FieldsSeq(transitions) {
		name, inhibited := strings.CutPrefix(one[1:], "!")
		alert, device, _ := strings.Cut(name, "/")
		e := event(alert, device, one[0] == '+', w.time().Wall)
		e.Inhibited = inhibited
		if r := w.set.Rule(alert); r != nil {
			e.Webhooks = r.Webhooks
		}
		events = append(events, e)
	}
	w.crash()
	w.p.Take(w.time(), events, w.emit)
}

// until lets time pass with ticks where the policy is due.
func (w *world) until(at int64) {
	w.Helper()
	for n := 0; w.p.Due() <= t0+at; n++ {
		w.now = max(w.now, w.p.Due()-t0)
		w.crash()
		w.p.Tick(w.time(), w.emit)
		if n > 10_000 {
			w.Fatalf("still due at %v after %d ticks at %v", time.Duration(w.p.Due()-t0), n, time.Duration(w.now))
		}
	}
	w.now = max(w.now, at)
}

func (w *world) command(at int64, c Command) {
	w.Helper()
	w.until(at)
	if c.By == "" {
		c.By = "ann"
	}
	body, err := c.Encode()
	if err != nil {
		w.Fatal(err)
	}
	parsed, err := ParseCommand(body)
	if err != nil {
		w.Fatal(err)
	}
	w.crash()
	w.p.Command(w.time(), parsed, w.emit)
}

func (w *world) silence(at int64, id string, until int64, match ...string) {
	w.Helper()
	c := Command{Op: AddSilence, ID: id, Match: map[string]string{}, EndsAt: t0 + until + w.wall}
	for _, m := range match {
		name, v, _ := strings.Cut(m, "=")
		c.Match[name] = v
	}
	w.command(at, c)
}

func fingerprint(alert, device string) string {
	e := event(alert, device, true, 0)
	return FormatFingerprint(e.Fingerprint)
}

func (w *world) want(lines ...string) {
	w.Helper()
	if got := strings.Join(w.lines, "\n"); got != strings.Join(lines, "\n") {
		w.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(lines, "\n"))
	}
	w.lines = nil
}

// both runs a scenario twice: in one go, and with a crash before every step.
func both(t *testing.T, play func(t *testing.T, cut bool)) {
	t.Run("without a crash", func(t *testing.T) { play(t, false) })
	t.Run("restored at every step", func(t *testing.T) { play(t, true) })
}

const twoRules = `groups:
  - name: g
    rules:
      - { alert: Hot, expr: t > 1 }
      - { alert: Cold, expr: t < 1 }
`

func byName(r Receiver) Receiver {
	if r.Name == "" {
		r.Name = "ops"
	}
	if r.GroupBy == nil {
		r.GroupBy = []string{"alertname"}
	}
	return r
}

func scenario(t *testing.T, cut bool, ruleText string, receivers ...Receiver) *world {
	for i := range receivers {
		receivers[i] = byName(receivers[i])
	}
	w := newWorld(t, ruleText, receivers...)
	w.cut = cut
	return w
}

func TestPolicy_ASingleAlertLeavesAtOnceAndWhatStartsTogetherSharesANotification(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{})
		w.take(1*sec, "+Hot/a")
		w.want("1s ops changed: Hot/a")
		w.take(2*sec, "+Hot/b +Cold/a +Hot/c")
		w.want("2s ops changed: Hot/b Hot/c", "2s ops changed: Cold/a")
		w.take(3*sec, "-Hot/a")
		w.take(4*sec, "-Hot/b -Hot/c -Cold/a")
		w.want("3s ops changed: Hot/a=ok", "4s ops changed: Hot/b=ok Hot/c=ok", "4s ops changed: Cold/a=ok")
		if n := len(w.p.entries) + len(w.p.receivers[0].groups) + len(w.p.timers); n != 0 {
			t.Errorf("%d things are remembered after everything ended", n)
		}
	})
}

func TestPolicy_WithinOneRecordEachTransitionIsTold(t *testing.T) {
	w := scenario(t, false, twoRules, Receiver{})
	w.take(sec, "+Hot/a -Hot/a +Hot/a +Hot/b -Hot/b")
	w.want("1s ops changed: Hot/a", "1s ops changed: Hot/a=ok", "1s ops changed: Hot/a Hot/b", "1s ops changed: Hot/b=ok")
}

func TestPolicy_GroupWaitGathersAndGroupIntervalSpaces(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{GroupWait: 30 * time.Second, GroupInterval: 5 * time.Minute})
		w.take(1*sec, "+Hot/a")
		w.take(20*sec, "+Hot/b")
		w.take(25*sec, "+Hot/c")
		w.take(26*sec, "-Hot/c") // over before it was told
		w.until(40 * sec)
		w.want("31s ops changed: Hot/a Hot/b")
		w.take(60*sec, "+Hot/d")
		w.take(90*sec, "-Hot/a")
		w.take(100*sec, "+Hot/a") // the receiver knows it as firing
		w.take(110*sec, "-Hot/b")
		w.until(10 * mins)
		w.want("5m31s ops changed: Hot/d Hot/b=ok")
		w.take(11*mins, "-Hot/a -Hot/d")
		w.want("11m0s ops changed: Hot/a=ok Hot/d=ok")
	})
}

func TestPolicy_WhatFiresIsRepeatedUntilAcknowledged(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{RepeatInterval: 4 * time.Hour})
		w.take(0, "+Hot/a")
		w.take(1*hour, "+Hot/b")
		w.until(9 * hour)
		w.want("0s ops changed: Hot/a", "1h0m0s ops changed: Hot/b", "4h0m0s ops repeated: Hot/a", "5h0m0s ops repeated: Hot/b",
			"8h0m0s ops repeated: Hot/a", "9h0m0s ops repeated: Hot/b")
		w.command(10*hour, Command{Op: Acknowledge, Fingerprint: fingerprint("Hot", "a"), Comment: "on my way"})
		w.until(14 * hour)
		w.want("13h0m0s ops repeated: Hot/b")
		w.command(14*hour, Command{Op: Unacknowledge, Fingerprint: fingerprint("Hot", "a")})
		w.take(15*hour, "-Hot/a -Hot/b")
		w.until(100 * hour)
		w.want("14h0m0s ops repeated: Hot/a", "15h0m0s ops changed: Hot/a=ok Hot/b=ok")
	})
}

func TestPolicy_AnAcknowledgementEndsWithTheAlert(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{RepeatInterval: time.Hour})
		w.take(0, "+Hot/a")
		w.command(sec, Command{Op: Acknowledge, Fingerprint: fingerprint("Hot", "a")})
		w.take(2*hour, "-Hot/a")
		w.take(3*hour, "+Hot/a")
		w.until(4 * hour)
		w.want("0s ops changed: Hot/a", "2h0m0s ops changed: Hot/a=ok", "3h0m0s ops changed: Hot/a", "4h0m0s ops repeated: Hot/a")
		if past := w.p.View().Recent; len(past) != 1 || past[0].Ack == nil || past[0].Ack.By != "ann" {
			t.Errorf("history %+v does not tell who acknowledged", past)
		}
		w.command(4*hour, Command{Op: Acknowledge, Fingerprint: fingerprint("Hot", "z")})
		if w.p.View().Ignored != 1 {
			t.Errorf("an acknowledgement of nothing counts %d", w.p.View().Ignored)
		}
	})
}

func TestPolicy_ASilenceHoldsTheNewsBackAndNeverAnEnd(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{RepeatInterval: time.Hour})
		w.take(0, "+Hot/told")
		w.silence(1*mins, "s1", 2*hour, "alertname=Hot")
		w.take(2*mins, "+Hot/blip +Cold/other")
		w.take(3*mins, "-Hot/blip")    // nobody hears of it
		w.take(4*mins, "+Hot/lasting") // told when the silence ends
		w.take(5*mins, "-Hot/told")    // its end is told at once
		w.until(3 * hour)
		w.want("0s ops changed: Hot/told", "2m0s ops changed: Cold/other", "5m0s ops changed: Hot/told=ok", "1h2m0s ops repeated: Cold/other",
			"2h0m0s ops changed: Hot/lasting", "2h2m0s ops repeated: Cold/other", "3h0m0s ops repeated: Hot/lasting")
	})
}

func TestPolicy_SilencesBeginLaterEndEarlyAndAreReplaced(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{RepeatInterval: time.Hour})
		w.command(0, Command{Op: AddSilence, ID: "later", Match: map[string]string{"device": "fr*"}, StartsAt: t0 + 10*mins, EndsAt: t0 + 70*mins})
		w.take(5*mins, "+Hot/freezer")
		w.until(66 * mins) // the repeat at 65 m is silenced
		w.command(66*mins, Command{Op: ExpireSilence, ID: "later", By: "bob"})
		w.until(130 * mins)
		w.want("5m0s ops changed: Hot/freezer", "2h5m0s ops repeated: Hot/freezer")
		s := w.p.View().Silences
		if len(s) != 1 || s[0].State != SilenceExpired || s[0].EndedBy != "bob" || s[0].EndsAt != t0+66*mins {
			t.Errorf("silences %+v", s)
		}
		w.silence(140*mins, "again", 150*mins, "alertname=Cold")
		w.take(141*mins, "+Cold/x")
		w.silence(142*mins, "again", 170*mins, "alertname=Hot") // replaced: Cold is not silenced any more
		w.want("2h22m0s ops changed: Cold/x")
		w.take(170*mins+24*hour, "")
		if s := w.p.View().Silences; len(s) != 0 {
			t.Errorf("silences a day after their end: %+v", s)
		}
	})
}

// A silence is an operator's: it ends when the clock on the wall says so, however the clock came to say it.
func TestPolicy_SilencesFollowTheWallClockAndTimersDoNot(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{GroupWait: time.Minute})
		w.silence(0, "s", 2*hour, "device=a")
		w.take(1*sec, "+Hot/a +Hot/b")
		w.now, w.wall = 10*sec, hour // set ahead by an hour
		w.take(11*sec, "")
		w.until(2 * hour)
		w.want("1m1s ops changed: Hot/b", "1h0m0s ops changed: Hot/a")
	})
}

const escalating = `groups:
  - name: g
    rules:
      - { alert: Hot, expr: t > 1, escalate: [{ after: 15m, to: [boss] }, { after: 1h, to: [boss, plant] }] }
      - { alert: Named, expr: t > 1, webhooks: [ops, boss], escalate: [{ after: 15m, to: boss }] }
`

func TestPolicy_EscalatesUntilAcknowledged(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, escalating, Receiver{Name: "ops"}, Receiver{Name: "boss"}, Receiver{Name: "plant"})
		w.take(0, "+Hot/a")
		w.take(1*mins, "+Hot/b")
		w.command(5*mins, Command{Op: Acknowledge, Fingerprint: fingerprint("Hot", "b")})
		w.until(50 * mins)
		w.want("0s ops changed: Hot/a", "1m0s ops changed: Hot/b", "15m0s boss escalated: Hot/a")
		w.until(2 * hour)
		w.want("1h0m0s boss escalated: Hot/a", "1h0m0s plant escalated: Hot/a")
		w.take(3*hour, "-Hot/a -Hot/b")
		w.want("3h0m0s ops changed: Hot/a=ok Hot/b=ok", "3h0m0s boss changed: Hot/a=ok", "3h0m0s plant changed: Hot/a=ok")
		w.take(4*hour, "+Named/a")
		w.until(5 * hour)
		w.want("4h0m0s ops changed: Named/a", "4h0m0s boss changed: Named/a", "4h15m0s boss escalated: Named/a")
	})
}

func TestPolicy_AnEscalationThatWaitsIsTakenBackByAnAcknowledgement(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, escalating, Receiver{Name: "ops"}, Receiver{Name: "boss", GroupWait: 5 * time.Minute})
		w.take(0, "+Hot/a")
		w.command(17*mins, Command{Op: Acknowledge, Fingerprint: fingerprint("Hot", "a")})
		w.take(1*hour, "-Hot/a")
		w.want("0s ops changed: Hot/a", "1h0m0s ops changed: Hot/a=ok")
	})
}

func TestPolicy_InhibitedAlertsAreToldOnceTheyAreNot(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{})
		w.take(0, "+Hot/a +!Cold/a +!Cold/b")
		w.take(10*sec, "-!Cold/b")
		w.take(20*sec, "-Hot/a +Cold/a")
		w.take(30*sec, "-Cold/a")
		w.want("0s ops changed: Hot/a", "20s ops changed: Hot/a=ok", "20s ops changed: Cold/a", "30s ops changed: Cold/a=ok")
	})
}

func TestPolicy_AFlappingAlertIsMarkedAndHeldToTheFloor(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{FlapFloor: 5 * time.Minute}, Receiver{Name: "all"})
		for i := range int64(8) {
			w.take(20*i*sec, "+Hot/a")
			w.take((20*i+10)*sec, "-Hot/a")
		}
		w.until(30 * mins)
		var ops []string
		for _, l := range w.lines {
			if strings.Contains(l, " ops ") {
				ops = append(ops, l)
			}
		}
		if n := len(w.lines) - len(ops); n != 16 {
			t.Errorf("%d notifications without a floor, want all 16", n)
		}
		w.lines = ops
		// The fourth firing within ten minutes makes it flap; the last word it was told, "ok", is still true when the floor ends.
		w.want("0s ops changed: Hot/a", "10s ops changed: Hot/a=ok", "20s ops changed: Hot/a", "30s ops changed: Hot/a=ok", "40s ops changed: Hot/a", "50s ops changed: Hot/a=ok")
		w.take(60*mins, "+Hot/a")
		w.want("1h0m0s ops changed: Hot/a", "1h0m0s all changed: Hot/a")
	})
}

func TestPolicy_AFlappingAlertThatStaysIsToldWhenTheFloorEnds(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{FlapFloor: 5 * time.Minute})
		w.take(0, "+Hot/a")
		for i := range int64(4) {
			w.take((20*i+10)*sec, "-Hot/a")
			w.take((20*i+20)*sec, "+Hot/a")
		}
		w.until(30 * mins)
		w.want("0s ops changed: Hot/a", "10s ops changed: Hot/a=ok", "20s ops changed: Hot/a", "30s ops changed: Hot/a=ok", "40s ops changed: Hot/a",
			"50s ops changed: Hot/a=ok", "5m50s ops changed: Hot/a~5")
	})
}

func TestPolicy_AWholeGroupCarriesEverythingThatFires(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{WholeGroup: true})
		w.take(0, "+Hot/a")
		w.take(1*sec, "+Hot/b +Cold/a")
		w.take(2*sec, "-Hot/a")
		w.take(3*sec, "-Hot/b")
		w.want("0s ops changed: Hot/a", "1s ops changed: Hot/b Hot/a", "1s ops changed: Cold/a", "2s ops changed: Hot/a=ok Hot/b", "3s ops changed: Hot/b=ok")
	})
}

func TestPolicy_GroupsByAnyLabelsByAllAndByNone(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		w := scenario(t, cut, twoRules, Receiver{Name: "device", GroupBy: []string{"device", "nowhere"}}, Receiver{Name: "each", GroupBy: []string{AllLabels}},
			Receiver{Name: "one", GroupBy: []string{}})
		w.take(0, "+Hot/a +Cold/a +Hot/b")
		w.want("0s device changed: Hot/a Cold/a", "0s each changed: Hot/a", "0s one changed: Hot/a Cold/a Hot/b", "0s each changed: Cold/a",
			"0s device changed: Hot/b", "0s each changed: Hot/b")
	})
}

func TestPolicy_ManyAlertsMakeSeveralNotificationsAndNoneIsLost(t *testing.T) {
	w := scenario(t, false, twoRules, Receiver{})
	var all []string
	for i := range 1200 {
		all = append(all, fmt.Sprintf("+Hot/d%04d", i))
	}
	w.take(0, strings.Join(all, " "))
	told := 0
	for _, l := range w.lines {
		n := strings.Count(l, "Hot/")
		if n > maxAlerts {
			t.Errorf("a notification with %d alerts", n)
		}
		told += n
	}
	if told != 1200 || len(w.lines) != 3 {
		t.Errorf("%d alerts in %d notifications, want 1200 in 3", told, len(w.lines))
	}
}

func TestPolicy_ReceiversComeAndGo(t *testing.T) {
	both(t, func(t *testing.T, cut bool) {
		ops, chat := byName(Receiver{RepeatInterval: time.Hour}), byName(Receiver{Name: "chat"})
		w := scenario(t, cut, twoRules, ops)
		w.take(0, "+Hot/a")
		w.now = 10 * sec
		w.configure(twoRules, chat, ops) // the new one is told what fires
		w.want("0s ops changed: Hot/a", "10s chat changed: Hot/a")
		w.now = 20 * sec
		ops.GroupBy = []string{AllLabels} // grouped anew, told nothing twice, and the repeat keeps its time
		w.configure(twoRules, ops)
		w.until(61 * mins)
		w.want("1h0m0s ops repeated: Hot/a")
		w.configure(twoRules)
		w.take(62*mins, "-Hot/a")
		w.want()
	})
}

// Whatever happens in whatever order, a policy restored at any moment goes on as one that never stopped.
func TestPolicy_RestoredAtAnyMomentEqualsOneThatNeverStopped(t *testing.T) {
	notifications := 0
	for seed := range uint64(60) {
		play := func(cut bool) (*world, []string) {
			r := rand.New(rand.NewPCG(seed, 3))
			w := newWorld(t, escalating,
				Receiver{Name: "ops", GroupBy: []string{"alertname"}, GroupWait: time.Duration(r.Int64N(40)) * time.Second, GroupInterval: time.Duration(r.Int64N(3)) * time.Minute,
					RepeatInterval: 20 * time.Minute, FlapFloor: time.Duration(r.Int64N(2)) * 3 * time.Minute, WholeGroup: r.IntN(2) == 0},
				Receiver{Name: "boss", GroupBy: []string{AllLabels}, RepeatInterval: 30 * time.Minute}, Receiver{Name: "plant"})
			w.cut = cut
			firing := map[string]bool{}
			for range 250 {
				at := w.now + r.Int64N(90*sec)
				name := []string{"Hot", "Named"}[r.IntN(2)] + "/" + string(rune('a'+r.IntN(4)))
				alert, device, _ := strings.Cut(name, "/")
				switch k := r.IntN(20); {
				case k < 13:
					firing[name] = !firing[name]
					w.take(at, map[bool]string{true: "+", false: "-"}[firing[name]]+name)
				case k < 14:
					w.silence(at, "s"+device, at+r.Int64N(20*mins)+sec, "device="+device)
				case k < 15:
					w.command(at, Command{Op: ExpireSilence, ID: "s" + device})
				case k < 17:
					w.command(at, Command{Op: Acknowledge, Fingerprint: fingerprint(alert, device)})
				case k < 18:
					w.command(at, Command{Op: Unacknowledge, Fingerprint: fingerprint(alert, device)})
				case k < 19:
					w.until(at)
					w.wall += r.Int64N(20*mins) - 5*mins
				default:
					w.until(at)
					w.configure(escalating, w.receivers...)
				}
			}
			w.until(w.now + hour)
			return w, w.lines
		}
		whole, want := play(false)
		parts, got := play(true)
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("seed %d: got:\n%s\nwant:\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if !bytes.Equal(whole.p.Snapshot(nil), parts.p.Snapshot(nil)) {
			t.Fatalf("seed %d: states differ at the end", seed)
		}
		notifications += len(want)
		alternates(t, seed, want)
	}
	if notifications < 3000 {
		t.Errorf("the scripts exercise too little: %d notifications", notifications)
	}
}

// alternates wants each receiver to hear of each alert's beginning before its end, and of one end for each beginning.
func alternates(t *testing.T, seed uint64, lines []string) {
	t.Helper()
	known := map[string]bool{}
	for _, l := range lines {
		head, alerts, _ := strings.Cut(l, ": ")
		receiver := strings.Fields(head)[1]
		for a := range strings.FieldsSeq(alerts) {
			a, _, _ = strings.Cut(a, "~")
			name, over := strings.CutSuffix(a, "=ok")
			if key := receiver + " " + name; over && !known[key] {
				t.Fatalf("seed %d: %s is told that %s is over and does not know that it fired", seed, receiver, name)
			} else {
				known[key] = !over
			}
		}
	}
}

func TestPolicy_AnAlertThatIsHeldForFlappingDelaysNoOther(t *testing.T) {
	w := newWorld(t, "", Receiver{Name: "ops", FlapFloor: time.Minute})
	for i := range int64(4) {
		w.take(i*2e9, "+Hot/flaps")
		w.take(i*2e9+1e9, "-Hot/flaps")
	}
	w.take(9e9, "+Hot/flaps")
	w.lines = nil
	w.take(10e9, "+Hot/other")
	if want := []string{"10s ops changed: Hot/other"}; !slices.Equal(w.lines, want) {
		t.Errorf("told %q, want %q", w.lines, want)
	}
}

// A site goes dark: each of its devices is found silent in its own moment, and everybody who is to be told is told once.
func TestPolicy_DevicesThatFallSilentOneAfterTheOtherAreOneNotification(t *testing.T) {
	const silent = `
groups:
  - name: g
    rules:
      - { alert: Silent, absent: { metric: t, after: 3x }, webhooks: [ops, slow], escalate: [{ after: 1m, to: boss }] }
      - { alert: Hot, expr: t > 1, webhooks: [ops] }
`
	for _, cut := range []bool{false, true} {
		w := newWorld(t, silent, Receiver{Name: "ops"}, Receiver{Name: "slow", GroupWait: 20 * time.Second}, Receiver{Name: "boss"})
		w.cut = cut
		fall := func(at int64, device string) {
			w.until(at)
			e := event("Silent", device, true, w.time().Wall)
			e.Value, e.Webhooks = 30, []string{"ops", "slow"} // 3x its 10 seconds
			w.crash()
			w.p.Take(w.time(), []rules.Event{e}, w.emit)
		}
		for i := range 3 {
			fall(int64(i)*3e9, fmt.Sprint("d", i))
		}
		w.take(7e9, "+Hot/x -Silent/d1") // who comes back meanwhile was never away, and others do not wait
		w.until(9e9)
		fall(11e9, "d3") // another gathering
		w.until(90e9)
		want := []string{"7s ops changed: Hot/x", "10s ops changed: Silent/d0 Silent/d2", "20s slow changed: Silent/d0 Silent/d2 Silent/d3", "21s ops changed: Silent/d3",
			"1m10s boss escalated: Silent/d0 Silent/d2", "1m21s boss escalated: Silent/d3"}
		if !slices.Equal(w.lines, want) {
			t.Errorf("cut %v: told\n%s\nwant\n%s", cut, strings.Join(w.lines, "\n"), strings.Join(want, "\n"))
		}
	}
}

func FuzzRestore(f *testing.F) {
	set, err := rules.Parse([]rules.File{{Name: "r.yaml", Data: []byte(escalating)}})
	if err != nil {
		f.Fatal(err)
	}
	receivers := []Receiver{byName(Receiver{RepeatInterval: time.Hour, GroupWait: time.Minute}), byName(Receiver{Name: "boss"})}
	w := newWorld(f, escalating, receivers...)
	w.take(0, "+Hot/a +Hot/b")
	w.silence(sec, "s", hour, "device=b")
	w.command(2*sec, Command{Op: Acknowledge, Fingerprint: fingerprint("Hot", "a")})
	w.take(20*mins, "-Hot/a")
	f.Add(w.p.Snapshot(nil))
	f.Add([]byte{snapshotVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Restore(b, receivers, set)
		if err != nil {
			return
		}
		at := p.last
		for range 20 {
			at.Now = later(at.Now, 10*time.Minute)
			p.Tick(at, func(*Notification) {})
		}
		p.Take(at, []rules.Event{event("Hot", "a", true, 0), event("Hot", "a", false, 0)}, func(*Notification) {})
		p.View()
	})
}

func FuzzParseCommand(f *testing.F) {
	f.Add([]byte(`{"op":"silence","by":"ann","id":"x","match":{"a":"b*"},"starts_at":1,"ends_at":2}`))
	f.Add([]byte(`{"op":"acknowledge","by":"ann","fingerprint":"0123456789abcdef"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCommand(b); err == nil {
			p := New()
			p.Command(Time{Now: 1, Wall: 1}, c, func(*Notification) {})
			if _, err := Restore(p.Snapshot(nil), nil, &rules.Set{}); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
	})
}

func TestCommand_SaysWhatIsWrong(t *testing.T) {
	for want, c := range map[string]Command{
		"author":              {Op: Acknowledge, Fingerprint: "0123456789abcdef"},
		"fingerprint":         {Op: Acknowledge, By: "ann", Fingerprint: "1"},
		"unknown operation":   {Op: "destroy", By: "ann"},
		"a silence of every":  {Op: AddSilence, By: "ann", ID: "x", EndsAt: 1},
		"after the start":     {Op: AddSilence, By: "ann", ID: "x", Match: map[string]string{"a": "b"}},
		"at most a year":      {Op: AddSilence, By: "ann", ID: "x", Match: map[string]string{"a": "b"}, StartsAt: 1, EndsAt: 1 << 62},
		"match: a: want a pa": {Op: AddSilence, By: "ann", ID: "x", Match: map[string]string{"a": ""}, EndsAt: 1},
		"id: want letters":    {Op: ExpireSilence, By: "ann", ID: "a b"},
		"comment":             {Op: ExpireSilence, By: "ann", ID: "a", Comment: strings.Repeat("x", 2000)},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

func BenchmarkPolicy_FireAndResolve(b *testing.B) {
	for _, others := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("firing=%d", others), func(b *testing.B) {
			w := newWorld(b, twoRules, byName(Receiver{RepeatInterval: 4 * time.Hour}))
			var all []string
			for i := range others {
				all = append(all, fmt.Sprintf("+Hot/d%05d", i))
			}
			w.take(0, strings.Join(all, " "))
			fire, over := []rules.Event{event("Hot", "x", true, t0)}, []rules.Event{event("Hot", "x", false, t0)}
			at := w.time()
			b.ReportAllocs()
			for b.Loop() {
				at.Now, at.Wall = at.Now+sec, at.Wall+sec
				w.p.Take(at, fire, func(*Notification) {})
				w.p.Take(at, over, func(*Notification) {})
			}
		})
	}
}
