package console

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// door decides who asks: by session cookie, bearer token, the unix socket's peer, or, where nobody logs in, the address alone.
type door struct {
	log       *slog.Logger
	usersFile string // "": nobody logs in
	secure    bool   // requests come over TLS
	users     atomic.Pointer[Users]
	sessions  *sessions
	tokens    *tokens
	setup     setup
	changing  sync.Mutex // of the users file

	addresses, names *attempts
	welcome          recent        // address and user of logins that succeeded: strangers cannot lock their owner out
	hashing          chan struct{} // of capacity 2: password hashes at a time, so that logins do not take the machine
	compare          func(hash, password []byte) error
	failures         failures
}

// Limits of failed logins: so many at once, then one each interval.
const (
	addressBurst = 10
	addressEvery = 10 * time.Second
	nameBurst    = 20
	nameEvery    = 30 * time.Second
	attemptsKept = 4096
)

// newDoor reads users and tokens. A users file that does not exist yet is one without users.
func newDoor(cfg *Config, log *slog.Logger) (*door, error) {
	d := &door{
		log: log, usersFile: cfg.UsersFile, secure: cfg.TLS != nil, sessions: newSessions(),
		addresses: newAttempts(addressBurst, addressEvery, attemptsKept), names: newAttempts(nameBurst, nameEvery, attemptsKept),
		welcome: recent{keep: attemptsKept}, hashing: make(chan struct{}, 2), compare: bcrypt.CompareHashAndPassword,
	}
	var err error
	if d.tokens, err = openTokens(cfg.TokensFile); err != nil {
		// Nobody gets in by a list that cannot be read, and nothing else depends on it.
		aside := cfg.TokensFile + ".damaged"
		log.Error("bearer tokens cannot be read; the file is set aside, and every token is void", "set_aside", aside, "err", err)
		if err := os.Rename(cfg.TokensFile, aside); err != nil {
			return nil, fmt.Errorf("set aside damaged tokens: %w", err)
		}
		d.tokens = &tokens{path: cfg.TokensFile, byID: map[string]*bearer{}}
	}
	if d.usersFile == "" {
		return d, nil
	}
	users, err := LoadUsers(d.usersFile)
	if errors.Is(err, fs.ErrNotExist) {
		users, err = NewUsers(), nil
	}
	if err != nil {
		return nil, err
	}
	d.users.Store(users)
	return d, nil
}

// reload reads the users file again. Who lost the user, its password, role or scope is logged out. What cannot be read leaves the users
// as they were.
func (d *door) reload() error {
	if d.usersFile == "" {
		return nil
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	users, err := LoadUsers(d.usersFile)
	if errors.Is(err, fs.ErrNotExist) && d.users.Load().Len() == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("http.users_file: %w", err)
	}
	d.use(users)
	d.offerSetup(time.Now())
	return nil
}

func (d *door) use(users *Users) {
	d.users.Store(users)
	d.sessions.keep(users)
}

// loginRequired tells whether one must log in.
func (d *door) loginRequired() bool { return d.usersFile != "" }

func (d *door) setupRequired() bool { return d.usersFile != "" && d.users.Load().Len() == 0 }

// A refusal is why nobody is let in.
type refusal struct {
	code   int
	detail string
}

// identify says who asks. ends is done when what they showed is not good any more: a session revoked, a token expired.
func (d *door) identify(r *http.Request, now time.Time) (as Who, ends context.Context, no *refusal) {
	if peer, ok := r.Context().Value(peerKey{}).(string); ok {
		return Who{Name: peer, Role: Admin, program: true}, nil, nil
	}
	if given := r.Header.Get("Authorization"); given != "" {
		scheme, text, _ := strings.Cut(given, " ")
		if !strings.EqualFold(scheme, "bearer") {
			return Who{}, nil, &refusal{http.StatusUnauthorized, "want a bearer token: Authorization: Bearer sluice_..."}
		}
		one := d.tokens.find(strings.TrimSpace(text), now)
		if one == nil {
			d.failures.note("a bearer token", r.RemoteAddr)
			return Who{}, nil, &refusal{http.StatusUnauthorized, "the token is unknown, revoked or expired"}
		}
		return Who{Name: "token:" + one.Name, Role: one.role, Scope: one.Scope, program: true, until: one.Expires}, one.ctx, nil
	}
	if !d.loginRequired() {
		return Who{Role: Admin}, nil, nil
	}
	if c, err := r.Cookie(cookieName(d.secure)); err == nil {
		if one := d.sessions.find(c.Value, now); one != nil {
			return Who{
				Name: one.user.name, Role: one.user.role, Scope: one.user.scope, until: one.created.Add(sessionAbsolute),
			}, one.ctx, nil
		}
	}
	return Who{}, nil, nil
}

// login checks a password, within the limits of its address and its user. It returns the user, or why not.
func (d *door) login(ctx context.Context, name string, password []byte, remote string, now time.Time) (*user, *refusal, time.Duration) {
	if len(name) > maxNameBytes {
		name = name[:maxNameBytes] + "..." // nobody's
	}
	limits := d.limits(name, remote)
	for i, l := range limits {
		wait := l.by.take(l.key, now)
		if wait == 0 {
			continue
		}
		for _, taken := range limits[:i] {
			taken.by.giveBack(taken.key)
		}
		d.failures.note(name, remote)
		return nil, &refusal{http.StatusTooManyRequests, "too many failed logins " + l.of + ": wait"}, wait
	}
	select {
	case d.hashing <- struct{}{}:
		defer func() { <-d.hashing }()
	case <-ctx.Done():
		return nil, &refusal{http.StatusServiceUnavailable, "too many logins at a time"}, time.Second
	}
	u, ok := d.users.Load().verify(name, password, d.compare)
	if !ok {
		d.failures.note(name, remote)
		return nil, &refusal{http.StatusUnauthorized, "user and password do not match"}, 0
	}
	for _, l := range limits {
		l.by.giveBack(l.key)
	}
	d.welcome.add(addressKey(remote) + " " + name)
	return u, nil, 0
}

type limit struct {
	by      *attempts
	key, of string
}

// limits are those that a login must keep to: of its address and its user each. Who logged in from there before has one of their own
// instead, so that strangers, even behind the same proxy, do not lock them out.
func (d *door) limits(name, remote string) []limit {
	address := addressKey(remote)
	if known := address + " " + name; d.welcome.holds(known) {
		return []limit{{d.addresses, "known " + known, "of this user"}}
	}
	return []limit{{d.addresses, address, "from this address"}, {d.names, name, "of this user"}}
}

// setup is the one-time token by which the first user is made.
type setup struct {
	mu      sync.Mutex
	hash    [sha256.Size]byte
	expires time.Time // zero: none is offered
}

// setupAge is how long a set-up token is good for; a restart or SIGHUP offers another.
const setupAge = time.Hour

// offerSetup prints a set-up token where there are no users yet. It goes to the log alone, which only those read who run the gateway.
func (d *door) offerSetup(now time.Time) {
	d.setup.mu.Lock()
	defer d.setup.mu.Unlock()
	if !d.setupRequired() {
		d.setup.expires = time.Time{}
		return
	}
	text := newSecret()[:26] // 156 bits
	d.setup.hash, d.setup.expires = sha256.Sum256([]byte(text)), now.Add(setupAge)
	d.log.Warn("nobody can log in yet: open the console and make the first user with this set-up token, or run sluice passwd --console",
		"setup_token", text, "expires", d.setup.expires.UTC().Format(time.RFC3339))
}

// first makes the first user, an admin, where the token is the one offered. A token is good for one user.
func (d *door) first(token, name string, password []byte, now time.Time) (*user, error) {
	d.setup.mu.Lock()
	defer d.setup.mu.Unlock()
	hash := sha256.Sum256([]byte(token))
	good := subtle.ConstantTimeCompare(hash[:], d.setup.hash[:]) == 1
	if !good || !d.setupRequired() || !now.Before(d.setup.expires) {
		return nil, errSetup
	}
	users := NewUsers()
	d.changing.Lock()
	defer d.changing.Unlock()
	switch now, err := LoadUsers(d.usersFile); { // somebody may have written it meanwhile
	case err == nil && now.Len() > 0:
		return nil, errSetup
	case err == nil:
		users = now
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := users.Set(name, Admin, password, nil); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := users.Save(d.usersFile); err != nil {
		return nil, err
	}
	d.setup.expires = time.Time{}
	d.use(users)
	return users.byName[name], nil
}

var errSetup = errors.New("the set-up token is wrong, used or expired: a restart prints a new one")

// failures collects failed logins for one audit record a minute, so that an attack does not fill the journal.
type failures struct {
	mu    sync.Mutex
	count int
	by    map[string]int // user and address
}

const failuresNamed = 8 // in a summary

func (f *failures) note(name, remote string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.by == nil {
		f.by = map[string]int{}
	}
	if len(name) > maxNameBytes {
		name = name[:maxNameBytes]
	}
	key := fmt.Sprintf("%q from %s", name, addressKey(remote))
	if _, known := f.by[key]; known || len(f.by) < failuresNamed {
		f.by[key]++
	}
}

// take is a summary of what was noted since the last, "" when nothing was.
func (f *failures) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d failed logins:", f.count)
	named := 0
	for _, key := range sortedKeys(f.by) {
		fmt.Fprintf(&b, " %s (%d)", key, f.by[key])
		named += f.by[key]
	}
	if others := f.count - named; others > 0 {
		fmt.Fprintf(&b, " others (%d)", others)
	}
	f.count, f.by = 0, nil
	return b.String()
}
