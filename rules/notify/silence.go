package notify

import (
	"maps"
	"slices"

	"sluice/rules"
)

// SilenceState is where a silence stands.
type SilenceState uint8

// The states of a silence; it moves forward only.
const (
	SilencePending SilenceState = iota // begins later
	SilenceActive
	SilenceExpired
)

func (s SilenceState) String() string { return [...]string{"pending", "active", "expired"}[s] }

// Silence mutes alerts whose labels match: they go through their states as usual, are shown, and nobody is told that they fire.
type Silence struct {
	ID        string
	Match     map[string]string
	StartsAt  int64 // wall, ns
	EndsAt    int64 // wall, ns; moved when somebody ended it early
	CreatedAt int64 // wall, ns
	By        string
	Comment   string
	EndedBy   string // who ended it before its time
	State     SilenceState

	matchers rules.Matchers
}

func (p *Policy) silenceAt(id string) int {
	return slices.IndexFunc(p.silences, func(s *Silence) bool { return s.ID == id })
}

func (p *Policy) addSilence(c *Command) {
	matchers, err := rules.ParseMatchers(c.Match)
	if err != nil { // Validate has seen to it
		p.ignored++
		return
	}
	s := &Silence{ID: c.ID, Match: maps.Clone(c.Match), StartsAt: c.StartsAt, EndsAt: c.EndsAt, CreatedAt: p.last.Wall, By: c.By,
		Comment: c.Comment, matchers: matchers}
	if s.StartsAt == 0 {
		s.StartsAt = p.last.Wall
	}
	s.EndsAt = min(s.EndsAt, later(s.StartsAt, MaxSilence))
	if at := p.silenceAt(s.ID); at >= 0 {
		p.silences[at] = s
	} else {
		if len(p.silences) >= MaxSilences && !p.dropEndedSilence() {
			p.ignored++
			return
		}
		p.silences = append(p.silences, s)
	}
	p.turnSilences()
	p.applySilences() // it may have replaced one in force
}

func (p *Policy) dropEndedSilence() bool {
	at := slices.IndexFunc(p.silences, func(s *Silence) bool { return s.State == SilenceExpired })
	if at < 0 {
		return false
	}
	p.silences = slices.Delete(p.silences, at, at+1)
	return true
}

func (p *Policy) expireSilence(c *Command) {
	at := p.silenceAt(c.ID)
	if at < 0 || p.silences[at].State == SilenceExpired {
		p.ignored++
		return
	}
	s := *p.silences[at] // views hold the old one
	s.State, s.EndsAt, s.EndedBy = SilenceExpired, max(p.last.Wall, s.StartsAt), c.By
	p.silences[at] = &s
	p.applySilences()
}

// turnSilences moves silences on to where they stand now.
func (p *Policy) turnSilences() {
	wall, turned := p.last.Wall, false
	for i, s := range p.silences {
		state := s.State
		if state == SilencePending && wall >= s.StartsAt {
			state = SilenceActive
		}
		if state == SilenceActive && wall >= s.EndsAt {
			state = SilenceExpired
		}
		if state != s.State {
			moved := *s
			moved.State = state
			p.silences[i], turned = &moved, true
		}
	}
	before := len(p.silences)
	p.silences = slices.DeleteFunc(p.silences, func(s *Silence) bool {
		return s.State == SilenceExpired && later(s.EndsAt, endedFor) <= wall
	})
	if turned || len(p.silences) != before {
		p.applySilences()
	}
}

// applySilences finds out anew who is silenced. What is not any more, and was not told, is told now.
func (p *Policy) applySilences() {
	p.changed = true
	for _, e := range p.ordered() {
		e.silence = p.silenceOf(e)
		p.review(e)
	}
}

// silenceOf is the first silence in force that matches, or nil.
func (p *Policy) silenceOf(e *entry) *Silence {
	for _, s := range p.silences {
		if s.State == SilenceActive && s.matchers.Match(e.labels) {
			return s
		}
	}
	return nil
}

// silencesDue is the next moment, on the clock of timers, at which a silence begins or ends.
func (p *Policy) silencesDue() int64 {
	due := int64(never)
	for _, s := range p.silences {
		switch s.State {
		case SilencePending:
			due = min(due, s.StartsAt)
		case SilenceActive:
			due = min(due, s.EndsAt)
		}
	}
	if due == never {
		return never
	}
	return due - (p.last.Wall - p.last.Now)
}
