package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sluice/broker"
	"sluice/broker/passwd"
	"sluice/gateway/config"
	"sluice/gateway/console"
	"sluice/rules"
	"sluice/uplink"
	"sluice/uplink/influx"
	"sluice/uplink/webhook"
)

// openBroker turns the config's mqtt section into a broker in front of the intake.
func (g *gateway) openBroker() (err error) {
	m := &g.cfg.MQTT
	if err := g.reloadUsers(); err != nil {
		return err
	}
	c := broker.Config{
		AllowAnonymous: m.AllowAnonymous,
		Limits: broker.Limits{
			Connections: m.Limits.Connections, PacketBytes: int(m.Limits.PacketBytes), ConnectTimeout: m.Limits.ConnectTimeout,
			PublishRate: float64(m.Limits.PublishRate),
		},
		CommitInterval: g.cfg.Journal.CommitInterval,
		Commit:         func() { g.journal.Commit() },
		Clock:          g.clock.now,
		Log:            g.log,
	}
	if m.PasswordFile != "" {
		c.Authenticate = func(user string, password []byte) bool { return g.users.Load().Verify(user, password) }
	}
	for _, l := range m.Listeners {
		c.Listeners = append(c.Listeners, broker.ListenerConfig{
			Address: l.Address, Protocol: l.Protocol,
			TLS: broker.TLS{CertFile: l.TLS.CertFile, KeyFile: l.TLS.KeyFile, ClientCAFile: l.TLS.ClientCAFile},
		})
	}
	if g.broker, err = broker.New(c, g.intake); err != nil {
		return &configError{fmt.Errorf("mqtt: %w", err)}
	}
	return nil
}

// reloadUsers reads the password file; a broken one leaves the users as they were.
func (g *gateway) reloadUsers() error {
	if g.cfg.MQTT.PasswordFile == "" {
		return nil
	}
	f, err := passwd.Load(g.cfg.MQTT.PasswordFile)
	if err != nil {
		return err
	}
	g.users.Store(f)
	return nil
}

func (g *gateway) openConsole() (err error) {
	h := &g.cfg.HTTP
	if h.Address == "" {
		return nil
	}
	g.console, err = console.New(console.Config{Address: h.Address, Insecure: h.Insecure}, g, g.metrics(), g.log)
	if err != nil {
		return &configError{fmt.Errorf("http: %w", err)}
	}
	return nil
}

// openUplink opens the quarantine, and an outbox with its forwarder for each destination and webhook.
func (g *gateway) openUplink() (err error) {
	g.outlet.quarantine, err = uplink.OpenQuarantine(g.dir.join("quarantine"), uplink.QuarantineOptions{FS: g.dir.fs, Log: g.log})
	if err != nil {
		return err
	}
	for i := range g.cfg.Uplink.Destinations {
		if err := g.openDestination(&g.cfg.Uplink.Destinations[i]); err != nil {
			return err
		}
	}
	for i := range g.cfg.Webhooks {
		if err := g.openWebhook(&g.cfg.Webhooks[i]); err != nil {
			return err
		}
	}
	return nil
}

func readSecret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	s, err := config.ReadSecret(path)
	if err != nil {
		return "", &configError{err}
	}
	return s.Reveal(), nil
}

func (g *gateway) openDestination(d *config.Destination) error {
	match, err := rules.ParseMatchers(d.Match)
	if err != nil {
		return &configError{fmt.Errorf("destination %s: match: %w", d.Name, err)}
	}
	token, err := readSecret(d.TokenFile)
	if err != nil {
		return err
	}
	sink, err := influx.New(influx.Config{URL: d.URL, Org: d.Org, Bucket: d.Bucket, Token: token, Gzip: true})
	if err != nil {
		return &configError{fmt.Errorf("destination %s: %w", d.Name, err)}
	}
	outbox, err := uplink.OpenOutbox(g.dir.join("outbox", d.Name), uplink.OutboxOptions{
		FS:       g.dir.fs,
		MaxBytes: int64(d.Disk.MaxBytes), WhenFull: uplink.WhenFull(d.Disk.WhenFull), SegmentBytes: 4 << 20,
		CursorEvery: time.Second, OnShed: g.shed(d.Name), Log: g.log,
	})
	if err != nil {
		return err
	}
	g.outlet.destinations = append(g.outlet.destinations, &destination{name: d.Name, match: match, outbox: outbox})
	return g.forward(d.Name, "influxdb", outbox, sink, uplink.ForwarderOptions{BatchRecords: d.Batch, Describe: influx.Describe})
}

func (g *gateway) openWebhook(w *config.Webhook) error {
	secret, err := readSecret(w.SecretFile)
	if err != nil {
		return err
	}
	var allow []netip.Prefix
	for _, a := range w.Allow {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return &configError{fmt.Errorf("webhook %s: allow: %w", w.Name, err)}
		}
		allow = append(allow, p)
	}
	c := webhook.Config{URL: w.URL, Timeout: w.Timeout, Allow: allow}
	if secret != "" {
		c.Secrets = []string{secret}
	}
	sink, err := webhook.New(c)
	if err != nil {
		return &configError{fmt.Errorf("webhook %s: %w", w.Name, err)}
	}
	outbox, err := uplink.OpenOutbox(g.dir.join("outbox", w.Name), uplink.OutboxOptions{
		FS:       g.dir.fs,
		MaxBytes: webhookBytes, WhenFull: uplink.DropOldest, SegmentBytes: 1 << 20, OnShed: g.shed(w.Name), Log: g.log,
	})
	if err != nil {
		return err
	}
	g.outlet.webhooks = append(g.outlet.webhooks, &hook{name: w.Name, outbox: outbox})
	return g.forward(w.Name, "webhook", outbox, sink, uplink.ForwarderOptions{BatchRecords: 1, RetryFor: w.RetryFor})
}

// webhookBytes bounds one webhook's outbox: at a few hundred bytes an alert, some hundred thousand of them.
const webhookBytes = 64 << 20

func (g *gateway) forward(name, kind string, outbox *uplink.Outbox, sink uplink.Sink, o uplink.ForwarderOptions) error {
	o.Name, o.Quarantine, o.Log = name, g.outlet.quarantine, g.log
	f, err := uplink.NewForwarder(outbox, sink, o)
	if err != nil {
		return errors.Join(err, outbox.Close())
	}
	g.forwarders = append(g.forwarders, &forwarder{Forwarder: f, name: name, kind: kind, outbox: outbox})
	return nil
}

// shed says in the log what a destination will never get.
func (g *gateway) shed(name string) func(uplink.Shed) {
	return func(s uplink.Shed) {
		g.log.Error("outbox shed records", "destination", name, "records", s.Count, "reason", s.Reason)
	}
}
