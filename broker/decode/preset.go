package decode

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// newLayout is a JSON decoder for payloads that l knows. spec's Fields choose among the readings, its Labels add labels.
func newLayout(spec Spec, l layout) *jsonDecoder {
	fields := newFieldTree(Spec{Labels: spec.Labels})
	fields.layout, fields.wanted = l, Spec{Fields: spec.Fields}
	return &jsonDecoder{gather{fields: *fields, clock: newTimeReader(spec.TimeUnit, spec.Zone)}}
}

// preset refuses what a format that knows its payloads must not be told.
func (s *Spec) preset() error {
	switch {
	case s.TimeField != "":
		return fmt.Errorf("time: format %s knows where its time stands", s.Format)
	case s.Sequence != "":
		return fmt.Errorf("sequence: format %s knows where its number stands", s.Format)
	}
	return s.places()
}

// finish ends a preset's Decode: a sample in which there is nothing goes, for a message without readings is no fault.
func (d *jsonDecoder) finish(out *Batch) error {
	if d.err != nil {
		out.reset()
		return d.err
	}
	if n := len(out.Samples); n > 0 {
		if s := &out.Samples[n-1]; len(s.Readings)+len(s.Refused)+len(s.Units) == 0 {
			out.Samples = out.Samples[:n-1]
		}
	}
	return nil
}

// scalar reads payloads that are one value on a topic of their own.
type scalar struct {
	names stringCache // topic levels to metrics
	text  stringCache
}

// metric is how the reading of a path of topic levels is called.
func (c *scalar) metric(levels string) string {
	if len(levels) > MaxNameBytes { // too long to be one, and too long to be remembered
		return levels
	}
	if name, ok := c.names[levels]; ok {
		return name
	}
	if c.names == nil || len(c.names) >= maxPlaces {
		c.names = stringCache{}
	}
	name := joinedName(levels)
	c.names[strings.Clone(levels)] = name
	return name
}

// read adds a sample with the value of metric. NaN and the like, by which devices say that they have no value, are no reading and
// no fault; text is a fault where strict is set.
func (c *scalar) read(payload []byte, out *Batch, metric, unit string, strict bool) error {
	v, err := parseValue(payload)
	switch {
	case err == nil:
	case err.Reason == ReasonNotFinite, err.Reason == ReasonEmpty, !strict && err.Reason == ReasonType:
		return nil
	default:
		return err
	}
	if why := nameFault(metric); why != "" || len(metric) > MaxNameBytes {
		return &Error{ReasonName, "the topic's levels cannot name a metric: " + why}
	}
	s := out.add()
	s.Readings = append(s.Readings, telemetry.Reading{Metric: metric, Value: v})
	if unit != "" {
		s.Units = append(s.Units, Unit{metric, unit})
	}
	return nil
}

// label is a level of a topic as a label, or why it cannot be one.
func (c *scalar) label(name, value string) (telemetry.Label, *Error) {
	if len(value) == 0 || len(value) > MaxLabelBytes || !utf8.ValidString(value) || hasControl(value) {
		return telemetry.Label{}, &Error{ReasonLabel, "the topic's " + name + " " + excerpt([]byte(value)) + " cannot be a label"}
	}
	return telemetry.Label{Name: name, Value: c.text.internString(value)}, nil
}

// lastLevel splits a topic's last level off.
func lastLevel(topic string) (before, last string) {
	if i := strings.LastIndexByte(topic, '/'); i >= 0 {
		return topic[:i], topic[i+1:]
	}
	return "", topic
}

// afterDevice is what follows the device's level in a topic whose levels before it end in prefix, "" where there is nothing.
func afterDevice(topic, prefix string) string {
	i := strings.Index(topic, prefix)
	if i < 0 || i > 0 && topic[i-1] != '/' {
		return ""
	}
	_, rest, _ := strings.Cut(topic[i+len(prefix):], "/")
	return rest
}

// lastKey is the last key of a layout's path.
func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func isObject(payload []byte) bool {
	payload = bytes.TrimSpace(payload)
	return len(payload) > 0 && payload[0] == '{'
}
