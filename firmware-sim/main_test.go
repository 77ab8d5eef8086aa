package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/firmware-sim/sim"
)

func runMain(t *testing.T, ctx context.Context, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestMain_HelpNamesEveryFlagFaultAndProfile(t *testing.T) {
	code, out, errs := runMain(t, t.Context(), "--help")
	if code != exitOK || errs != "" {
		t.Fatalf("exit %d, stderr %q", code, errs)
	}
	kinds, _ := sim.FaultKinds()
	for _, want := range append(append(kinds, sim.ProfileNames()...), sim.MalformedKinds()...) {
		if !strings.Contains(out, want) {
			t.Errorf("--help does not name %s", want)
		}
	}
	for _, name := range strings.Fields(`server username password-file ca-file cert-file key-file client-id clean-session keep-alive
		reconnect-max devices connections profiles site topic qos rate total-rate inflight seed day duration count drain
		give-up-after fault scenario truth quiet`) {
		if !strings.Contains(out, "--"+name+" ") {
			t.Errorf("--help does not explain --%s", name)
		}
	}
	for i, line := range strings.Split(out, "\n") {
		if len(line) > 120 {
			t.Errorf("--help line %d has %d characters", i+1, len(line))
		}
	}
}

func TestMain_UsageErrorsExit2AndSayAllOfThem(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("faults:\n  - kind: spyke\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--nonsense", []string{"-nonsense"}},
		{"extra", []string{`unexpected argument "extra"`}},
		{"--qos 3 --devices 0 --server ftp://x", []string{"qos: want 0, 1 or 2", "server: want a URL"}},
		{"--qos 700", []string{"qos: want 0, 1 or 2"}},
		{"--devices -4", []string{"devices: want 1"}},
		{"--rate 5 --total-rate 10", []string{"not both"}},
		{"--fault spyke --fault spike:start=4", []string{"kind: want one of", "start: want a duration"}},
		{"--scenario " + bad, []string{bad + ":2:11: kind: want one of"}},
		{"--scenario " + dir + "/none.yaml", []string{"none.yaml: no such file"}},
		{"--password-file " + dir + "/none", []string{"--password-file", "needs --username"}},
		{"--ca-file " + bad, []string{"holds no PEM certificate"}},
		{"--cert-file x --key-file y", []string{"--cert-file and --key-file"}},
		{"--truth " + dir + "/no/such/dir", []string{"--truth"}},
	} {
		code, out, errs := runMain(t, t.Context(), strings.Fields(c.args)...)
		if code != exitUsage || out != "" {
			t.Errorf("%s: exit %d, stdout %q", c.args, code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: stderr lacks %q:\n%s", c.args, want, errs)
			}
		}
	}
}

func TestMain_FlagsWinOverScenario(t *testing.T) {
	o, err := parseFlags([]string{"--scenario", "../configs/scenarios/storm.yaml", "--devices", "7", "--total-rate", "70", "--count", "9"})
	if err != nil {
		t.Fatal(err)
	}
	c := o.cfg
	if c.Devices != 7 || c.TotalRate != 70 || c.Rate != 0 || c.Count != 9 || c.Duration != 0 || c.Site != "plant-1" || len(c.Faults) != 1 {
		t.Errorf("got %+v", c)
	}
}

func TestMain_PasswordIsReadWithoutItsLineEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cr et\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parseFlags([]string{"--username", "u", "--password-file", file})
	if err != nil || o.cfg.Password != "s3cr et" {
		t.Errorf("password %q, %v", o.cfg.Password, err)
	}
}

func TestMain_StoppedWithoutAServerSaysSoAndSucceeds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Ctrl-C before the first connection: nothing was published, nothing is missing
	code, out, errs := runMain(t, ctx, "--server", "tcp://127.0.0.1:1", "--truth", "-")
	if code != exitOK || out != "" || !strings.Contains(errs, "stopped after") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestMain_UnreachableServerExits1(t *testing.T) {
	code, _, errs := runMain(t, t.Context(), "--server", "tcp://127.0.0.1:1", "--count", "1", "--truth", "none", "--drain", "1ms", "--reconnect-max", "10ms")
	if code != exitFailed || !strings.Contains(errs, "never published") || !strings.Contains(errs, "connect failed") {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
	code, _, errs = runMain(t, t.Context(), "--quiet", "--server", "tcp://127.0.0.1:1", "--count", "1", "--truth", "none", "--drain", "1ms", "--reconnect-max", "10ms")
	if code != exitFailed || strings.Count(errs, "\n") != 1 {
		t.Errorf("--quiet: exit %d, stderr %q: want one line", code, errs)
	}
}

func TestProgress_LineTellsWhatMatters(t *testing.T) {
	last := sim.Stats{Elapsed: 10e9, Published: 1000}
	now := sim.Stats{Elapsed: 20e9, Published: 3000, Acked: 2990, InFlight: 10, Connected: 4, Connections: 5, LostConnections: 2,
		Resent: 7, Planned: 6000, Readings: 3000, Behind: 3e9}
	want := "4/5 connected  sent 3000  acked 2990  in flight 10  200/s  reconnects 2  resent 7  behind 3s  ETA 20s"
	if got := line(now, last); got != want {
		t.Errorf("line() = %q\nwant     %q", got, want)
	}
}
