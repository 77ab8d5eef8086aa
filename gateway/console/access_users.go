package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
)

// Users is a users file: a line each, name:role:bcrypt, with a fourth field label=value,label=value for one who may see only that. Lines
// that begin with # and empty ones are kept as they are. A Users that requests are checked against is not changed any more.
type Users struct {
	lines  []string // as written; a user's is at user.line
	byName map[string]*user
	cost   int // of the dearest hash: what a user who does not exist costs
}

type user struct {
	name  string
	role  Role
	hash  string
	scope map[string]string
	line  int
}

func (u *user) same(v *user) bool {
	return v != nil && u.role == v.role && u.hash == v.hash && maps.Equal(u.scope, v.scope)
}

// Bounds of a users file. bcrypt knows 72 bytes of a password; a cost beyond 15 would keep a core busy for seconds at each login.
const (
	maxUsersBytes    = 1 << 20
	maxNameBytes     = 64
	MinPasswordBytes = 8
	MaxPasswordBytes = 72
	bcryptCost       = 12
	maxBcryptCost    = 15
)

// NewUsers is an empty file.
func NewUsers() *Users { return &Users{byName: map[string]*user{}, cost: bcryptCost} }

// LoadUsers reads a users file. One that every user of the machine can read is refused; every line that is wrong is named. The error is
// fs.ErrNotExist where there is no such file.
func LoadUsers(path string) (*Users, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read users: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a plain file", path)
	case info.Mode().Perm()&0o006 != 0:
		return nil, fmt.Errorf("%s is open to every user of this machine (mode %04o): run chmod 0600 %s", path, info.Mode().Perm(), path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxUsersBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return ParseUsers(path, data)
}

// ParseUsers reads the text of a users file; path is for the errors.
func ParseUsers(path string, data []byte) (*Users, error) {
	if len(data) > maxUsersBytes {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, maxUsersBytes)
	}
	u := NewUsers()
	var faults []error
	for text := range bytes.Lines(data) {
		line := strings.TrimRight(string(text), "\r\n")
		at := len(u.lines)
		u.lines = append(u.lines, line)
		if t := strings.TrimSpace(line); t == "" || t[0] == '#' {
			continue
		}
		one, err := parseUser(line)
		if err == nil && u.byName[one.name] != nil {
			err = fmt.Errorf("user %q stands in line %d already", one.name, u.byName[one.name].line+1)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", path, at+1, err))
			continue
		}
		one.line = at
		u.put(one)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return u, nil
}

func (u *Users) put(one *user) {
	u.byName[one.name] = one
	if cost, err := bcrypt.Cost([]byte(one.hash)); err == nil {
		u.cost = max(u.cost, cost)
	}
}

func parseUser(line string) (*user, error) {
	field := strings.SplitN(line, ":", 4)
	if len(field) < 3 {
		return nil, errors.New("want name:role:bcrypt, as sluice passwd --console writes it")
	}
	one := &user{name: field[0], hash: field[2]}
	if err := checkName(one.name); err != nil {
		return nil, err
	}
	var err error
	if one.role, err = ParseRole(field[1]); err != nil {
		return nil, err
	}
	cost, err := bcrypt.Cost([]byte(one.hash))
	switch {
	case err != nil || len(one.hash) != 60: // the hash itself is not shown
		return nil, errors.New("the third field is no bcrypt hash")
	case cost > maxBcryptCost:
		return nil, fmt.Errorf("the bcrypt cost %d is more than %d: each login would take seconds", cost, maxBcryptCost)
	}
	if len(field) == 4 {
		if one.scope, err = ParseScope(field[3]); err != nil {
			return nil, err
		}
	}
	return one, nil
}

// ParseRole reads viewer, operator or admin.
func ParseRole(s string) (Role, error) {
	for r := Viewer; r <= Admin; r++ {
		if s == r.String() {
			return r, nil
		}
	}
	return Nobody, fmt.Errorf("role: want viewer, operator or admin, got %q", s)
}

// ParseScope reads label=value,label=value.
func ParseScope(s string) (map[string]string, error) {
	scope := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("scope: want label=value,label=value, got %q", s)
		}
		if _, twice := scope[name]; twice {
			return nil, fmt.Errorf("scope: the label %q stands twice", name)
		}
		scope[name] = value
	}
	return scope, CheckScope(scope)
}

const maxScopeLabels = 8

// CheckScope refuses a scope that would not be the same everywhere: label names are those that PromQL has too, and a value is neither
// empty, which would be every series without the label, nor a pattern.
func CheckScope(scope map[string]string) error {
	if len(scope) > maxScopeLabels {
		return fmt.Errorf("scope: at most %d labels", maxScopeLabels)
	}
	for name, value := range scope {
		switch {
		case name == "" || len(name) > maxNameBytes || strings.HasPrefix(name, "__") || '0' <= name[0] && name[0] <= '9' ||
			strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "":
			return fmt.Errorf("scope: %q is no label name of letters, digits and _", name)
		case value == "" || len(value) > 256 || !utf8.ValidString(value) || strings.ContainsAny(value, "*?,\\") || strings.ContainsFunc(value, unicode.IsControl):
			return fmt.Errorf("scope: %s: want a plain value, not a pattern, got %q", name, value)
		}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || len(name) > maxNameBytes || name[0] == '#' || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return r == ':' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return fmt.Errorf("want a user name of at most %d bytes without spaces and colons, got %q", maxNameBytes, name)
	}
	return nil
}

// Len is the number of users.
func (u *Users) Len() int { return len(u.byName) }

// Rights are the role and scope of a user; ok is false when there is none of that name.
func (u *Users) Rights(name string) (role Role, scope map[string]string, ok bool) {
	if one := u.byName[name]; one != nil {
		return one.role, one.scope, true
	}
	return Nobody, nil, false
}

// Set adds a user, or gives one a new role, scope and password.
func (u *Users) Set(name string, role Role, password []byte, scope map[string]string) error {
	switch {
	case len(password) < MinPasswordBytes:
		return fmt.Errorf("password: want at least %d bytes", MinPasswordBytes)
	case len(password) > MaxPasswordBytes:
		return fmt.Errorf("password: want at most %d bytes, for bcrypt reads no more", MaxPasswordBytes)
	case role < Viewer || role > Admin:
		return errors.New("role: want viewer, operator or admin")
	}
	if err := errors.Join(checkName(name), CheckScope(scope)); err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword(password, bcryptCost)
	if err != nil {
		return fmt.Errorf("hash the password: %w", err)
	}
	one := &user{name: name, role: role, hash: string(hash), scope: scope, line: len(u.lines)}
	line := name + ":" + role.String() + ":" + one.hash
	if len(scope) > 0 {
		var pairs []string
		for _, label := range slices.Sorted(maps.Keys(scope)) {
			pairs = append(pairs, label+"="+scope[label])
		}
		line += ":" + strings.Join(pairs, ",")
	}
	if old := u.byName[name]; old != nil {
		one.line = old.line
		u.lines[one.line] = line
	} else {
		u.lines = append(u.lines, line)
	}
	u.put(one)
	return nil
}

// Delete removes a user, and tells whether there was one.
func (u *Users) Delete(name string) bool {
	old := u.byName[name]
	if old == nil {
		return false
	}
	delete(u.byName, name)
	u.lines = slices.Delete(u.lines, old.line, old.line+1)
	for _, one := range u.byName {
		if one.line > old.line {
			one.line--
		}
	}
	return true
}

// Verify tells whether the password is the user's. It takes as long for a user who does not exist.
func (u *Users) Verify(name string, password []byte) bool {
	_, ok := u.verify(name, password, bcrypt.CompareHashAndPassword)
	return ok
}

// stranger is the hash that users who do not exist are checked against, but for its cost.
const stranger = "$2a$%02d$wVt2Yx0XKXnZ4dJrQ8G5C.3kqk1mGm7gXlJH0O9pC1yQm8sQxT6ZK"

// verify makes exactly one comparison, whoever asks.
func (u *Users) verify(name string, password []byte, compare func(hash, password []byte) error) (*user, bool) {
	one := u.byName[name]
	hash := fmt.Appendf(nil, stranger, u.cost)
	if one != nil {
		hash = []byte(one.hash)
	}
	short := password[:min(len(password), MaxPasswordBytes)]
	err := compare(hash, short)
	if one == nil || err != nil || len(short) != len(password) {
		return nil, false
	}
	return one, true
}

// Bytes is the text of the file.
func (u *Users) Bytes() []byte {
	var b bytes.Buffer
	for _, line := range u.lines {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// Save replaces the file at path, with mode 0600 where it is new.
func (u *Users) Save(path string) error { return replaceFile(path, u.Bytes()) }

// replaceFile replaces a file whole: after a crash it holds the old or the new text. Owner and mode stay; a new file has mode 0600.
func replaceFile(path string, data []byte) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("save %s: %w", path, err)
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	switch info, serr := os.Stat(path); {
	case serr == nil:
		if own, ok := info.Sys().(*syscall.Stat_t); ok && (int(own.Uid) != os.Geteuid() || int(own.Gid) != os.Getegid()) {
			if err := tmp.Chown(int(own.Uid), int(own.Gid)); err != nil {
				return err
			}
		}
		if err := tmp.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	case !errors.Is(serr, fs.ErrNotExist):
		return serr
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
