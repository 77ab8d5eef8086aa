package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/gateway/telemetry"
)

// maxPacketBytes leaves room in a journal record (seglog.MaxRecord, 16 MiB) for what surrounds a payload.
const maxPacketBytes = Bytes(16<<20 - 128<<10)

// maxTopicBytes is that of MQTT: a length in 16 bits.
const maxTopicBytes = 65535

var (
	formatsHere = []string{"json", "value", "senml", "cbor", "influx", "sparkplug", "availability", "tasmota", "shelly", "zigbee2mqtt", "esphome",
		"ttn", "chirpstack", "homie"}
	// presets know their devices' topics, and where time and number stand.
	presets   = []string{"sparkplug", "tasmota", "shelly", "zigbee2mqtt", "esphome", "ttn", "chirpstack", "homie"}
	timeUnits = []string{"s", "ms", "us", "ns", "rfc3339", "auto"}
)

func (k *checker) sources() {
	if len(k.c.Sources) == 0 && k.sound("sources") {
		k.warn("sources", "there is none: no message is journalled and nothing is measured")
	}
	names := map[string]string{}
	for i := range k.c.Sources {
		s := &k.c.Sources[i]
		key := fmt.Sprintf("sources[%d]", i)
		k.uniqueName(names, key+".name", s.Name)
		if s.Topic != "" || k.written(key+".topic") || !slices.Contains(presets, s.Format) {
			k.topic(key, s)
		} else {
			for j, l := range s.Labels {
				if l != "" {
					k.label(fmt.Sprintf("%s.labels[%d]", key, j), l)
				}
			}
		}
		k.oneOf(key+".format", s.Format, formatsHere, nil)
		if !k.written(key + ".measurement") {
			s.Measurement = s.Name
		}
		k.measurement(key+".measurement", s.Measurement)
		k.oneOf(key+".time.unit", s.Time.Unit, timeUnits, nil)
		if s.Time.Field == "" && k.written(key+".time.unit") && s.Format != "influx" {
			k.fail(key+".time", "field is required: without one, the time is that of arrival")
		}
		k.formatKeys(key, s.Format)
		k.zone(key+".zone", s)
		k.oneOf(key+".retained", s.Retained, []string{"fresh", "stale"}, nil)
		k.expect(key+".expect", &s.Expect)
		k.words(key+".fields", s.Fields)
		k.words(key+".labels", s.Labels)
		k.oneOf(key+".send", s.Send, []string{"aggregates", "readings", "both"}, nil)
		k.windows(key, s)
		k.oneOf(key+".late", s.Late, []string{"quarantine", "backfill"}, nil)
		if s.Late == "backfill" && k.c.History.Keep == 0 && k.sound("history.keep") {
			k.fail(key+".late", "backfill recomputes windows from the local history, which history.keep: 0 switches off")
		}
		k.stats(key+".stats", s.Stats)
		k.shadowed(key, i)
	}
}

// formatKeys refuses keys that a format has no use for.
func (k *checker) formatKeys(key, format string) {
	without := func(why string, subs ...string) {
		for _, sub := range subs {
			if k.written(key + sub) {
				k.fail(key+sub, "format %s %s", format, why)
			}
		}
	}
	switch {
	case format == "value":
		without("is one bare number: it has no fields", ".time.field", ".sequence", ".fields", ".labels")
	case format == "availability":
		without("says whether a device is there, and nothing else", ".time.field", ".sequence", ".fields", ".labels", ".expect")
	case format == "influx":
		without("has it in its lines", ".time.field", ".sequence", ".labels")
	case format == "senml":
		without("has its own", ".time.field", ".sequence", ".labels")
	case format == "sparkplug":
		without("has its own", ".time.field", ".sequence", ".labels")
	case slices.Contains(presets, format):
		without("knows where it stands", ".time.field", ".sequence")
		if format == "esphome" || format == "homie" {
			without("is one value a topic: capture a topic level instead", ".labels")
		}
	}
}

func (k *checker) zone(key string, s *Source) {
	if s.Zone == "" || !k.sound(key) {
		return
	}
	if _, err := time.LoadLocation(s.Zone); err != nil || s.Zone == "local" {
		k.fail(key, `want a time zone such as "Europe/Berlin", "UTC" or "Local", got %q`, s.Zone)
	}
	if s.Format != "tasmota" && (s.Time.Field == "" || s.Format != "json" && s.Format != "cbor") {
		k.fail(key, "format %s has no times that need one", s.Format)
	}
}

func (k *checker) expect(key string, e *Expect) {
	k.words(key+".require", e.Require)
	for metric, r := range e.Ranges {
		at := key + ".ranges." + metric
		switch {
		case metric == "" && k.sound(key+".ranges"):
			k.fail(key+".ranges", "a metric needs a name")
		case r.Min != nil && r.Max != nil && *r.Min > *r.Max && k.sound(at):
			k.fail(at, "want the lowest value first, got [%v, %v]", *r.Min, *r.Max)
		}
	}
	for metric, unit := range e.Units {
		if (metric == "" || unit == "") && k.sound(key+".units") {
			k.fail(key+".units", "a metric and its unit need a name")
		}
	}
}

func (k *checker) windows(key string, s *Source) {
	k.duration(key+".window", s.Window, 100*time.Millisecond, 24*time.Hour)
	if s.Window%time.Millisecond != 0 && k.sound(key+".window") {
		k.fail(key+".window", "want whole milliseconds, got %s", FormatDuration(s.Window))
	}
	k.duration(key+".grace", s.Grace, 0, time.Hour)
	k.duration(key+".lateness", s.Lateness, 0, 31*24*time.Hour)
	if s.Lateness > k.c.Limits.Past && k.sound(key+".lateness") && k.sound("limits.past") {
		k.warn(key+".lateness", "%s is beyond limits.past (%s), where readings are refused", FormatDuration(s.Lateness), FormatDuration(k.c.Limits.Past))
	}
}

func (k *checker) stats(key string, stats []string) {
	if len(stats) == 0 && k.sound(key) {
		k.fail(key, "want at least one of %s", strings.Join(statNames(), ", "))
	}
	for i, s := range stats {
		at := fmt.Sprintf("%s[%d]", key, i)
		if k.sound(at) && !slices.Contains(statNames(), s) {
			k.fail(at, "unknown stat %q%s (available: %s)", s, didYouMean(s, statNames()), strings.Join(statNames(), ", "))
		}
	}
	k.words(key, stats)
}

func statNames() []string {
	names := make([]string, len(telemetry.Stats))
	for i, s := range telemetry.Stats {
		names[i] = string(s)
	}
	return names
}

// words refuses empty and repeated entries.
func (k *checker) words(key string, words []string) {
	for i, w := range words {
		at := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case w == "" && k.sound(at):
			k.fail(at, "want a name, got nothing")
		case slices.Contains(words[:i], w) && w != "":
			k.fail(at, "%q is listed twice", w)
		}
	}
}

// measurement keeps clear of the names that the point schema takes.
func (k *checker) measurement(key, m string) {
	switch {
	case !k.sound(key):
	case m == "" && k.written(key):
		k.fail(key, "is required")
	case m == "alerts" || m == "data_gap":
		k.fail(key, "%q is reserved for the gateway's own points", m)
	case strings.HasPrefix(m, "_"):
		k.fail(key, "a leading underscore is reserved, got %q", m)
	}
}

// topic checks the filter and that its captures and the labels from fields do not name the same label.
func (k *checker) topic(key string, s *Source) {
	if !k.sound(key + ".topic") {
		return
	}
	captures, err := Captures(s.Topic)
	if err != nil {
		k.fail(key+".topic", "%s", err)
		return
	}
	for _, c := range captures {
		k.label(key+".topic", c)
	}
	for i, l := range s.Labels {
		at := fmt.Sprintf("%s.labels[%d]", key, i)
		if slices.Contains(captures, l) {
			k.fail(at, "%q is already captured from the topic", l)
		} else if l != "" {
			k.label(at, l)
		}
	}
}

// shadowed warns when an earlier source takes every topic of source i.
func (k *checker) shadowed(key string, i int) {
	s := k.c.Sources[i]
	for j := range i {
		earlier := k.c.Sources[j]
		if s.Topic != "" && earlier.Topic != "" && covers(filterLevels(earlier.Topic), filterLevels(s.Topic)) {
			k.warn(key+".topic", "never matches: sources[%d] (%s) comes first and takes every such topic", j, earlier.Topic)
			return
		}
	}
}

// Captures returns the label names that a source's topic captures, in order, or what is wrong with the topic: an MQTT filter
// in which {name} stands for one whole level, as + does.
func Captures(topic string) ([]string, error) {
	switch {
	case topic == "":
		return nil, fmt.Errorf("is required")
	case len(topic) > maxTopicBytes:
		return nil, fmt.Errorf("longer than MQTT's %d bytes", maxTopicBytes)
	case strings.HasPrefix(topic, "$"):
		return nil, fmt.Errorf("topics that start with $ are the broker's own, got %q", topic)
	case strings.HasPrefix(topic, "sluice/"):
		return nil, fmt.Errorf("topics that start with sluice/ are the gateway's own and never taken for readings, got %q", topic)
	}
	var names []string
	levels := strings.Split(topic, "/")
	for i, level := range levels {
		switch {
		case level == "+":
		case level == "#":
			if i != len(levels)-1 {
				return nil, fmt.Errorf("# stands for all further levels and must be the last one, got %q", topic)
			}
		case strings.ContainsAny(level, "{}"):
			name, ok := strings.CutPrefix(level, "{")
			name, closed := strings.CutSuffix(name, "}")
			if !ok || !closed || strings.ContainsAny(name, "{}") {
				return nil, fmt.Errorf("{name} captures exactly one whole level, got %q", level)
			}
			if !validCapture(name) {
				return nil, fmt.Errorf("a capture is a word of letters, digits and underscores, got %q", level)
			}
			if slices.Contains(names, name) {
				return nil, fmt.Errorf("captures %q twice", name)
			}
			names = append(names, name)
		case strings.ContainsAny(level, "+#"):
			return nil, fmt.Errorf("+ and # stand for whole levels, got %q", level)
		}
	}
	return names, nil
}

func validCapture(s string) bool {
	for i := range len(s) {
		b := s[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_'
		if !letter && (i == 0 || b < '0' || b > '9') {
			return false
		}
	}
	return s != ""
}

// filterLevels splits a topic with every capture read as +.
func filterLevels(topic string) []string {
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		if strings.HasPrefix(l, "{") {
			levels[i] = "+"
		}
	}
	return levels
}

// covers tells whether every topic that matches filter b also matches filter a.
func covers(a, b []string) bool {
	for i, l := range a {
		if l == "#" {
			return true
		}
		if i >= len(b) || b[i] == "#" || l != "+" && l != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}
