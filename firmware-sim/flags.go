package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"sluice/firmware-sim/sim"
)

// options is what the command line asks for.
type options struct {
	cfg   sim.Config
	truth string
	quiet bool
}

// repeated is a flag that may be given several times.
type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, " ") }
func (r *repeated) Set(s string) error { *r = append(*r, s); return nil }

// parseFlags reads the command line and the files it names. Flags win over a scenario's fleet section. The error is
// flag.ErrHelp when help was asked for.
func parseFlags(args []string) (options, error) {
	o := options{cfg: sim.Defaults()}
	c := &o.cfg
	c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	fs := flag.NewFlagSet("firmware-sim", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}

	var profiles, passwordFile, caFile, certFile, keyFile string
	var faults, scenarios repeated
	var qos uint
	fs.StringVar(&c.Server, "server", c.Server, "")
	fs.StringVar(&c.Username, "username", "", "")
	fs.StringVar(&passwordFile, "password-file", "", "")
	fs.StringVar(&caFile, "ca-file", "", "")
	fs.StringVar(&certFile, "cert-file", "", "")
	fs.StringVar(&keyFile, "key-file", "", "")
	fs.StringVar(&c.ClientIDPrefix, "client-id", c.ClientIDPrefix, "")
	fs.BoolVar(&c.CleanSession, "clean-session", false, "")
	fs.DurationVar(&c.KeepAlive, "keep-alive", c.KeepAlive, "")
	fs.DurationVar(&c.ReconnectMax, "reconnect-max", c.ReconnectMax, "")
	fs.IntVar(&c.Devices, "devices", c.Devices, "")
	fs.IntVar(&c.Connections, "connections", 0, "")
	fs.StringVar(&profiles, "profiles", strings.Join(c.Profiles, ","), "")
	fs.StringVar(&c.Site, "site", c.Site, "")
	fs.StringVar(&c.Topic, "topic", c.Topic, "")
	fs.UintVar(&qos, "qos", uint(c.QoS), "")
	fs.Float64Var(&c.Rate, "rate", c.Rate, "")
	fs.Float64Var(&c.TotalRate, "total-rate", 0, "")
	fs.IntVar(&c.Inflight, "inflight", c.Inflight, "")
	fs.DurationVar(&c.Duration, "duration", 0, "")
	fs.Int64Var(&c.Count, "count", 0, "")
	fs.Uint64Var(&c.Seed, "seed", c.Seed, "")
	fs.DurationVar(&c.Day, "day", c.Day, "")
	fs.DurationVar(&c.GiveUpAfter, "give-up-after", 0, "")
	fs.DurationVar(&c.Drain, "drain", c.Drain, "")
	fs.Var(&faults, "fault", "")
	fs.Var(&scenarios, "scenario", "")
	fs.StringVar(&o.truth, "truth", "-", "")
	fs.BoolVar(&o.quiet, "quiet", false, "")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: everything is given by flags", fs.Arg(0))
	}

	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	c.QoS = byte(min(qos, 255))
	c.Profiles = strings.Split(profiles, ",")
	if given["total-rate"] && !given["rate"] {
		c.Rate = 0
	}
	given["rate"] = given["rate"] || given["total-rate"] // either one overrides either one of a scenario
	given["total-rate"] = given["rate"]
	given["duration"] = given["duration"] || given["count"]
	given["count"] = given["duration"]
	for _, file := range scenarios {
		s, err := sim.LoadScenario(file)
		if err != nil {
			add(err)
			continue
		}
		s.Apply(c, given)
	}
	for _, text := range faults {
		f, err := sim.ParseFault(text)
		if err != nil {
			add(fmt.Errorf("--fault %w", err))
			continue
		}
		c.Faults = append(c.Faults, f)
	}
	if passwordFile != "" {
		secret, err := readSecret(passwordFile)
		add(err)
		c.Password = secret
		if c.Username == "" {
			add(errors.New("--password-file needs --username"))
		}
	}
	if caFile != "" {
		conf, err := loadCA(caFile)
		add(err)
		if err == nil {
			c.TLS = conf
		}
	}
	if certFile != "" || keyFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			add(fmt.Errorf("--cert-file and --key-file: %w", err))
		}
		c.TLS.Certificates = []tls.Certificate{cert}
	}
	add(c.Validate())
	return o, errors.Join(errs...)
}

// helpText is the whole of --help.
func helpText() string {
	var b strings.Builder
	b.WriteString(`firmware-sim publishes the telemetry of simulated devices to an MQTT server, injects faults, and writes what was
acknowledged as ground truth (JSON lines).

Usage:
  firmware-sim [flags]

Examples:
  firmware-sim                                          ten devices, one reading a second each, until Ctrl-C
  firmware-sim --devices 100 --total-rate 5000 --connections 4 --duration 1m --truth truth.jsonl
  firmware-sim --scenario configs/scenarios/cold-chain.yaml --truth none
  firmware-sim --fault "spike:devices=freezer-*,start=30s,duration=1m,probability=0.1,magnitude=25"
  firmware-sim --truth - --quiet | jq -c 'select(.event=="acked")'

Server:
  --server URL           tcp:// mqtt:// ssl:// tls:// mqtts:// ws:// wss:// unix://    (tcp://127.0.0.1:1883)
  --username NAME        user name
  --password-file FILE   its password, in a file
  --ca-file FILE         certificates (PEM) to trust instead of the system's
  --cert-file FILE       client certificate (PEM), with --key-file FILE
  --client-id PREFIX     client ids are PREFIX-1, PREFIX-2, ...; two running fleets need two  (firmware-sim)
  --clean-session        resend unacknowledged messages as new ones instead of with DUP in a kept session
  --keep-alive D         (30s)
  --reconnect-max D      longest pause between two attempts to connect  (5s)

Fleet:
  --devices N            (10)
  --connections N        share N connections; 0: one for each device  (0)
  --profiles LIST        dealt to the devices in turn  (freezer,pump,line,weather)
  --site NAME            (plant-1)
  --topic TEMPLATE       with {site} {device} {profile} {line}  (sites/{site}/devices/{device}/telemetry)
  --qos 0|1|2            (1)
  --rate R               readings a second and device  (1)
  --total-rate R         readings a second of the whole fleet, instead of --rate; more than the server takes: flat out
  --inflight N           unacknowledged messages a connection may have  (100)
  --seed N               the same seed gives the same values and the same timestamps relative to the start  (1)
  --day D                length of a simulated day; the run starts at eight in the morning of it  (24h)

End:
  --duration D           stop taking readings after D
  --count N              stop after N readings of the whole fleet
  --drain D              at the planned end, wait for acknowledgements until none came for D  (30s)
  --give-up-after D      give a message up when it was not acknowledged for D; otherwise it is resent for ever
  Without --duration or --count it runs until Ctrl-C, which waits up to 5 s for acknowledgements.

Faults:
  --fault KIND[:key=value,...]   may be repeated
  --scenario FILE                faults and fleet settings from YAML, may be repeated; flags win
  Keys of every kind: name, devices (glob), start, duration (0: to the end), probability, off (true: only switched on
  by a program).
`)
	names, summaries := sim.FaultKinds()
	for i, name := range names {
		fmt.Fprintf(&b, "    %-16s %s\n", name, strings.ReplaceAll(summaries[i], "; ", ";\n"+strings.Repeat(" ", 21)))
	}
	b.WriteString(`
Output:
  --truth FILE           ground truth; - is stdout, none is nowhere  (-)
  --quiet                no progress and no summary on stderr

Exit codes:
  0  every published message was acknowledged
  1  something was never acknowledged or published, or the ground truth could not be written
  2  the command line or a file it names is wrong
`)
	return b.String()
}
