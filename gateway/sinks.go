package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"

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
}

// sinkKinds are the types of destinations, by their name in the configuration.
var sinkKinds = map[string]sinkKind{
	"influxdb": {openInflux, influx.Describe},
	"kafka":    {openKafka, stream.Describe},
	"nats":     {openNATS, stream.Describe},
	"mqtt":     {openBridge, stream.Describe},
}

// access is what a destination is reached with.
type access struct {
	token, password string
	tls             *tls.Config // nil: nothing of it is configured
	client          string      // how we call ourselves
}

// openSink makes the sink of d; it does not connect.
func openSink(d *config.Destination, gatewayID string) (uplink.Sink, sinkKind, error) {
	kind, ok := sinkKinds[d.Type]
	if !ok {
		return nil, kind, fmt.Errorf("unknown type %q", d.Type)
	}
	a := &access{client: d.ClientID}
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
	return influx.New(influx.Config{URL: d.URL, Org: d.Org, Bucket: d.Bucket, Token: a.token, Gzip: true, TLS: a.tls})
}

func openKafka(d *config.Destination, a *access) (uplink.Sink, error) {
	return kafka.New(kafka.Config{
		Brokers: d.Brokers, Topic: d.Topic, ClientID: a.client, Username: d.Username, Password: a.password, SASL: d.SASL, TLS: a.tls,
	})
}

func openNATS(d *config.Destination, a *access) (uplink.Sink, error) {
	return nats.New(nats.Config{
		URL: d.URL, Stream: d.Stream, Subject: d.Subject, Username: d.Username, Password: a.password, Token: a.token,
		CredentialsFile: d.CredentialsFile, Name: a.client, TLS: a.tls,
	})
}

func openBridge(d *config.Destination, a *access) (uplink.Sink, error) {
	return bridge.New(bridge.Config{
		URL: d.URL, Topic: d.Topic, ClientID: a.client, Username: d.Username, Password: a.password, TLS: a.tls,
	})
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

// closeSink ends what a sink keeps between deliveries.
func closeSink(s uplink.Sink) {
	if c, ok := s.(io.Closer); ok {
		c.Close()
	}
}
