// Package telemetry is the vocabulary of sluice: what a device measured, which series it belongs to, what a window of
// readings amounts to, and what a destination stores. It is a pure leaf: no I/O, no clock, no goroutines.
package telemetry

// Reading is one finite number a device measured at a time.
type Reading struct {
	Metric string
	Value  float64
}

// Series names one stream of readings: the device's labels and one metric.
type Series struct {
	Measurement string
	Labels      Labels
	Metric      string
}

// Device is what measures: readings of one device share their measurement and labels. Immutable.
type Device struct {
	Measurement string
	Labels      Labels
}
