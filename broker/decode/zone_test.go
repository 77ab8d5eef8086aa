package decode

import (
	"encoding/json"
	"testing"
	"time"
)

func zoneOf(t testing.TB, name string) (*Zone, *time.Location) {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return NewZone(name, loc), loc
}

// Every half hour of 30 years in zones of every kind: what a wall clock shows at an instant is read back as that instant, where
// the message arrives with it.
func TestZone_ReadsWhatAClockShows(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia", "Asia/Kathmandu"} {
		z, loc := zoneOf(t, name)
		if err := z.check(); err != nil {
			t.Fatal(err)
		}
		for at := time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2035; at = at.Add(30 * time.Minute) {
			_, offset := at.In(loc).Zone()
			local := at.UnixNano() + int64(offset)*nsPerSecond
			if got := z.utc(local, at.UnixNano()); got != at.UnixNano() {
				t.Fatalf("%s: %s reads as %s", name, at.In(loc), time.Unix(0, got).UTC())
			}
		}
	}
}

func TestZone_AmbiguousTimeIsTheOneNearerToArrival(t *testing.T) {
	z, _ := zoneOf(t, "Europe/Berlin")
	local := time.Date(2024, 10, 27, 2, 30, 0, 0, time.UTC).UnixNano()
	first, second := time.Date(2024, 10, 27, 0, 30, 0, 0, time.UTC).UnixNano(), time.Date(2024, 10, 27, 1, 30, 0, 0, time.UTC).UnixNano()
	if got := z.utc(local, first+nsPerSecond); got != first {
		t.Errorf("arrived with the first: %d, want %d", got, first)
	}
	if got := z.utc(local, second+86400*nsPerSecond); got != second {
		t.Errorf("arrived a day later: %d, want %d", got, second)
	}
}

func TestZone_SurvivesJSON(t *testing.T) {
	z, _ := zoneOf(t, "America/New_York")
	b, err := json.Marshal(Spec{Format: "tasmota", Zone: z})
	if err != nil {
		t.Fatal(err)
	}
	var s Spec
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if len(b) > 8<<10 || len(s.Zone.Offsets) < 100 || s.Zone.Offsets[57] != z.Offsets[57] {
		t.Errorf("%d bytes, %d offsets", len(b), len(s.Zone.Offsets))
	}
}

func TestNew_RefusesADamagedZone(t *testing.T) {
	for _, z := range []*Zone{{Name: "x"}, {Name: "x", Offsets: []Offset{{5, 0}, {5, 1}}}, {Name: "x", Offsets: []Offset{{0, 90000}}}} {
		if _, err := New(Spec{Format: "tasmota", Zone: z}); err == nil {
			t.Errorf("New took the zone %+v", z)
		}
	}
}

func FuzzZone(f *testing.F) {
	f.Add(int64(1729989000), int64(0), int64(100), int64(3600), int64(7200))
	f.Fuzz(func(t *testing.T, local, near, from, a, b int64) {
		z := &Zone{Name: "x", Offsets: []Offset{{0, a % 86400}, {max(from, 1), b % 86400}}}
		if z.check() != nil || local > 9e9 || local < -9e9 {
			return
		}
		got := z.utc(local*nsPerSecond, near)
		if d := local - got/nsPerSecond; d != a%86400 && d != b%86400 {
			t.Fatalf("utc(%d, %d) = %d: no offset of %v", local, near, got, z.Offsets)
		}
	})
}
