package sim

import (
	"math"
	"math/rand/v2"
)

// A profile is a kind of device: what it measures and how the values move. A new kind is one row in profiles.
type profile struct {
	name   string
	fields []field
	start  func(r *rand.Rand) model
}

// field is one member of the payload, in payload order.
type field struct {
	name     string
	decimals int  // values are rounded to what such a sensor resolves
	boolean  bool // sent as true and false, 1 and 0 in the ground truth
}

// A model is the physics of one device. step moves it on by dt seconds to the given fraction of the day (0 is
// midnight) and fills out in the order of the profile's fields.
type model interface {
	step(dt, day float64, r *rand.Rand, out []float64)
}

var profiles = []profile{
	{"freezer", []field{{"temperature", 2, false}, {"humidity", 1, false}, {"vibration", 3, false}, {"power", 1, false}, {"door", 0, true}}, newFreezer},
	{"pump", []field{{"temperature", 2, false}, {"humidity", 1, false}, {"vibration", 3, false}, {"power", 1, false}, {"pressure", 3, false}, {"running", 0, true}}, newPump},
	{"line", []field{{"temperature", 2, false}, {"humidity", 1, false}, {"vibration", 3, false}, {"power", 1, false}, {"speed", 1, false}, {"running", 0, true}}, newLine},
	{"weather", []field{{"temperature", 2, false}, {"humidity", 1, false}, {"vibration", 3, false}, {"power", 1, false}, {"wind", 2, false}, {"pressure", 2, false}}, newWeather},
}

// ProfileNames lists the device profiles.
func ProfileNames() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.name
	}
	return names
}

func profileByName(name string) *profile {
	for i := range profiles {
		if profiles[i].name == name {
			return &profiles[i]
		}
	}
	return nil
}

// noise is a first-order autoregressive process, AR(1), sampled at any interval: standard deviation sigma,
// correlation time tau seconds.
type noise struct {
	sigma, tau float64
	x          float64
}

func (n *noise) step(dt float64, r *rand.Rand) float64 {
	a := math.Exp(-dt / n.tau)
	n.x = a*n.x + math.Sqrt(1-a*a)*n.sigma*r.NormFloat64()
	return n.x
}

// approach moves v towards target as a body with time constant tau does in dt (both seconds): Newton's law of cooling.
func approach(v, target, dt, tau float64) float64 { return target + (v-target)*math.Exp(-dt/tau) }

// cycle is a machine that is on and off in turn, each for a random time within bounds in seconds.
type cycle struct {
	onMin, onMax, offMin, offMax float64
	on                           bool
	left                         float64
}

func (c *cycle) step(dt float64, r *rand.Rand) bool {
	for c.left -= dt; c.left <= 0; {
		c.on = !c.on
		lo, hi := c.offMin, c.offMax
		if c.on {
			lo, hi = c.onMin, c.onMax
		}
		c.left += lo + (hi-lo)*r.Float64()
	}
	return c.on
}

// daily is -1 at three in the night and 1 at three in the afternoon.
func daily(day float64) float64 { return math.Sin(2 * math.Pi * (day - 9.0/24)) }

// gauge is a reading that cannot be negative.
func gauge(mean, sd float64, r *rand.Rand) float64 { return math.Max(0, mean+sd*r.NormFloat64()) }

func clamp(v, lo, hi float64) float64 { return math.Min(hi, math.Max(lo, v)) }

// freezer: a compressor behind a thermostat with hysteresis, and a door.
type freezer struct {
	air        float64 // degC
	humidity   float64 // %
	compressor bool
	door       cycle
	sensor     noise
}

func newFreezer(r *rand.Rand) model {
	return &freezer{
		air: -19 + 1.5*r.Float64(), humidity: 55 + 5*r.Float64(), compressor: r.Float64() < 0.4,
		door:   cycle{onMin: 8, onMax: 45, offMin: 240, offMax: 2400, left: 60 + 1200*r.Float64()},
		sensor: noise{sigma: 0.06, tau: 20},
	}
}

func (f *freezer) step(dt, day float64, r *rand.Rand, out []float64) {
	open := f.door.step(dt, r)
	switch {
	case f.air > -17.5:
		f.compressor = true
	case f.air < -19:
		f.compressor = false
	}
	// Through the walls the air drifts to the room in hours, through an open door in minutes; the compressor pulls
	// it to -26 degC in some twenty minutes.
	f.air = approach(f.air, 20+2*daily(day), dt, 3*3600)
	if open {
		f.air = approach(f.air, 5, dt, 500)
		f.humidity = approach(f.humidity, 85, dt, 30)
	} else {
		f.humidity = approach(f.humidity, 57, dt, 400)
	}
	vibration, power := gauge(0.08, 0.01, r), gauge(6, 0.3, r)
	if f.compressor {
		f.air = approach(f.air, -26, dt, 1200)
		vibration, power = gauge(1.8, 0.08, r), gauge(340, 6, r)
	}
	out[0], out[1], out[2], out[3] = f.air+f.sensor.step(dt, r), clamp(f.humidity+0.4*r.NormFloat64(), 0, 100), vibration, power
	out[4] = truth(open)
}

// pump: runs in cycles; the bearing warms while it runs, vibration is its RMS velocity in mm/s.
type pump struct {
	run      cycle
	bearing  float64
	wear     float64 // mm/s added by this specimen's bearing
	pressure float64 // bar
	flutter  noise
}

func newPump(r *rand.Rand) model {
	return &pump{
		run:     cycle{onMin: 120, onMax: 480, offMin: 30, offMax: 180, left: 120 * r.Float64()},
		bearing: 35 + 10*r.Float64(), wear: 0.8 * r.Float64(), flutter: noise{sigma: 0.15, tau: 8},
	}
}

func (p *pump) step(dt, day float64, r *rand.Rand, out []float64) {
	ambient := 22 + 3*daily(day)
	flutter := p.flutter.step(dt, r)
	vibration, power := gauge(0.05, 0.01, r), gauge(3, 0.2, r)
	on := p.run.step(dt, r)
	if on {
		p.bearing = approach(p.bearing, ambient+32, dt, 360)
		p.pressure = approach(p.pressure, 4.2, dt, 3)
		vibration, power = math.Max(0, 2.4+p.wear+flutter+0.05*r.NormFloat64()), gauge(1500, 20, r)
	} else {
		p.bearing = approach(p.bearing, ambient, dt, 900)
		p.pressure = approach(p.pressure, 0.2, dt, 10)
	}
	out[0], out[1] = p.bearing+0.05*r.NormFloat64(), clamp(48-6*daily(day)+0.5*r.NormFloat64(), 0, 100)
	out[2], out[3], out[4], out[5] = vibration, power, math.Max(0, p.pressure+0.01*r.NormFloat64()), truth(on)
}

// line: a production line with long runs and short stops.
type line struct {
	run   cycle
	motor float64
	speed float64 // pieces a minute
	load  noise
}

func newLine(r *rand.Rand) model {
	return &line{
		run:   cycle{onMin: 300, onMax: 1200, offMin: 20, offMax: 120, left: 60 * r.Float64()},
		motor: 40 + 10*r.Float64(), load: noise{sigma: 0.08, tau: 40},
	}
}

func (l *line) step(dt, day float64, r *rand.Rand, out []float64) {
	ambient := 21 + 2*daily(day)
	load := 1 + l.load.step(dt, r)
	on := l.run.step(dt, r)
	vibration, power := gauge(0.1, 0.02, r), gauge(180, 5, r)
	if on {
		l.motor = approach(l.motor, ambient+38*load, dt, 600)
		l.speed = approach(l.speed, 120*load, dt, 8)
		vibration, power = gauge(4.1*load, 0.2, r), gauge(5500*load, 60, r)
	} else {
		l.motor = approach(l.motor, ambient, dt, 1200)
		l.speed = approach(l.speed, 0, dt, 3)
	}
	out[0], out[1] = l.motor+0.1*r.NormFloat64(), clamp(45-5*daily(day)+0.6*r.NormFloat64(), 0, 100)
	out[2], out[3], out[4], out[5] = vibration, power, math.Max(0, l.speed), truth(on)
}

// weather: a mast outdoors; its vibration comes from the wind, its power from a solar panel in W.
type weather struct {
	air   float64
	front noise // slow changes of the weather
	cloud noise
	gust  noise
	baro  noise
}

func newWeather(r *rand.Rand) model {
	return &weather{
		air: 9 + 3*r.Float64(), front: noise{sigma: 2.5, tau: 6 * 3600, x: 2.5 * r.NormFloat64()},
		cloud: noise{sigma: 0.25, tau: 300}, gust: noise{sigma: 1.6, tau: 15}, baro: noise{sigma: 8, tau: 24 * 3600},
	}
}

func (w *weather) step(dt, day float64, r *rand.Rand, out []float64) {
	target := 13 + 6*daily(day) + w.front.step(dt, r)
	w.air = approach(w.air, target, dt, 1200)
	wind := math.Max(0, 4+w.gust.step(dt, r))
	sun := math.Max(0, math.Sin(2*math.Pi*(day-0.25))) // up from six to eighteen
	sky := clamp(0.7+w.cloud.step(dt, r), 0.1, 1)
	out[0] = w.air + 0.08*r.NormFloat64()
	out[1] = clamp(68-2.2*(w.air-13)+1.0*r.NormFloat64(), 5, 100)
	out[2] = math.Max(0, 0.02+0.012*wind*wind+0.01*r.NormFloat64()) // drag grows with the square of the wind
	out[3] = 60 * sun * sky
	out[4] = wind
	out[5] = 1013 + w.baro.step(dt, r)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// round cuts v to the sensor's resolution, so that payload and ground truth hold the same number.
func round(v float64, decimals int) float64 {
	p := math.Pow10(decimals)
	v = math.Round(v*p) / p
	if v == 0 {
		return 0 // never -0
	}
	return v
}
