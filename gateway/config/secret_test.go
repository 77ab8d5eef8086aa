package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeSecret(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadSecret_TrimsOneLineBreak(t *testing.T) {
	for text, want := range map[string]string{"abc": "abc", "abc\n": "abc", "abc\r\n": "abc", "abc\n\n": "abc\n", " abc ": " abc ", "a\nb\n": "a\nb"} {
		s, err := ReadSecret(writeSecret(t, text, 0o640))
		if err != nil || s.Reveal() != want {
			t.Errorf("ReadSecret of %q = %q, %v, want %q", text, s.Reveal(), err, want)
		}
	}
}

func TestReadSecret_Refuses(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct{ path, want string }{
		"world-readable":       {writeSecret(t, "hunter2", 0o644), "can be read by every user of this machine (mode 0644): run chmod 0600"},
		"world-readable alone": {writeSecret(t, "hunter2", 0o604), "mode 0604"},
		"empty":                {writeSecret(t, "", 0o600), "the file is empty"},
		"a line break":         {writeSecret(t, "\r\n", 0o600), "the file is empty"},
		"too long":             {writeSecret(t, strings.Repeat("x", maxSecretBytes+1), 0o600), "longer than 65536 bytes"},
		"absent":               {filepath.Join(dir, "absent"), "does not exist"},
		"a folder":             {dir, "is not a plain file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadSecret(tc.path)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("ReadSecret = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSecret_NeverPrints(t *testing.T) {
	s, err := ReadSecret(writeSecret(t, "hunter2", 0o600))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	holder := struct{ Token Secret }{s}
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb, s, holder)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "token", s, "holder", holder)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "token", s, "holder", holder)
	if err := json.NewEncoder(&out).Encode(holder); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) || !strings.Contains(text, redacted) {
		t.Errorf("printed: %s", text)
	}
}
