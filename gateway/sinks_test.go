package main

import (
	"encoding/pem"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/gateway/config"
	"sluice/uplink"
)

// Every type that the configuration takes has a sink, and a sink's own checks are reached.
func TestOpenSink_MakesEveryType(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	ca := write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})))
	secret := write("secret", "s3cret\n")
	for _, tc := range []struct {
		name, want string // want: part of the error; "" for none
		d          config.Destination
	}{
		{"influxdb", "", config.Destination{Type: "influxdb", URL: "https://h", Bucket: "b", TokenFile: secret, TLS: config.DestinationTLS{CAFile: ca}}},
		{"kafka", "", config.Destination{Type: "kafka", Brokers: []string{"h:1"}, Topic: "t", Username: "u", PasswordFile: secret, SASL: "scram-sha-512", TLS: config.DestinationTLS{Enabled: true}}},
		{"nats", "", config.Destination{Type: "nats", URL: "nats://h", Stream: "S", Subject: "s.{x}", Username: "u", PasswordFile: secret}},
		{"mqtt", "", config.Destination{Type: "mqtt", URL: "mqtts://h", Topic: "t/{x}", TLS: config.DestinationTLS{CAFile: ca}}},
		{"unknown type", `unknown type "pulsar"`, config.Destination{Type: "pulsar"}},
		{"secret that is gone", "does not exist", config.Destination{Type: "influxdb", URL: "https://h", Bucket: "b", TokenFile: filepath.Join(dir, "gone")}},
		{"authority that is none", "holds no certificate", config.Destination{Type: "mqtt", URL: "mqtts://h", Topic: "t", TLS: config.DestinationTLS{CAFile: secret}}},
		{"pair that is none", "tls: ", config.Destination{Type: "mqtt", URL: "mqtts://h", Topic: "t", TLS: config.DestinationTLS{CertFile: ca, KeyFile: secret}}},
		{"a sink's own check", "mqtt: topic", config.Destination{Type: "mqtt", URL: "mqtts://h", Topic: "t/#"}},
	} {
		tc.d.Name = "d"
		sink, kind, err := openSink(&tc.d, "plant-7", shared{})
		if tc.want != "" {
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: got %v, want %q in it", tc.name, err, tc.want)
			}
			continue
		}
		if err != nil || sink == nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if text := kind.describe(uplink.Record{Type: uplink.TypePoint, Body: []byte("?")}); !strings.HasPrefix(text, "# damaged") {
			t.Errorf("%s: a damaged record is described as %q", tc.name, text)
		}
		if c, ok := sink.(io.Closer); ok {
			c.Close()
		}
	}
}
