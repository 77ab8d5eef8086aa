package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Fleet is what a Gateway offers that knows its devices. Safe for concurrent use.
type Fleet interface {
	// Fleet is every device known, at most about a second old. The view is shared and nobody changes it.
	Fleet(ctx context.Context) (*FleetView, error)
}

// FleetView is the devices at one moment.
type FleetView struct {
	At      time.Time
	Devices []DeviceDetail // by name, then id
}

// Device is one device: one set of labels under one measurement.
type Device struct {
	ID        string            `json:"id"`     // stable and opaque, may stand in a URL
	Name      string            `json:"name"`   // its label device, or what tells it from others
	Source    string            `json:"source"` // the measurement its readings go under
	Labels    map[string]string `json:"labels"`
	State     string            `json:"state"` // online silent offline unknown
	FirstSeen time.Time         `json:"first_seen,omitzero"`
	LastSeen  time.Time         `json:"last_seen,omitzero"`
	Rate      float64           `json:"rate_per_minute"`  // messages, over the last minute or so
	Interval  float64           `json:"interval_seconds"` // usual, between messages; 0: not known yet
	Series    int               `json:"series"`
	Alerts    int               `json:"alerts"` // firing
}

// DeviceDetail is /api/v1/devices/{id}: a device, with its series in place of their number.
type DeviceDetail struct {
	Device
	Metrics []Series `json:"series"` // by metric
}

// Series is one metric of one device.
type Series struct {
	Name        string            `json:"name"` // in PromQL
	Measurement string            `json:"measurement"`
	Metric      string            `json:"metric"` // as the device calls it
	Labels      map[string]string `json:"labels"` // in PromQL
	Unit        string            `json:"unit"`   // "" where it is not known
	Device      string            `json:"device"` // its id
	Last        *LastValue        `json:"last"`   // null: none known
}

// LastValue is the newest value by its own time.
type LastValue struct {
	Time  time.Time `json:"time"`
	Value float64   `json:"value"`
}

// DeviceList is /api/v1/devices.
type DeviceList struct {
	Devices []Device    `json:"devices"`
	Next    string      `json:"next"`  // cursor of the next page, "" at the end
	Total   int         `json:"total"` // matches
	States  StateCounts `json:"states"`
}

// StateCounts counts what the search and the labels match, whatever state was asked for.
type StateCounts struct {
	Online  int `json:"online"`
	Silent  int `json:"silent"`
	Offline int `json:"offline"`
	Unknown int `json:"unknown"`
}

// SeriesList is /api/v1/series.
type SeriesList struct {
	Series []Series `json:"series"`
	Next   string   `json:"next"`
	Total  int      `json:"total"`
}

// The states of a device, those that need a look first.
var deviceStates = []string{"silent", "offline", "unknown", "online"}

func (c *StateCounts) add(state string) {
	switch state {
	case "online":
		c.Online++
	case "silent":
		c.Silent++
	case "offline":
		c.Offline++
	default:
		c.Unknown++
	}
}

// deviceOrders are what sort may say; they end in an order that is total.
var deviceOrders = map[string]func(d *Device) string{
	"silent":    func(d *Device) string { return string(rune('0'+slices.Index(deviceStates, d.State))) + d.Name },
	"name":      func(d *Device) string { return d.Name },
	"last_seen": func(d *Device) string { return descending(d.LastSeen) },
}

// descending is a key by which the newest time comes first.
func descending(t time.Time) string {
	if t.IsZero() {
		return "~"
	}
	const highest = 1<<63 - 1
	b := make([]byte, 19)
	for n, i := uint64(highest-t.UnixNano()), len(b)-1; i >= 0; n, i = n/10, i-1 {
		b[i] = byte('0' + n%10)
	}
	return string(b)
}

func (s *site) devices(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	page := q.page()
	state := q.oneOf("state", append([]string{""}, deviceStates...)...)
	order := deviceOrders[cmp.Or(q.oneOf("sort", "", "silent", "name", "last_seen"), "silent")]
	wanted := q.labels("label")
	search := strings.ToLower(q.text("search"))
	if !q.ok(w) {
		return
	}
	v, err := s.fleet.Fleet(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	l := DeviceList{}
	var found []keyed[Device]
	for i := range v.Devices {
		d := &v.Devices[i].Device
		if !s.sees(r, d.Labels) || !hasLabels(d.Labels, wanted) || !d.mentions(search) {
			continue
		}
		l.States.add(d.State)
		if state == "" || d.State == state {
			found = append(found, keyed[Device]{order(d), d.ID, d})
		}
	}
	sortKeyed(found)
	l.Total = len(found)
	l.Devices, l.Next = cut(found, page)
	s.answer(w, http.StatusOK, l)
}

func (s *site) device(w http.ResponseWriter, r *http.Request) {
	v, err := s.fleet.Fleet(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	id := r.PathValue("id")
	for i := range v.Devices {
		if d := v.Devices[i]; d.ID == id && s.sees(r, d.Labels) {
			d.Metrics = list(d.Metrics)
			s.answer(w, http.StatusOK, d)
			return
		}
	}
	problem(w, http.StatusNotFound, "no device has this id")
}

func (s *site) series(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	page := q.page()
	device, search := q.text("device"), strings.ToLower(q.text("search"))
	if !q.ok(w) {
		return
	}
	v, err := s.fleet.Fleet(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	var found []keyed[Series]
	for i := range v.Devices {
		d := &v.Devices[i]
		if device != "" && d.ID != device || !s.sees(r, d.Labels) {
			continue
		}
		whole := d.mentions(search)
		for k := range d.Metrics {
			m := &d.Metrics[k]
			if whole || m.mentions(search) {
				found = append(found, keyed[Series]{d.Name, d.ID + "\x00" + m.Metric, m})
			}
		}
	}
	sortKeyed(found)
	l := SeriesList{Total: len(found)}
	l.Series, l.Next = cut(found, page)
	s.answer(w, http.StatusOK, l)
}

func hasLabels(labels map[string]string, wanted map[string]string) bool {
	for name, value := range wanted {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// mentions tells whether a device's names or labels hold lower.
func (d *Device) mentions(lower string) bool {
	if lower == "" || holds(d.Name, lower) || holds(d.Source, lower) {
		return true
	}
	for _, v := range d.Labels {
		if holds(v, lower) {
			return true
		}
	}
	return false
}

func (m *Series) mentions(lower string) bool { return holds(m.Name, lower) || holds(m.Metric, lower) }

func holds(text, lower string) bool { return strings.Contains(strings.ToLower(text), lower) }
