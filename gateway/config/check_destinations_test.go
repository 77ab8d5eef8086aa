package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each case is one destination and everything that is wrong with it.
func TestLoad_DestinationsOfEveryTypeAreChecked(t *testing.T) {
	clearEnv(t)
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"pw": 0o600, "ca.pem": 0o644, "open": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	const kafka = `type: kafka, brokers: ["k1:9092", "127.0.0.1:9092"], topic: edge.points`
	const nats = `type: nats, url: "nats://n1:4222, tls://n2:4222", stream: EDGE, subject: "edge.{site}"`
	const mqtt = `type: mqtt, url: "mqtts://cloud:8883", topic: "edge/{site}/{device}"`
	for _, tc := range []struct{ name, text, errs, warnings string }{
		{"kafka", kafka, "", ""},
		{"kafka, logged in", kafka + `, username: u, password_file: pw, sasl: scram-sha-512, tls: { enabled: true }, client_id: c`, "", ""},
		{"kafka, password in the clear", kafka + `, username: u, password_file: pw`, "", "username: without tls the password goes over the network in clear text"},
		{"kafka without anything", `type: kafka`, "brokers: is required: at least one host:port\ntopic: is required", ""},
		{"kafka, broker without a port", `type: kafka, brokers: [k1], topic: t`, `brokers[0]: want host:port such as "127.0.0.1:1883", got "k1"`, ""},
		{"kafka, topic", `type: kafka, brokers: ["k:1"], topic: "a/b"`, `topic: want up to 249 letters, digits, dots, dashes or underscores, got "a/b"`, ""},
		{"kafka, mechanism", kafka + ", sasl: gssapi", `sasl: unknown sasl "gssapi" (available: plain, scram-sha-256, scram-sha-512)`, ""},
		{"kafka with the keys of others", kafka + `, url: "http://h", stream: s`, "url: belongs to type influxdb and nats and mqtt, not to kafka\nstream: belongs to type nats, not to kafka", ""},
		{"user without a password", kafka + ", username: u, tls: { enabled: true }", "username: wants a password_file beside it", ""},
		{"password without a user", kafka + ", password_file: pw", "password_file: wants a username beside it", ""},
		{"no certificate", kafka + ", tls: { ca_file: ca.pem }", "tls.ca_file: " + filepath.Join(dir, "ca.pem") + " holds no certificate in PEM form", ""},
		{"half a pair", kafka + ", tls: { cert_file: c.pem }", "tls: cert_file and key_file belong together", ""},
		{"nats", nats, "", ""},
		{"nats, logged in", nats + ", credentials_file: pw", "", ""},
		{"nats without anything", "type: nats", "stream: is required\nsubject: is required\nurl: is required", ""},
		{"nats, scheme", `type: nats, url: "http://n", stream: s, subject: s`, `url: want an address that starts with nats:// or tls:// or ws:// or wss://, got "http://n"`, ""},
		{"nats, wildcard", `type: nats, url: "nats://n", stream: s, subject: "edge.>"`, `subject: want tokens with dots between, without spaces and wildcards, got "edge.>"`, ""},
		{"nats, braces", `type: nats, url: "nats://n", stream: s, subject: "edge.{site"`, `subject: want {label} in "edge.{site"`, ""},
		{"nats, two ways in", nats + ", credentials_file: pw, token_file: pw", "want one way to log in: username, token_file or credentials_file", ""},
		{"nats, secret for all", nats + ", credentials_file: open", "credentials_file: " + filepath.Join(dir, "open") + " can be read by every user of this machine (mode 0644): run chmod 0600 " + filepath.Join(dir, "open"), ""},
		{"mqtt", mqtt, "", ""},
		{"mqtt, logged in", mqtt + ", username: u, password_file: pw, client_id: c", "", ""},
		{"mqtt, ssl", `type: mqtt, url: "ssl://cloud:8883", topic: t`, "", ""},
		{"mqtt, password in the clear", `type: mqtt, url: "mqtt://cloud", topic: t, username: u, password_file: pw`, "", "username: without TLS (mqtts://) the password goes over the network in clear text"},
		{"mqtt, password on this machine", `type: mqtt, url: "mqtt://127.0.0.1", topic: t, username: u, password_file: pw`, "", ""},
		{"mqtt, TLS on a plain address", `type: mqtt, url: "mqtt://h", topic: t, tls: { enabled: true }`, "tls: mqtt:// is not encrypted: nothing of this would be in force", ""},
		{"mqtt, wildcard", `type: mqtt, url: "mqtt://h", topic: "edge/#"`, `topic: want levels with slashes between, without wildcards, not beginning with $, got "edge/#"`, ""},
		{"bounds on traffic", mqtt + `, bandwidth: { bytes_per_second: 20kB, bytes_per_day: 50MB, bytes_per_month: 1GB, quiet_hours: "22:00-06:00", zone: Europe/Berlin }`, "", ""},
		{"bounds too small", mqtt + `, bandwidth: { bytes_per_second: 100, bytes_per_day: 1kB }`, "bandwidth.bytes_per_second: want 0 for no bound, or at least 512 bytes, got 100\nbandwidth.bytes_per_day: want 0 for no bound, or at least 65536 bytes, got 1000", ""},
		{"quiet hours", mqtt + `, bandwidth: { quiet_hours: "22-6" }`, `bandwidth.quiet_hours: want two times of day such as "22:00-06:00", got "22-6"`, ""},
		{"quiet all day", mqtt + `, bandwidth: { quiet_hours: "22:00-22:00" }`, `bandwidth.quiet_hours: want two times of day such as "22:00-06:00", got "22:00-22:00"`, ""},
		{"zone of the bounds", mqtt + `, bandwidth: { zone: Moon }`, `bandwidth.zone: want a time zone such as "Europe/Berlin" or "UTC", got "Moon"`, ""},
		{"canary of another type", mqtt + `, canary: { every: 1m }`, "canary: belongs to type influxdb, not to mqtt", ""},
		{"mqtt, braces", `type: mqtt, url: "mqtt://h", topic: "edge/{}"`, `topic: want {label} in "edge/{}"`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Parse(filepath.Join(dir, "sluice.yaml"), []byte("sources: [ { name: s, topic: t } ]\nuplink: { destinations: [ { name: a, "+tc.text+", disk: { when_full: refuse } } ] }"))
			lines := func(text string) string {
				var out []string
				for _, l := range strings.Split(text, "\n") {
					if _, rest, ok := strings.Cut(l, "uplink.destinations[0]"); ok {
						out = append(out, strings.TrimLeft(rest, ".: "))
					} else if l != "" {
						out = append(out, l)
					}
				}
				return strings.Join(out, "\n")
			}
			got := ""
			if err != nil {
				got = lines(err.Error())
			}
			if got != tc.errs {
				t.Errorf("errors:\n%s\nwant:\n%s", got, tc.errs)
			}
			if got := lines(c.Warnings.Error()); len(c.Warnings) > 0 && got != tc.warnings || len(c.Warnings) == 0 && tc.warnings != "" {
				t.Errorf("warnings:\n%s\nwant:\n%s", got, tc.warnings)
			}
		})
	}
}
