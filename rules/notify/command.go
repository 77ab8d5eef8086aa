package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"sluice/rules"
)

// Operation is what an operator asks for.
type Operation string

// The operations.
const (
	AddSilence    Operation = "silence"       // mute what matches; one with a known id replaces it
	ExpireSilence Operation = "expire"        // end a silence now
	Acknowledge   Operation = "acknowledge"   // somebody looks after an alert
	Unacknowledge Operation = "unacknowledge" // nobody does any more
)

// Command is an operator's command as a journal record holds it. The record says when; By says who.
type Command struct {
	Op          Operation         `json:"op"`
	By          string            `json:"by"`
	Role        string            `json:"role,omitempty"` // in which they did it, where it is known
	Comment     string            `json:"comment,omitempty"`
	ID          string            `json:"id,omitempty"`          // of the silence
	Match       map[string]string `json:"match,omitempty"`       // label names and patterns, as in a rule's match
	StartsAt    int64             `json:"starts_at,omitempty"`   // wall clock, ns; 0: at once
	EndsAt      int64             `json:"ends_at,omitempty"`     // wall clock, ns
	Fingerprint string            `json:"fingerprint,omitempty"` // of the alert, 16 hexadecimal digits
}

// Bounds on what an operator says.
const (
	maxWho     = 128  // bytes
	maxComment = 1024 // bytes
	maxMatch   = 20   // labels
	maxID      = 64   // bytes
)

// MaxSilence is the longest a silence may last: one that nobody remembers is worse than noise.
const MaxSilence = 366 * 24 * time.Hour

// Encode returns the command as a record body.
func (c *Command) Encode() ([]byte, error) { return json.Marshal(c) }

// ParseCommand reads what Encode wrote, and validates it.
func ParseCommand(b []byte) (*Command, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	c := &Command{}
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("operator command: %w", err)
	}
	return c, c.Validate()
}

// Validate says what is wrong with a command, in words for the operator.
func (c *Command) Validate() error {
	switch {
	case c.By == "" || len(c.By) > maxWho || !utf8.ValidString(c.By):
		return fmt.Errorf("author: want a name of at most %d bytes", maxWho)
	case len(c.Role) > maxWho || !utf8.ValidString(c.Role):
		return fmt.Errorf("role: want at most %d bytes", maxWho)
	case len(c.Comment) > maxComment || !utf8.ValidString(c.Comment):
		return fmt.Errorf("comment: want at most %d bytes of text", maxComment)
	}
	switch c.Op {
	case AddSilence:
		return c.validateSilence()
	case ExpireSilence:
		return c.validateID()
	case Acknowledge, Unacknowledge:
		_, err := ParseFingerprint(c.Fingerprint)
		return err
	}
	return fmt.Errorf("unknown operation %q", c.Op)
}

func (c *Command) validateID() error {
	if c.ID == "" || len(c.ID) > maxID {
		return fmt.Errorf("id: want 1 to %d bytes", maxID)
	}
	for _, b := range []byte(c.ID) {
		if b <= ' ' || b >= 0x7f || b == '/' {
			return errors.New("id: want letters, digits and dashes")
		}
	}
	return nil
}

func (c *Command) validateSilence() error {
	if err := c.validateID(); err != nil {
		return err
	}
	switch {
	case len(c.Match) == 0:
		return errors.New(`match: want at least one label, such as {"alertname": "FreezerWarm"}: a silence of everything is not taken`)
	case len(c.Match) > maxMatch:
		return fmt.Errorf("match: want at most %d labels", maxMatch)
	case c.EndsAt <= c.StartsAt:
		return errors.New("ends_at: want a time after the start")
	case c.StartsAt > 0 && c.EndsAt-c.StartsAt > int64(MaxSilence):
		return errors.New("ends_at: want at most a year after the start")
	}
	if _, err := rules.ParseMatchers(c.Match); err != nil {
		return fmt.Errorf("match: %w", err)
	}
	return nil
}

// ParseFingerprint reads the 16 hexadecimal digits that stand for an alert outside of the program.
func ParseFingerprint(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("fingerprint: want 16 hexadecimal digits, got %q", s)
	}
	return v, nil
}

// FormatFingerprint is the opposite of ParseFingerprint.
func FormatFingerprint(v uint64) string { return fmt.Sprintf("%016x", v) }

// Command does what an operator asked for. Commands that have nothing to act on any more are counted and change nothing: what they
// were about ended between the operator's click and the record.
func (p *Policy) Command(t Time, c *Command, emit Emit) {
	p.begin(t, emit)
	p.changed = true
	switch c.Op {
	case AddSilence:
		p.addSilence(c)
	case ExpireSilence:
		p.expireSilence(c)
	case Acknowledge, Unacknowledge:
		fp, _ := ParseFingerprint(c.Fingerprint)
		e := p.entries[fp]
		if e == nil || !e.firing {
			p.ignored++
			break
		}
		p.acknowledge(e, c)
	}
	p.runOut()
}

// acknowledge stops repeats and escalations of an alert, or lets them go on.
func (p *Policy) acknowledge(e *entry, c *Command) {
	if c.Op == Unacknowledge {
		e.ack = nil
		p.armEscalation(e)
		for _, m := range e.members {
			m.group.repeatBy(m)
			p.arm(m.group)
		}
		return
	}
	e.ack = &Ack{By: c.By, Comment: c.Comment, At: p.last.Wall}
	p.stop(&e.timer)
	for _, m := range slices.Clone(e.members) {
		if m.escalated && !m.told { // it was not told yet, and need not be
			e.members = slices.DeleteFunc(e.members, func(x *member) bool { return x == m })
			p.leave(m)
		}
		m.escalated = false
	}
}
