// Package config is the schema of sluice.yaml: keys, defaults, units and checks. viper decides which layer wins (default,
// file, SLUICE_ environment); the file itself is read as YAML nodes, so that every error names file, line and column, all
// errors come at once, label names keep their case and 010 never becomes 8. It opens no listener, starts no goroutine and
// holds no secret: keys ending in _file name files that ReadSecret reads.
package config

import (
	"path/filepath"
	"strings"
	"time"
)

// Bytes is a size; in the file a plain number of bytes or one with a unit: "256KiB", "16MiB", "1GB".
type Bytes int64

// Config is sluice.yaml after defaults, file and environment. Paths are absolute: a relative one in the file belongs to the
// file's directory, or to $CREDENTIALS_DIRECTORY when a file of that name stands there.
type Config struct {
	Gateway  Gateway   `yaml:"gateway"`
	MQTT     MQTT      `yaml:"mqtt"`
	Journal  Journal   `yaml:"journal"`
	Sources  []Source  `yaml:"sources"`
	Limits   Limits    `yaml:"limits"`
	Rules    Rules     `yaml:"rules"`
	Webhooks []Webhook `yaml:"webhooks"`
	Uplink   Uplink    `yaml:"uplink"`
	History  History   `yaml:"history"`
	HTTP     HTTP      `yaml:"http"`

	File     string `yaml:"-"` // as given to Load
	Warnings Errors `yaml:"-"` // what is accepted and yet deserves a line: keys without effect, files that others can read
}

// Gateway says who this gateway is.
type Gateway struct {
	ID      string            `yaml:"id"`       // tag gateway on every point; default: the host's name
	DataDir string            `yaml:"data_dir"` // default /var/lib/sluice
	Labels  map[string]string `yaml:"labels"`   // on every point
	Zone    string            `yaml:"zone"`     // of hours and days in rules that name none; default: the machine's
}

// MQTT configures the embedded broker.
type MQTT struct {
	Listeners      []Listener `yaml:"listeners"` // default: 127.0.0.1:1883
	AllowAnonymous bool       `yaml:"allow_anonymous"`
	PasswordFile   string     `yaml:"password_file,path"` // mosquitto's format
	ACLFile        string     `yaml:"acl_file,path"`      // mosquitto's format
	Limits         MQTTLimits `yaml:"limits"`
}

// Listener is one address the broker accepts on.
type Listener struct {
	Address  string `yaml:"address"`  // host:port
	Protocol string `yaml:"protocol"` // tcp (default) or websocket
	TLS      TLS    `yaml:"tls"`
}

// TLS is on when CertFile is set.
type TLS struct {
	CertFile     string `yaml:"cert_file,path"`
	KeyFile      string `yaml:"key_file,path,secret"`
	ClientCAFile string `yaml:"client_ca_file,path"` // clients must show a certificate signed by one of these
	CRLFile      string `yaml:"crl_file,path"`       // certificates of that authority that it took back
}

// Enabled tells whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// MQTTLimits bound what one client, and all of them, can take.
type MQTTLimits struct {
	Connections           int           `yaml:"connections"`
	ConnectionsPerAddress int           `yaml:"connections_per_address"` // 0: no limit, as for all that follow which say so
	Sessions              int           `yaml:"sessions"`                // those of clients that are away included; 0: no limit
	PacketBytes           Bytes         `yaml:"packet_bytes"`
	ConnectTimeout        time.Duration `yaml:"connect_timeout"` // from accept to CONNECT
	PublishRate           int           `yaml:"publish_rate"`    // messages a second and client, by not reading; 0: none
	FailedLogins          int           `yaml:"failed_logins"`   // a minute and address; 0: no limit
	Takeovers             int           `yaml:"takeovers"`       // a minute and client id; 0: no limit
	TopicLevels           int           `yaml:"topic_levels"`
	TopicBytes            int           `yaml:"topic_bytes"`
	Subscriptions         int           `yaml:"subscriptions"`   // a client; 0: no limit
	Retained              int           `yaml:"retained"`        // messages; 0: no limit
	RetainedBytes         Bytes         `yaml:"retained_bytes"`  // 0: no limit
	QueueBytes            Bytes         `yaml:"queue_bytes"`     // waiting for one slow client, then it is disconnected
	SessionExpiry         time.Duration `yaml:"session_expiry"`  // at most, of a session whose client is away
	QueuedMessages        int           `yaml:"queued_messages"` // of a session that outlives its connection
	QueuedBytes           Bytes         `yaml:"queued_bytes"`    // likewise
	QueuedTotalBytes      Bytes         `yaml:"queued_total_bytes"`
}

// Journal configures the durable log of accepted messages.
type Journal struct {
	CommitInterval time.Duration `yaml:"commit_interval"` // least time between commits; 0: as fast as the device syncs
	SegmentBytes   Bytes         `yaml:"segment_bytes"`
	KeepBytes      Bytes         `yaml:"keep_bytes"` // kept for replay after the outputs are safe
	MaxBytes       Bytes         `yaml:"max_bytes"`  // beyond it nothing is acknowledged
}

// Source maps a topic filter to readings. The first source that matches a topic wins.
type Source struct {
	Name        string        `yaml:"name"`
	Topic       string        `yaml:"topic"`  // MQTT filter; {name} captures one level as a label; a preset has its own
	Format      string        `yaml:"format"` // json (default); see formatsHere and presets
	Measurement string        `yaml:"measurement"`
	Time        SourceTime    `yaml:"time"`
	Sequence    string        `yaml:"sequence"` // field that numbers a device's messages; marks duplicates
	Fields      []string      `yaml:"fields"`   // empty: every number and boolean
	Labels      []string      `yaml:"labels"`   // string fields that become labels
	Send        string        `yaml:"send"`     // aggregates (default), readings or both
	Window      time.Duration `yaml:"window"`
	Grace       time.Duration `yaml:"grace"`    // first emission after the window's end
	Lateness    time.Duration `yaml:"lateness"` // how long a late reading still corrects its window
	Late        string        `yaml:"late"`     // quarantine
	Stats       []string      `yaml:"stats"`
	Zone        string        `yaml:"zone"`     // of times that do not say theirs: Europe/Berlin, UTC, Local
	Retained    string        `yaml:"retained"` // fresh (default) or stale: what a message with the retain flag is
	Expect      Expect        `yaml:"expect"`
}

// Expect is what payloads must keep to; what does not is quarantined.
type Expect struct {
	Require []string          `yaml:"require"` // metrics in every sample
	Ranges  map[string]Range  `yaml:"ranges"`  // lowest and highest value by metric
	Units   map[string]string `yaml:"units"`   // by metric, where the payload or its format says one
}

// Range is written [lowest, highest]; null is no bound.
type Range struct{ Min, Max *float64 }

// SourceTime names the field that holds the device's time. An empty Field means arrival time.
type SourceTime struct {
	Field string `yaml:"field"`
	Unit  string `yaml:"unit"` // s ms us ns rfc3339 auto (default)
}

// Limits bound what the pipeline keeps; beyond them a reading is quarantined and counted.
type Limits struct {
	Series int           `yaml:"series"`
	Future time.Duration `yaml:"future"` // how far ahead of arrival a device's time may be
	Past   time.Duration `yaml:"past"`   // how far behind
}

// Rules names the rule files.
type Rules struct {
	Files []string `yaml:"files,path"` // globs; see RuleFiles
}

// Webhook is one receiver of alert notifications, with an outbox of its own.
type Webhook struct {
	Name       string        `yaml:"name"`
	URL        string        `yaml:"url"`
	SecretFile string        `yaml:"secret_file,path,secret"` // Standard Webhooks key; empty: unsigned
	Format     string        `yaml:"format"`                  // alertmanager (default), cloudevents or template
	Timeout    time.Duration `yaml:"timeout"`
	RetryFor   time.Duration `yaml:"retry_for"`
	Allow      []string      `yaml:"allow"` // private address ranges that may be dialled

	TemplateFile string `yaml:"template_file,path"` // format template: the body, a Go text/template
	ContentType  string `yaml:"content_type"`       // format template: of that body

	GroupBy        []string      `yaml:"group_by"`        // labels whose equal values share a notification; "..." is every label
	GroupWait      time.Duration `yaml:"group_wait"`      // how long a new group gathers
	GroupInterval  time.Duration `yaml:"group_interval"`  // least time between two notifications of a group's changes
	RepeatInterval time.Duration `yaml:"repeat_interval"` // what still fires is told again; 0: never
	FlapFloor      time.Duration `yaml:"flap_floor"`      // least time between two notifications of a flapping alert; 0: none
	Include        string        `yaml:"include"`         // changes (default), or group: every firing alert of the group
	DigestAfter    time.Duration `yaml:"digest_after"`    // what began and ended while the receiver was away so long becomes a digest; 0: never
}

// Uplink lists the destinations of points.
type Uplink struct {
	Destinations []Destination `yaml:"destinations"`
}

// Destination is one store of points, with an outbox of its own. Which keys apply depends on Type.
type Destination struct {
	Name            string            `yaml:"name"`
	Type            string            `yaml:"type"` // influxdb, kafka, nats or mqtt
	URL             string            `yaml:"url"`
	Org             string            `yaml:"org"`
	Bucket          string            `yaml:"bucket"`
	TokenFile       string            `yaml:"token_file,path,secret"`
	Batch           int               `yaml:"batch"` // points a request
	Brokers         []string          `yaml:"brokers"`
	Topic           string            `yaml:"topic"`
	Stream          string            `yaml:"stream"`
	Subject         string            `yaml:"subject"` // with {labels}, as Topic of type mqtt
	Username        string            `yaml:"username"`
	PasswordFile    string            `yaml:"password_file,path,secret"`
	SASL            string            `yaml:"sasl"`                         // plain (default), scram-sha-256 or scram-sha-512
	CredentialsFile string            `yaml:"credentials_file,path,secret"` // NATS: JWT and seed
	ClientID        string            `yaml:"client_id"`                    // empty: made of the gateway's id and Name
	TLS             DestinationTLS    `yaml:"tls"`
	Match           map[string]string `yaml:"match"` // label matchers; empty: every point
	Disk            Disk              `yaml:"disk"`
	Bandwidth       Bandwidth         `yaml:"bandwidth"`
	Canary          Canary            `yaml:"canary"` // influxdb
}

// DestinationTLS says how a destination is trusted, and how it trusts us.
type DestinationTLS struct {
	Enabled  bool   `yaml:"enabled"`      // Kafka: TLS with the system's authorities; elsewhere the address says so
	CAFile   string `yaml:"ca_file,path"` // instead of the system's authorities
	CertFile string `yaml:"cert_file,path"`
	KeyFile  string `yaml:"key_file,path,secret"`
}

// On tells whether TLS is asked for.
func (t DestinationTLS) On() bool { return t != DestinationTLS{} }

// Disk bounds one outbox.
type Disk struct {
	MaxBytes Bytes           `yaml:"max_bytes"`
	WhenFull string          `yaml:"when_full"` // degrade, drop_oldest or refuse
	Ladder   []time.Duration `yaml:"ladder"`
}

// Bandwidth bounds the traffic of one destination, as it is on the wire in both directions; 0: no bound.
type Bandwidth struct {
	BytesPerSecond Bytes  `yaml:"bytes_per_second"`
	BytesPerDay    Bytes  `yaml:"bytes_per_day"`
	BytesPerMonth  Bytes  `yaml:"bytes_per_month"`
	QuietHours     string `yaml:"quiet_hours"` // "22:00-06:00": nothing but alerts is sent
	Zone           string `yaml:"zone"`        // of days, months and quiet hours; default: the gateway's
}

// Quiet is QuietHours as times of day, equal ones for none. ok is false for anything else than "hh:mm-hh:mm".
func (b *Bandwidth) Quiet() (from, to time.Duration, ok bool) {
	if b.QuietHours == "" {
		return 0, 0, true
	}
	first, second, cut := strings.Cut(b.QuietHours, "-")
	f, err := time.Parse("15:04", strings.TrimSpace(first))
	t, err2 := time.Parse("15:04", strings.TrimSpace(second))
	if !cut || err != nil || err2 != nil || f.Equal(t) {
		return 0, 0, false
	}
	day := func(t time.Time) time.Duration {
		return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	return day(f), day(t), true
}

// Canary checks a destination end to end with a point of its own.
type Canary struct {
	Every time.Duration `yaml:"every"` // 0: not at all
}

// History configures the local history.
type History struct {
	Keep     time.Duration `yaml:"keep"`      // 0: no local history
	MaxBytes Bytes         `yaml:"max_bytes"` // 0: no bound
}

// HTTP configures the dashboard, metrics and API.
type HTTP struct {
	Address   string   `yaml:"address"`         // empty: the socket alone
	Socket    string   `yaml:"socket"`          // empty: sluice.sock in the data directory; off: none
	UsersFile string   `yaml:"users_file,path"` // who may log in; empty: nobody has to. It need not exist yet
	Hosts     []string `yaml:"hosts"`           // names by which it may be called, besides those of loopback
	TLS       TLS      `yaml:"tls"`
	Insecure  bool     `yaml:"insecure"` // allows plain HTTP beyond loopback
}

// SocketPath is where the unix socket is, empty for none.
func (c *Config) SocketPath() string {
	switch c.HTTP.Socket {
	case "":
		return filepath.Join(c.Gateway.DataDir, "sluice.sock")
	case "off":
		return ""
	}
	return c.HTTP.Socket
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{
		Gateway: Gateway{DataDir: "/var/lib/sluice", Labels: map[string]string{}},
		MQTT: MQTT{
			Listeners: []Listener{{Address: "127.0.0.1:1883", Protocol: "tcp"}},
			Limits: MQTTLimits{
				Connections:           10_000,
				ConnectionsPerAddress: 1_000,
				Sessions:              20_000,
				PacketBytes:           256 << 10,
				ConnectTimeout:        5 * time.Second,
				FailedLogins:          60,
				Takeovers:             10,
				TopicLevels:           32,
				TopicBytes:            1024,
				Subscriptions:         1_000,
				Retained:              20_000,
				RetainedBytes:         64 << 20,
				QueueBytes:            1 << 20,
				SessionExpiry:         7 * 24 * time.Hour,
				QueuedMessages:        10_000,
				QueuedBytes:           16 << 20,
				QueuedTotalBytes:      64 << 20,
			},
		},
		Journal: Journal{
			CommitInterval: 5 * time.Millisecond,
			SegmentBytes:   16 << 20,
			KeepBytes:      1 << 30,
			MaxBytes:       4 << 30,
		},
		Limits:  Limits{Series: 100_000, Future: 10 * time.Minute, Past: 7 * 24 * time.Hour},
		History: History{Keep: 15 * 24 * time.Hour, MaxBytes: 1 << 30},
		HTTP:    HTTP{Address: "127.0.0.1:8080"},
	}
}

func defaultListener() Listener { return Listener{Protocol: "tcp"} }

func defaultSource() Source {
	return Source{
		Format:   "json",
		Retained: "fresh",
		Time:     SourceTime{Unit: "auto"},
		Send:     "aggregates",
		Window:   10 * time.Second,
		Grace:    2 * time.Second,
		Lateness: 10 * time.Minute,
		Late:     "quarantine",
		Stats:    []string{"count", "mean", "min", "max", "last"},
	}
}

// NewWebhook is a webhook with the defaults of every key.
func NewWebhook() Webhook { return defaultWebhook() }

func defaultWebhook() Webhook {
	return Webhook{
		Format: "alertmanager", Timeout: 10 * time.Second, RetryFor: 72 * time.Hour, ContentType: "application/json",
		GroupBy: []string{"alertname"}, RepeatInterval: 4 * time.Hour, Include: "changes", DigestAfter: 5 * time.Minute,
	}
}

func defaultDestination() Destination {
	return Destination{
		Batch: 5000,
		Match: map[string]string{},
		Disk: Disk{
			MaxBytes: 1 << 30,
			WhenFull: "degrade",
			Ladder:   []time.Duration{time.Minute, 10 * time.Minute, time.Hour},
		},
	}
}
