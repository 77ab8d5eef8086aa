package decode

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// valueDecoder reads a payload that is one number or one switch position as text: 21.5, -3e2, ON, false.
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
	v, err := parseValue(m.Payload)
	if err != nil {
		return err
	}
	s := out.add()
	s.Readings = append(s.Readings, telemetry.Reading{Metric: d.metric, Value: v})
	return nil
}

// parseValue takes numbers as people and printf write them (+5, 007, .5) and true, false, on, off in any case. The error is
// an *Error.
func parseValue(payload []byte) (float64, error) {
	text := bytes.Trim(payload, " \t\r\n\v\f")
	if len(text) == 0 {
		return 0, &Error{ReasonEmpty, "the payload is empty"}
	}
	if n, end := scanNumber(text, true); end == len(text) {
		f, ok := n.float(text)
		if !ok {
			return 0, &Error{ReasonNotFinite, excerpt(text) + " is beyond the range of float64"}
		}
		return f, nil
	}
	switch {
	case foldEqual(text, "true"), foldEqual(text, "on"):
		return 1, nil
	case foldEqual(text, "false"), foldEqual(text, "off"):
		return 0, nil
	case isNotFinite(text):
		return 0, &Error{ReasonNotFinite, excerpt(text) + " is not a finite number"}
	case !utf8.Valid(text):
		return 0, &Error{ReasonUTF8, "the payload is not valid UTF-8"}
	}
	return 0, &Error{ReasonType, excerpt(text) + " is neither a number nor true, false, on, off"}
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
