package sim

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// Config says what fleet to simulate and where it publishes. Zero fields take the defaults of Defaults; New checks
// the whole and reports every problem at once.
type Config struct {
	Server         string      // MQTT server URL: tcp mqtt ssl tls mqtts ws wss unix
	Username       string      // empty: no user name
	Password       string      // sent only with a user name
	TLS            *tls.Config // nil: the system's roots; used by ssl tls mqtts wss
	ClientIDPrefix string      // connection k is "<prefix>-<k>"; must not be shared by two running fleets
	CleanSession   bool        // true: unacknowledged messages are published anew after a reconnect (new packet, no DUP)
	KeepAlive      time.Duration
	ConnectTimeout time.Duration // dial and CONNACK together
	ReconnectMax   time.Duration // longest pause between two connection attempts

	Devices     int
	Connections int      // 0: one for each device
	Profiles    []string // dealt to the devices in turn; see ProfileNames
	Site        string
	Topic       string // template with {site} {device} {profile} {line}
	QoS         byte
	Rate        float64       // readings a second and device; exclusive with TotalRate
	TotalRate   float64       // readings a second of the whole fleet
	Duration    time.Duration // 0: no end by time
	Count       int64         // readings of the whole fleet; 0: no end by count
	Seed        uint64
	Day         time.Duration // length of a simulated day; the run starts at 08:00 of it
	Inflight    int           // unacknowledged messages a connection may have
	GiveUpAfter time.Duration // 0: an unacknowledged message is resent for ever; needs QoS 0 or 1
	Drain       time.Duration // how long the planned end waits without progress for acknowledgements
	StopDrain   time.Duration // how long a cancelled Run waits for acknowledgements

	Faults []Fault

	Truth   io.Writer   // ground truth as JSON lines; nil: none. Buffered, flushed every 200 ms and at the end
	OnEvent func(Event) // ground truth as calls, one at a time, in the order of Truth; nil: none; must not block
	Log     *slog.Logger
}

// Defaults is the fleet of a bare `firmware-sim`: ten mixed devices at one reading a second on a local server.
func Defaults() Config {
	return Config{
		Server:         "tcp://127.0.0.1:1883",
		ClientIDPrefix: "firmware-sim",
		KeepAlive:      30 * time.Second,
		ConnectTimeout: 10 * time.Second,
		ReconnectMax:   5 * time.Second,
		Devices:        10,
		Profiles:       []string{"freezer", "pump", "line", "weather"},
		Site:           "plant-1",
		Topic:          "sites/{site}/devices/{device}/telemetry",
		QoS:            1,
		Rate:           1,
		Seed:           1,
		Day:            24 * time.Hour,
		Inflight:       100,
		Drain:          30 * time.Second,
		StopDrain:      5 * time.Second,
	}
}

// withDefaults fills what is zero. QoS, Seed and the ends of the run keep their zero, which means something.
func (c Config) withDefaults() Config {
	d := Defaults()
	fill(&c.Server, d.Server)
	fill(&c.ClientIDPrefix, d.ClientIDPrefix)
	fill(&c.KeepAlive, d.KeepAlive)
	fill(&c.ConnectTimeout, d.ConnectTimeout)
	fill(&c.ReconnectMax, d.ReconnectMax)
	fill(&c.Devices, d.Devices)
	if len(c.Profiles) == 0 {
		c.Profiles = d.Profiles
	}
	fill(&c.Site, d.Site)
	fill(&c.Topic, d.Topic)
	if c.TotalRate == 0 {
		fill(&c.Rate, d.Rate)
	}
	fill(&c.Day, d.Day)
	fill(&c.Inflight, d.Inflight)
	fill(&c.Drain, d.Drain)
	fill(&c.StopDrain, d.StopDrain)
	if c.Connections == 0 || c.Connections > c.Devices {
		c.Connections = c.Devices
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func fill[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// schemes this simulator dials.
var schemes = []string{"tcp", "mqtt", "ssl", "tls", "mqtts", "ws", "wss", "unix"}

// Limits that keep a slip of the keyboard from taking the machine down.
const (
	maxDevices  = 100_000
	maxInflight = 65_535 // MQTT packet identifiers are 16 bits, 0 is not one
	maxRate     = 10_000_000
	minRate     = 1e-6 // one reading in twelve days
)

// Validate reports everything that is wrong with c, joined, after the defaults were filled in.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if u, err := url.Parse(c.Server); err != nil {
		bad("server: %w", err)
	} else if !slices.Contains(schemes, u.Scheme) {
		bad("server: want a URL with one of %s, such as tcp://127.0.0.1:1883, got %q", strings.Join(schemes, " "), c.Server)
	} else if u.Scheme != "unix" && u.Host == "" {
		bad("server: %q names no host", c.Server)
	}
	if c.Devices < 1 || c.Devices > maxDevices {
		bad("devices: want 1 to %d, got %d", maxDevices, c.Devices)
	}
	if c.Connections < 0 {
		bad("connections: want 1 to the number of devices, or 0 for one each, got %d", c.Connections)
	}
	for _, p := range c.Profiles {
		if profileByName(p) == nil {
			bad("profiles: %q is not one of %s", p, strings.Join(ProfileNames(), " "))
		}
	}
	if c.QoS > 2 {
		bad("qos: want 0, 1 or 2, got %d", c.QoS)
	}
	if c.Rate != 0 && c.TotalRate != 0 {
		bad("rate: give a rate per device or a total rate, not both")
	}
	for _, r := range []float64{c.Rate, c.TotalRate} {
		if r != 0 && !(r >= minRate && r <= maxRate) { // also NaN
			bad("rate: want %v to %d a second, got %v", minRate, maxRate, r)
		}
	}
	if c.Count < 0 {
		bad("count: want 0 (no end by count) or more, got %d", c.Count)
	}
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"duration", c.Duration}, {"day", c.Day}, {"give-up-after", c.GiveUpAfter}, {"drain", c.Drain},
		{"stop drain", c.StopDrain}, {"keep-alive", c.KeepAlive}, {"connect timeout", c.ConnectTimeout},
		{"reconnect max", c.ReconnectMax},
	} {
		if d.d < 0 {
			bad("%s: must not be negative, got %s", d.name, d.d)
		}
	}
	if c.KeepAlive < time.Second || c.KeepAlive > 65535*time.Second {
		bad("keep-alive: want 1s to 65535s (MQTT counts it in 16-bit seconds), got %s", c.KeepAlive)
	}
	if c.Inflight < 1 || c.Inflight > maxInflight {
		bad("inflight: want 1 to %d, got %d", maxInflight, c.Inflight)
	}
	if c.GiveUpAfter > 0 && c.QoS == 2 {
		bad("give-up-after: needs QoS 0 or 1: a QoS 2 packet identifier that is given up cannot be used again safely")
	}
	if err := checkTopic(c.Topic); err != nil {
		errs = append(errs, err)
	}
	if strings.ContainsAny(c.Site, "/+#\x00") || c.Site == "" {
		bad("site: must be one topic level without / + #, got %q", c.Site)
	}
	names := map[string]bool{}
	for i, f := range c.Faults {
		f = f.withDefaults()
		if names[f.Name] {
			bad("fault %d: the name %q is taken: give each fault its own name", i+1, f.Name)
		}
		names[f.Name] = true
		for _, p := range f.problems() {
			bad("fault %s: %s: %s", f.Name, p.key, p.text)
		}
	}
	return errors.Join(errs...)
}

// interval is the pause between two readings of one device.
func (c Config) interval() time.Duration {
	rate := c.Rate
	if c.TotalRate > 0 {
		rate = c.TotalRate / float64(c.Devices)
	}
	return max(time.Duration(float64(time.Second)/rate), 1)
}

var placeholders = []string{"{site}", "{device}", "{profile}", "{line}"}

func checkTopic(template string) error {
	rest := template
	for _, p := range placeholders {
		rest = strings.ReplaceAll(rest, p, "x")
	}
	switch {
	case template == "" || len(rest) > 1024:
		return fmt.Errorf("topic: want 1 to 1024 bytes")
	case strings.ContainsAny(rest, "{}"):
		return fmt.Errorf("topic: %q: the placeholders are %s", template, strings.Join(placeholders, " "))
	case strings.ContainsAny(rest, "+#\x00"):
		return fmt.Errorf("topic: %q: a topic to publish to holds no + or #", template)
	}
	return nil
}

func expandTopic(template, site, device, profile, line string) string {
	return strings.NewReplacer("{site}", site, "{device}", device, "{profile}", profile, "{line}", line).Replace(template)
}

// matches reports whether a device name matches the glob of a fault; Validate has seen the pattern.
func matches(glob, device string) bool {
	ok, err := path.Match(glob, device)
	return err == nil && ok
}
