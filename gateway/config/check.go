package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// checker holds the configuration to what its parts can do. Each check reports at the key's place and goes on.
type checker struct {
	*decoder
	c *Config
}

func check(c *Config, d *decoder) {
	k := &checker{d, c}
	k.gateway()
	k.mqtt()
	k.journal()
	k.history()
	k.sources()
	k.limits()
	k.rules()
	k.webhooks()
	k.destinations()
	k.http()
	k.withoutEffect()
}

// fail reports an error at key; warn a warning.
func (k *checker) fail(key, format string, args ...any) {
	k.errorAt(k.find(key), "%s: %s", key, fmt.Sprintf(format, args...))
}

func (k *checker) warn(key, format string, args ...any) {
	p := k.find(key)
	k.warnings = append(k.warnings, Error{p.file, p.line, p.col, key + ": " + fmt.Sprintf(format, args...)})
}

// sound tells whether key was decoded without an error, so that a check does not add to it.
func (k *checker) sound(key string) bool {
	p, ok := k.places[key]
	if !ok {
		return true
	}
	for _, e := range k.errs {
		if e.File == p.file && e.Line == p.line && e.Column == p.col {
			return false
		}
	}
	return true
}

func (k *checker) duration(key string, got, least, most time.Duration) {
	if k.sound(key) && (got < least || got > most) {
		k.fail(key, "want %s to %s, got %s", FormatDuration(least), FormatDuration(most), FormatDuration(got))
	}
}

func (k *checker) bytes(key string, got, least, most Bytes) {
	if k.sound(key) && (got < least || got > most) {
		k.fail(key, "want %s to %s, got %s", least, most, got)
	}
}

func (k *checker) count(key string, got, least, most int) {
	if k.sound(key) && (got < least || got > most) {
		k.fail(key, "want %d to %d, got %d", least, most, got)
	}
}

// oneOf accepts a word of here; a word of later is known and not built yet.
func (k *checker) oneOf(key, got string, here, later []string) {
	if !k.sound(key) {
		return
	}
	for _, w := range here {
		if w == got {
			return
		}
	}
	what := key[strings.LastIndexByte(key, '.')+1:]
	for _, w := range later {
		if w == got {
			k.fail(key, "%s %q is not available in this version (available: %s)", what, got, strings.Join(here, ", "))
			return
		}
	}
	k.fail(key, "unknown %s %q%s (available: %s)", what, got, didYouMean(got, append(here[:len(here):len(here)], later...)), strings.Join(here, ", "))
}

// name holds names to what is safe as a folder, a metric's label value and a part of a topic.
func (k *checker) name(key, got string) {
	if !k.sound(key) {
		return
	}
	if got == "" {
		k.fail(key, "is required")
		return
	}
	if !validName(got) {
		k.fail(key, "want up to 64 letters, digits, dots, dashes or underscores, starting with a letter or digit, got %q", got)
	}
}

func validName(s string) bool {
	for i := range len(s) {
		b := s[i]
		alnum := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		if !alnum && (i == 0 || b != '.' && b != '-' && b != '_') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// label holds label names to what every destination takes and the point schema leaves free.
func (k *checker) label(key, name string) {
	switch {
	case name == "":
		k.fail(key, "a label needs a name")
	case name == "gateway" || name == "window" || name == "time":
		k.fail(key, "the label %q is reserved", name)
	case strings.HasPrefix(name, "_"):
		k.fail(key, "label %q: a leading underscore is reserved", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		k.fail(key, "label %q: control characters and invalid UTF-8 are refused", name)
	}
}

func (k *checker) gateway() {
	g := &k.c.Gateway
	if g.Zone != "" && k.sound("gateway.zone") {
		if _, err := time.LoadLocation(g.Zone); err != nil || g.Zone == "Local" {
			k.fail("gateway.zone", `want a time zone such as "Europe/Berlin" or "UTC", got %q`, g.Zone)
		}
	}
	if g.ID == "" && !k.written("gateway.id") {
		if host, err := os.Hostname(); err == nil && validName(host) {
			g.ID = host
		}
	}
	k.name("gateway.id", g.ID)
	if g.DataDir == "" {
		k.fail("gateway.data_dir", "is required")
	} else {
		g.DataDir = resolve(k.dir, g.DataDir)
	}
	for name := range g.Labels {
		k.label("gateway.labels."+name, name)
	}
}

// address checks host:port and tells whether it is reachable from this machine only.
func (k *checker) address(key, got string) (loopback bool) {
	if !k.sound(key) {
		return true
	}
	host, port, err := net.SplitHostPort(got)
	if err != nil {
		k.fail(key, `want host:port such as "127.0.0.1:1883", got %q`, got)
		return true
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 || octalLooking(port) {
		k.fail(key, "want a port from 0 to 65535, got %q", port)
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	if strings.Trim(host, "0123456789.") == "" && host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			k.fail(key, "%q is no IPv4 address", host)
			return true
		}
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (k *checker) mqtt() {
	m := &k.c.MQTT
	if len(m.Listeners) == 0 && k.sound("mqtt.listeners") {
		k.fail("mqtt.listeners", "want at least one address to listen on")
	}
	k.readable("mqtt.password_file", m.PasswordFile, true)
	k.readable("mqtt.acl_file", m.ACLFile, true)
	loginSet := m.PasswordFile != "" || m.AllowAnonymous || !k.sound("mqtt.password_file") || !k.sound("mqtt.allow_anonymous")
	first := map[string]string{}
	for i, l := range m.Listeners {
		key := fmt.Sprintf("mqtt.listeners[%d]", i)
		if l.Address == "" {
			if k.sound(key) && k.sound(key+".address") {
				k.fail(key+".address", "is required")
			}
			continue
		}
		loopback := k.address(key+".address", l.Address)
		if other, ok := first[l.Address]; ok && !strings.HasSuffix(l.Address, ":0") {
			k.fail(key+".address", "%s is also that of %s", l.Address, other)
		}
		first[l.Address] = key
		k.oneOf(key+".protocol", l.Protocol, []string{"tcp", "websocket"}, nil)
		k.tls(key+".tls", l.TLS)
		if !loopback && !loginSet && l.TLS.ClientCAFile == "" {
			k.fail(key+".address", "%s takes connections from other machines, and nothing says who may log in: "+
				"set mqtt.password_file, tls.client_ca_file, or mqtt.allow_anonymous: true", l.Address)
		}
	}
	k.count("mqtt.limits.connections", m.Limits.Connections, 1, 1_000_000)
	k.bytes("mqtt.limits.packet_bytes", m.Limits.PacketBytes, 128, maxPacketBytes)
	k.duration("mqtt.limits.connect_timeout", m.Limits.ConnectTimeout, 100*time.Millisecond, 5*time.Minute)
	k.count("mqtt.limits.publish_rate", m.Limits.PublishRate, 0, 10_000_000)
	k.mqttLimits()
}

func (k *checker) mqttLimits() {
	l := &k.c.MQTT.Limits
	const key = "mqtt.limits."
	k.count(key+"connections_per_address", l.ConnectionsPerAddress, 0, 1_000_000)
	k.count(key+"sessions", l.Sessions, 0, 10_000_000)
	k.count(key+"failed_logins", l.FailedLogins, 0, 1_000_000)
	k.count(key+"takeovers", l.Takeovers, 0, 1_000_000)
	k.count(key+"topic_levels", l.TopicLevels, 1, 32_768)
	k.count(key+"topic_bytes", l.TopicBytes, 1, 65_535)
	k.count(key+"subscriptions", l.Subscriptions, 0, 1_000_000)
	k.count(key+"retained", l.Retained, 0, 10_000_000)
	k.bytes(key+"retained_bytes", l.RetainedBytes, 0, 1<<40)
	k.bytes(key+"queue_bytes", l.QueueBytes, 4<<10, 1<<30)
	k.duration(key+"session_expiry", l.SessionExpiry, time.Second, 10*365*24*time.Hour)
	k.count(key+"queued_messages", l.QueuedMessages, 1, 60_000)
	k.bytes(key+"queued_bytes", l.QueuedBytes, 4<<10, 1<<30)
	k.bytes(key+"queued_total_bytes", l.QueuedTotalBytes, 4<<10, 1<<34)
	if l.QueueBytes < l.PacketBytes && k.sound(key+"queue_bytes") && k.sound(key+"packet_bytes") {
		k.fail(key+"queue_bytes", "want at least mqtt.limits.packet_bytes (%s), got %s", l.PacketBytes, l.QueueBytes)
	}
}

// tls checks that what is named is there, is a pair, and is private.
func (k *checker) tls(key string, t TLS) {
	switch {
	case t.CertFile == "" && t.KeyFile == "" && t.ClientCAFile == "":
		return
	case t.CertFile == "" || t.KeyFile == "":
		k.fail(key, "cert_file and key_file belong together")
		return
	}
	ok := k.readable(key+".cert_file", t.CertFile, false)
	ok = k.secret(key+".key_file", t.KeyFile) && ok
	k.readable(key+".client_ca_file", t.ClientCAFile, false)
	if k.readable(key+".crl_file", t.CRLFile, false) && t.CRLFile != "" && t.ClientCAFile == "" {
		k.fail(key+".crl_file", "needs client_ca_file")
	}
	if ok {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			k.fail(key+".cert_file", "%s", err)
		}
	}
}

// readable checks that a file can be read; hashes says that it holds password hashes, which deserve a warning when every user
// of the machine can read them (mosquitto_passwd leaves them so).
func (k *checker) readable(key, path string, hashes bool) bool {
	if path == "" {
		return true
	}
	f, err := os.Open(path)
	if err != nil {
		k.fail(key, "%s", pathError(path, err))
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		k.fail(key, "%s is not a plain file", path)
		return false
	}
	if hashes && info.Mode().Perm()&0o004 != 0 {
		k.warn(key, "%s can be read by every user of this machine (mode %04o)", path, info.Mode().Perm())
	}
	return true
}

func (k *checker) secret(key, path string) bool {
	if path == "" {
		return true
	}
	if err := checkSecretFile(path); err != nil {
		k.fail(key, "%s", err)
		return false
	}
	return true
}

func (k *checker) journal() {
	j := k.c.Journal
	k.duration("journal.commit_interval", j.CommitInterval, 0, 10*time.Second)
	k.bytes("journal.segment_bytes", j.SegmentBytes, 64<<10, 1<<30)
	k.bytes("journal.keep_bytes", j.KeepBytes, 0, 1<<50)
	k.bytes("journal.max_bytes", j.MaxBytes, 0, 1<<50)
	if j.MaxBytes < 2*j.SegmentBytes {
		k.fail("journal.max_bytes", "want at least two segments (%s), got %s", 2*j.SegmentBytes, j.MaxBytes)
	}
	if j.MaxBytes < j.KeepBytes {
		k.fail("journal.max_bytes", "want at least journal.keep_bytes (%s), got %s", j.KeepBytes, j.MaxBytes)
	}
}

func (k *checker) history() {
	h := k.c.History
	if h.Keep == 0 {
		return // none
	}
	k.duration("history.keep", h.Keep, time.Second, 20*366*24*time.Hour)
	if h.MaxBytes != 0 {
		k.bytes("history.max_bytes", h.MaxBytes, 1<<20, 1<<50)
	}
}

func (k *checker) limits() {
	l := k.c.Limits
	k.count("limits.series", l.Series, 1, 100_000_000)
	k.duration("limits.future", l.Future, 0, 366*24*time.Hour)
	k.duration("limits.past", l.Past, time.Second, 20*366*24*time.Hour)
}

func (k *checker) rules() {
	for i, pattern := range k.c.Rules.Files {
		key := fmt.Sprintf("rules.files[%d]", i)
		matches, err := filepath.Glob(pattern)
		switch {
		case err != nil:
			k.fail(key, "%q is no file pattern: %s", pattern, err)
		case len(matches) == 0 && !strings.ContainsAny(pattern, `*?[\`):
			k.fail(key, "%s does not exist", pattern)
		case len(matches) == 0:
			k.warn(key, "%s matches no file", pattern)
		}
	}
}

func (k *checker) http() {
	h := k.c.HTTP
	if s := h.Socket; s != "" && s != "off" && !filepath.IsAbs(s) {
		k.fail("http.socket", "want an absolute path, or off, got %q", s)
	}
	k.usersFile("http.users_file", h.UsersFile)
	k.tls("http.tls", h.TLS)
	for i, name := range h.Hosts {
		if name == "" || strings.ContainsAny(name, "/:@ *") {
			k.fail(fmt.Sprintf("http.hosts[%d]", i), "want a host's name without port, such as gateway.plant.example, got %q", name)
		}
	}
	if h.Address == "" {
		return
	}
	loopback := k.address("http.address", h.Address)
	for i, l := range k.c.MQTT.Listeners {
		if l.Address == h.Address && !strings.HasSuffix(l.Address, ":0") {
			k.fail("http.address", "%s is also that of mqtt.listeners[%d]", h.Address, i)
		}
	}
	switch {
	case loopback || h.Insecure:
	case h.UsersFile == "":
		k.fail("http.address", "%s can be reached from other machines, and nobody has to log in: set http.users_file and http.tls, "+
			"listen on 127.0.0.1, or set http.insecure: true to show the gateway to everyone who can connect", h.Address)
	case !h.TLS.Enabled():
		k.fail("http.address", "%s can be reached from other machines, and passwords would cross the network in the clear: set http.tls, "+
			"or http.insecure: true where the network itself is safe", h.Address)
	}
}

// usersFile checks the file of those who may log in; where there is none yet, the gateway offers to make it.
func (k *checker) usersFile(key, path string) {
	if path == "" {
		return
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		k.warn(key, "%s does not exist yet: the gateway prints a set-up token for the first user", path)
		return
	}
	k.secret(key, path)
}

// url checks an address we send to.
func (k *checker) url(key, got string, schemes ...string) {
	if !k.sound(key) {
		return
	}
	if got == "" {
		k.fail(key, "is required")
		return
	}
	u, err := url.Parse(got)
	switch {
	case err != nil || u.Hostname() == "":
		k.fail(key, `want an address such as "%s://host", got %q`, schemes[0], got)
	case u.User != nil:
		k.fail(key, "credentials belong in a file of their own, not in the address")
	case u.Fragment != "":
		k.fail(key, "an address with #%s cannot be sent to", u.Fragment)
	default:
		for _, s := range schemes {
			if u.Scheme == s {
				return
			}
		}
		k.fail(key, "want an address that starts with %s://, got %q", strings.Join(schemes, ":// or "), got)
	}
}

// uniqueName refuses a second user of an outbox folder; first maps names to keys.
func (k *checker) uniqueName(first map[string]string, key, name string) {
	k.name(key, name)
	if name == "" {
		return
	}
	if other, ok := first[name]; ok {
		k.fail(key, "%q is also the name of %s", name, other)
		return
	}
	first[name] = strings.TrimSuffix(key, ".name")
}

func (k *checker) webhooks() {
	names := map[string]string{}
	for i, w := range k.c.Webhooks {
		key := fmt.Sprintf("webhooks[%d]", i)
		k.uniqueName(names, key+".name", w.Name)
		k.url(key+".url", w.URL, "https", "http")
		k.secret(key+".secret_file", w.SecretFile)
		k.oneOf(key+".format", w.Format, []string{"alertmanager", "cloudevents", "template"}, nil)
		k.notifications(key, &w)
		k.duration(key+".timeout", w.Timeout, 100*time.Millisecond, 5*time.Minute)
		k.duration(key+".retry_for", w.RetryFor, 0, 90*24*time.Hour)
		for j, a := range w.Allow {
			p, err := netip.ParsePrefix(a)
			if k.sound(fmt.Sprintf("%s.allow[%d]", key, j)) && (err != nil || p.Masked() != p) {
				k.fail(fmt.Sprintf("%s.allow[%d]", key, j), `want an address range such as "10.0.0.0/8", got %q`, a)
			}
		}
	}
	for i, d := range k.c.Uplink.Destinations {
		k.uniqueName(names, fmt.Sprintf("uplink.destinations[%d].name", i), d.Name)
	}
}
