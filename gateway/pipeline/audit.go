package pipeline

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules/notify"
)

// Audit is one thing an operator did, as a journal record of RecordAudit holds it and as the list of them shows it.
type Audit struct {
	LSN    seglog.LSN `json:"-"` // of the record
	Time   int64      `json:"-"` // of the record, ns
	Author string     `json:"author"`
	Role   string     `json:"role,omitempty"` // "": not known
	Op     string     `json:"op"`             // a word: login, purge, token
	Detail string     `json:"detail,omitempty"`
}

// Bounds of an audit entry, in bytes, and of the list.
const (
	maxAuditWord   = 128
	maxAuditDetail = 1024
	auditKept      = 1000
)

// Encode returns the record's body; what is too long is cut.
func (a *Audit) Encode() ([]byte, error) {
	c := *a
	c.bound()
	return json.Marshal(&c)
}

func (a *Audit) bound() {
	a.Author, a.Role, a.Op = cut(a.Author, maxAuditWord), cut(a.Role, maxAuditWord), cut(a.Op, maxAuditWord)
	a.Detail = cut(a.Detail, maxAuditDetail)
}

// cut shortens s to n bytes of whole characters.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// audits is what operators did, oldest first: the last auditKept. It is in the checkpoint, so that it outlives the journal's
// segments.
type audits []Audit

func (l *audits) add(a Audit) {
	a.bound()
	if len(*l) == auditKept {
		*l = append((*l)[:0], (*l)[1:]...)
	}
	*l = append(*l, a)
}

// audited takes in an audit record.
func (f *Fold) audited(r *seglog.Record) error {
	a := Audit{}
	if err := json.Unmarshal(r.Body, &a); err != nil {
		return fmt.Errorf("audit record %d: %w", r.LSN, err)
	}
	a.LSN, a.Time = r.LSN, r.Time
	f.audits.add(a)
	return nil
}

// auditCommand lists an operator's command.
func (f *Fold) auditCommand(r *seglog.Record, c *notify.Command) {
	var d strings.Builder
	d.WriteString(c.ID)
	d.WriteString(c.Fingerprint)
	for _, name := range slices.Sorted(maps.Keys(c.Match)) {
		fmt.Fprintf(&d, " %s=%s", name, c.Match[name])
	}
	if c.Comment != "" {
		d.WriteString(": " + c.Comment)
	}
	f.audits.add(Audit{LSN: r.LSN, Time: r.Time, Author: c.By, Role: c.Role, Op: string(c.Op), Detail: d.String()})
}

func (l audits) snapshot(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	for i := range l {
		a := &l[i]
		b = binary.AppendVarint(binary.AppendUvarint(b, uint64(a.LSN)), a.Time)
		for _, s := range [...]string{a.Author, a.Role, a.Op, a.Detail} {
			b = telemetry.AppendString(b, s)
		}
	}
	return b
}

func restoreAudits(d *telemetry.Decoder) (l audits) {
	for range d.Count(6) {
		l.add(Audit{LSN: seglog.LSN(d.Uvarint()), Time: d.Varint(), Author: d.String(), Role: d.String(), Op: d.String(), Detail: d.String()})
	}
	return l
}

// Audits copies what operators did, newest first: the last 1000.
func (f *Fold) Audits() []Audit {
	list := slices.Clone(f.audits)
	slices.Reverse(list)
	return list
}

// Audits copies what operators did, newest first: the last 1000. It waits until the pipeline is between two records, or for ctx; safe
// for concurrent use while Run runs.
func (r *Runner) Audits(ctx context.Context) ([]Audit, error) {
	answer := make(chan []Audit, 1)
	r.asks.look(func(f *Fold) {
		answer <- f.Audits()
	})
	select {
	case list := <-answer:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
