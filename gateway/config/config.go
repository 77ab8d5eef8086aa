// Package config is the schema of sluice.yaml: keys, defaults, units and checks. viper decides which layer wins (default,
// file, SLUICE_ environment); the file itself is read as YAML nodes, so that every error names file, line and column, all
// errors come at once, label names keep their case and 010 never becomes 8. It opens no listener, starts no goroutine and
// holds no secret: keys ending in _file name files that ReadSecret reads.
package config

import "time"

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
}

// Enabled tells whether the listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// MQTTLimits bound what one client, and all of them, can take.
type MQTTLimits struct {
	Connections    int           `yaml:"connections"`
	PacketBytes    Bytes         `yaml:"packet_bytes"`
	ConnectTimeout time.Duration `yaml:"connect_timeout"` // from accept to CONNECT
	PublishRate    int           `yaml:"publish_rate"`    // messages a second and client, by not reading; 0: none
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
	Topic       string        `yaml:"topic"`  // MQTT filter; {name} captures one level as a label
	Format      string        `yaml:"format"` // json (default) or value
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
}

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
	Format     string        `yaml:"format"`                  // alertmanager
	Timeout    time.Duration `yaml:"timeout"`
	RetryFor   time.Duration `yaml:"retry_for"`
	Allow      []string      `yaml:"allow"` // private address ranges that may be dialled
}

// Uplink lists the destinations of points.
type Uplink struct {
	Destinations []Destination `yaml:"destinations"`
}

// Destination is one store of points, with an outbox of its own. Which keys apply depends on Type.
type Destination struct {
	Name      string            `yaml:"name"`
	Type      string            `yaml:"type"` // influxdb; kafka, nats and mqtt are reserved
	URL       string            `yaml:"url"`
	Org       string            `yaml:"org"`
	Bucket    string            `yaml:"bucket"`
	TokenFile string            `yaml:"token_file,path,secret"`
	Batch     int               `yaml:"batch"` // points a request
	Brokers   []string          `yaml:"brokers"`
	Topic     string            `yaml:"topic"`
	Stream    string            `yaml:"stream"`
	Subject   string            `yaml:"subject"`
	Match     map[string]string `yaml:"match"` // label matchers; empty: every point
	Disk      Disk              `yaml:"disk"`
	Bandwidth Bandwidth         `yaml:"bandwidth"`
}

// Disk bounds one outbox.
type Disk struct {
	MaxBytes Bytes           `yaml:"max_bytes"`
	WhenFull string          `yaml:"when_full"` // degrade, drop_oldest or refuse
	Ladder   []time.Duration `yaml:"ladder"`
}

// Bandwidth bounds what one destination may send; 0: no bound.
type Bandwidth struct {
	BytesPerSecond Bytes `yaml:"bytes_per_second"`
	BytesPerDay    Bytes `yaml:"bytes_per_day"`
}

// History configures the local history.
type History struct {
	Keep     time.Duration `yaml:"keep"`
	MaxBytes Bytes         `yaml:"max_bytes"`
}

// HTTP configures the status pages, metrics and API.
type HTTP struct {
	Address   string `yaml:"address"` // empty: none
	UsersFile string `yaml:"users_file,path"`
	TLS       TLS    `yaml:"tls"`
	Insecure  bool   `yaml:"insecure"` // allows plain HTTP beyond loopback
}

// Default is the configuration of an empty file.
func Default() *Config {
	return &Config{
		Gateway: Gateway{DataDir: "/var/lib/sluice", Labels: map[string]string{}},
		MQTT: MQTT{
			Listeners: []Listener{{Address: "127.0.0.1:1883", Protocol: "tcp"}},
			Limits: MQTTLimits{
				Connections:    10_000,
				PacketBytes:    256 << 10,
				ConnectTimeout: 5 * time.Second,
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
		Time:     SourceTime{Unit: "auto"},
		Send:     "aggregates",
		Window:   10 * time.Second,
		Grace:    2 * time.Second,
		Lateness: 10 * time.Minute,
		Late:     "quarantine",
		Stats:    []string{"count", "mean", "min", "max", "last"},
	}
}

func defaultWebhook() Webhook {
	return Webhook{Format: "alertmanager", Timeout: 10 * time.Second, RetryFor: 72 * time.Hour}
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
