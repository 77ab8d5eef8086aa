package main

import (
	"encoding/json"
	"math/bits"
	"time"
)

// histogram counts durations in buckets that grow by 1/32 of their power of two, so a quantile is at most 3 % off.
type histogram struct {
	counts [64 << subBits]uint64
	n      uint64
	most   time.Duration
}

const subBits = 5

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.n++
	h.most = max(h.most, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.most = max(h.most, o.most)
}

// quantile returns the lower bound of the bucket that holds the q-th part, 0 when empty.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	for i, c := range h.counts {
		if c > rank || c == rank && c > 0 && rank == h.n {
			return time.Duration(lowest(i))
		}
		rank -= min(c, rank)
	}
	return h.most
}

func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	e := bits.Len64(v) - 1 - subBits
	return (e+1)<<subBits | int(v>>e)&(1<<subBits-1)
}

func lowest(i int) uint64 {
	e, m := i>>subBits, uint64(i&(1<<subBits-1))
	if e == 0 {
		return m
	}
	return (1<<subBits | m) << (e - 1)
}

// latency is what is reported of a histogram.
type latency struct {
	P50 millis `json:"p50_ms"`
	P99 millis `json:"p99_ms"`
	Max millis `json:"max_ms"`
}

func (h *histogram) latency() latency {
	return latency{millis(h.quantile(0.5)), millis(h.quantile(0.99)), millis(h.most)}
}

// millis is a duration that reads as milliseconds in JSON.
type millis time.Duration

func (m millis) ms() float64 { return float64(m) / float64(time.Millisecond) }

func (m millis) MarshalJSON() ([]byte, error) { return json.Marshal(m.ms()) }

func (m *millis) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*m = millis(f * float64(time.Millisecond))
	return nil
}
