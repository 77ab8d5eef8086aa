package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
	"sluice/uplink/rollup"
)

// Spec is everything the fold's outcome depends on besides the records: it is itself a journal record, so that a replay after
// a crash or an upgrade decides as the first run did. Equal specs encode to equal bytes.
type Spec struct {
	Gateway string            `json:"gateway"`
	Labels  map[string]string `json:"labels,omitempty"`
	Limits  Limits            `json:"limits"`
	Sources []SourceSpec      `json:"sources"`
	Rules   []RuleFile        `json:"rules,omitempty"`
	Zone    string            `json:"zone,omitempty"` // of hours and days in rules that name none; empty: UTC
	// Receivers are the webhooks and how each wants to be told.
	Receivers []notify.Receiver `json:"receivers,omitempty"`
}

// RuleFile is a rule file's name and text.
type RuleFile struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Limits bound what is accepted; readings beyond are quarantined.
type Limits struct {
	Series int           `json:"series"`    // series known at a time
	Future time.Duration `json:"future_ns"` // a device stamp may be this far ahead of the gateway's clock
	Past   time.Duration `json:"past_ns"`   // and this far behind
}

// SourceSpec is one source of the config. The first source whose topic matches takes a message.
type SourceSpec struct {
	Name        string           `json:"name"`
	Topic       string           `json:"topic"`
	Topics      []string         `json:"topics,omitempty"` // in place of Topic, where a preset's devices use several
	Measurement string           `json:"measurement"`
	Decode      decode.Spec      `json:"decode"`
	Send        Send             `json:"send"`
	Window      time.Duration    `json:"window_ns"`
	Grace       time.Duration    `json:"grace_ns"`
	Lateness    time.Duration    `json:"lateness_ns"`
	Stats       []telemetry.Stat `json:"stats"`
	Expect      *Expect          `json:"expect,omitempty"`
	Retained    Retained         `json:"retained,omitempty"`
	Late        Late             `json:"late,omitempty"`
}

// Late says what becomes of a reading whose window is closed.
type Late string

// What a source may want; the empty word is LateQuarantine.
const (
	LateQuarantine Late = "quarantine"
	LateBackfill   Late = "backfill" // the window is recomputed from the local history, see Backfill
)

// Retained says what a message with the retain flag is to a source.
type Retained string

const (
	// RetainedFresh: a client that sets the flag asks the broker to keep what it measured just now. The default.
	RetainedFresh Retained = "fresh"
	// RetainedStale: the source is fed by a bridge, which also passes on what the other broker had kept, for who knows how long.
	// Such a message never counts as a sign of life and never reaches the rules; it is read for its own time's sake, or quarantined
	// where it has none.
	RetainedStale Retained = "stale"
)

// topics are the source's topic filters.
func (s *SourceSpec) topics() []string {
	if len(s.Topics) > 0 {
		return s.Topics
	}
	return []string{s.Topic}
}

// Send says what a source's readings become at the destinations.
type Send string

// What a source may send.
const (
	SendAggregates Send = "aggregates"
	SendReadings   Send = "readings"
	SendBoth       Send = "both"
)

// Encode returns the spec as a record body.
func (s *Spec) Encode() ([]byte, error) { return json.Marshal(s) }

// DecodeSpec reads what Encode wrote.
func DecodeSpec(b []byte) (*Spec, error) {
	s := &Spec{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("decode spec: %w", err)
	}
	return s, nil
}

// Topics matches messages to sources; it is immutable and safe for concurrent use.
type Topics struct {
	patterns []*TopicPattern
	sources  []int // of each pattern
}

// Topics compiles the sources' topics.
func (s *Spec) Topics() (*Topics, error) {
	t := &Topics{}
	for i := range s.Sources {
		for _, topic := range s.Sources[i].topics() {
			p, err := ParseTopicPattern(topic)
			if err != nil {
				return nil, fmt.Errorf("source %s: %w", s.Sources[i].Name, err)
			}
			t.patterns, t.sources = append(t.patterns, p), append(t.sources, i)
		}
	}
	return t, nil
}

// Covers tells whether a source takes messages of this topic.
func (t *Topics) Covers(topic string) bool { return t.find(topic) >= 0 }

func (t *Topics) find(topic string) int {
	for i, p := range t.patterns {
		if p.Match(topic) {
			return i
		}
	}
	return -1
}

// compiled is a Spec ready to run.
type compiled struct {
	spec    *Spec
	raw     []byte
	topics  *Topics
	sources []*source
	rules   *rules.Set
	labels  []telemetry.Label
	zone    *time.Location
}

// source is one compiled source and its counters, which outlive a change of the spec.
type source struct {
	SourceSpec
	decoder decode.Decoder
	expect  *expectation // nil: none
	ledger  *Ledger
}

func (s *source) windows() rollup.Config {
	return rollup.Config{Window: s.Window, Grace: s.Grace, Lateness: s.Lateness, Quantiles: slices.ContainsFunc(s.Stats, telemetry.Stat.Sketched)}
}

func compile(raw []byte) (*compiled, error) {
	spec, err := DecodeSpec(raw)
	if err != nil {
		return nil, err
	}
	c := &compiled{spec: spec, raw: raw}
	if c.topics, err = spec.Topics(); err != nil {
		return nil, err
	}
	if c.zone, err = time.LoadLocation(spec.Zone); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	c.labels = telemetry.LabelsFromMap(spec.Labels)
	for i := range spec.Sources {
		s := &source{SourceSpec: spec.Sources[i]}
		if s.Measurement == "" {
			s.Measurement = s.Name
		}
		if s.Window <= 0 {
			return nil, fmt.Errorf("source %s: window must be positive", s.Name)
		}
		if s.Late != "" && s.Late != LateQuarantine && s.Late != LateBackfill {
			return nil, fmt.Errorf("source %s: late: want quarantine or backfill, got %q", s.Name, s.Late)
		}
		s.Decode.Measurement = s.Measurement
		if s.decoder, err = decode.New(s.Decode); err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Name, err)
		}
		if s.expect, err = s.Expect.compile(); err != nil {
			return nil, fmt.Errorf("source %s: expect: %w", s.Name, err)
		}
		if s.Retained != "" && s.Retained != RetainedFresh && s.Retained != RetainedStale {
			return nil, fmt.Errorf("source %s: retained: want fresh or stale, got %q", s.Name, s.Retained)
		}
		c.sources = append(c.sources, s)
	}
	if c.rules, err = spec.RuleSet(); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return c, nil
}

// Check tells whether the spec can be put in force.
func (s *Spec) Check() error {
	raw, err := s.Encode()
	if err != nil {
		return err
	}
	_, err = compile(raw)
	return err
}
