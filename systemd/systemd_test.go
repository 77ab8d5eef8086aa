// Package systemd holds no code: its tests hold the unit files to what systemd says of them.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// analyze runs systemd-analyze; without the program the test is skipped, except in CI.
func analyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("systemd-analyze is not installed")
		}
		t.Skip("systemd-analyze is not installed (Debian: systemd)")
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	return string(out), err
}

// The threshold is in tenths: 15 is an overall exposure of 1.5.
func TestService_ExposureIsAtMost15Tenths(t *testing.T) {
	out, err := analyze(t, "security", "--offline=true", "--threshold=15", "--no-pager", "sluice.service")
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	if !strings.Contains(out, "Overall exposure level") {
		t.Errorf("systemd-analyze gave no level:\n%s", out)
	}
}

func TestService_VerifiesClean(t *testing.T) {
	unit, err := os.ReadFile("sluice.service")
	if err != nil {
		t.Fatal(err)
	}
	// verify wants the program to exist: this test's own binary stands in for it.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const program = "ExecStart=/usr/bin/sluice "
	if !strings.Contains(string(unit), program) {
		t.Fatalf("sluice.service has no %q", program)
	}
	path := filepath.Join(t.TempDir(), "sluice.service")
	if err := os.WriteFile(path, []byte(strings.Replace(string(unit), program, "ExecStart="+self+" ", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := analyze(t, "verify", "--man=no", "--recursive-errors=one", path)
	if err != nil || strings.Contains(out, "sluice.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// What systemd does with the exit codes and the reload is part of the contract with the program.
func TestService_KeepsItsContractWithTheProgram(t *testing.T) {
	unit, err := os.ReadFile("sluice.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=on-failure", "RestartPreventExitStatus=2 78",
		"StateDirectory=sluice", "StateDirectoryMode=0700", "Wants=network-online.target", "User=sluice",
	} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("sluice.service lacks %q", line)
		}
	}
	if strings.Contains(string(unit), "Requires=network") {
		t.Error("the gateway must start without a network: Wants, never Requires")
	}
}
