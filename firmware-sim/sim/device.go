package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// device is one simulated device. What its n-th reading says depends on the seed, its index and the faults in force
// at the time the reading is due, never on the network or the clock. Owned by its connection's goroutine.
type device struct {
	name, line, topic string
	profile           *profile
	model             model
	rand              *rand.Rand
	faults            []*deviceFault

	interval, phase time.Duration
	limit           int64 // readings to take; -1: no end
	day             time.Duration

	taken int64  // readings so far
	seq   uint64 // of the last message, 1 upwards
	out   []float64
}

// message is one payload to publish. All but the fields of its delivery are fixed when the reading is taken.
type message struct {
	device    *device
	seq       uint64
	due       time.Duration // of the reading, since the start of the run
	ts        int64         // ms, in the payload
	trueTS    int64         // ms
	values    []Value
	payload   []byte
	fault     string
	malformed string
}

// newRand makes an independent stream for a purpose within a device: 0 the signals, 1 upwards the faults.
func newRand(seed uint64, deviceIndex, purpose int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(deviceIndex)<<16|uint64(purpose)))
}

// newDevices builds the fleet of a valid config.
func newDevices(cfg Config, switches []*faultSwitch) []*device {
	interval := cfg.interval()
	devices := make([]*device, cfg.Devices)
	width := len(strconv.Itoa(cfg.Devices))
	for i := range devices {
		p := profileByName(cfg.Profiles[i%len(cfg.Profiles)])
		d := &device{
			name:    fmt.Sprintf("%s-%0*d", p.name, width, i/len(cfg.Profiles)+1),
			line:    fmt.Sprintf("line-%d", i%3+1),
			profile: p, rand: newRand(cfg.Seed, i, 0),
			interval: interval, day: cfg.Day,
			// Spread over the interval, so that the fleet's load is even.
			phase: time.Duration(float64(interval) * float64(i) / float64(cfg.Devices)),
			limit: -1,
			out:   make([]float64, len(p.fields)),
		}
		if n := countProfile(cfg.Profiles, p.name); n > 1 {
			d.name = fmt.Sprintf("%s-%0*d", p.name, width, i+1) // a profile listed twice: the index keeps names apart
		}
		d.topic = expandTopic(cfg.Topic, cfg.Site, d.name, p.name, d.line)
		d.model = p.start(d.rand)
		if cfg.Duration > 0 {
			d.limit = 0
			if d.phase < cfg.Duration {
				d.limit = int64((cfg.Duration-d.phase-1)/interval) + 1
			}
		}
		if cfg.Count > 0 {
			share := cfg.Count / int64(cfg.Devices)
			if int64(i) < cfg.Count%int64(cfg.Devices) {
				share++
			}
			if d.limit < 0 || share < d.limit {
				d.limit = share
			}
		}
		for k, s := range switches {
			if s.Kind == "reconnect_storm" || !matches(s.Devices, d.name) {
				continue
			}
			f := &deviceFault{faultSwitch: s, rand: newRand(cfg.Seed, i, k+1), field: -1}
			for n, fd := range p.fields {
				if fd.name == s.Metric {
					f.field = n
				}
			}
			d.faults = append(d.faults, f)
		}
		devices[i] = d
	}
	return devices
}

func countProfile(profiles []string, name string) (n int) {
	for _, p := range profiles {
		if p == name {
			n++
		}
	}
	return n
}

// nextDue is when the next reading is due; false: the device has taken all its readings.
func (d *device) nextDue() (time.Duration, bool) {
	if d.limit >= 0 && d.taken >= d.limit {
		return 0, false
	}
	return d.phase + time.Duration(d.taken)*d.interval, true
}

// outcome is what became of one reading: at most one message, when to send it, and whether to send it twice.
type outcome struct {
	msg   *message      // nil: the device dropped out
	delay time.Duration // hold msg back so long; 0: send now
	twice bool          // send it again
	again time.Duration // hold the second one back so much longer
}

// take takes the reading that is due; start is when the run began.
func (d *device) take(start time.Time) outcome {
	at := d.phase + time.Duration(d.taken)*d.interval
	dt := d.interval.Seconds()
	if d.taken == 0 {
		dt = 0
	}
	d.taken++
	dayFraction := float64((at+d.day/3)%d.day) / float64(d.day) // the run starts at eight in the morning
	d.model.step(dt, dayFraction, d.rand, d.out)

	m := &message{device: d, due: at}
	ts := start.Add(at)
	m.trueTS = ts.UnixMilli()
	var o outcome
	var dropped bool
	var breakWith *deviceFault
	for _, f := range d.faults {
		if !f.begin(at, d.out) {
			continue
		}
		switch f.Kind {
		case "spike":
			if f.field < 0 {
				continue
			}
			d.out[f.field] += f.Magnitude
		case "drift":
			if f.field < 0 {
				continue
			}
			d.out[f.field] += f.Magnitude * (at - f.since).Minutes()
		case "stuck":
			if f.field < 0 {
				continue
			}
			d.out[f.field] = f.held
		case "dropout":
			dropped = true
		case "duplicate":
			o.twice = true
			o.again = f.within()
		case "delay":
			o.delay += f.Delay
		case "out_of_order":
			o.delay += f.within()
		case "wrong_clock":
			ts = ts.Add(f.Offset)
		case "malformed":
			breakWith = f
		}
		if m.fault != "" {
			m.fault += "+"
		}
		m.fault += f.Name
	}
	if dropped {
		return outcome{}
	}
	d.seq++
	m.seq = d.seq
	m.ts = ts.UnixMilli()
	m.values = make([]Value, len(d.out))
	for i, f := range d.profile.fields {
		m.values[i] = Value{f.name, round(d.out[i], f.decimals)}
	}
	m.payload = d.payload(m)
	if breakWith != nil {
		m.payload, m.malformed = breakPayload(m.payload, breakWith.Payload, breakWith.rand)
		m.values = nil
	}
	o.msg = m
	return o
}

// within draws a time in (0, Delay], or 0 where there is no delay.
func (f *deviceFault) within() time.Duration {
	if f.Delay == 0 {
		return 0
	}
	return 1 + time.Duration(f.rand.Int64N(int64(f.Delay)))
}

// payload writes the telemetry JSON of a message.
func (d *device) payload(m *message) []byte {
	b := make([]byte, 0, 160)
	b = append(b, `{"ts":`...)
	b = strconv.AppendInt(b, m.ts, 10)
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, m.seq, 10)
	b = appendString(b, "line", d.line)
	for i, f := range d.profile.fields {
		b = append(b, ',')
		b = appendQuoted(b, f.name)
		b = append(b, ':')
		if f.boolean {
			b = strconv.AppendBool(b, m.values[i].Value != 0)
		} else {
			b = appendNumber(b, m.values[i].Value)
		}
	}
	return append(b, '}')
}
