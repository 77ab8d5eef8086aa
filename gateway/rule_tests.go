package main

import (
	"fmt"

	"sluice/gateway/config"
	policy "sluice/rules/notify"
	"sluice/rules/ruletest"
	"sluice/uplink/webhook"
)

// testOptions are how webhooks are told in rule tests: as a configuration says, or, without one, as its defaults are. Of the
// configuration no secret is read.
func testOptions(configFile string) (ruletest.Options, error) {
	o := ruletest.Options{}
	plain := config.NewWebhook()
	o.Default = receiverSpec(&plain)
	formats, gateway := map[string]*webhook.Format{}, "test"
	if configFile != "" {
		cfg, err := config.Load(configFile)
		if err != nil {
			return o, &configError{err}
		}
		gateway = cfg.Gateway.ID
		for i := range cfg.Webhooks {
			w := &cfg.Webhooks[i]
			o.Receivers = append(o.Receivers, receiverSpec(w))
			if formats[w.Name], err = webhookFormat(w); err != nil {
				return o, &configError{fmt.Errorf("webhook %s: %w", w.Name, err)}
			}
		}
	}
	o.Body = func(n int, told *policy.Notification) ([]byte, error) {
		f := formats[told.Receiver]
		if f == nil {
			f = webhook.Alertmanager
		}
		return f.Render(notification(told, fmt.Sprintf("msg_%032x", n), gateway))
	}
	return o, nil
}
