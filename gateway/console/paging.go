package console

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what one request may ask for.
const (
	defaultLimit   = 100
	maxLimit       = 1000
	maxSearchBytes = 256
	maxWanted      = 16 // label parameters
)

// query reads the parameters of a URL; the first that makes no sense is what ok answers with.
type query struct {
	values url.Values
	wrong  string
}

func newQuery(r *http.Request) *query { return &query{values: r.URL.Query()} }

func (q *query) fail(format string, args ...any) {
	if q.wrong == "" {
		q.wrong = fmt.Sprintf(format, args...)
	}
}

// ok tells whether all that was read made sense, and answers where it did not.
func (q *query) ok(w http.ResponseWriter) bool {
	if q.wrong != "" {
		problem(w, http.StatusBadRequest, q.wrong)
	}
	return q.wrong == ""
}

// text is a parameter of bounded length.
func (q *query) text(name string) string {
	v := q.values.Get(name)
	if len(v) > maxSearchBytes {
		q.fail("%s: longer than %d bytes", name, maxSearchBytes)
	}
	return v
}

// oneOf is a parameter that takes certain words only; the first is what stands for none.
func (q *query) oneOf(name string, words ...string) string {
	v := q.values.Get(name)
	if !slices.Contains(words, v) {
		q.fail("%s: want one of %s, got %q", name, strings.TrimSpace(strings.Join(words, " ")), v)
	}
	return v
}

// labels is a repeatable parameter name:value.
func (q *query) labels(name string) map[string]string {
	list := q.values[name]
	if len(list) > maxWanted {
		q.fail("%s: at most %d of them", name, maxWanted)
		return nil
	}
	wanted := map[string]string{}
	for _, pair := range list {
		label, value, ok := strings.Cut(pair, ":")
		if !ok || label == "" || len(pair) > 2*maxSearchBytes {
			q.fail("%s: want name:value such as line:line-1", name)
			continue
		}
		wanted[label] = value
	}
	return wanted
}

// page is what limit and cursor ask for.
func (q *query) page() page {
	p := page{limit: defaultLimit}
	if v := q.values.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxLimit {
			q.fail("limit: want 1 to %d, got %q", maxLimit, v)
		}
		p.limit = n
	}
	if c := q.values.Get("cursor"); c != "" {
		b, err := base64.RawURLEncoding.DecodeString(c)
		length, rest, _ := strings.Cut(string(b), ":")
		n, nerr := strconv.Atoi(length)
		if err != nil || nerr != nil || n < 0 || n > len(rest) {
			q.fail("cursor: want what next said in the answer before")
			return p
		}
		p.key, p.id, p.on = rest[:n], rest[n:], true
	}
	return p
}

// page is a part of a list: limit entries after the one with this key and id.
type page struct {
	limit   int
	on      bool // key and id are those of the last entry shown
	key, id string
}

// keyed is an entry and where it stands: by key, then by id, which no two entries share. A cursor names the place, not a number of
// entries, so that what comes and goes between two pages moves nothing else across their border.
type keyed[T any] struct {
	key, id string
	entry   *T
}

func (k *keyed[T]) compare(key, id string) int {
	if c := strings.Compare(k.key, key); c != 0 {
		return c
	}
	return strings.Compare(k.id, id)
}

func sortKeyed[T any](all []keyed[T]) {
	in := func(a, b keyed[T]) int { return a.compare(b.key, b.id) }
	if !slices.IsSortedFunc(all, in) {
		slices.SortFunc(all, in)
	}
}

// cut returns one page of what is sorted, and the cursor of the next.
func cut[T any](all []keyed[T], p page) (entries []T, next string) {
	if p.on {
		from, found := slices.BinarySearchFunc(all, p, func(k keyed[T], p page) int { return k.compare(p.key, p.id) })
		if found {
			from++
		}
		all = all[from:]
	}
	if len(all) > p.limit {
		all = all[:p.limit]
		last := &all[p.limit-1]
		next = base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(len(last.key)) + ":" + last.key + last.id))
	}
	entries = make([]T, len(all))
	for i := range all {
		entries[i] = *all[i].entry
	}
	return entries, next
}
