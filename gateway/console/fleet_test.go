package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// park is a plant with devices.
type park struct {
	plant
	view *FleetView
}

func (p *park) Fleet(context.Context) (*FleetView, error) { return p.view, nil }

// newPark makes n devices of k metrics: every seventh is silent, every eleventh offline.
func newPark(n, k int) *park {
	p := &park{view: &FleetView{At: time.Unix(1_700_000_000, 0)}}
	for i := range n {
		d := DeviceDetail{Device: Device{
			ID: fmt.Sprintf("id%05d", i*7919%100_003), Name: fmt.Sprintf("freezer-%04d", i/2), Source: "telemetry", State: "online", Series: k,
			Labels:    map[string]string{"device": fmt.Sprintf("freezer-%04d", i/2), "line": fmt.Sprintf("line-%d", i%3), "site": fmt.Sprintf("plant-%d", i%2)},
			FirstSeen: time.Unix(1_600_000_000, 0), LastSeen: time.Unix(1_700_000_000-int64(i), 0), Rate: 60, Interval: 1,
		}}
		switch {
		case i%7 == 0:
			d.State = "silent"
		case i%11 == 0:
			d.State = "offline"
		}
		for m := range k {
			d.Metrics = append(d.Metrics, Series{
				Name: fmt.Sprintf("telemetry_m%02d", m), Measurement: "telemetry", Metric: fmt.Sprintf("m%02d", m), Labels: d.Labels, Unit: "°C",
				Device: d.ID, Last: &LastValue{time.Unix(1_700_000_000, 0), 20.37},
			})
		}
		p.view.Devices = append(p.view.Devices, d)
	}
	return p
}

func get[T any](t testing.TB, g Gateway, target string) T {
	t.Helper()
	r := httptest.NewRequest("GET", target, nil)
	r.Host = "127.0.0.1:8080"
	w := httptest.NewRecorder()
	s, err := New(Config{Address: "127.0.0.1:0"}, g, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	s.http.Handler.ServeHTTP(w, r)
	var v T
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || w.Code != http.StatusOK {
		t.Fatalf("GET %s = %d, %v", target, w.Code, err)
	}
	return v
}

func TestDevices_SilentOnesComeFirstAndPagesShowEachOnce(t *testing.T) {
	p := newPark(250, 3)
	rank := map[string]int{"silent": 0, "offline": 1, "unknown": 2, "online": 3}
	for _, sort := range []string{"", "silent", "name", "last_seen"} {
		seen, cursor, last, pages := map[string]bool{}, "", -1, 0
		var before Device
		for {
			l := get[DeviceList](t, p, "/api/v1/devices?limit=30&sort="+sort+"&cursor="+cursor)
			pages++
			if l.Total != 250 || l.States != (StateCounts{Online: 195, Silent: 36, Offline: 19}) {
				t.Fatalf("sort %q: total %d, states %+v", sort, l.Total, l.States)
			}
			for _, d := range l.Devices {
				if seen[d.ID] {
					t.Fatalf("sort %q: %s twice", sort, d.ID)
				}
				seen[d.ID] = true
				switch {
				case (sort == "" || sort == "silent") && rank[d.State] < last,
					sort == "name" && d.Name < before.Name, sort == "last_seen" && !before.LastSeen.IsZero() && d.LastSeen.After(before.LastSeen):
					t.Fatalf("sort %q: %+v after %+v", sort, d, before)
				}
				last, before = rank[d.State], d
			}
			if cursor = l.Next; cursor == "" {
				break
			}
		}
		if len(seen) != 250 || pages != 9 {
			t.Errorf("sort %q: %d devices on %d pages, want 250 on 9", sort, len(seen), pages)
		}
	}
}

func TestDevices_WhatComesAndGoesBetweenPagesMovesNothingElse(t *testing.T) {
	p := newPark(60, 1)
	first := get[DeviceList](t, p, "/api/v1/devices?limit=20&sort=name")
	shown := map[string]bool{}
	for _, d := range first.Devices {
		shown[d.ID] = true
	}
	// The device the cursor names is gone, another shown one too, and new ones stand before and after it.
	late := p.view.Devices[59]
	late.ID, late.Name = "idnew", "a first"
	p.view = &FleetView{Devices: append([]DeviceDetail{late}, append(p.view.Devices[:3:3], append(p.view.Devices[4:19:19], p.view.Devices[20:]...)...)...)}
	rest := 0
	for cursor := first.Next; cursor != ""; {
		l := get[DeviceList](t, p, "/api/v1/devices?limit=20&sort=name&cursor="+cursor)
		for _, d := range l.Devices {
			if shown[d.ID] || d.ID == "idnew" {
				t.Errorf("%s is shown on a page after its place", d.ID)
			}
			rest++
		}
		cursor = l.Next
	}
	if rest != 40 {
		t.Errorf("%d devices after the first page, want 40", rest)
	}
}

func TestDevices_FiltersCombine(t *testing.T) {
	p := newPark(100, 2)
	for target, want := range map[string]int{
		"?search=FREEZER-0011":                      2,
		"?search=plant-1":                           50,
		"?label=site:plant-1&label=line:line-2":     16,
		"?label=site:plant-1&state=silent":          7,
		"?label=nobody:has":                         0,
		"?state=unknown":                            0,
		"?search=freezer-00&label=line:line-0&x=yz": 34,
	} {
		l := get[DeviceList](t, p, "/api/v1/devices"+target)
		if l.Total != want || len(l.Devices) != want || l.Devices == nil {
			t.Errorf("GET devices%s: total %d, %d entries, want %d", target, l.Total, len(l.Devices), want)
		}
	}
	if l := get[SeriesList](t, p, "/api/v1/series?search=m01&limit=1000"); l.Total != 100 {
		t.Errorf("series with m01: %d, want 100", l.Total)
	}
	d := p.view.Devices[5]
	if l := get[SeriesList](t, p, "/api/v1/series?device="+d.ID); l.Total != 2 || l.Series[0].Device != d.ID || l.Series[0].Unit != "°C" {
		t.Errorf("series of a device: %+v", l)
	}
	if one := get[DeviceDetail](t, p, "/api/v1/devices/"+d.ID); one.Name != d.Name || len(one.Metrics) != 2 {
		t.Errorf("device: %+v", one)
	}
}

func TestLists_ParametersThatMakeNoSenseAreNamed(t *testing.T) {
	p := newPark(3, 1)
	for target, want := range map[string]string{
		"/api/v1/devices?limit=0":                           "limit: want 1 to 1000",
		"/api/v1/devices?limit=1001":                        "limit: want 1 to 1000",
		"/api/v1/devices?limit=x":                           "limit: want 1 to 1000",
		"/api/v1/devices?state=asleep":                      "state: want one of silent offline unknown online",
		"/api/v1/devices?sort=colour":                       "sort: want one of silent name last_seen",
		"/api/v1/devices?label=site":                        "label: want name:value",
		"/api/v1/devices?cursor=%21":                        "cursor: want what next said",
		"/api/v1/devices?cursor=OTk6eA":                     "cursor: want what next said", // 99:x
		"/api/v1/devices?cursor=LTE6eA":                     "cursor: want what next said", // -1:x
		"/api/v1/series?limit=-3":                           "limit: want 1 to 1000",
		"/api/v1/series?search=" + strings.Repeat("x", 300): "search: longer than 256 bytes",
		"/api/v1/events?types=status,gossip":                "types: want some of status,alert,reading",
	} {
		r := ask(t, p, "GET", target)
		if text := body(t, r); r.StatusCode != http.StatusBadRequest || !strings.Contains(text, want) {
			t.Errorf("GET %s = %s %s, want 400 with %q", target, r.Status, text, want)
		}
	}
	if r := ask(t, p, "GET", "/api/v1/devices/nosuch"); r.StatusCode != http.StatusNotFound {
		t.Errorf("unknown device: %s", r.Status)
	}
}

func FuzzPage_AnyCursorIsAPlaceOrAnError(f *testing.F) {
	f.Add("MTA6ZnJlZXplci0wMTQ2ZWRmMmRjM2JhNWM3Yzg1NGE2", 5)
	f.Add("OTk6eA", 0)
	f.Fuzz(func(t *testing.T, cursor string, limit int) {
		r := httptest.NewRequest("GET", "/", nil)
		v := r.URL.Query()
		v.Set("cursor", cursor)
		v.Set("limit", fmt.Sprint(limit))
		r.URL.RawQuery = v.Encode()
		q := newQuery(r)
		p := q.page()
		if q.wrong != "" {
			return
		}
		var all []keyed[Device]
		for _, name := range []string{"", "a", "b", "\xff"} {
			all = append(all, keyed[Device]{name, "id", &Device{Name: name}})
		}
		if entries, _ := cut(all, p); len(entries) > p.limit {
			t.Errorf("%d entries on a page of %d", len(entries), p.limit)
		}
	})
}

// BenchmarkDevices is one page of the longest lists: 500 devices, 5,000 series.
func BenchmarkDevices(b *testing.B) {
	p := newPark(500, 10)
	s, err := New(Config{Address: "127.0.0.1:0"}, p, nil, quiet)
	if err != nil {
		b.Fatal(err)
	}
	for name, target := range map[string]string{"devices": "/api/v1/devices?limit=500", "series": "/api/v1/series?limit=1000&search=m0"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("GET", target, nil)
				r.Host = "localhost"
				w := httptest.NewRecorder()
				if s.http.Handler.ServeHTTP(w, r); w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
