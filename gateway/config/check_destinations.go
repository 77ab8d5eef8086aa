package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// destinationTypes are the kinds of Destination.
var destinationTypes = []string{"influxdb", "kafka", "nats", "mqtt"}

// destinationKeys are the keys of Destination that only some types have.
var destinationKeys = []struct {
	key   string
	types []string
}{
	{"url", []string{"influxdb", "nats", "mqtt"}},
	{"org", []string{"influxdb"}},
	{"bucket", []string{"influxdb"}},
	{"canary", []string{"influxdb"}},
	{"token_file", []string{"influxdb", "nats"}},
	{"brokers", []string{"kafka"}},
	{"topic", []string{"kafka", "mqtt"}},
	{"stream", []string{"nats"}},
	{"subject", []string{"nats"}},
	{"username", []string{"kafka", "nats", "mqtt"}},
	{"password_file", []string{"kafka", "nats", "mqtt"}},
	{"sasl", []string{"kafka"}},
	{"credentials_file", []string{"nats"}},
	{"client_id", []string{"kafka", "mqtt"}},
}

// destinationChecks hold the keys that a type needs.
var destinationChecks = map[string]func(k *checker, key string, d *Destination){
	"influxdb": (*checker).influxdb,
	"kafka":    (*checker).kafka,
	"nats":     (*checker).nats,
	"mqtt":     (*checker).mqttBridge,
}

func (k *checker) destinations() {
	for i := range k.c.Uplink.Destinations {
		d := &k.c.Uplink.Destinations[i]
		key := fmt.Sprintf("uplink.destinations[%d]", i)
		if d.Type == "" {
			if k.sound(key) && k.sound(key+".type") {
				k.fail(key+".type", "is required")
			}
			continue
		}
		k.oneOf(key+".type", d.Type, destinationTypes, nil)
		check := destinationChecks[d.Type]
		if check == nil {
			continue
		}
		for _, dk := range destinationKeys {
			if k.written(key+"."+dk.key) && !slices.Contains(dk.types, d.Type) {
				k.fail(key+"."+dk.key, "belongs to type %s, not to %s", strings.Join(dk.types, " and "), d.Type)
			}
		}
		check(k, key, d)
		k.login(key, d)
		k.destinationTLS(key+".tls", d)
		k.count(key+".batch", d.Batch, 1, 5000) // 5,000 lines: InfluxDB's advice, and its cloud's limit
		for name := range d.Match {
			if name == "" {
				k.fail(key+".match", "a label needs a name")
			}
		}
		k.bytes(key+".disk.max_bytes", d.Disk.MaxBytes, 1<<20, 1<<50)
		k.oneOf(key+".disk.when_full", d.Disk.WhenFull, []string{"degrade", "drop_oldest", "refuse"}, nil)
		k.ladder(key+".disk.ladder", d.Disk.Ladder)
		k.bandwidth(key+".bandwidth", &d.Bandwidth)
		if d.Canary.Every != 0 {
			k.duration(key+".canary.every", d.Canary.Every, time.Second, 24*time.Hour)
		}
	}
}

// atLeast checks a bound that 0 switches off.
func (k *checker) atLeast(key string, n, least Bytes) {
	if n > 0 && n < least && k.sound(key) {
		k.fail(key, "want 0 for no bound, or at least %d bytes, got %d", least, n)
	}
}

func (k *checker) bandwidth(key string, b *Bandwidth) {
	k.bytes(key+".bytes_per_second", b.BytesPerSecond, 0, 1<<50)
	k.bytes(key+".bytes_per_day", b.BytesPerDay, 0, 1<<50)
	k.bytes(key+".bytes_per_month", b.BytesPerMonth, 0, 1<<50)
	k.atLeast(key+".bytes_per_second", b.BytesPerSecond, 512)
	k.atLeast(key+".bytes_per_day", b.BytesPerDay, 64<<10) // a TLS handshake is 5 KiB, and a day may need several
	k.atLeast(key+".bytes_per_month", b.BytesPerMonth, 64<<10)
	if _, _, ok := b.Quiet(); !ok && k.sound(key+".quiet_hours") {
		k.fail(key+".quiet_hours", `want two times of day such as "22:00-06:00", got %q`, b.QuietHours)
	}
	if b.Zone != "" && k.sound(key+".zone") {
		if _, err := time.LoadLocation(b.Zone); err != nil || b.Zone == "Local" {
			k.fail(key+".zone", `want a time zone such as "Europe/Berlin" or "UTC", got %q`, b.Zone)
		}
	}
}

func (k *checker) required(key, got string) {
	if got == "" && k.sound(key) {
		k.fail(key, "is required")
	}
}

func (k *checker) influxdb(key string, d *Destination) {
	k.url(key+".url", d.URL, "https", "http")
	k.required(key+".bucket", d.Bucket)
}

func (k *checker) kafka(key string, d *Destination) {
	if len(d.Brokers) == 0 && k.sound(key+".brokers") {
		k.fail(key+".brokers", "is required: at least one host:port")
	}
	near := true
	for i, b := range d.Brokers {
		near = k.address(fmt.Sprintf("%s.brokers[%d]", key, i), b) && near
	}
	k.required(key+".topic", d.Topic)
	if len(d.Topic) > 249 || strings.ContainsFunc(d.Topic, func(r rune) bool { // Kafka's own rule
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}) {
		k.fail(key+".topic", "want up to 249 letters, digits, dots, dashes or underscores, got %q", d.Topic)
	}
	if k.written(key + ".sasl") {
		k.oneOf(key+".sasl", d.SASL, []string{"plain", "scram-sha-256", "scram-sha-512"}, nil)
	}
	if d.Username != "" && (d.SASL == "" || d.SASL == "plain") && !d.TLS.On() && !near {
		k.warn(key+".username", "without tls the password goes over the network in clear text")
	}
}

func (k *checker) nats(key string, d *Destination) {
	if d.URL == "" {
		k.url(key+".url", "", "nats")
	}
	for _, one := range strings.Split(d.URL, ",") {
		if d.URL != "" {
			k.url(key+".url", strings.TrimSpace(one), "nats", "tls", "ws", "wss")
		}
	}
	k.required(key+".stream", d.Stream)
	if strings.ContainsAny(d.Stream, " \t.*>/\\") {
		k.fail(key+".stream", "want a stream's name, got %q", d.Stream)
	}
	k.addressTemplate(key+".subject", d.Subject)
	if strings.ContainsAny(d.Subject, " *>") {
		k.fail(key+".subject", "want tokens with dots between, without spaces and wildcards, got %q", d.Subject)
	}
	ways := 0
	for _, way := range []string{d.Username, d.TokenFile, d.CredentialsFile} {
		if way != "" {
			ways++
		}
	}
	if ways > 1 {
		k.fail(key, "want one way to log in: username, token_file or credentials_file")
	}
	k.secret(key+".credentials_file", d.CredentialsFile)
}

func (k *checker) mqttBridge(key string, d *Destination) {
	k.url(key+".url", d.URL, "mqtts", "mqtt", "ssl", "tls", "tcp", "wss", "ws")
	k.addressTemplate(key+".topic", d.Topic)
	if strings.ContainsAny(d.Topic, "+#") || strings.HasPrefix(d.Topic, "$") {
		k.fail(key+".topic", "want levels with slashes between, without wildcards, not beginning with $, got %q", d.Topic)
	}
	if u, err := url.Parse(d.URL); err == nil && d.Username != "" && slices.Contains([]string{"mqtt", "tcp", "ws"}, u.Scheme) && !loopbackHost(u.Hostname()) {
		k.warn(key+".username", "without TLS (mqtts://) the password goes over the network in clear text")
	}
}

func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// addressTemplate checks an address with {labels} in it.
func (k *checker) addressTemplate(key, got string) {
	if !k.sound(key) {
		return
	}
	if got == "" {
		k.fail(key, "is required")
		return
	}
	for rest := got; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			return
		}
		name, after, ok := strings.Cut(rest[i+1:], "}")
		if rest[i] == '}' || !ok || name == "" || strings.Contains(name, "{") {
			k.fail(key, "want {label} in %q", got)
			return
		}
		rest = after
	}
}

// login checks what a destination is logged in with.
func (k *checker) login(key string, d *Destination) {
	k.secret(key+".token_file", d.TokenFile)
	k.secret(key+".password_file", d.PasswordFile)
	switch {
	case d.PasswordFile != "" && d.Username == "":
		k.fail(key+".password_file", "wants a username beside it")
	case d.Username != "" && d.PasswordFile == "":
		k.fail(key+".username", "wants a password_file beside it")
	}
}

func (k *checker) destinationTLS(key string, d *Destination) {
	t := d.TLS
	if u, err := url.Parse(d.URL); err == nil && t.On() && slices.Contains([]string{"http", "mqtt", "tcp", "ws"}, u.Scheme) {
		k.fail(key, "%s:// is not encrypted: nothing of this would be in force", u.Scheme)
		return
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		k.fail(key, "cert_file and key_file belong together")
		return
	}
	if ok := k.readable(key+".ca_file", t.CAFile, false); ok && t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
			k.fail(key+".ca_file", "%s holds no certificate in PEM form", t.CAFile)
		}
	}
	if t.CertFile == "" {
		return
	}
	if k.readable(key+".cert_file", t.CertFile, false) && k.secret(key+".key_file", t.KeyFile) {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			k.fail(key+".cert_file", "%s", err)
		}
	}
}

// ladder wants steps that merge into each other: each a multiple of the one before.
func (k *checker) ladder(key string, steps []time.Duration) {
	for i, s := range steps {
		at := fmt.Sprintf("%s[%d]", key, i)
		if !k.sound(at) {
			continue
		}
		k.duration(at, s, time.Second, 366*24*time.Hour)
		if i > 0 && steps[i-1] > 0 && (s <= steps[i-1] || s%steps[i-1] != 0) {
			k.fail(at, "want a multiple of the step before, %s, got %s", FormatDuration(steps[i-1]), FormatDuration(s))
		}
	}
}
