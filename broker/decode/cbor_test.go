package decode

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

// What the json format reads from an object, the cbor format reads from the same object in CBOR. The payloads are those of the
// json golden files; numbers that float64 does not hold are left out.
func TestCBOR_ReadsWhatJSONReads(t *testing.T) {
	files, _ := filepath.Glob("testdata/json-*.txtar")
	compared := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, parts := archive(string(text))
		if parts[0].name == "zone" {
			continue
		}
		var spec Spec
		if err := json.Unmarshal([]byte(parts[0].text), &spec); err != nil {
			t.Fatal(err)
		}
		if spec.TimeField != "" && spec.TimeUnit != "rfc3339" {
			continue // fractions of seconds as float64 are not what JSON's text says
		}
		inCBOR := spec
		inCBOR.Format = "cbor"
		for _, p := range parts[1:] {
			if !strings.HasPrefix(p.name, "in: ") {
				continue
			}
			payload := unescapeBytes(strings.TrimSuffix(p.text, "\n"))
			var object map[string]any
			var fromJSON, fromCBOR Batch
			if decoder(t, spec).Decode(&Message{Payload: payload}, &fromJSON) != nil || json.Unmarshal(payload, &object) != nil || hasNumberLabel(spec, object) {
				continue
			}
			b, err := cbor.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			if err := decoder(t, inCBOR).Decode(&Message{Payload: b}, &fromCBOR); err != nil {
				t.Errorf("%s: %s: %v", file, p.name, err)
				continue
			}
			if diff := cmp.Diff(sorted(&fromJSON), sorted(&fromCBOR)); diff != "" {
				t.Errorf("%s: %s (-json +cbor):\n%s", file, p.name, diff)
			}
			compared++
		}
	}
	if compared < 20 {
		t.Errorf("only %d payloads were compared", compared)
	}
}

// hasNumberLabel: a label from a number is its digits as the payload has them.
func hasNumberLabel(spec Spec, object map[string]any) bool {
	for _, l := range spec.Labels {
		if _, ok := object[l].(float64); ok {
			return true
		}
	}
	return false
}

func sorted(b *Batch) []string {
	var lines []string
	for line := range strings.Lines(render(b, nil)) {
		if strings.HasPrefix(line, "refused ") { // the words differ: an object, a map
			line, _, _ = strings.Cut(line, ":")
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func TestCBOR_NumbersAndTimes(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		value any
		spec  Spec
		want  string
	}{
		{"integers", map[any]any{"a": -1, "b": uint64(math.MaxUint64), "c": int64(math.MinInt64)}, Spec{}, "a = -1\nb = 1.8446744073709552e+19\nc = -9.223372036854776e+18\n"},
		{"integer keys", map[int]any{1: 21.5, -2: true}, Spec{}, "-2 = 1\n1 = 21.5\n"},
		{"half floats", cbor.RawMessage{0xa1, 0x61, 'v', 0xf9, 0x3c, 0x01}, Spec{}, "v = 1.0009765625\n"},
		{"a subnormal half float", cbor.RawMessage{0xa1, 0x61, 'v', 0xf9, 0x80, 0x01}, Spec{}, "v = -5.960464477539063e-08\n"},
		{"bignum", cbor.RawMessage{0xa1, 0x61, 'v', 0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0}, Spec{}, "v = 1.8446744073709552e+19\n"},
		{"-2^64", cbor.RawMessage{0xa1, 0x61, 'v', 0x3b, 255, 255, 255, 255, 255, 255, 255, 255}, Spec{}, "v = -1.8446744073709552e+19\n"},
		{"NaN beside a number", map[string]any{"v": math.NaN(), "w": 1}, Spec{}, "refused \"v\" not_finite: NaN is not a finite number\nw = 1\n"},
		{"undefined is null", cbor.RawMessage{0xa2, 0x61, 'v', 0xf7, 0x61, 'w', 1}, Spec{}, "w = 1\n"},
		{"a tagged date", map[string]any{"t": cbor.Tag{Number: 0, Content: "2026-11-22T12:00:00Z"}, "v": 1}, Spec{TimeField: "t"}, "time 1795348800000000000\nv = 1\n"},
		{"a tagged epoch", map[string]any{"t": cbor.Tag{Number: 1, Content: float64(at.Unix()) + 0.5}, "v": 1}, Spec{TimeField: "t", TimeUnit: "s"}, "time 1795348800500000000\nv = 1\n"},
		{"a sequence and labels", map[string]any{"n": uint64(7), "line": "a", "shift": 2, "v": float32(1.5)}, Spec{Sequence: "n", Labels: []string{"line", "shift"}},
			"label line=a\nlabel shift=2\nsequence 7\nv = 1.5\n"},
	} {
		b, err := cbor.Marshal(c.value)
		if err != nil {
			t.Fatal(err)
		}
		c.spec.Format = "cbor"
		var out Batch
		if err := decoder(t, c.spec).Decode(&Message{Payload: b}, &out); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got []string
		for line := range strings.Lines(render(&out, nil)) {
			got = append(got, line)
		}
		slices.Sort(got)
		if s := strings.Join(got, ""); s != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, s, c.want)
		}
	}
}

func TestCBOR_RefusesWhole(t *testing.T) {
	deep := append([]byte(strings.Repeat("\xa1\x61a", 100_000)), 1)
	for _, c := range []struct{ name, payload, reason string }{
		{"nothing", "", ReasonEmpty},
		{"an array", "\x81\x01", ReasonType},
		{"cut short", "\xa1\x61a", ReasonSyntax},
		{"bytes after the map", "\xa1\x61a\x01\x01", ReasonSyntax},
		{"a huge length", "\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x61a\x01", ReasonSyntax},
		{"a huge string", "\xa1\x7b\xff\xff\xff\xff\xff\xff\xff\xff", ReasonSyntax},
		{"a key twice", "\xa2\x61a\x01\x61a\x02", ReasonDuplicateKey},
		{"a key that is a list", "\xa1\x80\x01", ReasonName},
		{"reserved information", "\xa1\x61a\x1c", ReasonSyntax},
		{"text that is no UTF-8", "\xa1\x61a\x61\xff", ReasonUTF8},
		{"a break as a value", "\xbf\x61a\xff", ReasonSyntax},
		{"chunks of another type", "\xa1\x61a\x7f\x41a\xff", ReasonSyntax},
		{"a simple value in two bytes that fits one", "\xa1\x61a\xf8\x14", ReasonSyntax},
		{"tags without end", "\xa1\x61a" + strings.Repeat("\xc1", 100_000), ReasonDepth},
		{"depth 100,000", string(deep), ReasonDepth},
	} {
		var out Batch
		err := decoder(t, Spec{Format: "cbor"}).Decode(&Message{Payload: []byte(c.payload)}, &out)
		if e := (*Error)(nil); !errors.As(err, &e) || e.Reason != c.reason {
			t.Errorf("%s: %v, want %s", c.name, err, c.reason)
		}
	}
}

// FuzzCBOR: what is taken is well-formed CBOR to another implementation, and what that one calls malformed is refused.
func FuzzCBOR(f *testing.F) {
	for _, v := range []any{map[string]any{"a": 1, "b": map[string]any{"c": []int{1, 2}, "d": "x"}}, map[int]any{1: -2.5, 2: nil}, []int{1}, "x"} {
		b, _ := cbor.Marshal(v)
		f.Add(b)
	}
	for _, s := range []string{"\xbf\x61a\x9f\x01\xff\x62bc\x7f\x61d\xff\xff", "\xa1\x61v\xc2\x42\x01\x00", "\xa1\x61a\xf8\x14", "\xd9\xd9\xf7\xa1\x61a\xf9\x7e\x00"} {
		f.Add([]byte(s))
	}
	mode, err := cbor.DecOptions{MaxNestedLevels: 64}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	used := decoder(f, Spec{Format: "cbor"})
	roles := decoder(f, Spec{Format: "cbor", TimeField: "t", Sequence: "n", Labels: []string{"l"}, Fields: []string{"a", "b.0", "1"}})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var out, again Batch
		err := decoder(t, Spec{Format: "cbor"}).Decode(&Message{Payload: payload}, &out)
		errAgain := used.Decode(&Message{Payload: payload}, &again)
		if got, want := render(&again, errAgain), render(&out, err); got != want {
			t.Fatalf("Decode(%x) by a used decoder = %s, by a new one %s", payload, got, want)
		}
		if err == nil && mode.Wellformed(payload) != nil {
			t.Fatalf("Decode(%x) took what is malformed: %v", payload, mode.Wellformed(payload))
		}
		holdsContract(t, payload, &out, err)
		var named Batch
		holdsContract(t, payload, &named, roles.Decode(&Message{Payload: payload}, &named))
	})
}
