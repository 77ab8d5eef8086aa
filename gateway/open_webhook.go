package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"sluice/gateway/config"
	"sluice/uplink"
	"sluice/uplink/webhook"
)

// webhookBytes bounds one webhook's outbox: at a few hundred bytes an alert, some hundred thousand of them.
const webhookBytes = 64 << 20

// webhookBatch is how many notifications of a backlog a webhook's sink looks at together, for a digest. They go out one by one.
const webhookBatch = 500

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
	c := webhook.Config{URL: w.URL, Timeout: w.Timeout, Allow: allow, DigestAfter: w.DigestAfter}
	if c.Format, err = webhookFormat(w); err != nil {
		return &configError{fmt.Errorf("webhook %s: %w", w.Name, err)}
	}
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
	g.outlet.webhooks = append(g.outlet.webhooks, &hook{name: w.Name, outbox: outbox, sink: sink})
	// Order counts more than progress here: a notification that earns errors is not passed over.
	return g.forward(w.Name, "webhook", outbox, sink, uplink.ForwarderOptions{
		BatchRecords: webhookBatch, ParkAfter: -1, Whole: true, RetryFor: w.RetryFor, Describe: webhook.Describe,
	})
}

// reloadWebhooks signs with the secrets that the files hold now. Somebody has seen to things: webhooks that wait, or were disabled by
// an answer of 410, are tried at once.
func (g *gateway) reloadWebhooks() (err error) {
	for i := range g.cfg.Webhooks {
		w := &g.cfg.Webhooks[i]
		secret, e := readSecret(w.SecretFile)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("webhook %s: %w", w.Name, e))
			continue
		}
		for _, h := range g.outlet.webhooks {
			if h.name != w.Name {
				continue
			}
			if e := h.sink.SetSecrets([]string{secret}); e != nil {
				err = errors.Join(err, fmt.Errorf("webhook %s: %w", w.Name, e))
			}
		}
		for _, f := range g.forwarders {
			if f.name == w.Name && f.kind == "webhook" {
				f.Retry()
			}
		}
	}
	return err
}

// webhookFormat is what a webhook is sent. A template is tried on made-up alerts.
func webhookFormat(w *config.Webhook) (*webhook.Format, error) {
	if w.Format != "template" {
		return webhook.FormatNamed(w.Format)
	}
	f, err := os.Open(w.TemplateFile)
	if err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, webhook.MaxTemplate+1))
	if err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	return webhook.ParseTemplate(w.TemplateFile, string(text), w.ContentType)
}
