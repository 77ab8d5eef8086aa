package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/gateway/console"
)

func TestJobs_AreBoundedCancelledFencedAndForgottenInTheEnd(t *testing.T) {
	j := newJobs(slog.New(slog.DiscardHandler))
	wait := func(ctx context.Context, p *progress) (any, error) {
		p.set(1, 2)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var ids []string
	for range jobsRunning {
		id, err := j.start("replay", "records", "ann", wait)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if _, err := j.start("replay", "records", "ann", wait); !errors.Is(err, console.ErrBusy) {
		t.Fatalf("one job too many: %v", err)
	}
	g := &gateway{jobs: j}
	if err := g.CancelJob(context.Background(), ids[0], "ben"); err != nil {
		t.Fatal(err)
	}
	if v, err := g.Job(ids[0]); err != nil || v.State != "failed" || v.Error != "cancelled by ben" || v.Ended.IsZero() || v.Done != 1 || v.Total != 2 {
		t.Errorf("cancelled: %+v, %v", v, err)
	}
	if err := g.CancelJob(context.Background(), ids[0], "ben"); !errors.Is(err, console.ErrNotFound) {
		t.Errorf("cancelled twice: %v", err)
	}
	end := func(work func(context.Context, *progress) (any, error)) console.Job {
		id, err := j.start("backtest", "records", "ann", work)
		if err != nil {
			t.Fatal(err)
		}
		one, err := j.find(id)
		if err != nil {
			t.Fatal(err)
		}
		<-one.ended
		return one.show()
	}
	if v := end(func(context.Context, *progress) (any, error) { panic("ouch") }); v.State != "failed" || !strings.Contains(v.Error, "ouch") {
		t.Errorf("panicked: %+v", v)
	}
	for range jobsListed + 3 {
		if v := end(func(context.Context, *progress) (any, error) { return 7, nil }); v.State != "done" || v.Result != 7 {
			t.Errorf("done: %+v", v)
		}
	}
	list := g.JobList()
	if len(list) != jobsListed || list[len(list)-1].ID != ids[1] || list[len(list)-1].State != "running" {
		t.Errorf("%d jobs listed, want %d, the running one among them", len(list), jobsListed)
	}
	began := time.Now()
	j.stop()
	if v, _ := g.Job(ids[1]); v.State != "failed" || v.Error != "the gateway stopped" || time.Since(began) > 5*time.Second {
		t.Errorf("stopped: %+v after %s", v, time.Since(began))
	}
	if _, err := j.start("replay", "records", "ann", wait); err == nil {
		t.Error("a job starts after the stop")
	}
}

func TestBacktestJob_SaysWhatIsWrongAtOnceAndWhatWouldHaveFiredInTheEnd(t *testing.T) {
	s, _ := startSite(t, t.TempDir())
	for _, v := range []string{"-5", "-4", "-20", "-3"} {
		s.publish("line/freezer-9", `{"temperature":`+v+`}`)
	}
	for body, want := range map[string]string{
		`{"rules":"groups: [ { name: g, rules: [ { alert: A, expr: 'temperature >' } ] } ]"}`: "rules:1:",
		`{"since":"a week"}`: "since",
		`{"for":"-1m"}`:      "for",
	} {
		if code, b := s.post("/api/v1/rules/backtest", body); code != http.StatusUnprocessableEntity || !strings.Contains(string(b), want) {
			t.Errorf("POST backtest %s = %d %s, want 422 with %q", body, code, b, want)
		}
	}
	code, b := s.post("/api/v1/rules/backtest", `{"rules":"groups: [ { name: g, rules: [ { alert: Cold, expr: temperature < -10 } ] } ]","since":"1d"}`)
	id := decoded[console.Created](t, code, b).ID
	var v struct {
		console.Job
		Result backtestReport `json:"result"`
	}
	s.await("the job", func() bool {
		code, b := s.get("/api/v1/jobs/" + id)
		v = decoded[struct {
			console.Job
			Result backtestReport `json:"result"`
		}](t, code, b)
		return v.State != "running"
	})
	if v.State != "done" || v.Done == 0 || v.Done != v.Total || len(v.Result.Rules) != 1 || v.Result.Rules[0].Fired != 1 || v.Result.Messages != 4 {
		t.Errorf("backtest: %+v", v)
	}
}
