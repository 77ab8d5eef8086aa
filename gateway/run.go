package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/gateway/config"
	"sluice/gateway/console"
)

// runGateway serves until ctx ends; SIGHUP reads rules and users again.
func runGateway(ctx context.Context, cfg *config.Config, _ io.Writer) error {
	log := newLogger(os.Stderr)
	g, err := openGateway(cfg, log)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-hup:
				notifyReloading(log)
				g.hangup()
				notify(log, "READY=1")
			}
		}
	}()
	return g.run(ctx)
}

// hangup does what SIGHUP asks for.
func (g *gateway) hangup() {
	outcome := ""
	if err := g.reload(); err != nil {
		g.log.Error("reload refused; the old rules and users stay in force", "err", err)
		outcome = "refused: " + err.Error()
	} else {
		g.log.Info("reloaded")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := g.Audit(ctx, console.AuditEntry{Author: "SIGHUP", Op: "reload", Detail: outcome}); err != nil {
		g.log.Error("not in the audit", "op", "reload", "err", err)
	}
}

// newLogger writes to w; under systemd's journal without a time of its own, and with the level as a prefix it understands.
func newLogger(w io.Writer) *slog.Logger {
	if os.Getenv("JOURNAL_STREAM") == "" {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(&journaldHandler{w: w})
}
