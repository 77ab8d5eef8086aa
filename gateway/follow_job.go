package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// pollJobEvery is how often a command looks how far a job is.
const pollJobEvery = 200 * time.Millisecond

// runJob starts a job and waits for its end, with a bar where w is a terminal; its result is decoded into result. When ctx ends first, the
// job is cancelled.
func runJob(ctx context.Context, c *client, w io.Writer, path string, body, result any) error {
	var created struct{ ID string }
	if err := c.do(ctx, http.MethodPost, path, body, &created); err != nil {
		return err
	}
	at := "/api/v1/jobs/" + url.PathEscape(created.ID)
	show, stop := progressBar(w)
	defer stop()
	t := time.NewTicker(pollJobEvery)
	defer t.Stop()
	for {
		var j struct {
			State, Error string
			Done, Total  uint64
			Result       json.RawMessage
		}
		if err := c.do(ctx, http.MethodGet, at, nil, &j); err != nil {
			if ctx.Err() == nil {
				return err
			}
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
			defer cancel()
			return errors.Join(errors.New("cancelled"), c.do(late, http.MethodDelete, at, nil, nil))
		}
		switch j.State {
		case "done":
			if err := json.Unmarshal(j.Result, result); err != nil {
				return fmt.Errorf("ask the gateway: it does not answer as a gateway does: %w", err)
			}
			return nil
		case "failed":
			return errors.New(plain(j.Error))
		}
		if show != nil && j.Total > 0 {
			show(j.Done, j.Total)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}
