package influx

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// checkTimeout bounds a Check: it stands between two batches.
const checkTimeout = 15 * time.Second

// Check writes one point and reads it back by InfluxQL, which InfluxDB 1 to 3 answer under /query. readBack is false where the server
// has no such query, or does not let the token read: then the write was confirmed and no more. A server that answered one before must
// answer the next.
func (s *Sink) Check(ctx context.Context, p *telemetry.Point) (readBack bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := s.Deliver(ctx, []uplink.Record{{Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, p)}}); err != nil {
		return false, fmt.Errorf("write: %w", err)
	}
	found, why := s.find(ctx, p)
	switch {
	case found:
		s.readable.Store(true)
		return true, nil
	case s.readable.Load():
		return false, fmt.Errorf("written, but not read back: %s", why)
	}
	return false, nil
}

// find looks for a point with the time and tags of p.
func (s *Sink) find(ctx context.Context, p *telemetry.Point) (found bool, why string) {
	q := fmt.Sprintf(`SELECT * FROM "%s" WHERE time = %d`, p.Measurement, p.Time)
	for _, l := range p.Labels {
		q += fmt.Sprintf(` AND "%s" = '%s'`, l.Name, strings.ReplaceAll(l.Value, "'", `\'`))
	}
	u := strings.TrimSuffix(s.url, "/") + "/query?" + url.Values{"db": {s.bucket}, "q": {q}, "epoch": {"ns"}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return false, err.Error()
	}
	req.Header.Set("Accept", "application/json")
	if s.token != "" {
		req.Header.Set("Authorization", "Token "+s.token)
	}
	resp, err := s.rules.base.RoundTrip(req) // no redirects
	if err != nil {
		return false, uplink.TransportError(err).Error()
	}
	defer resp.Body.Close()
	var answer struct {
		Results []struct {
			Series []struct{ Values [][]any }
			Error  string
		}
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Sprintf("the query was answered %d", resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, uplink.MaxErrorBody)).Decode(&answer); err != nil || len(answer.Results) == 0 {
		return false, "the query was answered by something else"
	}
	r := &answer.Results[0]
	if len(r.Series) > 0 && len(r.Series[0].Values) > 0 {
		return true, ""
	}
	if r.Error != "" {
		return false, uplink.Clip(r.Error, 200)
	}
	return false, "it is not there"
}
