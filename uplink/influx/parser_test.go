package influx

import (
	"fmt"
	"strconv"
	"strings"
)

// parsed is a line read by parseLine.
type parsed struct {
	measurement string
	tags        [][2]string
	fields      map[string]float64
	time        int64
}

// parseLine is a strict reader of line protocol, written from InfluxDB's reference page and independent of the encoder. It
// takes numbers without suffix only. With doubled, a backslash escapes a backslash, as VictoriaMetrics has it; without, it stands for itself
// before anything but a comma, a space or an equals sign, as InfluxDB has it.
func parseLine(line string, doubled bool) (p parsed, err error) {
	if strings.HasPrefix(line, "#") {
		return p, fmt.Errorf("a comment")
	}
	head, rest, ok := cutUnescaped(line, ' ', doubled)
	if !ok {
		return p, fmt.Errorf("no fields in %q", line)
	}
	fields, stamp, ok := cutUnescaped(rest, ' ', doubled)
	if !ok {
		return p, fmt.Errorf("no time in %q", line)
	}
	if p.time, err = strconv.ParseInt(stamp, 10, 64); err != nil {
		return p, err
	}
	name, tags, more := cutUnescaped(head, ',', doubled)
	if p.measurement = unescape(name, ", ", doubled); p.measurement == "" {
		return p, fmt.Errorf("no measurement in %q", line)
	}
	for more {
		var tag string
		tag, tags, more = cutUnescaped(tags, ',', doubled)
		k, v, ok := cutUnescaped(tag, '=', doubled)
		if _, _, twice := cutUnescaped(v, '=', doubled); !ok || twice || k == "" || v == "" {
			return p, fmt.Errorf("bad tag %q in %q", tag, line)
		}
		k, v = unescape(k, ",= ", doubled), unescape(v, ",= ", doubled)
		if k == "time" || k == "_field" || k == "_measurement" {
			return p, fmt.Errorf("reserved tag %q", k)
		}
		if n := len(p.tags); n > 0 && p.tags[n-1][0] >= k {
			return p, fmt.Errorf("tags out of order or double: %q", line)
		}
		p.tags = append(p.tags, [2]string{k, v})
	}
	p.fields = make(map[string]float64)
	for more := true; more; {
		var field string
		field, fields, more = cutUnescaped(fields, ',', doubled)
		k, v, ok := cutUnescaped(field, '=', doubled)
		if !ok || k == "" || strings.Contains(k, `"`) {
			return p, fmt.Errorf("bad field %q in %q", field, line)
		}
		k = unescape(k, ",= ", doubled)
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || f-f != 0 || strings.ContainsAny(v, "xXpP_iInN") {
			return p, fmt.Errorf("bad number %q in %q", v, line)
		}
		if k == "time" {
			return p, fmt.Errorf("a field named time")
		}
		p.fields[k] = f
	}
	return p, nil
}

// cutUnescaped is strings.Cut at the first c that is not escaped.
func cutUnescaped(s string, c byte, doubled bool) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		if s[i] != c {
			continue
		}
		n := 0
		for j := i - 1; j >= 0 && s[j] == '\\'; j-- {
			n++
		}
		if n == 0 || doubled && n%2 == 0 {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func unescape(s, chars string, doubled bool) string {
	if doubled {
		chars += `\`
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte(chars, s[i+1]) >= 0 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
