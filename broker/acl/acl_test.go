package acl

import (
	"errors"
	"strings"
	"testing"
)

const example = `# a site's file
topic read public/#
topic deny public/hidden

user ann
topic cmd/ann/#
topic read plant/+/state
topic write plant/+/set
topic deny cmd/ann/secret
topic read $SYS/broker/#
topic readwrite with some blanks/#

pattern readwrite devices/%u/#
pattern write clients/%c
pattern write from/%c/by/%u/x-%u-y/+
pattern deny devices/%u/firmware

user ben
topic #

user ann
topic later/line
`

func mustParse(t testing.TB, text string) *File {
	t.Helper()
	f, err := Parse("acl", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFile_GrantsAsMosquittoDoes(t *testing.T) {
	f := mustParse(t, example)
	for _, tc := range []struct {
		id, user, topic string
		read, write     bool
	}{
		{"c", "", "public/a/b", true, false},
		{"c", "", "public", true, false},
		{"c", "", "public/hidden", false, false},
		{"c", "", "publics", false, false},
		{"c", "", "devices//x", false, false}, // %u needs a name
		{"c", "", "clients/c", false, true},
		{"c", "", "cmd/ann/x", false, false},
		{"c", "ann", "public/a", false, false}, // the general section is for clients without a name
		{"c", "ann", "cmd/ann", true, true},
		{"c", "ann", "cmd/ann/a/b", true, true},
		{"c", "ann", "cmd/ann/secret", false, false},
		{"c", "ann", "cmd/ann/secret/x", true, true},
		{"c", "ann", "plant/1/state", true, false},
		{"c", "ann", "plant/1/set", false, true},
		{"c", "ann", "plant//state", true, false},
		{"c", "ann", "plant/1/2/state", false, false},
		{"c", "ann", "$SYS/broker/uptime", true, false},
		{"c", "ann", "with some blanks/x", true, true},
		{"c", "ann", "later/line", true, true},
		{"c", "ann", "devices/ann/temp", true, true},
		{"c", "ann", "devices/ann", true, true},
		{"c", "ann", "devices/ben/temp", false, false},
		{"c", "ann", "devices/ann/firmware", false, false},
		{"c", "ann", "clients/c", false, true},
		{"c", "ann", "clients/d", false, false},
		{"c", "ann", "from/c/by/ann/x-ann-y/z", false, true},
		{"c", "ann", "from/c/by/ann/x-ben-y/z", false, false},
		{"c", "ann", "from/c/by/ann/x-ann-y/z/z", false, false},
		{"c", "ben", "anything/at/all", true, true},
		{"c", "ben", "$SYS/broker/uptime", false, false},
		{"c", "ben", "devices/ben/firmware", true, true}, // his own line is asked first
		{"c", "+", "devices/ann/temp", false, false},
		{"#", "cat", "devices/cat/temp", false, false},
		{"c", "a/b", "devices/a/b/temp", true, true},
		{"c", "unknown", "public/a", false, false},
	} {
		if r, w := f.Allowed(tc.id, tc.user, tc.topic, false), f.Allowed(tc.id, tc.user, tc.topic, true); r != tc.read || w != tc.write {
			t.Errorf("%s as %q on %s: read %v, write %v; want %v, %v", tc.id, tc.user, tc.topic, r, w, tc.read, tc.write)
		}
	}
}

func TestFile_RefusesSubscriptionsThatCouldDeliverNothing(t *testing.T) {
	f := mustParse(t, example)
	for _, tc := range []struct {
		user, filter string
		want         bool
	}{
		{"ann", "#", true},
		{"ann", "+/ann/#", true},
		{"ann", "cmd/#", true},
		{"ann", "plant/+/state", true},
		{"ann", "plant/+/set", false},
		{"ann", "devices/+/temp", true},
		{"ann", "devices/ben/#", false},
		{"ann", "devices/+/firmware", true}, // the deny is one device's
		{"ann", "$SYS/#", true},
		{"ann", "$other/#", false},
		{"", "#", true},
		{"", "public/hidden/#", true}, // the deny is the topic's, not what is below
		{"", "cmd/+", false},
		{"cat", "cmd/#", false},
		{"cat", "devices/cat/#", true},
		{"a+b", "devices/#", false},
	} {
		if got := f.Allowed("c", tc.user, tc.filter, false); got != tc.want {
			t.Errorf("%q subscribes to %s: %v, want %v", tc.user, tc.filter, got, tc.want)
		}
	}
	f = mustParse(t, "topic read #\ntopic deny secret/#\ntopic deny a/+/b\n")
	for filter, want := range map[string]bool{
		"secret/#": false, "secret/+/x": false, "secret/+": false, "+/x": true, "#": true, "a/+/b": false, "a/#": true, "a/+/+": true,
	} {
		if got := f.Allowed("c", "", filter, false); got != want {
			t.Errorf("subscribes to %s: %v, want %v", filter, got, want)
		}
	}
}

func TestParse_NamesEveryBadLine(t *testing.T) {
	f, err := Parse("acl", []byte("topic read a\nuser\ntopics a\n  topic\ntopic reads a b\ntopic read a/b+\npattern write a/#/b\ntopic\tread a\ntopic read a\x01\nuser \xff\n #x\n"))
	want := `acl:2:5: want a name after user
acl:3:1: want user, topic, pattern or #, found "topics"
acl:4:8: want a topic after topic
acl:5:7: want read, write, readwrite or deny before a topic with blanks, found "reads"
acl:6:15: + stands for whole levels: want it between slashes
acl:7:17: # comes last
acl:8:6: want blanks between words, found a tab
acl:9:13: control character 0x1
acl:10:1: the line is not UTF-8
acl:11:2: want user, topic, pattern or #, found "#x"`
	if f != nil || err == nil || err.Error() != want {
		t.Errorf("Parse:\n%v\nwant\n%s", err, want)
	}
	var le *LineError
	if !errors.As(err, &le) || le.Line != 2 {
		t.Errorf("errors.As: %+v", le)
	}
}

func TestParse_TakesCarriageReturnsTrailingBlanksAndAnEmptyFile(t *testing.T) {
	f := mustParse(t, "user  ann b \r\ntopic   read   a b  \r\n\r\n# end")
	if !f.Allowed("c", "ann b", "a b", false) {
		t.Error("blanks were not taken as mosquitto takes them")
	}
	if mustParse(t, "").Allowed("c", "", "a", false) {
		t.Error("an empty file grants")
	}
}

func TestLive_IsReplacedAtOnceAndDeniesWithoutAFile(t *testing.T) {
	var l Live
	if l.Allowed("c", "u", "a", true) {
		t.Error("grants without a file")
	}
	l.Store(mustParse(t, "pattern write a"))
	if !l.Allowed("c", "u", "a", true) {
		t.Error("Store changed nothing")
	}
}

func TestFile_AllowedAllocatesNothing(t *testing.T) {
	f := mustParse(t, example)
	if n := testing.AllocsPerRun(100, func() {
		f.Allowed("c", "ann", "devices/ann/temp", true)
		f.Allowed("c", "ann", "from/c/by/ann/x-ann-y/z", true)
		f.Allowed("c", "ann", "nowhere/to/be/found", false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// slowMatch is the plain meaning of a filter.
func slowMatch(filter, topic string) bool {
	if strings.HasPrefix(filter, "$") != strings.HasPrefix(topic, "$") || topic == "" {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, l := range f {
		if l == "#" {
			return len(t) >= i
		}
		if i >= len(t) || l != "+" && l != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}

// FuzzMatch holds tree and pattern to slowMatch, and subscriptions to both.
func FuzzMatch(f *testing.F) {
	for _, s := range [][3]string{{"a/+/#", "a/b", "u"}, {"%u/#", "u", "u"}, {"+", "$x", ""}, {"a/%c", "a/c", "u"}, {"$a/+", "$a/", "u"}, {"#", "a//b", "u"}} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, line, topic, user string) {
		if _, fault := filterFault(line); fault != "" || line == "" || strings.ContainsAny(topic+user, "+#") || len(line)+len(topic) > 200 {
			return
		}
		var n node
		n.add(line, read)
		if got, want := n.match(topic, true)&read != 0, slowMatch(line, topic); topic != "" && got != want {
			t.Fatalf("tree: %q on %q = %v", line, topic, got)
		}
		p := compile(line, read)
		full := p.expand("c", user)
		want := slowMatch(full, topic)
		if got := p.match("c", user, topic); full != "" && got != want {
			t.Fatalf("pattern: %q (%q) on %q = %v", line, full, topic, got)
		}
		if want && full != "" && (!overlaps(full, topic) || !covers(full, topic)) {
			t.Fatalf("%q matches %q without overlap or cover", full, topic)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("topic read a\r\nuser x\npattern deny %u/%c/#"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("acl", data)
		if (file == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v", file, err)
		}
		if err == nil {
			file.Allowed("c", "ann", "a/b", true)
			file.Allowed("c", "ann", "a/+", false)
		}
	})
}

func BenchmarkFile_Allowed(b *testing.B) {
	f := mustParse(b, example)
	b.ReportAllocs()
	for b.Loop() {
		f.Allowed("c", "ann", "devices/ann/temperature", true)
	}
}
