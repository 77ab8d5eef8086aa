package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of bearer tokens.
const (
	maxTokens       = 200
	defaultTokenAge = 90 * 24 * time.Hour
	maxTokenAge     = 5 * 366 * 24 * time.Hour
	tokenPrefix     = "sluice_" // sluice_<id>_<secret>: scanners for leaked secrets find it by that
)

// tokens are programs that may ask. The file has the SHA-256 of each secret of 256 bits, never the secret.
type tokens struct {
	path string

	mu   sync.Mutex
	byID map[string]*bearer
}

type bearer struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Role      string            `json:"role"`
	Scope     map[string]string `json:"scope,omitempty"`
	Created   time.Time         `json:"created"`
	Expires   time.Time         `json:"expires"`
	CreatedBy string            `json:"created_by"`
	Hash      string            `json:"sha256"`

	role     Role
	hash     [sha256.Size]byte
	used     time.Time // guarded by tokens.mu; of this process
	ctx      context.Context
	withdraw context.CancelFunc
}

type tokenFile struct {
	Tokens []*bearer `json:"tokens"`
}

// openTokens reads the file, where there is one.
func openTokens(path string) (*tokens, error) {
	t := &tokens{path: path, byID: map[string]*bearer{}}
	if path == "" {
		return t, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("read tokens: %w", err)
	}
	var f tokenFile
	if err := json.Unmarshal(data, &f); err != nil {
		return t, fmt.Errorf("read tokens: %s: %w", path, err)
	}
	for _, one := range f.Tokens {
		if one == nil {
			return t, fmt.Errorf("read tokens: %s: an entry is null", path)
		}
		if err := one.restore(); err != nil {
			return t, fmt.Errorf("read tokens: %s: token %q: %w", path, one.ID, err)
		}
		t.byID[one.ID] = one
	}
	return t, nil
}

func (t *bearer) restore() (err error) {
	if t.role, err = ParseRole(t.Role); err != nil {
		return err
	}
	b, err := hex.DecodeString(t.Hash)
	if err != nil || len(b) != sha256.Size {
		return errors.New("sha256: want 64 hexadecimal digits")
	}
	copy(t.hash[:], b)
	t.ctx, t.withdraw = context.WithCancel(context.Background())
	return CheckScope(t.Scope)
}

// save writes what is held; the caller holds mu.
func (t *tokens) save() error {
	f := tokenFile{Tokens: slices.SortedFunc(maps.Values(t.byID), func(a, b *bearer) int { return a.Created.Compare(b.Created) })}
	b, err := json.MarshalIndent(&f, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(t.path, append(b, '\n'))
}

// newTokenID is short: it stands in lists.
func newTokenID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// add stores a token and returns its text, which nobody will see again.
func (t *tokens) add(one *bearer, now time.Time) (text string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" {
		return "", fmt.Errorf("%w: this gateway keeps no tokens", ErrInvalid)
	}
	before := maps.Clone(t.byID)
	for id, old := range t.byID {
		if !old.Expires.After(now) {
			delete(t.byID, id)
		}
	}
	if len(t.byID) >= maxTokens {
		return "", fmt.Errorf("%w: there are %d tokens already", ErrInvalid, len(t.byID))
	}
	secret := newSecret()
	one.hash = sha256.Sum256([]byte(secret))
	one.Hash = hex.EncodeToString(one.hash[:])
	one.ctx, one.withdraw = context.WithCancel(context.Background())
	t.byID[one.ID] = one
	if err := t.save(); err != nil {
		t.byID = before
		return "", err
	}
	return tokenPrefix + one.ID + "_" + secret, nil
}

// remove revokes a token.
func (t *tokens) remove(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.byID[id]
	if one == nil {
		return fmt.Errorf("%w: no token has the id %q", ErrNotFound, id)
	}
	delete(t.byID, id)
	if err := t.save(); err != nil {
		t.byID[id] = one
		return err
	}
	one.withdraw()
	return nil
}

func (t *tokens) get(id string) (bearer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.byID[id]; one != nil {
		return *one, true
	}
	return bearer{}, false
}

// find is the token with that text, nil when there is none or it has expired.
func (t *tokens) find(text string, now time.Time) *bearer {
	id, secret, ok := strings.Cut(strings.TrimPrefix(text, tokenPrefix), "_")
	if !ok || !strings.HasPrefix(text, tokenPrefix) {
		return nil
	}
	hash := sha256.Sum256([]byte(secret))
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.byID[id]
	if one == nil || subtle.ConstantTimeCompare(hash[:], one.hash[:]) != 1 || !now.Before(one.Expires) {
		return nil
	}
	one.used = now
	return one
}

// list is every token, the oldest first.
func (t *tokens) list() []bearer {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]bearer, 0, len(t.byID))
	for _, one := range t.byID {
		all = append(all, *one)
	}
	slices.SortFunc(all, func(a, b bearer) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}
