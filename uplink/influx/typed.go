package influx

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// typed says as what fields are written when that is not a float.
type typed struct {
	as     uplink.FieldType
	fields []string // nil: all
}

// appendTyped writes a point whose fields the store holds as another type.
func (w *scratch) appendTyped(b []byte, r *uplink.Record) ([]byte, error) {
	as, fields, body, err := uplink.ParseTyped(r.Body)
	if err != nil {
		return b, &unwritable{reasonDamaged, err.Error()}
	}
	if err := w.read.Read(body, &w.point); err != nil {
		return b, &unwritable{reasonDamaged, err.Error()}
	}
	w.enc.typed = &typed{as, fields}
	defer func() { w.enc.typed = nil }()
	return w.enc.Append(b, &w.point)
}

// value writes =value and a comma, for the field <metric>, or <metric>_<stat>.
func (e *Encoder) value(b []byte, metric string, stat telemetry.Stat, v float64) ([]byte, error) {
	if e.typed == nil {
		return appendValue(b, v)
	}
	if stat != "" {
		metric += "_" + string(stat)
	}
	return e.typed.append(b, metric, v)
}

func (t *typed) append(b []byte, field string, v float64) ([]byte, error) {
	if t.as == uplink.AsFloat || len(t.fields) > 0 && !slices.Contains(t.fields, field) {
		return appendValue(b, v)
	}
	if v-v != 0 {
		return nil, errors.New("not a finite number")
	}
	b = append(b, '=')
	switch t.as {
	case uplink.AsInt:
		if v != math.Trunc(v) || v < -1<<63 || v >= 1<<63 {
			return nil, fmt.Errorf("%v is not an integer", v)
		}
		b = append(strconv.AppendInt(b, int64(v), 10), 'i')
	case uplink.AsBool:
		if v != 0 && v != 1 {
			return nil, fmt.Errorf("%v is neither 0 nor 1", v)
		}
		b = strconv.AppendBool(b, v == 1)
	case uplink.AsString:
		b = append(appendFloat(append(b, '"'), v), '"')
	}
	return append(b, ','), nil
}
