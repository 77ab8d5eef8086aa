package history

import (
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"sluice/gateway/telemetry"
)

// MetricName is what a reading is called in PromQL: <measurement>_<metric>, every character but letters, digits and _ replaced by
// _, and a _ put before a digit. Two metrics of a device that differ only in such characters share a name.
func MetricName(measurement, metric string) string {
	return plain(measurement + "_" + metric)
}

// LabelName is what a label is called in PromQL. Names that begin with __ are Prometheus' own; they get the prefix label.
func LabelName(name string) string {
	name = plain(name)
	if strings.HasPrefix(name, "__") {
		return "label" + name
	}
	return name
}

// plain keeps what a name may have unquoted; one _ stands for one other character.
func plain(s string) string {
	ok := s != ""
	for i := 0; i < len(s) && ok; i++ {
		ok = letter(s[i]) || i > 0 && digit(s[i])
	}
	if ok {
		return s
	}
	var b strings.Builder
	if s == "" || digit(s[0]) {
		b.WriteByte('_')
	}
	for _, r := range s {
		if r < 0x80 && (letter(byte(r)) || digit(byte(r))) {
			b.WriteByte(byte(r))
		} else {
			b.WriteByte('_')
		}
	}
	return b.String()
}

func letter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// Labels are a device's labels in PromQL. Labels whose names become one name share it, their values joined by ; in the order of the
// names they had.
func Labels(d *telemetry.Device) map[string]string {
	m := make(map[string]string, len(d.Labels))
	for _, l := range d.Labels {
		name := LabelName(l.Name)
		if v, twice := m[name]; twice {
			m[name] = v + ";" + l.Value
			continue
		}
		m[name] = l.Value
	}
	return m
}

// seriesLabels are a device's labels in PromQL and the metric's name.
func seriesLabels(b *labels.ScratchBuilder, d *telemetry.Device, metric string) labels.Labels {
	return named(b, d, metric, "")
}

// storedLabels are seriesLabels and what the device's labels were called; see renamed.
func storedLabels(b *labels.ScratchBuilder, d *telemetry.Device, metric string) labels.Labels {
	return named(b, d, metric, renamed(d))
}

func named(b *labels.ScratchBuilder, d *telemetry.Device, metric, were string) labels.Labels {
	b.Reset()
	b.Add(model.MetricNameLabel, MetricName(d.Measurement, metric))
	if were != "" {
		b.Add(renamedLabel, were)
	}
	for name, value := range Labels(d) {
		b.Add(name, value)
	}
	b.Sort()
	return b.Labels()
}

// exactly matches a device's series, and those of devices that have more labels.
func exactly(d *telemetry.Device, metric string) (ms []*labels.Matcher) {
	equal := func(name, value string) { ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, name, value)) } // equality cannot fail
	equal(model.MetricNameLabel, MetricName(d.Measurement, metric))
	equal(renamedLabel, renamed(d))
	for name, value := range Labels(d) {
		equal(name, value)
	}
	return ms
}
