package console

import (
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sha256Of(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

func TestUsers_EveryWrongLineIsNamed(t *testing.T) {
	hash := cheap(t, "x")
	_, err := ParseUsers("u", []byte(strings.Join([]string{
		"# a comment", "ann:admin:" + hash, "", "ann:viewer:" + hash, "bob:root:" + hash, "carl:viewer:secret", "dan:viewer", "e ve:viewer:" + hash,
		"fay:viewer:" + hash + ":site", "gus:viewer:" + hash + ":site=", "hal:viewer:" + hash + ":site=a*", "ida:viewer:" + hash + ":__name__=x",
		"jo:viewer:$2a$31$" + hash[7:], ":viewer:" + hash,
	}, "\n")))
	for _, want := range []string{
		`u:4: user "ann" stands in line 2 already`, `u:5: role: want viewer, operator or admin, got "root"`, "u:6: the third field is no bcrypt hash",
		"u:7: want name:role:bcrypt", "u:8: want a user name", "u:9: scope: want label=value", "u:10: scope: site: want a plain value",
		"u:11: scope: site: want a plain value", `u:12: scope: "__name__" is no label name`, "u:13: ", "u:14: want a user name",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseUsers does not say %q:\n%v", want, err)
		}
	}
	if err != nil && (strings.Contains(err.Error(), hash) || strings.Contains(err.Error(), "secret")) {
		t.Errorf("the error shows a secret: %v", err)
	}
}

func TestUsers_AreEditedInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	if _, err := LoadUsers(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadUsers = %v, want fs.ErrNotExist", err)
	}
	writeUsers(t, path, "# head", "ann:admin:"+cheap(t, "ann-secret"), "# middle", "bob:viewer:"+cheap(t, "bob-secret")+":site=a,line=1", "# tail")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	u, err := LoadUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	if !u.Verify("ann", []byte("ann-secret")) || u.Verify("ann", []byte("bob-secret")) || u.Verify("eve", []byte("x")) || u.Verify("ann", nil) {
		t.Errorf("passwords are not what they are")
	}
	for _, c := range []struct {
		name, password string
		role           Role
	}{{"x", "short", Viewer}, {"x", strings.Repeat("x", 73), Viewer}, {"x:y", "long-enough", Viewer}, {"x", "long-enough", Nobody}} {
		if err := u.Set(c.name, c.role, []byte(c.password), nil); err == nil {
			t.Errorf("Set(%q, %q, %v) = nil", c.name, c.password, c.role)
		}
	}
	if err := errors.Join(u.Set("bob", Operator, []byte("new-secret"), map[string]string{"site": "b"}), u.Set("cyd", Viewer, []byte("cyd-secret"), nil)); err != nil {
		t.Fatal(err)
	}
	if !u.Delete("ann") || u.Delete("ann") {
		t.Errorf("Delete")
	}
	if err := u.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode is %v, %v, want 0640", info.Mode(), err)
	}
	again, err := LoadUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.lines; len(got) != 5 || got[0] != "# head" || got[1] != "# middle" || !strings.HasPrefix(got[2], "bob:operator:$2a$12$") ||
		!strings.HasSuffix(got[2], ":site=b") || got[3] != "# tail" || !strings.HasPrefix(got[4], "cyd:viewer:") {
		t.Errorf("the file is now\n%s", strings.Join(got, "\n"))
	}
	if role, scope, ok := again.Rights("bob"); role != Operator || scope["site"] != "b" || !ok || !again.Verify("bob", []byte("new-secret")) {
		t.Errorf("bob is %v %v %v", role, scope, ok)
	}
}

func FuzzParseUsers(f *testing.F) {
	f.Add([]byte("# x\nann:admin:$2a$04$" + strings.Repeat("a", 53) + ":site=a\n"))
	f.Add([]byte("a:viewer:\r\n\n:::"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := ParseUsers("u", data)
		if err != nil {
			return
		}
		again, err := ParseUsers("u", u.Bytes())
		if err != nil || len(again.byName) != len(u.byName) {
			t.Fatalf("what was written reads as %v", err)
		}
		for name, one := range u.byName {
			if !one.same(again.byName[name]) {
				t.Fatalf("user %q changed", name)
			}
		}
	})
}
