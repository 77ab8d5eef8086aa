package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sluice/gateway/e2e/hook"
)

// timerRules has a timer of every kind: of for, of keep_firing_for, and, at the webhook, of the floor under a flapping alert.
const timerRules = `groups:
  - name: g
    rules:
      - { alert: Lasting, match: { device: lasting }, expr: temperature > 50, for: 2s }
      - { alert: Brief, match: { device: brief }, expr: temperature > 50, for: 4s }
      - { alert: Kept, match: { device: kept }, expr: temperature > 50, keep_firing_for: 3s }
      - { alert: Flapping, match: { device: flapping }, expr: temperature > 50 }
`

// Timers that run and flaps that were counted are as durable as the readings: a gateway that is killed again and again while they
// run tells of each alert what one that never stopped tells.
func TestGateway_PendingTimersAndFlapCountersSurviveKills(t *testing.T) {
	needProgram(t, "mosquitto_pub")
	const want = "flapping: firing resolved firing resolved firing resolved firing(5) resolved(5); kept: firing resolved; lasting: firing resolved"
	for _, kills := range []bool{false, true} {
		t.Run(fmt.Sprintf("kills=%v", kills), func(t *testing.T) {
			t.Parallel()
			if got := playTimers(t, kills); got != want {
				t.Errorf("told  %s\nwant  %s", got, want)
			}
		})
	}
}

// playTimers runs the story and returns what the receiver was told of each device, with how often it had fired where it flapped.
func playTimers(t *testing.T, kills bool) string {
	t.Helper()
	receiver, err := hook.NewReceiver(hook.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	g := newGateway(t, options{Rules: timerRules, Extra: fmt.Sprintf(
		"webhooks:\n  - { name: ops, url: %q, secret_file: ops.whsec, allow: [\"127.0.0.0/8\"], group_by: [device], flap_floor: 4s }\n", receiver.URL())})
	g.write("ops.whsec", hook.Secret+"\n", 0o600)
	g.start()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	count, seq, started := 0, 0, time.Now()
	kill := func() {
		if kills {
			time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond) // the kill's moment
			g.proc.Kill()
			g.start()
			started = time.Now()
			count++
		}
	}
	publish := func(device string, temperature float64) {
		t.Helper()
		seq++
		r := reading{Seq: uint64(seq), TS: time.Now().UnixMicro(), Temperature: temperature}
		host, port := splitAddress(g.mqtt)
		eventually(t, 10*time.Second, "publish", func() error {
			b, err := exec.Command("mosquitto_pub", "-h", host, "-p", port, "-q", "1", "-t", "lab/"+device+"/seq", "-m", string(r.payload())).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, b)
			}
			return nil
		})
	}
	const hot, cool = 70, 20
	publish("brief", hot)
	publish("lasting", hot)
	kill()
	publish("brief", cool)
	publish("kept", hot)
	publish("kept", cool)
	kill()
	publish("kept", hot) // a relapse while it is kept
	publish("kept", cool)
	for i := range 3 {
		publish("flapping", hot)
		publish("flapping", cool)
		if i == 1 {
			kill()
		}
	}
	publish("flapping", hot)
	publish("flapping", cool) // all within the floor: nobody is told
	kill()
	publish("flapping", hot)
	told := func(device string) (list []string) {
		ids := map[string]bool{}
		for _, r := range receiver.Taken() {
			if ids[r.ID] {
				continue
			}
			ids[r.ID] = true
			for _, a := range r.Alerts.Alerts {
				if a.Labels["device"] != device {
					continue
				}
				status := a.Status
				var n int
				if _, err := fmt.Sscanf(a.Annotations["flapping"], "fired %d times", &n); err == nil {
					status += fmt.Sprintf("(%d)", n)
				}
				list = append(list, status)
			}
		}
		return list
	}
	waitTold := func(device string, n int) {
		t.Helper()
		eventually(t, 20*time.Second, device+" is told", func() error {
			if got := told(device); len(got) < n {
				if time.Since(started) > 400*time.Millisecond { // long enough for it to get somewhere
					kill()
				}
				return errors.New(strings.Join(got, " "))
			}
			return nil
		})
	}
	waitTold("lasting", 1)
	waitTold("kept", 2)
	waitTold("flapping", 7)
	publish("lasting", cool)
	publish("flapping", cool)
	waitTold("lasting", 2)
	waitTold("flapping", 8)
	g.stop()
	if kills {
		t.Logf("%d kills", count)
	}
	var out []string
	for _, device := range []string{"brief", "flapping", "kept", "lasting"} {
		if list := told(device); len(list) > 0 {
			out = append(out, device+": "+strings.Join(list, " "))
		}
	}
	for _, bad := range receiver.Bad() {
		t.Errorf("notification refused: %s", bad)
	}
	return strings.Join(out, "; ")
}
