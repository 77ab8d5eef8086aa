package decode

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// valueDecoder reads a payload that is one number or one switch position as text: 21.5, -3e2, ON, false. The words online and
// offline are a state of the device.
type valueDecoder struct {
	metric string
}

func newValue(spec Spec) (Decoder, error) {
	switch {
	case spec.TimeField != "":
		return nil, errors.New("time: format value carries no time")
	case spec.Sequence != "":
		return nil, errors.New("sequence: format value carries no sequence")
	case len(spec.Fields) > 0:
		return nil, errors.New("fields: format value has a single one")
	case len(spec.Labels) > 0:
		return nil, errors.New("labels: format value carries none; capture a topic level instead")
	}
	if spec.Metric == "" {
		spec.Metric = "value"
	}
	if why := nameFault(spec.Metric); why != "" {
		return nil, errors.New("metric: " + why)
	}
	return &valueDecoder{metric: spec.Metric}, nil
}

func (d *valueDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	if online, ok := onlineWord(m.Payload); ok {
		return out.state(online, StateAvailability, 0)
	}
	v, err := parseValue(m.Payload)
	if err != nil {
		return err
	}
	s := out.add()
	s.Readings = append(s.Readings, telemetry.Reading{Metric: d.metric, Value: v})
	return nil
}

// parseValue takes numbers as people and printf write them (+5, 007, .5) and true, false, on, off in any case.
func parseValue(payload []byte) (float64, *Error) {
	text := bytes.Trim(payload, " \t\r\n\v\f")
	if len(text) == 0 {
		return 0, &Error{ReasonEmpty, "the payload is empty"}
	}
	if v, ok := valueWord(text); ok {
		return v, nil
	}
	switch _, end := scanNumber(text, true); {
	case end == len(text):
		return 0, &Error{ReasonNotFinite, excerpt(text) + " is beyond the range of float64"}
	case isNotFinite(text):
		return 0, &Error{ReasonNotFinite, excerpt(text) + " is not a finite number"}
	case !utf8.Valid(text):
		return 0, &Error{ReasonUTF8, "the payload is not valid UTF-8"}
	}
	return 0, &Error{ReasonType, excerpt(text) + " is neither a number nor true, false, on, off"}
}

// valueWord is parseValue for text that is mostly no value.
func valueWord(text []byte) (v float64, ok bool) {
	if n, end := scanNumber(text, true); end > 0 && end == len(text) {
		return n.float(text)
	}
	switch {
	case foldEqual(text, "true"), foldEqual(text, "on"):
		return 1, true
	case foldEqual(text, "false"), foldEqual(text, "off"):
		return 0, true
	}
	return 0, false
}

// foldEqual compares ASCII without case; lower is lower case.
func foldEqual(text []byte, lower string) bool {
	if len(text) != len(lower) {
		return false
	}
	for i := range text {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isNotFinite tells the words that printf and JavaScript write for NaN and infinities.
func isNotFinite(text []byte) bool {
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		text = text[1:]
	}
	return foldEqual(text, "nan") || foldEqual(text, "inf") || foldEqual(text, "infinity")
}
