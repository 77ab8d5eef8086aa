package uplink

import (
	"math"
	"time"
)

// Forecast says how long a destination may stay away before its outbox costs resolution, and before it costs data.
type Forecast struct {
	BytesPerDayIn    float64       // what is put, on disk; 0: not measured yet
	DaysUntilDegrade float64       // from now, with nothing delivered; 0: it does already; +Inf: never
	DaysUntilFull    float64       // until something is shed, or refused
	DaysAtCoarsest   float64       // how long the whole bound lasts at the coarsest step
	Coarsest         time.Duration // the last step of the ladder; 0: none
	MeasuredOver     time.Duration // how long BytesPerDayIn was measured
}

// ForecastInput is what a forecast is made from.
type ForecastInput struct {
	BytesPerDayIn float64
	MeasuredOver  time.Duration
	MaxBytes      int64 // 0: no bound
	Used          int64 // bytes of all tiers
	WhenFull      WhenFull
	// Steps are the windows of the ladder, and Shrink what a byte of the live tier becomes when it has been merged into each of them, from
	// 1 (nothing is gained) down; measured where something was merged, else estimated.
	Steps  []time.Duration
	Shrink []float64
}

// degradeAt is the part of the bound past which records are merged.
const degradeAt = 0.8

// NewForecast is pure.
func NewForecast(in ForecastInput) Forecast {
	f := Forecast{BytesPerDayIn: in.BytesPerDayIn, MeasuredOver: in.MeasuredOver,
		DaysUntilDegrade: math.Inf(1), DaysUntilFull: math.Inf(1), DaysAtCoarsest: math.Inf(1)}
	degrades := in.WhenFull == Degrade && len(in.Steps) > 0
	if degrades {
		f.Coarsest = in.Steps[len(in.Steps)-1]
	}
	if in.MaxBytes <= 0 || !(in.BytesPerDayIn > 0) {
		return f
	}
	shrink := 1.0
	if degrades {
		shrink = in.Shrink[len(in.Steps)-1]
	}
	left := func(share float64) float64 {
		return max(share*float64(in.MaxBytes)-float64(in.Used), 0) / in.BytesPerDayIn
	}
	f.DaysAtCoarsest = float64(in.MaxBytes) / (in.BytesPerDayIn * shrink)
	if !degrades {
		f.DaysUntilFull = left(1)
		return f
	}
	f.DaysUntilDegrade = left(degradeAt)
	// Past the watermark all that comes in is merged down in the end, and so is what is there already.
	room := max(degradeAt*float64(in.MaxBytes)-float64(in.Used)*shrink, 0)
	f.DaysUntilFull = max(room/(in.BytesPerDayIn*shrink), f.DaysUntilDegrade)
	return f
}
