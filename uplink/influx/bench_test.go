package influx

import (
	"net/http"
	"testing"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// nullTransport takes everything and costs nothing.
type nullTransport struct{ bytes int64 }

func (n *nullTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	n.bytes += r.ContentLength
	r.Body.Close()
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: r}, nil
}

// BenchmarkSink_Deliver is records in a batch to a body ready for the wire: decode, encode, compress.
func BenchmarkSink_Deliver(b *testing.B) {
	for _, packed := range []bool{false, true} {
		name := "plain"
		if packed {
			name = "gzip"
		}
		b.Run(name, func(b *testing.B) {
			null := &nullTransport{}
			s, err := New(Config{URL: "http://h", Bucket: "b", Gzip: packed, Transport: null})
			if err != nil {
				b.Fatal(err)
			}
			recs := make([]uplink.Record, 5000)
			for i := range recs {
				p := aggregatePoint()
				p.Time += int64(i) * 1e10
				p.Aggregates[0].Add(p.Time, float64(i)*0.37)
				recs[i] = uplink.Record{LSN: uint64(i + 1), Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, p)}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Deliver(b.Context(), recs); err != nil {
					b.Fatal(err)
				}
			}
			points := float64(b.N) * float64(len(recs))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/points, "ns/point")
			b.ReportMetric(points/b.Elapsed().Seconds(), "points/s")
			b.ReportMetric(float64(null.bytes)/points, "wire-bytes/point")
		})
	}
}
