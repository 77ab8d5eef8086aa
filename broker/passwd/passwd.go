// Package passwd reads, checks and writes mosquitto's password files, so that a site moves over by copying one. It keeps no
// password, reads no configuration and starts no goroutine.
//
// One line a user, as mosquitto_passwd of mosquitto 2 writes it; # starts a comment:
//
//	user:$7$<iterations>$<base64 salt>$<base64 hash>   PBKDF2-HMAC-SHA512, 64-byte hash
//	user:$6$<base64 salt>$<base64 hash>                SHA-512 of password then salt (mosquitto 1.6 and before)
package passwd

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// iterations of new hashes: ten times those of mosquitto_passwd 2.0 (101), and at 0.5 ms still 2,000 logins a second and core
// when every device comes back at once. mosquitto reads any count.
const iterations = 1000

// saltBytes is what mosquitto_passwd 2.0.11 writes.
const saltBytes = 12

const (
	maxIterations = 10_000_000 // in a file; at about 0.5 us each
	maxSaltBytes  = 256
	maxFileBytes  = 64 << 20
	// maxText is MQTT's bound of user names and passwords.
	maxText = 65535
)

// LineError is one line that is not understood.
type LineError struct {
	File string
	Line int
	Msg  string
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg) }

// File is the contents of one password file. Verify is safe for concurrent use; Set and Delete are not.
type File struct {
	lines []line
	users map[string]int // index in lines
	cost  int            // iterations every Verify spends
}

// line keeps comments and order; user is "" in a line without one.
type line struct {
	text string
	user string
	hash hash
}

type hash struct {
	iterations int // 0: one SHA-512 ($6$)
	salt, sum  []byte
}

// New is an empty file.
func New() *File { return &File{users: map[string]int{}, cost: iterations} }

// Load reads a password file. Every line that is not understood, or names a user again, is a LineError, all joined; the File
// beside such an error holds the other users, and the last of equal ones, as mosquitto would go on with.
func Load(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read password file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return nil, fmt.Errorf("read password file: %s is not a plain file of at most %d bytes", path, maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read password file: %w", err)
	}
	return Parse(path, data)
}

// Parse is Load for the bytes of a file; name serves messages.
func Parse(name string, data []byte) (*File, error) {
	f := New()
	f.cost = 0
	var errs []error
	if len(data) == 0 {
		return New(), nil
	}
	for i, raw := range strings.Split(strings.TrimSuffix(string(data), "\n"), "\n") {
		l, err := parseLine(strings.TrimRight(raw, "\r"))
		if err == nil && l.user != "" {
			if first, ok := f.users[l.user]; ok {
				err = fmt.Errorf("user %q stands on line %d already", l.user, first+1)
			}
			f.users[l.user] = i
		}
		if err != nil {
			errs = append(errs, &LineError{name, i + 1, err.Error()})
		}
		f.lines = append(f.lines, l)
		f.cost = max(f.cost, l.hash.iterations)
	}
	return f, errors.Join(errs...)
}

// parseLine never puts the line's text into an error: it may hold a password.
func parseLine(raw string) (line, error) {
	l := line{text: raw}
	if t := strings.TrimSpace(raw); t == "" || t[0] == '#' {
		return l, nil
	}
	user, rest, ok := strings.Cut(raw, ":")
	user, rest = strings.TrimSpace(user), strings.TrimSpace(rest)
	if !ok {
		return l, errors.New("want user:hash, found no colon")
	}
	if err := checkUser(user); err != nil {
		return l, err
	}
	parts := strings.Split(rest, "$")
	var salt, sum string
	h := hash{}
	switch {
	case len(parts) == 5 && parts[0] == "" && parts[1] == "7":
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < 1 || n > maxIterations {
			return l, fmt.Errorf("user %q: want 1 to %d iterations", user, maxIterations)
		}
		h.iterations, salt, sum = n, parts[3], parts[4]
	case len(parts) == 4 && parts[0] == "" && parts[1] == "6":
		salt, sum = parts[2], parts[3]
	case strings.HasPrefix(rest, "$"):
		return l, fmt.Errorf("user %q: want $7$iterations$salt$hash or $6$salt$hash", user)
	default:
		return l, fmt.Errorf("user %q: the password is not hashed; set it with sluice passwd or mosquitto_passwd", user)
	}
	var err error
	if h.salt, err = base64.StdEncoding.DecodeString(salt); err != nil || len(h.salt) == 0 || len(h.salt) > maxSaltBytes {
		return l, fmt.Errorf("user %q: the salt is no base64 of 1 to %d bytes", user, maxSaltBytes)
	}
	if h.sum, err = base64.StdEncoding.DecodeString(sum); err != nil || len(h.sum) != sha512.Size {
		return l, fmt.Errorf("user %q: the hash is no base64 of %d bytes", user, sha512.Size)
	}
	l.user, l.hash = user, h
	return l, nil
}

// checkUser refuses names that the format cannot hold or a reader would trim.
func checkUser(user string) error {
	switch {
	case user == "":
		return errors.New("the user name is empty")
	case len(user) > maxText || !utf8.ValidString(user):
		return errors.New("the user name is too long or not UTF-8")
	case strings.HasPrefix(user, "#") || strings.TrimSpace(user) != user:
		return errors.New("a user name starts neither with # nor with a blank, and ends with none")
	case strings.ContainsFunc(user, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }):
		return errors.New("a user name holds no colon and no control character")
	}
	return nil
}

// Verify tells whether password is user's. It takes as long for an unknown user, and for a cheaper hash, as for the most
// expensive hash in the file.
func (f *File) Verify(user string, password []byte) bool {
	h, rest, known := f.work(user)
	if !passable(password) {
		password, known = nil, false
	}
	same := subtle.ConstantTimeCompare(derive(password, h.salt, h.iterations), h.sum) == 1
	if rest > 0 {
		derive(password, h.salt, rest)
	}
	return same && known
}

// work is the hash to check for user, and how many iterations to spend besides.
func (f *File) work(user string) (h hash, rest int, known bool) {
	i, known := f.users[user]
	h = hash{salt: unknownSalt[:], sum: unknownSum[:]}
	if known {
		h = f.lines[i].hash
	}
	return h, f.cost - h.iterations, known
}

// passable refuses what no MQTT client can send, and a NUL at the end: HMAC pads its key with zeros, so that "secret\x00" would
// pass for "secret".
func passable(password []byte) bool {
	n := len(password)
	return n > 0 && n <= maxText && password[n-1] != 0
}

// unknownSalt and unknownSum stand in for the entry of a user who is not there; no known password has this sum.
var (
	unknownSalt [saltBytes]byte
	unknownSum  [sha512.Size]byte
)

// derive hashes as $7$ does, or as $6$ does when n is 0.
func derive(password, salt []byte, n int) []byte {
	if n == 0 {
		s := sha512.New()
		s.Write(password)
		s.Write(salt)
		return s.Sum(nil)
	}
	sum, err := pbkdf2.Key(sha512.New, string(password), salt, n, sha512.Size)
	if err != nil { // a mode of the Go runtime that refuses short salts: nobody logs in
		return nil
	}
	return sum
}

// Set gives user a password, adding the user where new. The salt is fresh.
func (f *File) Set(user string, password []byte) error {
	if err := checkUser(user); err != nil {
		return err
	}
	if !passable(password) {
		return fmt.Errorf("want a password of 1 to %d bytes that does not end in NUL", maxText)
	}
	h := hash{iterations: iterations, salt: make([]byte, saltBytes)}
	_, _ = rand.Read(h.salt) // never fails
	if h.sum = derive(password, h.salt, h.iterations); h.sum == nil {
		return errors.New("hash password: refused by this Go runtime's crypto mode")
	}
	l := line{user: user, hash: h}
	l.text = fmt.Sprintf("%s:$7$%d$%s$%s", user, h.iterations,
		base64.StdEncoding.EncodeToString(h.salt), base64.StdEncoding.EncodeToString(h.sum))
	if i, ok := f.users[user]; ok {
		f.lines[i] = l
	} else {
		f.users[user] = len(f.lines)
		f.lines = append(f.lines, l)
	}
	f.cost = max(f.cost, iterations)
	return nil
}

// Delete removes user and tells whether there was one.
func (f *File) Delete(user string) bool {
	i, ok := f.users[user]
	if !ok {
		return false
	}
	f.lines = append(f.lines[:i], f.lines[i+1:]...)
	delete(f.users, user)
	for u, j := range f.users {
		if j > i {
			f.users[u] = j - 1
		}
	}
	return true
}

// Has tells whether user is in the file.
func (f *File) Has(user string) bool {
	_, ok := f.users[user]
	return ok
}

// Same tells whether user is in both files with the same hash.
func (f *File) Same(other *File, user string) bool {
	i, here := f.users[user]
	j, there := other.users[user]
	if !here || !there {
		return false
	}
	a, b := f.lines[i].hash, other.lines[j].hash
	return a.iterations == b.iterations && bytes.Equal(a.salt, b.salt) && bytes.Equal(a.sum, b.sum)
}

// Len counts the users.
func (f *File) Len() int { return len(f.users) }

// Bytes renders the file, comments and order kept.
func (f *File) Bytes() []byte {
	var b strings.Builder
	for _, l := range f.lines {
		b.WriteString(l.text)
		b.WriteByte('\n')
	}
	return []byte(b.String())
}
