package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"sluice/gateway/telemetry"
	"sluice/uplink"
	"sluice/uplink/stream"
	"sluice/uplink/stream/streamtest"
)

const topic = "edge.points"

func cluster(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(3, topic)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func sinkFor(t *testing.T, brokers []string, change func(*Config)) *Sink {
	t.Helper()
	c := Config{Brokers: brokers, Topic: topic, Timeout: 10 * time.Second}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// stored reads n records of the topic from its beginning; partitions are read in order.
func stored(t *testing.T, brokers []string, n int) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		f := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", len(out), n, f.Err())
		}
		f.EachRecord(func(r *kgo.Record) { out = append(out, r) })
	}
	return out
}

func kind(t *testing.T, err error, want uplink.Kind, words ...string) *uplink.Error {
	t.Helper()
	var e *uplink.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("got %v, want kind %s", err, want)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Fatalf("got %q, want %q in it", e, w)
		}
	}
	return e
}

func TestSink_StoresEachDeviceInOrderInOnePartition(t *testing.T) {
	c := cluster(t)
	s := sinkFor(t, c.ListenAddrs(), nil)
	for from := 0; from < 60; from += 20 {
		if err := s.Deliver(t.Context(), streamtest.Records(from, from+20)); err != nil {
			t.Fatal(err)
		}
	}
	partition, last := map[string]int32{}, map[string]int64{}
	got := stored(t, c.ListenAddrs(), 60)
	for _, r := range got {
		p := streamtest.Parse(t, r.Value)
		device := p.Tags["device"]
		if at, ok := partition[device]; ok && at != r.Partition {
			t.Errorf("device %s in partitions %d and %d", device, at, r.Partition)
		}
		partition[device] = r.Partition
		if p.Time <= last[device] {
			t.Errorf("device %s: %d after %d", device, p.Time, last[device])
		}
		last[device] = p.Time
		if want := "device=" + device + ",gateway=g1,site=plant 7"; string(r.Key) != want {
			t.Errorf("key %q, want %q", r.Key, want)
		}
		if len(r.Headers) != 2 || r.Headers[0].Key != "id" || string(r.Headers[0].Value) != p.ID+"."+p.Version || string(r.Headers[1].Value) != "application/json" {
			t.Errorf("headers %v of %s.%s", r.Headers, p.ID, p.Version)
		}
		if r.Timestamp.UnixMilli() != p.Time/1e6 {
			t.Errorf("timestamp %s of a point at %d", r.Timestamp, p.Time)
		}
	}
	if len(got) != 60 || len(last) != 3 {
		t.Errorf("%d records of %d devices", len(got), len(last))
	}
}

func TestSink_ARedeliveredRecordHasTheSameIDAndACorrectionAnother(t *testing.T) {
	c := cluster(t)
	recs := streamtest.Records(0, 1)
	for range 2 { // a gateway that crashed before it noted the acknowledgement
		s := sinkFor(t, c.ListenAddrs(), nil)
		if err := s.Deliver(t.Context(), recs); err != nil {
			t.Fatal(err)
		}
	}
	s := sinkFor(t, c.ListenAddrs(), nil)
	if err := s.Deliver(t.Context(), []uplink.Record{streamtest.Record(streamtest.Point(0, 2), 9)}); err != nil {
		t.Fatal(err)
	}
	got := stored(t, c.ListenAddrs(), 3)
	a, b, corrected := streamtest.Parse(t, got[0].Value), streamtest.Parse(t, got[1].Value), streamtest.Parse(t, got[2].Value)
	if a.ID != b.ID || a.Version != b.Version || string(got[0].Headers[0].Value) != string(got[1].Headers[0].Value) {
		t.Errorf("redelivered as %s.%s, was %s.%s", b.ID, b.Version, a.ID, a.Version)
	}
	if corrected.ID != a.ID || corrected.Version <= a.Version || corrected.Fields["temperature_count"] != 2 {
		t.Errorf("correction %+v of %+v", corrected, a)
	}
}

func TestAppendKey_DiffersWhereLabelsDiffer(t *testing.T) {
	key := func(pairs ...telemetry.Label) string {
		return string(appendKey(nil, &telemetry.Point{Labels: telemetry.NewLabels(pairs...)}))
	}
	a := key(telemetry.Label{Name: "a", Value: "1,b=2"})
	b := key(telemetry.Label{Name: "a", Value: "1"}, telemetry.Label{Name: "b", Value: "2"})
	if a == b || a != `a=1\,b\=2` {
		t.Errorf("keys %q and %q", a, b)
	}
}

// carries tells whether a produce request has a record whose value contains text.
func carries(t *testing.T, req kmsg.Request, text string) bool {
	for _, tp := range req.(*kmsg.ProduceRequest).Topics {
		for _, p := range tp.Partitions {
			var b kmsg.RecordBatch
			if err := b.ReadFrom(p.Records); err != nil {
				t.Error(err)
			}
			recs, err := kfake.BatchRecords(b)
			if err != nil {
				t.Error(err)
			}
			for i := range recs {
				if strings.Contains(string(recs[i].Value), text) {
					return true
				}
			}
		}
	}
	return false
}

// checkAllBut looks for windows 0..n-1 in the topic, each at least once, and none of those left out.
func checkAllBut(t *testing.T, c *kfake.Cluster, n int, out ...int) {
	t.Helper()
	seen := map[int]bool{}
	want := n - len(out)
	for total := want; len(seen) < want; total++ {
		for _, r := range stored(t, c.ListenAddrs(), total) {
			seen[streamtest.Parse(t, r.Value).Window()] = true
		}
	}
	for i := range n {
		if seen[i] == slices.Contains(out, i) {
			t.Errorf("window %d stored: %v", i, seen[i])
		}
	}
}

func TestSink_OneRefusedRecordIsQuarantinedWithTheBrokersWords(t *testing.T) {
	c := cluster(t)
	bad := fmt.Sprint(streamtest.Point(17, 1).Aggregates[0].FirstTime)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.InvalidRecord, Count: -1, When: func(r kmsg.Request) bool {
		return carries(t, r, `"sum":17,`) && carries(t, r, bad)
	}})
	rig := streamtest.NewRig(t, sinkFor(t, c.ListenAddrs(), nil), uplink.ForwarderOptions{Describe: stream.Describe})
	for i := range 40 {
		rig.Put(t, uint64(i+1), streamtest.Point(i, 1))
	}
	rig.Drained(t, 20*time.Second)
	items := rig.Quarantined(t)
	if len(items) != 1 || !strings.Contains(items[0].Detail, "INVALID_RECORD") || !strings.Contains(items[0].Points, `"sum":17,`) {
		t.Fatalf("quarantined %+v", items)
	}
	checkAllBut(t, c, 40, 17)
}

func TestSink_WhatTheBrokerFindsTooLargeIsQuarantinedAlone(t *testing.T) {
	c := cluster(t)
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.MessageTooLarge, Count: -1, When: func(r kmsg.Request) bool {
		return carries(t, r, `"note"`)
	}})
	rig := streamtest.NewRig(t, sinkFor(t, c.ListenAddrs(), nil), uplink.ForwarderOptions{Describe: stream.Describe})
	for i := range 30 {
		p := streamtest.Point(i, 1)
		if i == 11 {
			p = streamtest.Big(i, 5000)
		}
		rig.Put(t, uint64(i+1), p)
	}
	rig.Drained(t, 20*time.Second)
	if items := rig.Quarantined(t); len(items) != 1 || items[0].Reason != "too_large" || !strings.Contains(items[0].Detail, "MESSAGE_TOO_LARGE") {
		t.Fatalf("quarantined %+v", items)
	}
	checkAllBut(t, c, 30, 11)
}

func TestSink_NamesRecordsBeyondItsOwnBound(t *testing.T) {
	c := cluster(t)
	s := sinkFor(t, c.ListenAddrs(), func(c *Config) { c.MaxMessageBytes = 4096 })
	recs := streamtest.Records(0, 3)
	recs[1] = streamtest.Record(streamtest.Big(1, 5000), 2)
	e := kind(t, s.Deliver(t.Context(), recs), uplink.KindRejected)
	if len(e.Refused) != 1 || e.Refused[0].Index != 1 || e.Refused[0].Reason != "too_large" {
		t.Errorf("refused %+v", e.Refused)
	}
}

func TestSink_AnUnknownTopicIsAMatterOfConfiguration(t *testing.T) {
	c := cluster(t)
	s := sinkFor(t, c.ListenAddrs(), func(c *Config) { c.Topic = "nowhere" })
	start := time.Now()
	kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindConfig, "topic nowhere", "UNKNOWN_TOPIC_OR_PARTITION")
	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := c.CreateTopic("nowhere", 1, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), streamtest.Records(0, 3)); err != nil {
		t.Errorf("after the topic was made: %v", err)
	}
}

func TestSink_AnswersAreSorted(t *testing.T) {
	for _, tc := range []struct {
		err  *kerr.Error
		want uplink.Kind
	}{
		{kerr.TopicAuthorizationFailed, uplink.KindConfig},
		{kerr.ClusterAuthorizationFailed, uplink.KindConfig},
		{kerr.InvalidTimestamp, uplink.KindRejected},
		{kerr.NotEnoughReplicas, uplink.KindRetry},
		{kerr.KafkaStorageError, uplink.KindRetry},
		{kerr.UnknownServerError, uplink.KindRetry},
	} {
		t.Run(tc.err.Message, func(t *testing.T) {
			c := cluster(t)
			f := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: tc.err, Count: -1})
			s := sinkFor(t, c.ListenAddrs(), nil)
			recs := streamtest.Records(0, 3)
			kind(t, s.Deliver(t.Context(), recs), tc.want, tc.err.Message)
			f.Remove()
			if err := s.Deliver(t.Context(), recs); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestSink_APassingAnswerIsTriedAgainAtOnce(t *testing.T) {
	c := cluster(t)
	f := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 1})
	s := sinkFor(t, c.ListenAddrs(), nil)
	if err := s.Deliver(t.Context(), streamtest.Records(0, 30)); err != nil {
		t.Fatal(err)
	}
	if f.Hits() == 0 {
		t.Fatal("the fault was not met")
	}
	checkAllBut(t, c, 30)
}

func TestSink_AServerThatSaysNothingIsARetryWithinTheTimeout(t *testing.T) {
	brokers := []string{streamtest.Mute(t), streamtest.Mute(t), streamtest.Mute(t)}
	for _, c := range []*tls.Config{nil, {}} {
		s := sinkFor(t, brokers, func(k *Config) { k.Timeout, k.TLS = 500*time.Millisecond, c })
		start := time.Now()
		kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	}
}

func TestSink_NobodyListeningIsARetryWithinSeconds(t *testing.T) {
	s := sinkFor(t, []string{fmt.Sprintf("127.0.0.1:%d", streamtest.FreePort(t))}, nil)
	start := time.Now()
	kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry, "connection refused")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestSink_ABrokerThatHangsEndsWithTheTimeoutAndIsForgotten(t *testing.T) {
	c := cluster(t)
	var hang atomic.Bool
	hang.Store(true)
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		return nil, nil, hang.Load()
	})
	s := sinkFor(t, c.ListenAddrs(), func(c *Config) { c.Timeout = 500 * time.Millisecond })
	start := time.Now()
	kind(t, s.Deliver(t.Context(), streamtest.Records(0, 30)), uplink.KindRetry, "no answer in time")
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
	hang.Store(false)
	streamtest.Eventually(t, 5*time.Second, "delivered", func() bool { return s.Deliver(t.Context(), streamtest.Records(0, 30)) == nil })
	checkAllBut(t, c, 30)
}

func TestSink_EndsWithItsContext(t *testing.T) {
	c := cluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		cancel()
		return nil, nil, true
	})
	s := sinkFor(t, c.ListenAddrs(), nil)
	start := time.Now()
	kind(t, s.Deliver(ctx, streamtest.Records(0, 30)), uplink.KindRetry)
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestSink_PasswordsAreCheckedAndNeverShown(t *testing.T) {
	c := cluster(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "edge", "s3cret"), kfake.Superuser("SCRAM-SHA-256", "edge", "s3cret"),
		kfake.Superuser("SCRAM-SHA-512", "edge", "s3cret"))
	for _, mechanism := range []string{"", "plain", "scram-sha-256", "scram-sha-512"} {
		login := func(password string) *Sink {
			return sinkFor(t, c.ListenAddrs(), func(c *Config) { c.SASL, c.Username, c.Password = mechanism, "edge", password })
		}
		if err := login("s3cret").Deliver(t.Context(), streamtest.Records(0, 1)); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
		// This broker closes the connection; Apache Kafka's says why.
		e := kind(t, login("wr0ng").Deliver(t.Context(), streamtest.Records(0, 1)), uplink.KindRetry, "a login refused")
		f := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, TopLevel: true, Err: kerr.SaslAuthenticationFailed, Count: -1})
		said := kind(t, login("wr0ng").Deliver(t.Context(), streamtest.Records(0, 1)), uplink.KindConfig, "SASL_AUTHENTICATION_FAILED")
		f.Remove()
		if strings.Contains(e.Error()+said.Error(), "wr0ng") {
			t.Errorf("%s: the password is in %q or %q", mechanism, e, said)
		}
	}
}

func TestSink_ChecksTheBrokersCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(nil) // for its certificate
	server.StartTLS()
	defer server.Close()
	c := cluster(t, kfake.TLS(&tls.Config{Certificates: server.TLS.Certificates}))
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	var n streamtest.Wire
	good := sinkFor(t, c.ListenAddrs(), func(c *Config) { c.TLS, c.Wrap = &tls.Config{RootCAs: roots}, n.Wrap })
	if err := good.Deliver(t.Context(), streamtest.Records(0, 3)); err != nil || n.Bytes() < 2000 {
		t.Errorf("with its authority: %v after %d bytes, want a handshake's worth and more", err, n.Bytes())
	}
	bad := sinkFor(t, c.ListenAddrs(), func(c *Config) { c.TLS = &tls.Config{RootCAs: x509.NewCertPool()} })
	kind(t, bad.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindConfig, "certificate")
}

// The broker goes in the middle and comes back with what it had stored.
func TestSink_EndToEndOverARestartOfTheBroker(t *testing.T) {
	dir, port := t.TempDir(), streamtest.FreePort(t)
	up := func() *kfake.Cluster {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, topic), kfake.Ports(port), kfake.DataDir(dir))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := up()
	var produced atomic.Int32
	observe := func() {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Count: -1, Observe: true, When: func(kmsg.Request) bool { produced.Add(1); return false }})
	}
	observe()
	rig := streamtest.NewRig(t, sinkFor(t, c.ListenAddrs(), func(c *Config) { c.Timeout = 3 * time.Second }), uplink.ForwarderOptions{BatchRecords: 50})
	const n = 600
	for i := range n {
		rig.Put(t, uint64(i+1), streamtest.Point(i, 1))
		if i == n/2 {
			streamtest.Eventually(t, 10*time.Second, "something was produced", func() bool { return produced.Load() > 0 })
			c.Close()
		}
	}
	streamtest.Eventually(t, 20*time.Second, "the loss was noticed", func() bool { return rig.Forwarder.Status().State == uplink.BackingOff })
	c = up()
	defer c.Close()
	rig.Drained(t, 30*time.Second)
	if counters := rig.Outbox.Counters(); counters.Delivered != n {
		t.Errorf("counters %+v", counters)
	}
	checkAllBut(t, c, n)
}

func TestSink_CloseEndsWhatItStarted(t *testing.T) {
	c := cluster(t)
	before := goleak.IgnoreCurrent()
	s := sinkFor(t, c.ListenAddrs(), nil)
	if err := s.Deliver(t.Context(), streamtest.Records(0, 30)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	down := sinkFor(t, []string{fmt.Sprintf("127.0.0.1:%d", streamtest.FreePort(t))}, nil)
	kind(t, down.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry)
	streamtest.Eventually(t, 5*time.Second, "nothing is left", func() bool { return goleak.Find(before) == nil })
}

func BenchmarkSink_Deliver5000(b *testing.B) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, topic), kfake.BlackholeProduce())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := New(Config{Brokers: c.ListenAddrs(), Topic: topic})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	recs := streamtest.Records(0, 5000)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Deliver(b.Context(), recs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(5000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
