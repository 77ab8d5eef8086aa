package main

import (
	"cmp"
	"context"
	"fmt"

	"sluice/broker"
	"sluice/gateway/config"
	"sluice/gateway/console"
	"sluice/gateway/pipeline"
)

// consoleConfig is the config's http section as the console has it.
func (g *gateway) consoleConfig() (console.Config, error) {
	h := &g.cfg.HTTP
	c := console.Config{
		Address: h.Address, Insecure: h.Insecure, Hosts: h.Hosts, UsersFile: h.UsersFile, TokensFile: g.dir.join("tokens.json"), Socket: g.cfg.SocketPath(),
		About: console.About{Gateway: g.cfg.Gateway.ID, Version: readBuildInfo().Version, TimeZone: cmp.Or(gatewayZone(g.cfg.Gateway.Zone), "UTC")},
	}
	if h.Socket == "" && !console.SocketFits(c.Socket) {
		g.log.Warn("no unix socket: the data directory's path is too long for one; set http.socket", "path", c.Socket)
		c.Socket = ""
	}
	if !h.TLS.Enabled() {
		return c, nil
	}
	t, err := broker.ServerTLS(listenerTLS(h.TLS), g.log)
	if err != nil {
		return c, fmt.Errorf("tls: %w", err)
	}
	c.TLS = t
	return c, nil
}

func listenerTLS(t config.TLS) broker.TLS {
	return broker.TLS{CertFile: t.CertFile, KeyFile: t.KeyFile, ClientCAFile: t.ClientCAFile, CRLFile: t.CRLFile}
}

// Audit implements console.Auditor.
func (g *gateway) Audit(ctx context.Context, e console.AuditEntry) error {
	lsn, err := g.intake.audit(&pipeline.Audit{Author: e.Author, Role: e.Role, Op: e.Op, Detail: e.Detail})
	if err != nil {
		return fmt.Errorf("journal the audit record: %w", err)
	}
	g.log.Info("operator", "op", e.Op, "by", e.Author, "role", e.Role, "detail", e.Detail)
	return g.awaitView(ctx, lsn)
}

// Audits implements console.Auditor.
func (g *gateway) Audits(ctx context.Context) ([]console.AuditEntry, error) {
	kept, err := g.runner.Audits(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the pipeline: %w", err)
	}
	list := make([]console.AuditEntry, len(kept))
	for i := range kept {
		a := &kept[i]
		list[i] = console.AuditEntry{Time: unixTime(a.Time), Author: a.Author, Role: a.Role, Op: a.Op, Detail: a.Detail, LSN: uint64(a.LSN)}
	}
	return list, nil
}

// roleOf is the role in which somebody asked, "" where nobody did.
func roleOf(ctx context.Context) string {
	if r := console.Asking(ctx).Role; r > console.Nobody {
		return r.String()
	}
	return ""
}

var _ console.Auditor = (*gateway)(nil)
