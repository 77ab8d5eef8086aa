package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync"
)

// journaldHandler writes lines that begin with the syslog level in angle brackets (sd-daemon(3)); journald keeps the time.
type journaldHandler struct {
	w     io.Writer
	attrs []func(slog.Handler) slog.Handler
}

var journaldLine struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Enabled implements slog.Handler.
func (h *journaldHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (h *journaldHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(t slog.Handler) slog.Handler { return t.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *journaldHandler) WithGroup(name string) slog.Handler {
	return h.with(func(t slog.Handler) slog.Handler { return t.WithGroup(name) })
}

func (h *journaldHandler) with(f func(slog.Handler) slog.Handler) slog.Handler {
	attrs := append(append([]func(slog.Handler) slog.Handler{}, h.attrs...), f)
	return &journaldHandler{w: h.w, attrs: attrs}
}

// Handle implements slog.Handler.
func (h *journaldHandler) Handle(ctx context.Context, r slog.Record) error {
	l := &journaldLine
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
	l.buf.WriteString(syslogLevel(r.Level))
	var text slog.Handler = slog.NewTextHandler(&l.buf, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}})
	for _, f := range h.attrs {
		text = f(text)
	}
	if err := text.Handle(ctx, r); err != nil {
		return err
	}
	_, err := h.w.Write(l.buf.Bytes())
	return err
}

func syslogLevel(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	}
	return "<6>"
}
