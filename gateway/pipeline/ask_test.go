package pipeline

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
)

// drain is an Outlet that forgets.
type drain struct{ nowhere }

func (drain) Flush() error { return nil }
func (drain) Sync() error  { return nil }

// runningRunner is a Runner on a journal of its own; append adds a record durably.
func runningRunner(t *testing.T) (r *Runner, add func(typ byte, at int64, body []byte)) {
	t.Helper()
	dir := t.TempDir()
	journal, _, err := seglog.Open(filepath.Join(dir, "journal"), seglog.Options{SegmentBytes: 64 << 10, NoPrealloc: true})
	if err != nil {
		t.Fatal(err)
	}
	slots, err := seglog.OpenSlots(fsys.OS{}, dir, "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	r = NewRunner(NewFold(), journal, slots, drain{}, Options{})
	ctx, stop := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		parts.Wait()
		journal.Close()
		slots.Close()
	})
	return r, func(typ byte, at int64, body []byte) {
		t.Helper()
		if _, err := journal.Append(typ, at, body); err != nil {
			t.Fatal(err)
		}
		if err := journal.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// The registry can be asked for at any time, by many, while records come in and while none do.
func TestRunner_DevicesAnswersBusyAndIdle(t *testing.T) {
	r, add := runningRunner(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if list, err := r.Devices(ctx); err != nil || len(list) != 0 {
		t.Fatalf("before any record: %v, %v", list, err)
	}
	raw, err := testSpec().Encode()
	if err != nil {
		t.Fatal(err)
	}
	add(RecordConfigure, t0, raw)
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for range 50 {
				if _, err := r.Devices(ctx); err != nil {
					t.Errorf("Devices = %v", err)
					return
				}
			}
		})
	}
	for i := range 50 {
		add(RecordMessage, t0+int64(i)*sec, messageBody(Message{ClientID: "c", Topic: "d/" + string(rune('a'+i%26)) + "/t", Payload: []byte(msg(i, t0+int64(i)*sec, 20)), QoS: 1}))
	}
	askers.Wait()
	for len(mustDevices(t, r, ctx)) < 26 { // the last records may still be on their way
	}
}

func mustDevices(t *testing.T, r *Runner, ctx context.Context) []DeviceView {
	t.Helper()
	list, err := r.Devices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRunner_DevicesGivesUpWithItsContext(t *testing.T) {
	r := &Runner{} // nobody runs it
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Devices(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Devices = %v, want %v", err, context.Canceled)
	}
}
