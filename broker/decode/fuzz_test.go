package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sluice/gateway/telemetry"
)

var fuzzSeeds = []string{
	telemetryPayload, `{"a":1,"b":{"c":[1,2,{"d":true}],"e":"x\n\u00e9\ud83d\ude00"},"f":-0.0,"g":1e999,"h":null}`,
	`{"a":{"b":1},"a_b":2}`, `{"a":1,"\u0061":2}`, `{"":{"":1}}`, `[1]`, `{"a":01}`, `{"a":"\ud800"}`, "\xef\xbb\xbf{}", `{"a":NaN}`,
	"{\"a\":\"\x01\"}", "{\"\xff\":1}", `{"a":1}{"b":2}`, `{"a":[{"b":1},{"b":1,"b":2}]}`, ` { "a" : 1e-5 , "b" : 123456789012345678901234567890 } `,
	strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), `{"a":0.1e1,"b":0e0,"c":-1E+2,"d":9007199254740993}`,
}

// FuzzJSON holds the decoder against encoding/json: what is taken is valid JSON with the same numbers under the same names;
// what is refused is refused for a reason that holds; and what the decoder remembers changes nothing.
func FuzzJSON(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add([]byte(s))
	}
	used := decoder(f, Spec{Format: "json"})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var out, again Batch
		err := decoder(t, Spec{Format: "json"}).Decode(&Message{Payload: payload}, &out)
		errAgain := used.Decode(&Message{Payload: payload}, &again)
		if got, want := render(&again, errAgain), render(&out, err); got != want {
			t.Fatalf("Decode(%q) by a used decoder = %s, by a new one %s", payload, got, want)
		}
		o := readOracle(payload)
		if _, state := onlineWord(payload); state {
			if err != nil || len(out.States) != 1 || len(out.Samples) != 0 {
				t.Fatalf("Decode(%q) = %v, %+v, want a state", payload, err, out)
			}
			return
		}
		if err == nil {
			if o.err != nil || !o.object {
				t.Fatalf("Decode(%q) took what encoding/json refuses: %v", payload, o.err)
			}
			if o.faults() != "" {
				t.Fatalf("Decode(%q) took a payload with %s", payload, o.faults())
			}
			if diff := cmp.Diff(o.readings, out.Samples[0].Readings); diff != "" {
				t.Fatalf("Decode(%q) (-encoding/json +got):\n%s", payload, diff)
			}
			if len(out.Samples[0].Refused) != o.refused {
				t.Fatalf("Decode(%q) refused %v, want %d", payload, out.Samples[0].Refused, o.refused)
			}
			return
		}
		e := (*Error)(nil)
		if !errors.As(err, &e) || !slices.Contains(Reasons, e.Reason) || !utf8.ValidString(e.Detail) || len(e.Detail) > 300 || len(out.Samples) != 0 {
			t.Fatalf("Decode(%q) = %q with %d samples", payload, err, len(out.Samples))
		}
		holds := false
		switch e.Reason {
		case ReasonSyntax, ReasonEmpty:
			holds = o.err != nil
		case ReasonNotFinite, ReasonName:
			holds = o.err != nil || o.refused > 0 && len(o.readings) == 0
		case ReasonUTF8:
			holds = o.err != nil || o.badText || !utf8.Valid(payload)
		case ReasonType:
			holds = o.err != nil || !o.object
		case ReasonNoReadings:
			holds = o.err == nil && len(o.readings) == 0 && o.refused == 0
		case ReasonDepth:
			holds = o.err != nil || o.depth > MaxDepth
		case ReasonDuplicateKey:
			holds = o.err != nil || o.duplicate
		case ReasonTooManyFields:
			holds = o.err != nil || o.keys > MaxKeys || len(o.readings) > MaxReadings
		case ReasonKeyTooLong:
			holds = o.err != nil || o.longKey
		}
		if !holds {
			t.Fatalf("Decode(%q) = %v, but %+v", payload, err, o)
		}
	})
}

// oracle is what encoding/json's tokens say about a payload.
type oracle struct {
	err       error
	object    bool
	readings  []telemetry.Reading
	names     map[string]bool
	refused   int
	duplicate bool // a key, or a joined name
	longKey   bool
	badText   bool // half a surrogate pair
	depth     int
	keys      int
}

func (o *oracle) faults() string {
	var f []string
	for what, is := range map[string]bool{"a duplicate": o.duplicate, "a long key": o.longKey, "bad text": o.badText,
		"too much depth": o.depth > MaxDepth, "too many keys": o.keys > MaxKeys, "too many readings": len(o.readings) > MaxReadings} {
		if is {
			f = append(f, what)
		}
	}
	slices.Sort(f)
	return strings.Join(f, ", ")
}

func readOracle(payload []byte) *oracle {
	o := &oracle{names: map[string]bool{}}
	if !json.Valid(payload) {
		o.err = errors.New("invalid")
		return o
	}
	// encoding/json puts U+FFFD for half a surrogate pair: count those that the payload does not hold itself.
	var text strings.Builder
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	o.value(d, "", true, 0, &text)
	if _, err := d.Token(); err != io.EOF {
		o.err = errors.New("trailing text")
	}
	written := bytes.Count(payload, []byte("\uFFFD")) + strings.Count(strings.ToLower(string(payload)), `\ufffd`)
	o.badText = strings.Count(text.String(), "\uFFFD") > written
	return o
}

func (o *oracle) value(d *json.Decoder, name string, read bool, depth int, text *strings.Builder) {
	token, err := d.Token()
	if err != nil {
		o.err = err
		return
	}
	take := func(v float64) {
		if !read || depth == 0 {
			return
		}
		o.duplicate = o.duplicate || o.names[name]
		o.names[name] = true
		if math.IsInf(v, 0) || nameFault(name) != "" {
			o.refused++
			return
		}
		o.readings = append(o.readings, telemetry.Reading{Metric: name, Value: v})
	}
	switch v := token.(type) {
	case json.Delim:
		depth++
		o.depth = max(o.depth, depth)
		seen := map[string]bool{}
		if depth == 1 {
			o.object = v == '{'
		}
		for d.More() {
			if v == '[' {
				o.value(d, name, false, depth, text)
				continue
			}
			token, err := d.Token()
			if err != nil {
				o.err = err
				return
			}
			key := token.(string)
			text.WriteString(key)
			child := name + "_" + key
			if depth == 1 {
				child = key
			}
			o.keys++
			o.duplicate = o.duplicate || seen[key]
			o.longKey = o.longKey || len(key) > MaxKeyBytes || len(child) > MaxNameBytes
			seen[key] = true
			o.value(d, child, read, depth, text)
		}
		if _, err := d.Token(); err != nil {
			o.err = err
		}
	case string:
		text.WriteString(v)
	case json.Number:
		f, _ := strconv.ParseFloat(string(v), 64)
		take(f + 0)
	case bool:
		if v {
			take(1)
		} else {
			take(0)
		}
	}
}

// FuzzJSONSpec throws payloads at decoders with every role in use: no panic, and all that comes out is within the contract.
func FuzzJSONSpec(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add([]byte(s), "ts", "a")
	}
	f.Add([]byte(`{"p":{"ts":"2016-12-31T23:59:60Z"},"n":[7],"l":"x","rows":[{"v":1}]}`), "p.ts", "rows.0.v")
	f.Add([]byte(`{"p":{"ts":1e9},"n":7,"l":false,"rows":[[1,2],3]}`), "p_ts", "rows")
	f.Fuzz(func(t *testing.T, payload []byte, timeField, field string) {
		d, err := New(Spec{Format: "json", TimeField: timeField, Sequence: "n", Labels: []string{"l", "meta.l"}, Fields: []string{field, "x"}})
		if err != nil {
			return
		}
		var first, second Batch
		err = d.Decode(&Message{Payload: payload}, &first)
		errSecond := d.Decode(&Message{Payload: payload}, &second)
		if got, want := render(&second, errSecond), render(&first, err); got != want {
			t.Fatalf("Decode(%q) the second time = %s, the first %s", payload, got, want)
		}
		if err != nil || len(first.States) > 0 {
			return
		}
		s := &first.Samples[0]
		if !json.Valid(payload) || len(s.Readings) == 0 || len(s.Readings) > MaxReadings {
			t.Fatalf("Decode(%q) = %d readings", payload, len(s.Readings))
		}
		names := map[string]bool{}
		for _, r := range s.Readings {
			if math.IsNaN(r.Value) || math.IsInf(r.Value, 0) || nameFault(r.Metric) != "" || names[r.Metric] || r.Value == 0 && math.Signbit(r.Value) {
				t.Fatalf("Decode(%q) gives the reading %+v", payload, r)
			}
			names[r.Metric] = true
		}
		for _, l := range s.Labels {
			if l.Value == "" || len(l.Value) > MaxLabelBytes || hasControl(l.Value) || !utf8.ValidString(l.Value) || names[l.Name] {
				t.Fatalf("Decode(%q) gives the label %+v", payload, l)
			}
			names[l.Name] = true
		}
	})
}

// FuzzValue: what is taken is a number strconv reads to the same value, or a switch word.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"21.5", " -3e2\n", "+007", ".5", "5.", "ON", "nan", "0x10", "1_0", "1,5", "", "\xff", "1e999", "99999999999999999999e-30"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		v, err := parseValue(payload)
		if err != nil {
			if !slices.Contains(Reasons, err.Reason) {
				t.Fatalf("parseValue(%q) = %v", payload, err)
			}
			return
		}
		text := strings.ToLower(strings.Trim(string(payload), " \t\r\n\v\f"))
		switch text {
		case "true", "on":
			text = "1"
		case "false", "off":
			text = "0"
		}
		want, parseErr := strconv.ParseFloat(text, 64)
		if parseErr != nil || want != v || strings.ContainsAny(text, "xp_in") || v == 0 && math.Signbit(v) {
			t.Fatalf("parseValue(%q) = %v, want %v, %v", payload, v, want, parseErr)
		}
	})
}

// FuzzNumber holds scaled and float against arbitrary precision.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0.0", "1680962879.6199999", "18446744073709551615", "18446744073709551616", "1e-30", "123456789012345678901234567890e-15", "0.1e1", "9007199254740993", "4.35", "1e22", "1e23"} {
		f.Add(s, 9)
	}
	f.Fuzz(func(t *testing.T, text string, shift int) {
		n, end := scanNumber([]byte(text), false)
		if end < 0 || shift < 0 || shift > 9 {
			return
		}
		text = text[:end]
		if !json.Valid([]byte(text)) {
			t.Fatalf("scanNumber took %q", text)
		}
		got, ok := n.float([]byte(text))
		want, err := strconv.ParseFloat(text, 64)
		if ok != (err == nil) || ok && (got != want || got == 0 && math.Signbit(got)) {
			t.Fatalf("float(%s) = %v, %v, want %v, %v", text, got, ok, want, err)
		}
		if _, exp, found := strings.Cut(strings.ToLower(text), "e"); found && len(strings.TrimLeft(exp, "+-0")) > 4 {
			return // beyond what big.Rat should be asked for
		}
		r, parsed := new(big.Rat).SetString(text)
		if !parsed {
			t.Fatalf("big.Rat refuses %s", text)
		}
		r.Abs(r).Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(shift)), nil)))
		whole := new(big.Int).Quo(r.Num(), r.Denom())
		v, exact, ok := n.scaled(shift)
		if ok != whole.IsUint64() || ok && (v != whole.Uint64() || exact != r.IsInt()) {
			t.Fatalf("scaled(%s, %d) = %d, exact %v, %v; want %s, exact %v", text, shift, v, exact, ok, whole, r.IsInt())
		}
	})
}

var rfc3339Form = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// FuzzRFC3339 holds parseRFC3339 against package time, which knows neither leap seconds nor lower case.
func FuzzRFC3339(f *testing.F) {
	for _, s := range []string{"2023-04-08T14:07:59Z", "2023-04-08T16:07:59.62+02:00", "2016-12-31T23:59:60Z", "2024-02-29T00:00:00.123456789123-23:59",
		"1677-09-21T00:12:43.145224192Z", "2262-04-11T23:47:16.854775807Z", "0000-01-01T00:00:00Z", "2023-02-30T00:00:00Z", "2023-04-08t14:07:59z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ns, why := parseRFC3339([]byte(text))
		var want time.Time
		err := want.UnmarshalText([]byte(text))
		if why != "" {
			// UnmarshalText also takes one-digit hours, decimal commas and offsets of more than a day (go.dev/issue/54580).
			inRange := want.Year() > 1678 && want.Year() < 2262
			if err == nil && inRange && rfc3339Form.MatchString(text) {
				t.Fatalf("parseRFC3339(%q) = %s, want %v", text, why, want)
			}
			return
		}
		if len(text) < 20 || text[17:19] == "60" || strings.ContainsAny(text, "tz ") {
			return
		}
		if err != nil || want.UnixNano() != ns {
			t.Fatalf("parseRFC3339(%q) = %d, want %v, %v", text, ns, want, err)
		}
	})
}
