package e2e

import (
	"fmt"
	"math"
	"os/exec"
	"testing"
	"time"

	"sluice/gateway/e2e/hook"
	"sluice/gateway/e2e/oracle"
	"sluice/gateway/e2e/store"
)

// mosquittoPub publishes one QoS 1 message with Debian's client and fails unless it was acknowledged.
func (g *gateway) mosquittoPub(topic string, payload []byte, extra ...string) {
	g.t.Helper()
	host, port := splitAddress(g.mqtt)
	args := append([]string{"-h", host, "-p", port, "-q", "1", "-t", topic, "-m", string(payload)}, extra...)
	if b, err := exec.Command("mosquitto_pub", args...).CombinedOutput(); err != nil {
		g.t.Fatalf("mosquitto_pub: %v\n%s", err, b)
	}
}

func splitAddress(a string) (host, port string) {
	for i := len(a) - 1; i >= 0; i-- {
		if a[i] == ':' {
			return a[:i], a[i+1:]
		}
	}
	return a, ""
}

func TestGateway_PublishedReadingsArriveAsAggregatesInVictoriaMetrics(t *testing.T) {
	needProgram(t, "mosquitto_pub")
	needProgram(t, store.VictoriaBinary)
	vm, err := store.StartVictoria(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Kill()
	g := newGateway(t, options{Store: vm.URL(), Window: "10s", Grace: "2s"})
	t.Logf("accepts connections %v after its start", g.start())

	// Readings of a window that is long over: they are late but inside lateness, so the window is sent at once; all of
	// them are in it before the first tick, or it is sent again (VictoriaMetrics then keeps both samples).
	start := time.Now().Add(-time.Minute).Truncate(10 * time.Second)
	var readings []oracle.Reading
	for i, temperature := range []float64{21.5, -3.25, 40, 0, 21.5} {
		r := reading{Seq: uint64(i + 1), TS: start.Add(time.Duration(i*1500) * time.Millisecond).UnixMicro(),
			Temperature: temperature, Humidity: 50 + float64(i), Vibration: 0.125 * float64(i)}
		g.mosquittoPub("lab/mosquitto/seq", r.payload(), "-V", []string{"mqttv311", "mqttv5"}[i%2])
		readings = append(readings, oracleReadings("mosquitto", r)...)
	}
	want := oracle.Windows(readings, 10*time.Second)
	if len(want) != 3 {
		t.Fatalf("the oracle has %d windows, want 3 (one for each metric)", len(want))
	}
	eventually(t, 20*time.Second, "VictoriaMetrics holds what the oracle computed", func() error {
		series, err := vm.Export(`{device="mosquitto"}`)
		if err != nil {
			return err
		}
		return victoriaHolds(series, want, map[string]string{"device": "mosquitto", "site": "lab", "gateway": "e2e", "window": "10s"})
	})
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.wantMetric(15, "sluice_readings_total", `outcome="accepted"`)
	g.stop()
}

// victoriaHolds wants, for each stat of each window, its value as the newest of the samples at the window's start, and no
// other series or time.
func victoriaHolds(series []store.VictoriaSeries, want map[oracle.Key]*oracle.Aggregate, tags map[string]string) error {
	type point struct {
		name string
		ms   int64
	}
	values := map[point][]float64{}
	for _, s := range series {
		for name, v := range tags {
			if s.Metric[name] != v {
				return fmt.Errorf("series %v: label %s is %q, want %q", s.Metric, name, s.Metric[name], v)
			}
		}
		for i, ms := range s.Timestamps {
			p := point{s.Metric["__name__"], ms}
			values[p] = append(values[p], s.Values[i])
		}
	}
	expected := 0
	for k, a := range want {
		counts := values[point{"telemetry_" + k.Metric + "_count", k.Start / 1e6}]
		for _, stat := range append([]string{"count"}, stats...) {
			expected++
			p := point{"telemetry_" + k.Metric + "_" + stat, k.Start / 1e6}
			w, _ := a.Stat(stat)
			ok := false
			for _, v := range values[p] {
				ok = ok || math.Abs(v-w) <= 1e-9*math.Abs(w)
				if stat == "count" && v > w {
					return fmt.Errorf("%s counts %v at %d, want at most %v", p.name, v, p.ms, w)
				}
			}
			if !ok {
				return fmt.Errorf("%s at %d: got %v, want %v among them (counts %v)", p.name, p.ms, values[p], w, counts)
			}
		}
	}
	if len(values) != expected {
		return fmt.Errorf("%d stats stored, want %d: %v", len(values), expected, values)
	}
	return nil
}

// oracleReadings is what the oracle makes of one payload.
func oracleReadings(device string, r reading) []oracle.Reading {
	at := time.UnixMicro(r.TS)
	return []oracle.Reading{
		{Device: device, Metric: "temperature", Time: at, Value: r.Temperature},
		{Device: device, Metric: "humidity", Time: at, Value: r.Humidity},
		{Device: device, Metric: "vibration", Time: at, Value: r.Vibration},
	}
}

const hotRule = `groups:
  - name: e2e
    rules:
      - alert: Hot
        match: { site: lab }
        expr: temperature > 50
        labels: { severity: critical }
        annotations: { summary: "{{ $labels.device }} at {{ $value }} degC" }
`

func TestGateway_BreachReachesTheWebhookSignedAndItsResolveFollows(t *testing.T) {
	needProgram(t, "mosquitto_pub")
	receiver, err := hook.NewReceiver(hook.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	g := newGateway(t, options{Hook: receiver.URL(), Rules: hotRule})
	g.start()

	now := time.Now()
	publish := func(seq uint64, temperature float64) {
		g.mosquittoPub("lab/boiler/seq", reading{Seq: seq, TS: now.UnixMicro() + int64(seq), Temperature: temperature}.payload())
	}
	publish(1, 20)
	publish(2, 61.5)
	first := waitAlert(t, receiver, "firing")
	if first.Labels["device"] != "boiler" || first.Labels["severity"] != "critical" || first.Labels["alertname"] != "Hot" || first.Labels["site"] != "lab" {
		t.Errorf("labels of the firing alert: %v", first.Labels)
	}
	if got, want := first.Annotations["summary"], "boiler at 61.5 degC"; got != want {
		t.Errorf("summary = %q, want %q", got, want)
	}
	publish(3, 62) // still hot: no second notification
	publish(4, 20)
	last := waitAlert(t, receiver, "resolved")
	if last.Fingerprint != first.Fingerprint || !last.StartsAt.Equal(first.StartsAt) {
		t.Errorf("resolve has fingerprint %s started %v, want that of the firing: %s %v", last.Fingerprint, last.StartsAt, first.Fingerprint, first.StartsAt)
	}
	transitions, errs := hook.Transitions(receiver.Taken())
	errs = append(errs, hook.CheckAlternation(transitions)...)
	for _, err := range errs {
		t.Error(err)
	}
	if n := len(transitions[first.Fingerprint]); n != 2 || len(transitions) != 1 {
		t.Errorf("%d transitions of %d alerts, want 2 of 1: %v", n, len(transitions), transitions)
	}
	for _, bad := range receiver.Bad() {
		t.Errorf("request refused: %s", bad)
	}
	g.stop()
}

func waitAlert(t *testing.T, r *hook.Receiver, status string) (found hook.Alert) {
	t.Helper()
	eventually(t, 15*time.Second, "a notification with an alert that is "+status, func() error {
		for _, req := range r.Taken() {
			for _, a := range req.Alerts.Alerts {
				if a.Status == status {
					found = a
					return nil
				}
			}
		}
		return fmt.Errorf("%d notifications taken, %d attempts, bad: %v", len(r.Taken()), r.Attempts(), r.Bad())
	})
	return found
}
