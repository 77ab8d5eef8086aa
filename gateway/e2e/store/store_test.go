package store

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"testing"
	"time"
)

func TestParseLine_ReadsWhatTheSchemaAllows(t *testing.T) {
	got, err := ParseLine(`tele\ metry\,x,window=10s,de\ vice=a\=b\,c temperature_mean=1.5e0,co\ unt=-3 1700000000000000000`)
	want := Line{"tele metry,x", []Tag{{"de vice", "a=b,c"}, {"window", "10s"}}, map[string]float64{"temperature_mean": 1.5, "co unt": -3}, 1700000000000000000}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ParseLine = %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "m", "m v=1", "m v= 1", "m,t= v=1 1", "m,t=a,t=b v=1 1", "#m v=1 1", "m v=NaN 1", "m v=+Inf 1", "m v=1e400 1",
		"m v=1i 1", `m v="s" 1`, "m time=1 1", "m,time=a v=1 1", "m v=1,v=2 1", "m v=1 1.5", "m v=1 1 ", " m v=1 1", "m  v=1 1", ",t=a v=1 1"} {
		if l, err := ParseLine(bad); err == nil {
			t.Errorf("ParseLine(%q) = %+v, want an error", bad, l)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("m,t=a v=1 1")
	f.Add(`m\,x,t\ =a\=\\ v=1,w=-0 -1`)
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLine(s)
		if err == nil && (l.Measurement == "" || len(l.Fields) == 0) {
			t.Fatalf("ParseLine(%q) = %+v", s, l)
		}
	})
}

func write(s string, body string, zip bool) (int, error) {
	var b bytes.Buffer
	if zip {
		z := gzip.NewWriter(&b)
		z.Write([]byte(body))
		z.Close()
	} else {
		b.WriteString(body)
	}
	req, err := http.NewRequest("POST", s+"/api/v2/write?org=o&bucket=b&precision=ns", &b)
	if err != nil {
		return 0, err
	}
	if zip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	c := http.Client{Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func TestStandIn_StoresOrFailsAsItIsTold(t *testing.T) {
	s, err := NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, c := range []struct {
		mode   Mode
		code   int // 0: no answer
		stored bool
	}{{Up, 204, true}, {Broken, 500, false}, {Unavailable, 503, false}, {Denied, 401, false}, {Portal, 200, false}, {Redirect, 302, false},
		{Reset, 0, true}, {HalfReset, 0, false}, {StoredError, 500, true}, {Slow, 204, true}, {Down, 0, false}, {Up, 204, true}} {
		if err := s.Set(c.mode); err != nil {
			t.Fatal(err)
		}
		before := len(s.Points("m"))
		code, err := write(s.URL(), fmt.Sprintf("m,t=a v=%d %d\nm,t=b v=1 %d\n", i, i, i), i%2 == 0)
		stored := len(s.Points("m")) == before+2
		if code != c.code || (err != nil) != (c.code == 0) || stored != c.stored {
			t.Errorf("mode %s: code %d, %v, stored %v; want %d, %v", c.mode, code, err, stored, c.code, c.stored)
		}
	}
	if code, _ := write(s.URL(), "m v=1 99\nm v= 99\n", false); code != 400 || len(s.Refused()) != 1 {
		t.Errorf("a malformed line: code %d, %d refused", code, len(s.Refused()))
	}
	for _, p := range s.Points("m") {
		if p.Time == 99 {
			t.Error("the good line beside a malformed one was stored")
		}
	}
}

func TestStandIn_LaterWriteOfAPointWins(t *testing.T) {
	s, err := NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, body := range []string{"m,a=1,b=2 v=5,w=1 7", "m,b=2,a=1 v=3 7", "m,a=1,b=2 v=3 7"} {
		if code, err := write(s.URL(), body, false); code != 204 {
			t.Fatalf("write %q: %d, %v", body, code, err)
		}
	}
	p := s.Points("m")
	if len(p) != 1 || p[0].Fields["v"] != 3 || p[0].Fields["w"] != 1 || p[0].Writes != 3 || p[0].Versions != 2 {
		t.Errorf("points = %+v, want one with v=3 w=1, 3 writes, 2 versions", p)
	}
}

func TestVictoria_KeepsWhatWasWrittenOverARestart(t *testing.T) {
	if !HasVictoria() {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed, and CI must have it", VictoriaBinary)
		}
		t.Skipf("%s is not installed", VictoriaBinary)
	}
	dir := t.TempDir()
	v, err := StartVictoria(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { v.Kill() }()
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	line := func(mean float64) string {
		return fmt.Sprintf("telemetry,device=a t_mean=%v %d", mean, at.UnixNano())
	}
	for _, mean := range []float64{5, 3} {
		if code, err := write(v.URL(), line(mean), true); code != 204 {
			t.Fatalf("write: %d, %v", code, err)
		}
	}
	check := func() {
		t.Helper()
		got, err := v.Export(`{device="a"}`)
		values := map[float64]bool{}
		for _, s := range got {
			for i, x := range s.Values {
				values[x] = true
				if s.Timestamps[i] != at.UnixMilli() || s.Metric["__name__"] != "telemetry_t_mean" {
					t.Errorf("series %+v, want telemetry_t_mean at %d", s, at.UnixMilli())
				}
			}
		}
		if err != nil || !values[5] || !values[3] {
			t.Errorf("Export = %+v, %v; want both samples", got, err)
		}
	}
	check()
	if _, err := v.Stop(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	address := v.Address
	if v, err = StartVictoria(dir, address); err != nil {
		t.Fatal(err)
	}
	check()
}
