package decode

import (
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of Sparkplug B's messages (Eclipse Sparkplug 3.0, section 6.4.1).
const (
	payloadTimestamp = 1
	payloadMetrics   = 2
	payloadSeq       = 3

	metricName       = 1
	metricAlias      = 2
	metricTimestamp  = 3
	metricDatatype   = 4
	metricHistorical = 5
	metricNull       = 7
	metricProperties = 9
	metricInt        = 10
	metricLong       = 11
	metricFloat      = 12
	metricDouble     = 13
	metricBoolean    = 14

	propertyKeys   = 1
	propertyValues = 2
	propertyString = 8
)

// Datatypes of metrics that hold a number (section 6.4.16).
const (
	spInt8    = 1
	spInt16   = 2
	spInt32   = 3
	spInt64   = 4
	spUInt8   = 5
	spUInt16  = 6
	spUInt32  = 7
	spUInt64  = 8
	spFloat   = 9
	spDouble  = 10
	spBoolean = 11
	spDate    = 13
)

// spMetric is one metric of a payload; its byte slices alias it.
type spMetric struct {
	name       []byte
	alias      uint64
	hasAlias   bool
	timestamp  int64 // ms; 0: the payload's
	datatype   uint32
	historical bool
	null       bool
	field      protowire.Number // which value it has; 0: none
	bits       uint64           // the value as it stands on the wire
	unit       []byte           // property engUnit
}

// number returns the metric's value as datatype has it; ok is false for values that are no number.
func (m *spMetric) number(datatype uint32) (v float64, ok bool) {
	switch m.field {
	case metricBoolean:
		return float64(m.bits & 1), true
	case metricFloat:
		return float64(math.Float32frombits(uint32(m.bits))), true
	case metricDouble:
		return math.Float64frombits(m.bits), true
	case metricInt, metricLong:
		switch datatype {
		case spInt8:
			return float64(int8(m.bits)), true
		case spInt16:
			return float64(int16(m.bits)), true
		case spInt32:
			return float64(int32(m.bits)), true
		case spInt64:
			return float64(int64(m.bits)), true
		case spUInt8, spUInt16, spUInt32, spUInt64:
			return float64(m.bits), true
		case spBoolean:
			return float64(m.bits & 1), true
		}
	}
	return 0, false
}

// protoFields calls f with each field of a protobuf message, until it returns false; v is the content of a length-delimited
// field, bits the value of any other. It returns false where b is no such message.
func protoFields(b []byte, f func(num protowire.Number, typ protowire.Type, bits uint64, v []byte) bool) bool {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		var bits uint64
		var v []byte
		switch typ {
		case protowire.VarintType:
			bits, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			bits = uint64(x)
		case protowire.Fixed64Type:
			bits, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		default: // groups: Sparkplug has none, and to skip them is to recurse
			return false
		}
		if n < 0 || !f(num, typ, bits, v) {
			return false
		}
		b = b[n:]
	}
	return true
}

// metricWire is the wire type of each field of a metric that is read.
var metricWire = map[protowire.Number]protowire.Type{
	metricName: protowire.BytesType, metricAlias: protowire.VarintType, metricTimestamp: protowire.VarintType,
	metricDatatype: protowire.VarintType, metricHistorical: protowire.VarintType, metricNull: protowire.VarintType,
	metricProperties: protowire.BytesType, metricInt: protowire.VarintType, metricLong: protowire.VarintType,
	metricFloat: protowire.Fixed32Type, metricDouble: protowire.Fixed64Type, metricBoolean: protowire.VarintType,
}

// parse reads a metric; false where b is none.
func (m *spMetric) parse(b []byte) bool {
	*m = spMetric{}
	return protoFields(b, func(num protowire.Number, typ protowire.Type, bits uint64, v []byte) bool {
		if want, known := metricWire[num]; known && typ != want {
			return false
		}
		switch num {
		case metricName:
			m.name = v
			return utf8.Valid(v)
		case metricAlias:
			m.alias, m.hasAlias = bits, true
		case metricTimestamp:
			m.timestamp = int64(bits)
		case metricDatatype:
			m.datatype = uint32(bits)
		case metricHistorical:
			m.historical = bits != 0
		case metricNull:
			m.null = bits != 0
		case metricProperties:
			return m.properties(v)
		case metricInt, metricLong, metricFloat, metricDouble, metricBoolean:
			m.field, m.bits = num, bits
		case 15, 16, 17, 18, 19: // string, bytes, dataset, template, extension
			m.field = num
		}
		return true
	})
}

// properties finds the unit: keys and values are two lists of equal length.
func (m *spMetric) properties(b []byte) bool {
	at, keys, values := -1, 0, 0
	ok := protoFields(b, func(num protowire.Number, typ protowire.Type, _ uint64, v []byte) bool {
		if num == propertyKeys && typ == protowire.BytesType {
			if string(v) == "engUnit" {
				at = keys
			}
			keys++
		}
		return true
	})
	if !ok || at < 0 {
		return ok
	}
	return protoFields(b, func(num protowire.Number, typ protowire.Type, _ uint64, v []byte) bool {
		if num != propertyValues || typ != protowire.BytesType {
			return true
		}
		values++
		if values-1 != at {
			return true
		}
		return protoFields(v, func(num protowire.Number, typ protowire.Type, _ uint64, v []byte) bool {
			if num == propertyString && typ == protowire.BytesType {
				m.unit = v
			}
			return true
		})
	})
}

// rebirthRequest is the payload of an NCMD that asks a node for its births (section 6.4.21).
func rebirthRequest(b []byte, now int64) []byte {
	metric := protowire.AppendTag(nil, metricName, protowire.BytesType)
	metric = protowire.AppendString(metric, spRebirth)
	metric = protowire.AppendTag(metric, metricDatatype, protowire.VarintType)
	metric = protowire.AppendVarint(metric, spBoolean)
	metric = protowire.AppendTag(metric, metricBoolean, protowire.VarintType)
	metric = protowire.AppendVarint(metric, 1)
	b = protowire.AppendTag(b, payloadTimestamp, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(now/1_000_000))
	b = protowire.AppendTag(b, payloadMetrics, protowire.BytesType)
	return protowire.AppendBytes(b, metric)
}

// spRebirth is the command every edge node has.
const spRebirth = "Node Control/Rebirth"
