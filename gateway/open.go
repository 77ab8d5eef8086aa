package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/broker"
	"sluice/broker/acl"
	"sluice/broker/passwd"
	"sluice/gateway/config"
	"sluice/gateway/console"
	"sluice/rules"
	"sluice/uplink"
	"sluice/uplink/influx"
)

// openBroker turns the config's mqtt section into a broker in front of the intake.
func (g *gateway) openBroker() (err error) {
	m := &g.cfg.MQTT
	if err := g.readAccess(); err != nil {
		return &configError{err}
	}
	g.sessions, err = broker.OpenStore(g.dir.join("broker"), broker.StoreOptions{
		FS: g.dir.fs, CommitInterval: g.cfg.Journal.CommitInterval, Log: g.log,
	})
	if err != nil {
		return err
	}
	c := broker.Config{
		AllowAnonymous: m.AllowAnonymous,
		Store:          g.sessions,
		Sessions: broker.SessionLimits{
			Expiry: m.Limits.SessionExpiry, QueuedMessages: m.Limits.QueuedMessages, QueuedBytes: int(m.Limits.QueuedBytes),
			TotalBytes: int(m.Limits.QueuedTotalBytes),
		},
		Limits: broker.Limits{
			Connections: m.Limits.Connections, PacketBytes: int(m.Limits.PacketBytes), ConnectTimeout: m.Limits.ConnectTimeout,
			PublishRate:           float64(m.Limits.PublishRate),
			ConnectionsPerAddress: orNone(m.Limits.ConnectionsPerAddress), Sessions: orNone(m.Limits.Sessions),
			FailedLogins: orNone(m.Limits.FailedLogins), Takeovers: orNone(m.Limits.Takeovers),
			TopicLevels: m.Limits.TopicLevels, TopicBytes: m.Limits.TopicBytes, Subscriptions: orNone(m.Limits.Subscriptions),
			Retained: orNone(m.Limits.Retained), RetainedBytes: orNone(int64(m.Limits.RetainedBytes)), QueueBytes: int(m.Limits.QueueBytes),
		},
		CommitInterval: g.cfg.Journal.CommitInterval,
		Commit:         func() { g.journal.Commit() },
		Clock:          g.clock.now,
		Log:            g.log,
	}
	if m.PasswordFile != "" {
		c.Authenticate = func(user string, password []byte) bool { return g.users.Load().Verify(user, password) }
	}
	if m.ACLFile != "" {
		c.Rights = &g.rights
	}
	for _, l := range m.Listeners {
		c.Listeners = append(c.Listeners, broker.ListenerConfig{
			Address: l.Address, Protocol: l.Protocol,
			TLS: listenerTLS(l.TLS),
		})
	}
	if g.broker, err = broker.New(c, g.intake); err != nil {
		return &configError{fmt.Errorf("mqtt: %w", err)}
	}
	return nil
}

// orNone is a limit of the configuration, where 0 means none, as the broker has it.
func orNone[T int | int64](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// readAccess reads the password file and the access list; a broken one leaves both as they were.
func (g *gateway) readAccess() (err error) {
	m := &g.cfg.MQTT
	var users *passwd.File
	var rights *acl.File
	if m.PasswordFile != "" {
		users, err = passwd.Load(m.PasswordFile)
	}
	if m.ACLFile != "" {
		var aclErr error
		rights, aclErr = acl.Load(m.ACLFile)
		err = errors.Join(err, aclErr)
	}
	if err != nil {
		return err
	}
	g.users.Store(users)
	g.rights.Store(rights)
	return nil
}

// reloadAccess puts users, rights and certificates in force as their files have them now. Who lost the user, its password or
// the certificate is disconnected; who keeps them stays, with the rights of now.
func (g *gateway) reloadAccess() error {
	before := g.users.Load()
	err := g.readAccess()
	var keep func(string) bool
	if now := g.users.Load(); err == nil && now != nil && before != nil {
		keep = func(user string) bool { return now.Same(before, user) }
	}
	err = errors.Join(err, g.broker.Reload(keep))
	if g.console != nil {
		err = errors.Join(err, g.console.Reload())
	}
	return err
}

func (g *gateway) openConsole() (err error) {
	c, err := g.consoleConfig()
	if err != nil {
		return &configError{fmt.Errorf("http: %w", err)}
	}
	if c.Address == "" && c.Socket == "" {
		return nil
	}
	c.Demo, c.About.Demo = g.stage, g.stage != nil
	if g.history != nil {
		c.PromQL = g.history.Handler()
	}
	g.console, err = console.New(c, g, g.metrics(), g.log)
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
	meter, err := g.openMeter(d)
	if err != nil {
		return err
	}
	shared := shared{meter: meter}
	if d.Type == "influxdb" {
		if shared.types, err = influx.OpenTypes(g.dir.fs, g.dir.join("outbox", d.Name)); err != nil {
			return fmt.Errorf("destination %s: %w", d.Name, err)
		}
		g.kept = append(g.kept, shared.types)
	}
	sink, kind, err := openSink(d, g.cfg.Gateway.ID, shared)
	if err != nil {
		return &configError{fmt.Errorf("destination %s: %w", d.Name, err)}
	}
	canary, err := g.canary(d, meter)
	if err != nil {
		return err
	}
	outbox, err := uplink.OpenOutbox(g.dir.join("outbox", d.Name), uplink.OutboxOptions{
		FS:       g.dir.fs,
		MaxBytes: int64(d.Disk.MaxBytes), WhenFull: uplink.WhenFull(d.Disk.WhenFull), SegmentBytes: 4 << 20,
		Ladder: d.Disk.Ladder, Horizon: horizon(g.cfg.Sources), Readings: readings(g.cfg.Sources), LiveWindow: liveWindow(g.cfg.Sources),
		CursorEvery: time.Second, OnShed: g.shed(d.Name), Urgent: true, Log: g.log,
		Losses: uplink.LossOptions{Labels: ownLabels(g.cfg), Source: sourceOf(g.cfg.Sources), Tell: true},
	})
	if err != nil {
		return err
	}
	g.outlet.destinations = append(g.outlet.destinations, &destination{name: d.Name, match: match, outbox: outbox})
	return g.forward(d.Name, d.Type, outbox, sink, uplink.ForwarderOptions{
		BatchRecords: d.Batch, Describe: kind.describe, InFlight: kind.inFlight, NewestFirst: true, Meter: meter, Canary: canary,
		Rebuild: func() (uplink.Sink, error) {
			sink, _, err := openSink(d, g.cfg.Gateway.ID, shared)
			return sink, err
		},
	})
}

func (g *gateway) forward(name, kind string, outbox *uplink.Outbox, sink uplink.Sink, o uplink.ForwarderOptions) error {
	o.Name, o.Quarantine, o.Log = name, g.outlet.quarantine, g.log
	f, err := uplink.NewForwarder(outbox, sink, o)
	if err != nil {
		return errors.Join(err, outbox.Close())
	}
	g.forwarders = append(g.forwarders, &forwarder{Forwarder: f, name: name, kind: kind, outbox: outbox, sink: sink})
	return nil
}

// shed says in the log what a destination will never get, at most once a minute: a full outbox sheds a segment every few seconds.
func (g *gateway) shed(name string) func(uplink.Shed) {
	var mu sync.Mutex
	var said time.Time
	counts := make(map[uplink.ShedReason]uint64)
	return func(s uplink.Shed) {
		mu.Lock()
		defer mu.Unlock()
		counts[s.Reason] += s.Count
		if time.Since(said) < time.Minute {
			return
		}
		said = time.Now()
		for reason, n := range counts {
			g.log.Error("outbox shed records; the log of losses has them all", "destination", name, "records", n, "reason", reason)
		}
		clear(counts)
	}
}
