package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clearEnv keeps the SLUICE_ variables of whoever runs the tests out of them.
func clearEnv(t testing.TB) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, envPrefix) || name == "CREDENTIALS_DIRECTORY" {
			t.Setenv(name, "")
		}
	}
}

// parse reads text as a file sluice.yaml in a folder of its own, which it returns; files are put beside it, mode 0600.
func parse(t *testing.T, text string, files ...string) (c *Config, dir string, err error) {
	t.Helper()
	clearEnv(t)
	dir = t.TempDir()
	for _, name := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = Load(path)
	return c, dir, err
}

func TestLoad_EmptyFileIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "gateway:\nsources:\nmqtt: {limits: }\n"} {
		c, _, err := parse(t, text)
		if err != nil {
			t.Fatalf("Load(%q) = %v", text, err)
		}
		want := Default()
		want.Gateway.ID, want.File, want.Warnings = c.Gateway.ID, c.File, c.Warnings
		if c.Gateway.ID == "" {
			t.Error("gateway.id is empty, want the host's name")
		}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("Load(%q), - want + got:\n%s", text, diff)
		}
	}
}

func TestLoad_ReadsEveryKey(t *testing.T) {
	c, dir, err := parse(t, `
gateway: { id: plant-7, data_dir: data, labels: { site: plant-7, Line.3: 010 } }
mqtt:
  listeners:
    - { address: "0.0.0.0:1883" }
    - { address: "[::1]:9001", protocol: websocket }
  allow_anonymous: false
  password_file: passwd
  limits: { connections: 20000, packet_bytes: 128KiB, connect_timeout: 3s, publish_rate: 50, connections_per_address: 0,
    sessions: 5, failed_logins: 6, takeovers: 7, topic_levels: 8, topic_bytes: 90, subscriptions: 10, retained: 11, retained_bytes: 12KiB,
    queue_bytes: 1MiB, session_expiry: 48h, queued_messages: 13, queued_bytes: 14KiB, queued_total_bytes: 15KiB }
journal: { commit_interval: 100ms, segment_bytes: 4MiB, keep_bytes: 512MiB, max_bytes: 2GiB }
sources:
  - name: line
    topic: "sites/{site}/devices/{device}/telemetry"
    format: json
    measurement: telemetry
    time: { field: ts, unit: ms }
    sequence: seq
    fields: [temperature, humidity]
    labels: [line]
    send: both
    window: 1m
    grace: 1s
    lateness: 1d
    late: quarantine
    stats: [count, stddev]
    zone: Europe/Berlin
    retained: stale
    expect: { require: [temperature], ranges: { temperature: [-40, 85.5], humidity: [0, null] }, units: { temperature: Cel } }
  - { name: plain, topic: "raw/+/#", format: value }
  - { name: plugs, format: tasmota }
limits: { series: 5000, future: 1m, past: 2d }
rules: { files: ["rules.d/*.yaml"] }
webhooks:
  - { name: ops, url: "https://ops.example/hook", secret_file: ops.whsec, format: alertmanager, timeout: 5s, retry_for: 1d, allow: ["10.0.0.0/8"] }
uplink:
  destinations:
    - name: cloud
      type: influxdb
      url: "https://influx.example"
      org: acme
      bucket: edge
      token_file: influx.token
      batch: 1000
      match: { Site: "plant-*" }
      disk: { max_bytes: 200MB, when_full: drop_oldest, ladder: [1m, 10m, 1h] }
      bandwidth: { bytes_per_second: 10kB, bytes_per_day: 1GiB }
history: { keep: 15d, max_bytes: 1GiB }
http: { address: "127.0.0.1:8081", users_file: users, tls: {}, insecure: true }
`, "passwd", "ops.whsec", "influx.token", "users", "rules.d/b.yaml", "rules.d/a.yaml")
	if err != nil {
		t.Fatalf("Load = %v", err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	minus40, plus85, zero := -40.0, 85.5, 0.0
	want := &Config{
		Gateway: Gateway{ID: "plant-7", DataDir: in("data"), Labels: map[string]string{"site": "plant-7", "Line.3": "010"}},
		MQTT: MQTT{
			Listeners:    []Listener{{Address: "0.0.0.0:1883", Protocol: "tcp"}, {Address: "[::1]:9001", Protocol: "websocket"}},
			PasswordFile: in("passwd"),
			Limits: MQTTLimits{Connections: 20000, PacketBytes: 128 << 10, ConnectTimeout: 3 * time.Second, PublishRate: 50,
				ConnectionsPerAddress: 0, Sessions: 5, FailedLogins: 6, Takeovers: 7, TopicLevels: 8, TopicBytes: 90, Subscriptions: 10,
				Retained: 11, RetainedBytes: 12 << 10, QueueBytes: 1 << 20,
				SessionExpiry: 48 * time.Hour, QueuedMessages: 13, QueuedBytes: 14 << 10, QueuedTotalBytes: 15 << 10},
		},
		Journal: Journal{CommitInterval: 100 * time.Millisecond, SegmentBytes: 4 << 20, KeepBytes: 512 << 20, MaxBytes: 2 << 30},
		Sources: []Source{
			{Name: "line", Topic: "sites/{site}/devices/{device}/telemetry", Format: "json", Measurement: "telemetry",
				Time: SourceTime{"ts", "ms"}, Sequence: "seq", Fields: []string{"temperature", "humidity"}, Labels: []string{"line"},
				Send: "both", Window: time.Minute, Grace: time.Second, Lateness: 24 * time.Hour, Late: "quarantine", Stats: []string{"count", "stddev"},
				Zone: "Europe/Berlin", Retained: "stale", Expect: Expect{Require: []string{"temperature"},
					Ranges: map[string]Range{"temperature": {Min: &minus40, Max: &plus85}, "humidity": {Min: &zero}}, Units: map[string]string{"temperature": "Cel"}}},
			{Name: "plain", Topic: "raw/+/#", Format: "value", Measurement: "plain", Time: SourceTime{Unit: "auto"}, Send: "aggregates",
				Window: 10 * time.Second, Grace: 2 * time.Second, Lateness: 10 * time.Minute, Late: "quarantine",
				Stats: []string{"count", "mean", "min", "max", "last"}, Retained: "fresh"},
			{Name: "plugs", Format: "tasmota", Measurement: "plugs", Time: SourceTime{Unit: "auto"}, Send: "aggregates",
				Window: 10 * time.Second, Grace: 2 * time.Second, Lateness: 10 * time.Minute, Late: "quarantine",
				Stats: []string{"count", "mean", "min", "max", "last"}, Retained: "fresh"},
		},
		Limits: Limits{Series: 5000, Future: time.Minute, Past: 48 * time.Hour},
		Rules:  Rules{Files: []string{in("rules.d/*.yaml")}},
		Webhooks: []Webhook{{Name: "ops", URL: "https://ops.example/hook", SecretFile: in("ops.whsec"), Format: "alertmanager",
			Timeout: 5 * time.Second, RetryFor: 24 * time.Hour, Allow: []string{"10.0.0.0/8"}, ContentType: "application/json",
			GroupBy: []string{"alertname"}, RepeatInterval: 4 * time.Hour, Include: "changes", DigestAfter: 5 * time.Minute}},
		Uplink: Uplink{Destinations: []Destination{{Name: "cloud", Type: "influxdb", URL: "https://influx.example", Org: "acme", Bucket: "edge",
			TokenFile: in("influx.token"), Batch: 1000, Match: map[string]string{"Site": "plant-*"},
			Disk:      Disk{MaxBytes: 200_000_000, WhenFull: "drop_oldest", Ladder: []time.Duration{time.Minute, 10 * time.Minute, time.Hour}},
			Bandwidth: Bandwidth{BytesPerSecond: 10_000, BytesPerDay: 1 << 30}}}},
		History: History{Keep: 15 * 24 * time.Hour, MaxBytes: 1 << 30},
		HTTP:    HTTP{Address: "127.0.0.1:8081", UsersFile: in("users"), Insecure: true},
		File:    in("sluice.yaml"), Warnings: c.Warnings,
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("- want + got:\n%s", diff)
	}
	files, err := RuleFiles(c)
	if want := []string{in("rules.d/a.yaml"), in("rules.d/b.yaml")}; err != nil || !reflect.DeepEqual(files, want) {
		t.Errorf("RuleFiles = %v, %v, want %v", files, err, want)
	}
	var wantWarnings []string
	var got []string
	for _, w := range c.Warnings {
		got = append(got, strings.TrimPrefix(w.Error(), c.File+":"))
	}
	for _, w := range wantWarnings {
		_, text, _ := strings.Cut(w, " ")
		if !strings.Contains(strings.Join(got, "\n"), text) {
			t.Errorf("no warning %q in:\n%s", text, strings.Join(got, "\n"))
		}
	}
	if len(got) != len(wantWarnings) {
		t.Errorf("%d warnings, want %d:\n%s", len(got), len(wantWarnings), strings.Join(got, "\n"))
	}
}

// Each case is a file and everything that is wrong with it, place and words.
func TestLoad_ErrorsPointAndTeach(t *testing.T) {
	const source = "sources:\n  - { name: a, topic: t, "
	const hook = "webhooks:\n  - { name: a, url: \"https://h\", "
	const dest = "uplink:\n  destinations:\n    - { name: a, type: influxdb, url: \"https://h\", bucket: b, "
	for _, tc := range []struct{ name, text, want string }{
		{"unknown key", "gateway: { idd: x }", `1:12: unknown key "gateway.idd"; did you mean "id"?`},
		{"unknown section", "gatewya: {}", `1:1: unknown key "gatewya"; did you mean "gateway"?`},
		{"unknown, nothing near", "zzzzzz: 1", `1:1: unknown key "zzzzzz"`},
		{"case", "Gateway: { id: x }", `1:1: unknown key "Gateway"; did you mean "gateway"?`},
		{"merge key", "gateway:\n  <<: { id: x }", `2:3: unknown key "gateway.<<"`},
		{"unknown in a list", source + "windw: 1s }", `2:26: unknown key "sources[0].windw"; did you mean "window"?`},
		{"duplicate", "gateway: {}\ngateway: {}", `2:1: duplicate key "gateway", first on line 1`},
		{"duplicate inside", "gateway:\n  id: a\n  id: b", `3:3: duplicate key "gateway.id", first on line 2`},
		{"duplicate label", "gateway:\n  labels: { a: 1, a: 2 }", `2:19: duplicate key "gateway.labels.a"`},
		{"section is a list", "mqtt: [1]", "1:7: mqtt: want keys and values, got a list"},
		{"root is a list", "- a", "1:1: want keys and values, got a list"},
		{"list is a scalar", "sources: none", `1:10: sources: want a list, got "none"`},
		{"scalar is a list", "gateway: { id: [a] }", "1:16: gateway.id: want text, got a list"},
		{"scalar is empty", "gateway:\n  id:", "2:6: gateway.id: want text, got nothing"},
		{"octal", "limits: { series: 010 }", `1:19: limits.series: want a whole number, got "010": a leading zero means octal to some readers of YAML; write 10`},
		{"hex", "limits: { series: 0x10 }", `1:19: limits.series: want a whole number, got "0x10"`},
		{"fraction", "limits: { series: 1.5 }", `1:19: limits.series: want a whole number, got "1.5"`},
		{"quoted number", `limits: { series: "10" }`, `1:19: limits.series: want a whole number, got "10" in quotes`},
		{"YAML 1.1 bool", "mqtt: { allow_anonymous: on }", `1:26: mqtt.allow_anonymous: want true or false, got "on"`},
		{"bare duration", "journal: { commit_interval: 5 }", `1:29: journal.commit_interval: want a duration such as "30s", got "5"`},
		{"negative duration", "journal: { commit_interval: -5ms }", `1:29: journal.commit_interval: want a duration such as "30s", got "-5ms"`},
		{"endless duration", "history: { keep: 999999d }", `1:18: history.keep: want a duration such as "30s", got "999999d", more than 292 years`},
		{"size", "journal: { max_bytes: 4G }", `1:23: journal.max_bytes: want a size such as "16MiB", got "4G"`},
		{"octal size", "journal: { max_bytes: 010MiB }", `1:23: journal.max_bytes: want a size such as "16MiB", got "010MiB": a leading zero means octal to some readers of YAML; write 10MiB`},
		{"syntax", "gateway: {\n", "2:1: did not find expected node content"},
		{"two documents", "gateway: {}\n---\ngateway: {}", "2:1: want one YAML document, found a second one"},
		{"control character", `gateway: { id: "a\0b" }`, "1:16: gateway.id: control characters and invalid UTF-8 are refused"},
		{"id", "gateway: { id: a/b }", `1:16: gateway.id: want up to 64 letters, digits, dots, dashes or underscores, starting with a letter or digit, got "a/b"`},
		{"label", "gateway: { labels: { window: x } }", `1:22: gateway.labels.window: the label "window" is reserved`},

		{"no port", "mqtt: { listeners: [ { address: localhost } ] }", `1:33: mqtt.listeners[0].address: want host:port such as "127.0.0.1:1883", got "localhost"`},
		{"port", `mqtt: { listeners: [ { address: "localhost:70000" } ] }`, `1:33: mqtt.listeners[0].address: want a port from 0 to 65535, got "70000"`},
		{"address", `mqtt: { listeners: [ { address: "10.0.0.300:1" } ] }`, `1:33: mqtt.listeners[0].address: "10.0.0.300" is no IPv4 address`},
		{"no address", "mqtt: { listeners: [ { } ] }", "1:22: mqtt.listeners[0].address: is required"},
		{"no listener", "mqtt: { listeners: [ ] }", "1:20: mqtt.listeners: want at least one address to listen on"},
		{"open to all", `mqtt: { listeners: [ { address: ":1883" } ] }`, "1:33: mqtt.listeners[0].address: :1883 takes connections from other machines, and nothing says who may log in: set mqtt.password_file, tls.client_ca_file, or mqtt.allow_anonymous: true"},
		{"twice", `mqtt: { listeners: [ { address: "[::1]:1" }, { address: "[::1]:1" } ] }`, "1:57: mqtt.listeners[1].address: [::1]:1 is also that of mqtt.listeners[0]"},
		{"protocol", `mqtt: { listeners: [ { address: "[::1]:1", protocol: websockets } ] }`, `1:54: mqtt.listeners[0].protocol: unknown protocol "websockets"; did you mean "websocket"? (available: tcp, websocket)`},
		{"half a pair", `mqtt: { listeners: [ { address: "[::1]:1", tls: { cert_file: c } } ] }`, "1:49: mqtt.listeners[0].tls: cert_file and key_file belong together"},
		{"no password file", "mqtt: { password_file: /nowhere/passwd }", "1:24: mqtt.password_file: /nowhere/passwd does not exist"},
		{"acl", "mqtt: { acl_file: /dev/null }", "1:19: mqtt.acl_file: /dev/null is not a plain file"},
		{"packet", "mqtt: { limits: { packet_bytes: 1GiB } }", "1:33: mqtt.limits.packet_bytes: want 128 to 16256KiB, got 1GiB"},
		{"queue", "mqtt: { limits: { queue_bytes: 128KiB } }", "1:32: mqtt.limits.queue_bytes: want at least mqtt.limits.packet_bytes (256KiB), got 128KiB"},
		{"levels", "mqtt: { limits: { topic_levels: 0 } }", "1:33: mqtt.limits.topic_levels: want 1 to 32768, got 0"},
		{"rate", "mqtt: { limits: { publish_rate: -1 } }", "1:33: mqtt.limits.publish_rate: want 0 to 10000000, got -1"},

		{"journal order", "journal: { keep_bytes: 2GiB, max_bytes: 1GiB }", "1:41: journal.max_bytes: want at least journal.keep_bytes (2GiB), got 1GiB"},
		{"journal segments", "journal: { keep_bytes: 0, max_bytes: 16MiB }", "1:38: journal.max_bytes: want at least two segments (32MiB), got 16MiB"},

		{"no topic", "sources:\n  - { name: a }", "2:5: sources[0].topic: is required"},
		{"no name", "sources:\n  - { topic: t }", "2:5: sources[0].name: is required"},
		{"same name", "sources:\n  - { name: a, topic: t }\n  - { name: a, topic: u }", `3:13: sources[1].name: "a" is also the name of sources[0]`},
		{"no topic and no preset", "sources:\n  - { name: a, format: senml }", "2:5: sources[0].topic: is required"},
		{"a preset's labels", "sources:\n  - { name: a, format: tasmota, labels: [gateway] }", `2:42: sources[0].labels[0]: the label "gateway" is reserved`},
		{"a preset's time", source + "format: tasmota, time: { field: Time } }", "2:58: sources[0].time.field: format tasmota knows where it stands"},
		{"a preset without labels", source + "format: homie, labels: [x] }", "2:49: sources[0].labels: format homie is one value a topic: capture a topic level instead"},
		{"influx has its time", source + "format: influx, time: { field: t } }", "2:57: sources[0].time.field: format influx has it in its lines"},
		{"zone unknown", source + "format: tasmota, zone: Europe/Berlln }", `2:49: sources[0].zone: want a time zone such as "Europe/Berlin", "UTC" or "Local", got "Europe/Berlln"`},
		{"zone without need", source + "format: value, zone: UTC }", "2:47: sources[0].zone: format value has no times that need one"},
		{"retained", source + "retained: yes }", `2:36: sources[0].retained: unknown retained "yes" (available: fresh, stale)`},
		{"range upside down", source + "expect: { ranges: { t: [5, 1] } } }", "2:46: sources[0].expect.ranges.t: want the lowest value first, got [5, 1]"},
		{"range of three", source + "expect: { ranges: { t: [1, 2, 3] } } }", "2:49: sources[0].expect.ranges.t: want a range such as [-40, 85], got a list"},
		{"range of words", source + "expect: { ranges: { t: [low, 1] } } }", `2:50: sources[0].expect.ranges.t: want a number or null, got "low"`},
		{"range without end", source + "expect: { ranges: { t: [0, .inf] } } }", `2:53: sources[0].expect.ranges.t: want a number or null, got ".inf"`},
		{"required twice", source + "expect: { require: [t, t] } }", `2:49: sources[0].expect.require[1]: "t" is listed twice`},
		{"expect unknown", source + "expect: { min: 1 } }", `2:36: unknown key "sources[0].expect.min"`},
		{"format unknown", source + "format: jsn }", `2:34: sources[0].format: unknown format "jsn"; did you mean "json"? (available: json, value, senml, cbor, influx, sparkplug, availability, tasmota, shelly, zigbee2mqtt, esphome, ttn, chirpstack, homie)`},
		{"unit", source + "time: { field: ts, unit: sec } }", `2:51: sources[0].time.unit: unknown unit "sec" (available: s, ms, us, ns, rfc3339, auto)`},
		{"unit alone", source + "time: { unit: s } }", "2:32: sources[0].time: field is required: without one, the time is that of arrival"},
		{"value has no fields", source + "format: value, fields: [x] }", "2:49: sources[0].fields: format value is one bare number: it has no fields"},
		{"send", source + "send: all }", `2:32: sources[0].send: unknown send "all" (available: aggregates, readings, both)`},
		{"window", source + "window: 10ms }", "2:34: sources[0].window: want 100ms to 1d, got 10ms"},
		{"window fraction", source + "window: 1000001us }", "2:34: sources[0].window: want whole milliseconds, got 1.000001s"},
		{"grace", source + "grace: 2h }", "2:33: sources[0].grace: want 0s to 1h, got 2h"},
		{"late", source + "late: drop }", `2:32: sources[0].late: unknown late "drop" (available: quarantine, backfill)`},
		{"backfill without history", source + "late: backfill }\nhistory: { keep: 0 }\n", `2:32: sources[0].late: backfill recomputes windows from the local history, which history.keep: 0 switches off`},
		{"stat that is none", source + "stats: [p50, p51] }", `2:39: sources[0].stats[1]: unknown stat "p51"; did you mean "p50"? (available: count, mean, min, max, last, sum, first, stddev, p50, p90, p95, p99)`},
		{"stat unknown", source + "stats: [avg, mx] }", `2:34: sources[0].stats[0]: unknown stat "avg" (available: count, mean, min, max, last, sum, first, stddev, p50, p90, p95, p99)
2:39: sources[0].stats[1]: unknown stat "mx"; did you mean "max"? (available: count, mean, min, max, last, sum, first, stddev, p50, p90, p95, p99)`},
		{"no stat", source + "stats: [] }", "2:33: sources[0].stats: want at least one of count, mean, min, max, last, sum, first, stddev, p50, p90, p95, p99"},
		{"stat twice", source + "stats: [min, min] }", `2:39: sources[0].stats[1]: "min" is listed twice`},
		{"measurement", source + "measurement: alerts }", `2:39: sources[0].measurement: "alerts" is reserved for the gateway's own points`},
		{"label captured", "sources:\n  - { name: a, topic: \"{x}\", labels: [x] }", `2:39: sources[0].labels[0]: "x" is already captured from the topic`},

		{"webhook url", "webhooks:\n  - { name: a, url: ftp://h }", `2:21: webhooks[0].url: want an address that starts with https:// or http://, got "ftp://h"`},
		{"webhook no host", "webhooks:\n  - { name: a, url: \"https://\" }", `2:21: webhooks[0].url: want an address such as "https://host", got "https://"`},
		{"webhook user", "webhooks:\n  - { name: a, url: \"https://u:p@h\" }", "2:21: webhooks[0].url: credentials belong in a file of their own, not in the address"},
		{"webhook format", hook + "format: cloudevent }", `2:42: webhooks[0].format: unknown format "cloudevent"; did you mean "cloudevents"? (available: alertmanager, cloudevents, template)`},
		{"own topic", "sources:\n  - { name: a, topic: sluice/alerts/# }", `2:23: sources[0].topic: topics that start with sluice/ are the gateway's own and never taken for readings, got "sluice/alerts/#"`},
		{"template without a file", hook + "format: template }", `2:5: webhooks[0].template_file: is required with format template`},
		{"template that is not asked for", hook + "content_type: text/plain }", `2:48: webhooks[0].content_type: belongs to format template, not to alertmanager`},
		{"group_by everything and more", hook + `group_by: ["...", a] }`, `2:45: webhooks[0].group_by[0]: "..." is every label: it stands alone`},
		{"group_by twice", hook + "group_by: [a, a] }", `2:48: webhooks[0].group_by[1]: "a" is listed twice`},
		{"repeat too often", hook + "repeat_interval: 1s }", `2:51: webhooks[0].repeat_interval: want 1m to 31d, got 1s`},
		{"include", hook + "include: all }", `2:43: webhooks[0].include: unknown include "all" (available: changes, group)`},
		{"webhook allow", hook + "allow: [10.0.0.1/8, h] }", `2:42: webhooks[0].allow[0]: want an address range such as "10.0.0.0/8", got "10.0.0.1/8"
2:54: webhooks[0].allow[1]: want an address range such as "10.0.0.0/8", got "h"`},
		{"webhook secret", hook + "secret_file: /nowhere/s }", "2:47: webhooks[0].secret_file: /nowhere/s does not exist"},

		{"folder", "uplink:\n  destinations:\n    - { name: .., type: influxdb, url: \"https://h\", bucket: b }", `3:15: uplink.destinations[0].name: want up to 64 letters, digits, dots, dashes or underscores, starting with a letter or digit, got ".."`},
		{"shared outbox", hook + "}\n" + dest + "}", `5:15: uplink.destinations[0].name: "a" is also the name of webhooks[0]`},
		{"unknown type", "uplink:\n  destinations:\n    - { name: a, type: kafak }", `3:24: uplink.destinations[0].type: unknown type "kafak"; did you mean "kafka"? (available: influxdb, kafka, nats, mqtt)`},
		{"no type", "uplink:\n  destinations:\n    - { name: a }", "3:7: uplink.destinations[0].type: is required"},
		{"foreign key", dest + "brokers: [k] }", "3:72: uplink.destinations[0].brokers: belongs to type kafka, not to influxdb"},
		{"no bucket", "uplink:\n  destinations:\n    - { name: a, type: influxdb, url: \"https://h\" }", "3:7: uplink.destinations[0].bucket: is required"},
		{"batch", dest + "batch: 10000 }", "3:70: uplink.destinations[0].batch: want 1 to 5000, got 10000"},
		{"when_full", dest + "disk: { when_full: block } }", `3:82: uplink.destinations[0].disk.when_full: unknown when_full "block" (available: degrade, drop_oldest, refuse)`},
		{"ladder", dest + "disk: { ladder: [1m, 90s] } }", "3:84: uplink.destinations[0].disk.ladder[1]: want a multiple of the step before, 1m, got 1m30s"},

		{"rules", "rules: { files: [\"[\", /nowhere/r.yaml] }", "1:18: rules.files[0]: \"DIR/[\" is no file pattern: syntax error in pattern\n1:23: rules.files[1]: /nowhere/r.yaml does not exist"},
		{"http open", `http: { address: "0.0.0.0:8080" }`, "1:18: http.address: 0.0.0.0:8080 can be reached from other machines, and nobody has to log in: set http.users_file and http.tls, listen on 127.0.0.1, or set http.insecure: true to show the gateway to everyone who can connect"},
		{"http in the clear", `http: { address: "0.0.0.0:8080", users_file: u }`, "1:18: http.address: 0.0.0.0:8080 can be reached from other machines, and passwords would cross the network in the clear: set http.tls, or http.insecure: true where the network itself is safe"},
		{"http socket", `http: { socket: run/s.sock }`, `1:17: http.socket: want an absolute path, or off, got "run/s.sock"`},
		{"http hosts", `http: { hosts: [ok.example, "a:80"] }`, `1:29: http.hosts[1]: want a host's name without port, such as gateway.plant.example, got "a:80"`},
		{"http users", "http: { users_file: /dev/null }", "1:21: http.users_file: /dev/null is not a plain file"},
		{"http collides", `http: { address: "127.0.0.1:1883" }`, "1:18: http.address: 127.0.0.1:1883 is also that of mqtt.listeners[0]"},
		{"http tls", "http: { tls: { cert_file: /dev/null } }", "1:14: http.tls: cert_file and key_file belong together"},

		{"long list", source + "fields: [" + strings.Repeat("a,", maxList+1) + "] }", "2:34: sources[0].fields: want at most 4096 entries, got 4097"},
		{"all at once", "gateway: { idd: 1 }\njournal: { commit_interval: 5 }\nhistory: { keep: x }", `1:12: unknown key "gateway.idd"; did you mean "id"?
2:29: journal.commit_interval: want a duration such as "30s", got "5"
3:18: history.keep: want a duration such as "30s", got "x"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, dir, err := parse(t, tc.text)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("Load = %v, want Errors", err)
			}
			got := strings.ReplaceAll(errs.Error(), filepath.Join(dir, "sluice.yaml")+":", "")
			got = strings.ReplaceAll(got, dir, "DIR")
			if got != tc.want {
				t.Errorf("Load(%s)\n got: %s\nwant: %s", tc.text, got, tc.want)
			}
		})
	}
}

// Every key of the schema can be set by the environment, also one that the file does not have.
func TestLoad_EnvironmentSetsEveryKey(t *testing.T) {
	owner := map[string]string{}
	err := eachLeaf(reflect.ValueOf(Default()).Elem(), "", func(key string, field reflect.Value, tag fieldTag) error {
		if other, ok := owner[EnvName(key)]; ok {
			t.Errorf("%s and %s share the variable %s", key, other, EnvName(key))
		}
		owner[EnvName(key)] = key
		t.Run(key, func(t *testing.T) {
			clearEnv(t)
			value, want := "", reflect.New(field.Type()).Elem()
			switch field.Interface().(type) {
			case string:
				value = "127.0.0.1:99"
				switch key {
				case "gateway.id":
					value = "from-env"
				case "http.socket":
					value = "/run/from-env.sock"
				case "gateway.zone":
					value = "Europe/Berlin"
				}
				if tag.path || key == "gateway.data_dir" {
					value = filepath.Join(t.TempDir(), "f")
					if err := os.WriteFile(value, nil, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want.SetString(value)
			case bool:
				value = "true"
				want.SetBool(true)
			case int:
				value = "17"
				want.SetInt(17)
			case time.Duration:
				value = "7s"
				want.SetInt(int64(7 * time.Second))
			case Bytes:
				value = "1MiB"
				want.SetInt(1 << 20)
			case map[string]string:
				value = "{ From.Env: x }"
				want.Set(reflect.ValueOf(map[string]string{"From.Env": "x"}))
			case []string:
				list := []string{"/etc/host*", "/etc/passwd"}
				if key == "http.hosts" {
					list = []string{"a.example", "b.example"}
				}
				value = "[" + strings.Join(list, ", ") + "]"
				want.Set(reflect.ValueOf(list))
			default: // lists of sections, set whole, as YAML
				value = "[]"
				want.Set(reflect.MakeSlice(field.Type(), 0, 0))
			}
			t.Setenv(EnvName(key), value)
			c, err := Parse("/etc/sluice.yaml", nil)
			var errs Errors
			if err != nil && !errors.As(err, &errs) {
				t.Fatal(err)
			}
			for _, e := range errs { // half a pair, and an empty list of listeners, are read all the same
				if !strings.Contains(e.Msg, "not available") && !strings.Contains(e.Msg, "belong together") && !strings.Contains(e.Msg, "at least") {
					t.Errorf("%s=%s: %v", EnvName(key), value, e)
				}
				if !strings.HasPrefix(e.File, "environment "+EnvName(key)) && !strings.HasPrefix(key, "journal.") && !strings.HasPrefix(key, "http.tls.") {
					t.Errorf("error names %q, want environment %s", e.File, EnvName(key))
				}
			}
			var got reflect.Value
			_ = eachLeaf(reflect.ValueOf(c).Elem(), "", func(k string, f reflect.Value, _ fieldTag) error {
				if k == key {
					got = f
				}
				return nil
			})
			if diff := cmp.Diff(want.Interface(), got.Interface()); diff != "" {
				t.Errorf("%s=%s, - want + got:\n%s", EnvName(key), value, diff)
			}
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLoad_EnvironmentWinsOverTheFile(t *testing.T) {
	clearEnv(t)
	t.Setenv("SLUICE_JOURNAL_COMMIT_INTERVAL", "100ms")
	t.Setenv("SLUICE_MQTT_LISTENERS", `[{ address: "127.0.0.1:1" }]`)
	t.Setenv("SLUICE_HTTP_ADDRESS", "") // empty counts as absent
	c, err := Parse("/etc/sluice.yaml", []byte(`{journal: {commit_interval: 1s}, mqtt: {listeners: [{address: "127.0.0.1:2"}, {address: "127.0.0.1:3"}]}, http: {address: "127.0.0.1:4"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Journal.CommitInterval != 100*time.Millisecond || len(c.MQTT.Listeners) != 1 || c.MQTT.Listeners[0].Address != "127.0.0.1:1" || c.HTTP.Address != "127.0.0.1:4" {
		t.Errorf("got %v, %v, %v", c.Journal.CommitInterval, c.MQTT.Listeners, c.HTTP.Address)
	}
}

func TestLoad_EnvironmentErrorsNameTheVariable(t *testing.T) {
	clearEnv(t)
	t.Setenv("SLUICE_JOURNAL_COMMIT_INTERVAL", "100")
	t.Setenv("SLUICE_SOURCES", "[{ name: a, topic: t, windw: 1s }]")
	t.Setenv("SLUICE_GATEWAY_IDD", "x")
	t.Setenv("SLUICE_SERVICE_HOST", "10.0.0.1")
	c, err := Parse("/etc/sluice.yaml", nil)
	want := `environment SLUICE_SOURCES:1:23: unknown key "sources[0].windw"; did you mean "window"?
environment SLUICE_JOURNAL_COMMIT_INTERVAL: journal.commit_interval: want a duration such as "30s", got "100"`
	if err == nil || err.Error() != want {
		t.Errorf("Parse = %v\nwant %s", err, want)
	}
	if c == nil {
		t.Fatal("Parse returned no Config beside Errors")
	}
	want = `environment SLUICE_GATEWAY_IDD: sets no key; did you mean "SLUICE_GATEWAY_ID"?
environment SLUICE_SERVICE_HOST: sets no key`
	if got := c.Warnings.Error(); got != want {
		t.Errorf("warnings:\n%s\nwant:\n%s", got, want)
	}
}

func TestLoad_CredentialsWinOverTheFilesDirectory(t *testing.T) {
	clearEnv(t)
	creds, dir := t.TempDir(), t.TempDir()
	for _, f := range []string{filepath.Join(creds, "token"), filepath.Join(dir, "token"), filepath.Join(dir, "other")} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", creds)
	const text = `uplink: { destinations: [ { name: %, type: influxdb, url: "http://h", bucket: b, token_file: % } ] }`
	for name, want := range map[string]string{"token": filepath.Join(creds, "token"), "other": filepath.Join(dir, "other")} {
		c, err := Parse(filepath.Join(dir, "sluice.yaml"), []byte(strings.ReplaceAll(text, "%", name)))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Uplink.Destinations[0].TokenFile; got != want {
			t.Errorf("token_file: %s is %s, want %s", name, got, want)
		}
	}
}

func TestLoad_WarnsAboutSourcesThatNeverMatch(t *testing.T) {
	c, _, err := parse(t, `sources:
  - { name: a, topic: "sites/{site}/#" }
  - { name: b, topic: "sites/x/+" }
  - { name: c, topic: "other/+" }
  - { name: d, topic: "other/{id}" }
  - { name: e, topic: "other/#" }
`)
	if err != nil {
		t.Fatal(err)
	}
	want := "3:23: sources[1].topic: never matches: sources[0] (sites/{site}/#) comes first and takes every such topic\n" +
		"5:23: sources[3].topic: never matches: sources[2] (other/+) comes first and takes every such topic"
	if got := strings.ReplaceAll(c.Warnings.Error(), c.File+":", ""); got != want {
		t.Errorf("warnings:\n%s\nwant:\n%s", got, want)
	}
}

func TestLoad_PasswordHashesOthersCanReadAreAWarning(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "passwd")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil { // as mosquitto_passwd leaves it
		t.Fatal(err)
	}
	c, _, err := parse(t, "sources: [{name: a, topic: t}]\nmqtt: { password_file: "+path+" }")
	if err != nil || !strings.Contains(c.Warnings.Error(), "can be read by every user of this machine (mode 0644)") {
		t.Errorf("Load = %v, warnings %q", err, c.Warnings)
	}
}

func TestCaptures(t *testing.T) {
	for topic, want := range map[string]string{
		"a/b": "", "{site}/x/{device_2}": "site device_2", "+/{a}/#": "a", "#": "", "/{a}": "a",
		"a/{b}c":      `error: {name} captures exactly one whole level, got "{b}c"`,
		"a/{b":        `error: {name} captures exactly one whole level, got "{b"`,
		"a/{}":        `error: a capture is a word of letters, digits and underscores, got "{}"`,
		"a/{b/c}":     `error: {name} captures exactly one whole level, got "{b"`,
		"a/{9}":       `error: a capture is a word of letters, digits and underscores, got "{9}"`,
		"a/#/b":       `error: # stands for all further levels and must be the last one, got "a/#/b"`,
		"a/b#":        `error: + and # stand for whole levels, got "b#"`,
		"a+":          `error: + and # stand for whole levels, got "a+"`,
		"$SYS/#":      `error: topics that start with $ are the broker's own, got "$SYS/#"`,
		"$share/g/#":  `error: topics that start with $ are the broker's own, got "$share/g/#"`,
		"{a}/{b}/{a}": `error: captures "a" twice`,
		"":            "error: is required",
	} {
		got, err := Captures(topic)
		text := strings.Join(got, " ")
		if err != nil {
			text = "error: " + err.Error()
		}
		if text != want {
			t.Errorf("Captures(%q) = %s, want %s", topic, text, want)
		}
	}
}

// Bad YAML must not panic, hang or pass for a configuration that the checks have not seen.
func FuzzParse(f *testing.F) {
	clearEnv(f)
	shipped, err := os.ReadFile("../../configs/sluice.yaml")
	if err == nil {
		f.Add(shipped)
	}
	f.Add([]byte("a: &x [*x, *x]\nsources: *x\n"))
	f.Add([]byte("x: &a {name: b, topic: \"{t}/#\"}\nsources: [*a, *a]\n"))
	f.Add([]byte("gateway: {labels: {<<: {a: b}, ? [x] : y}}\nlimits: {series: 010, past: 1e3d}\n"))
	f.Add([]byte("mqtt: {listeners: [{address: \"[::1]:1\", tls: {}}], limits: {packet_bytes: 1e9}}"))
	f.Add([]byte("%YAML 1.1\n---\n!!map {journal: !!str x}\n...\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("/etc/sluice/sluice.yaml", data)
		var errs Errors
		switch {
		case err == nil:
			if c.Gateway.ID == "" || len(c.MQTT.Listeners) == 0 || c.Journal.MaxBytes < c.Journal.SegmentBytes {
				t.Errorf("accepted: %+v", c)
			}
			for _, s := range c.Sources {
				if _, err := Captures(s.Topic); err != nil || s.Window <= 0 {
					t.Errorf("accepted source %+v", s)
				}
			}
		case !errors.As(err, &errs) || len(errs) == 0:
			t.Errorf("Parse = %v, want Errors", err)
		default:
			for _, e := range errs {
				if e.Msg == "" || e.File == "" || strings.ContainsAny(e.Msg, "\x00") {
					t.Errorf("error without words or place: %+v", e)
				}
			}
		}
	})
}

func TestLoad_ReportsABoundedNumberOfErrors(t *testing.T) {
	_, _, err := parse(t, "gateway: {"+strings.Repeat("idd: 1, ", 10_000)+"}")
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors+1 || errs[maxErrors].Msg != "more faults follow" {
		t.Errorf("%d errors, want %d and a line that says that more follow", len(errs), maxErrors)
	}
}

func TestLoad_AliasBombEnds(t *testing.T) {
	list := "&l [" + strings.Repeat("a,", 4000) + "]"
	_, _, err := parse(t, "sources:\n  - &s { name: a, topic: t, fields: "+list+" }\n"+strings.Repeat("  - *s\n", 4000))
	if err == nil || !strings.Contains(err.Error(), "more than 200000 values") {
		t.Errorf("Load = %.200v", err)
	}
}
