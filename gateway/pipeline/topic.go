package pipeline

import (
	"fmt"
	"strings"

	"sluice/gateway/telemetry"
)

// TopicPattern is a source's topic filter: levels are literal, + for any one, # for the rest, {name} for one non-empty level
// that becomes a label.
type TopicPattern struct {
	levels []level
	rest   bool // ends in #
}

type level struct {
	literal string
	any     bool
	capture string
}

// ParseTopicPattern reads a filter as it stands in the config.
func ParseTopicPattern(s string) (*TopicPattern, error) {
	if s == "" {
		return nil, fmt.Errorf("topic is empty")
	}
	p := &TopicPattern{}
	parts := strings.Split(s, "/")
	for i, part := range parts {
		switch {
		case part == "#":
			if i != len(parts)-1 {
				return nil, fmt.Errorf("topic %q: # is only allowed as the last level", s)
			}
			p.rest = true
		case part == "+":
			p.levels = append(p.levels, level{any: true})
		case strings.HasPrefix(part, "{") && strings.HasSuffix(part, "}") && len(part) > 2:
			p.levels = append(p.levels, level{any: true, capture: part[1 : len(part)-1]})
		case strings.ContainsAny(part, "#+{}"):
			return nil, fmt.Errorf("topic %q: level %q mixes a wildcard with text", s, part)
		default:
			p.levels = append(p.levels, level{literal: part})
		}
	}
	return p, nil
}

// Match reports whether topic fits, without allocating.
func (p *TopicPattern) Match(topic string) bool {
	if strings.HasPrefix(topic, "$") && (len(p.levels) == 0 || p.levels[0].any) {
		return false
	}
	for i := range p.levels {
		l := &p.levels[i]
		part, rest, more := strings.Cut(topic, "/")
		if l.any {
			if l.capture != "" && part == "" {
				return false
			}
		} else if part != l.literal {
			return false
		}
		if i == len(p.levels)-1 {
			return !more || p.rest
		}
		if !more {
			return false
		}
		topic = rest
	}
	return p.rest
}

// Rest returns the levels that # stands for in a topic that matches; "" where the pattern has none.
func (p *TopicPattern) Rest(topic string) string {
	if !p.rest {
		return ""
	}
	for range p.levels {
		_, rest, more := strings.Cut(topic, "/")
		if !more {
			return ""
		}
		topic = rest
	}
	return topic
}

// Labels returns the captures of a topic that matches.
func (p *TopicPattern) Labels(topic string) []telemetry.Label {
	var out []telemetry.Label
	parts := strings.Split(topic, "/")
	for i, l := range p.levels {
		if l.capture != "" && i < len(parts) {
			out = append(out, telemetry.Label{Name: l.capture, Value: parts[i]})
		}
	}
	return out
}
