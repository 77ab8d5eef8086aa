package history

import (
	"context"
	"errors"
	"log/slog"
	"strings"
)

// quieter passes on what needs a person's eyes: the TSDB tells of every compaction, and takes its own end for a failure, and blocks of
// what came out of order for odd.
func quieter(l *slog.Logger) *slog.Logger {
	return slog.New(warnings{l.Handler()}).With("part", "history")
}

type warnings struct{ slog.Handler }

// Enabled implements slog.Handler.
func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (w warnings) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "Overlapping blocks found") {
		return nil
	}
	ending := false
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		ending = ok && errors.Is(err, context.Canceled)
		return !ending
	})
	if ending {
		return nil
	}
	return w.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
