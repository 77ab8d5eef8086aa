package passwd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mosquitto_passwd 2.0.11 -b: password "pw1".
const aliceLine = "alice:$7$101$RTPBGH3oaS+otOIy$b1gYd+GNZdKmmwqX9QSmcUwO3GfsVe3Kuyb1V1UBJvXBv7Pv+TysNwYLE3/sE23pZH/kx0lplO3Uqs5iRl+vBg=="

// mosquitto_passwd 2.0.11 -H sha512 -b: password "z".
const carolLine = "carol:$6$ESXOYqR/f9yumrXg$kB0Go3QoYk0nRyvV8sgWwS8iHhvrNCgLIEEQNpZJcyI2xoxRkEDN5XuBqfoBS2hzySuGGr5ov/DlJE6LhEQEcQ=="

func mustParse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse("passwd", []byte(text))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return f
}

func TestFile_VerifiesWhatMosquittoPasswdWrote(t *testing.T) {
	f := mustParse(t, "# our devices\n\n"+aliceLine+"\r\n  carol : "+strings.TrimPrefix(carolLine, "carol:")+" \n")
	for _, tc := range []struct {
		user, password string
		want           bool
	}{
		{"alice", "pw1", true},
		{"alice", "pw2", false},
		{"alice", "", false},
		{"alice", "pw1\x00", false},
		{"carol", "z", true},
		{"carol", "Z", false},
		{"Alice", "pw1", false},
		{"nobody", "pw1", false},
		{"", "", false},
		{"alice", strings.Repeat("x", maxText+1), false},
	} {
		if got := f.Verify(tc.user, []byte(tc.password)); got != tc.want {
			t.Errorf("Verify(%q, %.20q) = %v, want %v", tc.user, tc.password, got, tc.want)
		}
	}
}

func TestParse_NamesEveryBadLineAndNeverItsText(t *testing.T) {
	text := strings.Join([]string{
		aliceLine,
		"hunter2",
		"bob:hunter2",
		"bob:$7$0$RTPBGH3oaS+otOIy$aaaa",
		"bob:$7$101$***$aaaa",
		"bob:$6$RTPBGH3oaS+otOIy$aaaa",
		"bob:$9$hunter2",
		":$6$a$b",
		aliceLine,
	}, "\n")
	f, err := Parse("passwd", []byte(text))
	want := `passwd:2: want user:hash, found no colon
passwd:3: user "bob": the password is not hashed; set it with sluice passwd or mosquitto_passwd
passwd:4: user "bob": want 1 to 10000000 iterations
passwd:5: user "bob": the salt is no base64 of 1 to 256 bytes
passwd:6: user "bob": the hash is no base64 of 64 bytes
passwd:7: user "bob": want $7$iterations$salt$hash or $6$salt$hash
passwd:8: the user name is empty
passwd:9: user "alice" stands on line 1 already`
	if err == nil || err.Error() != want {
		t.Fatalf("Parse errors:\n%v\nwant:\n%s", err, want)
	}
	var le *LineError
	if !errors.As(err, &le) {
		t.Errorf("errors.As(%T, *LineError) = false", err)
	}
	if f.Len() != 1 || !f.Verify("alice", []byte("pw1")) {
		t.Errorf("good lines beside bad ones: %d users, want alice alone", f.Len())
	}
}

func TestFile_SetAndDeleteKeepCommentsAndOrder(t *testing.T) {
	f := mustParse(t, "# line 1\n"+aliceLine+"\n# between\n"+carolLine+"\n")
	for _, u := range []string{"alice", "dave"} {
		if err := f.Set(u, []byte("new "+u)); err != nil {
			t.Fatal(err)
		}
	}
	if !f.Delete("carol") || f.Delete("carol") {
		t.Error("Delete(carol) twice: want true, then false")
	}
	g := mustParse(t, string(f.Bytes()))
	var shape []string
	for l := range strings.Lines(string(g.Bytes())) {
		user, _, _ := strings.Cut(strings.TrimSpace(l), ":")
		shape = append(shape, user)
	}
	if got := strings.Join(shape, "|"); got != "# line 1|alice|# between|dave" {
		t.Errorf("lines = %s", got)
	}
	if !g.Verify("alice", []byte("new alice")) || !g.Verify("dave", []byte("new dave")) || g.Verify("alice", []byte("pw1")) {
		t.Error("after Set and a round trip: wrong passwords stand")
	}
}

func TestSet_RefusesNamesTheFormatCannotHold(t *testing.T) {
	for _, user := range []string{"", "a:b", "a\nb:$6$x", "#a", " a", "a ", "a\x00", "\xff", strings.Repeat("a", maxText+1)} {
		if err := New().Set(user, []byte("pw")); err == nil {
			t.Errorf("Set(%.20q) = nil, want an error", user)
		}
	}
	for _, pw := range []string{"", "secret\x00", strings.Repeat("a", maxText+1)} {
		if err := New().Set("a", []byte(pw)); err == nil {
			t.Errorf("Set with a password of %d bytes = nil, want an error", len(pw))
		}
	}
}

// An unknown user, a cheap hash and a dear one must cost the same, or the answer's delay tells who has an account.
func TestVerify_SpendsTheDearestHashForEverybody(t *testing.T) {
	f := mustParse(t, aliceLine+"\n"+carolLine)
	for _, cost := range []int{101, iterations} {
		for _, user := range []string{"alice", "carol", "dear", "nobody", ""} {
			h, rest, known := f.work(user)
			if h.iterations+rest != cost {
				t.Errorf("Verify(%s) spends %d iterations, want %d", user, h.iterations+rest, cost)
			}
			if known != f.Has(user) {
				t.Errorf("work(%s) known = %v", user, known)
			}
		}
		if err := f.Set("dear", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSave_ReplacesInOneStepAndKeepsOthersOut(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "passwd")
	f := New()
	if err := f.Set("a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	mode := func() os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if got := mode(); got != 0o600 {
		t.Errorf("new file has mode %04o, want 0600", got)
	}
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(link); err != nil {
		t.Fatal(err)
	}
	if got := mode(); got != 0o640 {
		t.Errorf("replaced file has mode %04o, want 0640: the group reads, others do not", got)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced instead of its target: %v %v", info, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("folder holds %v, want passwd and link: no temporary file left", entries)
	}
	if err := f.Save(filepath.Join(dir, "absent", "passwd")); err == nil {
		t.Error("Save into an absent folder = nil, want an error")
	}
}

// need skips without an external program, except in CI, where it must be there.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", program)
		}
		t.Skipf("%s is not installed (Debian: mosquitto, mosquitto-clients)", program)
	}
}

func TestMosquittoPasswd_FilesAreOurs(t *testing.T) {
	need(t, "mosquitto_passwd")
	path := filepath.Join(t.TempDir(), "passwd")
	for i, args := range [][]string{{"-c", "-b"}, {"-b"}} {
		args = append(args, path, fmt.Sprintf("user%d", i), fmt.Sprintf("gEheim %d", i))
		if out, err := exec.Command("mosquitto_passwd", args...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if f.Len() != 2 || !f.Verify("user0", []byte("gEheim 0")) || !f.Verify("user1", []byte("gEheim 1")) || f.Verify("user1", []byte("gEheim 0")) {
		t.Errorf("users made by mosquitto_passwd do not log in:\n%s", f.Bytes())
	}
	// mosquitto_passwd edits what we wrote.
	if err := f.Set("ours", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mosquitto_passwd", "-D", path, "user0").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd -D: %v: %s", err, out)
	}
	f, err = Load(path)
	if err != nil || f.Has("user0") || !f.Verify("ours", []byte("x")) {
		t.Errorf("after mosquitto_passwd -D: %v\n%s", err, f.Bytes())
	}
}

func TestMosquitto_AcceptsOurFile(t *testing.T) {
	need(t, "mosquitto")
	need(t, "mosquitto_pub")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil { // mosquitto gives up root's rights
		t.Fatal(err)
	}
	f := New()
	for _, u := range []string{"alice", "böb"} {
		if err := f.Set(u, []byte("pw of "+u)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "passwd")
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	conf := filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous false\npassword_file %s\n", port, path)
	if os.Geteuid() == 0 {
		text += "user root\n"
	}
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "mosquitto", "-c", conf)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	waitFor(t, port)
	for _, tc := range []struct {
		user, password string
		want           bool
	}{
		{"alice", "pw of alice", true}, {"böb", "pw of böb", true}, {"alice", "pw of böb", false}, {"carol", "x", false},
	} {
		out, err := exec.Command("mosquitto_pub", "-h", "127.0.0.1", "-p", port, "-u", tc.user, "-P", tc.password, "-t", "t", "-m", "m", "-q", "1").CombinedOutput()
		if (err == nil) != tc.want {
			t.Errorf("mosquitto_pub as %s with %q: err %v, want success %v: %s", tc.user, tc.password, err, tc.want, out)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// waitFor polls until something listens on port.
func waitFor(t *testing.T, port string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatalf("nothing listens on %s after 10 s", port)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(aliceLine + "\n# c\n" + carolLine))
	f.Add([]byte("a:$7$1$YQ==$YQ=="))
	f.Add([]byte("\r"))
	f.Add([]byte(":$6$$\n\r\n\x00"))
	f.Add([]byte("a:$7$99999999999999999999$YQ==$"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("passwd", data)
		if err != nil {
			return
		}
		again, err := Parse("passwd", p.Bytes())
		if err != nil {
			t.Fatalf("Parse of what Bytes rendered: %v", err)
		}
		if !bytes.Equal(again.Bytes(), p.Bytes()) || again.Len() != p.Len() {
			t.Errorf("round trip changed the file: %q to %q", p.Bytes(), again.Bytes())
		}
		if err := p.Set("new", []byte("x")); err != nil || !p.Verify("new", []byte("x")) && p.cost < 100_000 {
			t.Errorf("Set on a parsed file: %v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	f := New()
	if err := f.Set("a", []byte("secret")); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !f.Verify("a", []byte("secret")) {
			b.Fatal("refused")
		}
	}
}
