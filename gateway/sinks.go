package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"sluice/gateway/config"
	"sluice/uplink"
	"sluice/uplink/bridge"
	"sluice/uplink/influx"
	"sluice/uplink/kafka"
	"sluice/uplink/nats"
	"sluice/uplink/stream"
)

// sinkKind is a type of destination.
type sinkKind struct {
	open func(d *config.Destination, a *access) (uplink.Sink, error)
	// describe renders a refused record as the destination would have got it.
	describe func(uplink.Record) string
	inFlight int // requests at once; the streams have messages in flight within one Deliver
}

// sinkKinds are the types of destinations, by their name in the configuration.
var sinkKinds = map[string]sinkKind{
	"influxdb": {openInflux, influx.Describe, 4},
	"kafka":    {openKafka, stream.Describe, 1},
	"nats":     {openNATS, stream.Describe, 1},
	"mqtt":     {openBridge, stream.Describe, 1},
}

// access is what a destination is reached with.
type access struct {
	token, password string
	tls             *tls.Config // nil: nothing of it is configured
	client          string      // how we call ourselves
	shared
}

// shared outlives a sink that is made again.
type shared struct {
	meter *uplink.Meter // of the destination's traffic; nil: none
	types *influx.Types // of fields that an InfluxDB holds otherwise; nil: not kept
}

// openSink makes the sink of d; it does not connect.
func openSink(d *config.Destination, gatewayID string, shared shared) (uplink.Sink, sinkKind, error) {
	kind, ok := sinkKinds[d.Type]
	if !ok {
		return nil, kind, fmt.Errorf("unknown type %q", d.Type)
	}
	a := &access{client: d.ClientID, shared: shared}
	if a.client == "" {
		a.client = "sluice-" + gatewayID + "-" + d.Name
	}
	var err error
	if a.token, err = readSecret(d.TokenFile); err != nil {
		return nil, kind, err
	}
	if a.password, err = readSecret(d.PasswordFile); err != nil {
		return nil, kind, err
	}
	if a.tls, err = destinationTLS(&d.TLS); err != nil {
		return nil, kind, err
	}
	sink, err := kind.open(d, a)
	return sink, kind, err
}

func openInflux(d *config.Destination, a *access) (uplink.Sink, error) {
	c := influx.Config{URL: d.URL, Org: d.Org, Bucket: d.Bucket, Token: a.token, Gzip: true, TLS: a.tls, Types: a.types}
	if a.meter != nil {
		c.Dial = a.meter.Dial((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	}
	return influx.New(c)
}

func openKafka(d *config.Destination, a *access) (uplink.Sink, error) {
	return kafka.New(kafka.Config{
		Brokers: d.Brokers, Topic: d.Topic, ClientID: a.client, Username: d.Username, Password: a.password, SASL: d.SASL, TLS: a.tls,
		Wrap: a.wrap(),
	})
}

func openNATS(d *config.Destination, a *access) (uplink.Sink, error) {
	c := nats.Config{
		URL: d.URL, Stream: d.Stream, Subject: d.Subject, Username: d.Username, Password: a.password, Token: a.token,
		CredentialsFile: d.CredentialsFile, Name: a.client, TLS: a.tls,
	}
	if a.meter != nil {
		c.Dial = meteredDialer{a.meter}
	}
	return nats.New(c)
}

func openBridge(d *config.Destination, a *access) (uplink.Sink, error) {
	return bridge.New(bridge.Config{
		URL: d.URL, Topic: d.Topic, ClientID: a.client, Username: d.Username, Password: a.password, TLS: a.tls, Wrap: a.wrap(),
	})
}

// wrap is what connections go through, nil for nothing.
func (a *access) wrap() func(net.Conn) net.Conn {
	if a.meter == nil {
		return nil
	}
	return a.meter.Conn
}

// meteredDialer dials for the NATS client.
type meteredDialer struct{ m *uplink.Meter }

// Dial implements nats.CustomDialer.
func (d meteredDialer) Dial(network, address string) (net.Conn, error) {
	dial := d.m.Dial((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	return dial(context.Background(), network, address)
}

// destinationTLS is nil when nothing is configured: then each sink has its default.
func destinationTLS(t *config.DestinationTLS) (*tls.Config, error) {
	if !t.On() {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("tls: %s holds no certificate in PEM form", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
