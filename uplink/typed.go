package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"sluice/gateway/telemetry"
)

// FieldType is what a store holds a field as. Points carry numbers; a store that has met a field as something else refuses them, and an
// operator who puts such a point back on its way may say what it wants.
type FieldType byte

// The field types.
const (
	AsFloat FieldType = iota + 1
	AsInt
	AsString
	AsBool
)

var fieldTypes = [...]string{"", "float", "int", "string", "bool"}

// String is the type's name on the command line and in the API.
func (t FieldType) String() string { return fieldTypes[min(int(t), len(fieldTypes)-1)] }

// ParseFieldType reads a type's name.
func ParseFieldType(s string) (FieldType, error) {
	for t := AsFloat; t <= AsBool; t++ {
		if t.String() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("want float, int, string or bool, got %q", s)
}

// MarshalTyped makes the body of a TypeTypedPoint record: a point's body, and as what its fields of these names, or all, are written.
//
//	type (byte) | n names, unsigned varint, each with its length before it | the point
func MarshalTyped(t FieldType, fields []string, point []byte) []byte {
	b := binary.AppendUvarint([]byte{byte(t)}, uint64(len(fields)))
	for _, f := range fields {
		b = telemetry.AppendString(b, f)
	}
	return append(b, point...)
}

// ParseTyped reads what MarshalTyped wrote; point aliases b.
func ParseTyped(b []byte) (t FieldType, fields []string, point []byte, err error) {
	d := telemetry.NewDecoder(b)
	t = FieldType(d.Byte())
	for range d.Count(1) {
		fields = append(fields, d.String())
	}
	if d.Err() != nil || t < AsFloat || t > AsBool {
		return 0, nil, nil, errors.New("typed point is damaged")
	}
	return t, fields, d.Rest(), nil
}

// Retype is a refused record with its fields as t: those that the server's words name, or all when they name none.
func Retype(r Record, t FieldType, serverSaid string) (Record, error) {
	if r.Type == TypeTypedPoint {
		_, _, point, err := ParseTyped(r.Body)
		if err != nil {
			return r, err
		}
		r.Body = point
	} else if r.Type != TypePoint {
		return r, errors.New("only points have field types")
	}
	var p telemetry.Point
	if err := telemetry.ParsePoint(r.Body, &p); err != nil {
		return r, err
	}
	var fields []string
	p.EachField(func(name []byte, _ float64) {
		for _, quote := range [...]string{`"`, `'`, "`", `\"`} {
			if strings.Contains(serverSaid, quote+string(name)+quote) {
				fields = append(fields, string(name))
				return
			}
		}
	})
	r.Type, r.Body = TypeTypedPoint, MarshalTyped(t, fields, r.Body)
	return r, nil
}
