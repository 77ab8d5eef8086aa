package decode

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
)

// cborDecoder reads CBOR maps (RFC 8949) as the json format reads objects: same names, same roles, same refusals. A key is text
// or an integer, which is then called by its decimal digits. undefined is null. A tag is read as what it stands on, so that a
// tagged date or epoch time is a time; bignums are readings, decimal fractions are not.
//
// It has its own reader for the same reason as json: one pass from the bytes to the roles, no values built between.
type cborDecoder struct{ gather }

func newCBOR(spec Spec) (Decoder, error) {
	g, err := newGather(spec)
	if err != nil {
		return nil, err
	}
	return &cborDecoder{g}, nil
}

func (d *cborDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	d.begin(m, m.Payload, out.add())
	d.document()
	d.end()
	if d.err == nil && len(d.s.Readings) == 0 {
		d.err = noReadings(d.s.Refused)
	}
	if d.err != nil {
		out.reset()
		return d.err
	}
	return nil
}

func (d *cborDecoder) document() {
	if len(d.b) == 0 {
		d.fail(ReasonEmpty, "the payload is empty")
		return
	}
	i, h := 0, cborHead{}
	for {
		if h, i = d.head(i); i < 0 {
			return
		}
		if h.major != cborTag {
			break
		}
	}
	if h.major != cborMap {
		d.fail(ReasonType, "the payload is %s, not a map", h.kind())
		return
	}
	if i = d.object(h, i, &d.fields.root, 1); i >= 0 && i < len(d.b) {
		d.fail(ReasonSyntax, "%d bytes after the map", len(d.b)-i)
	}
}

// CBOR's major types (RFC 8949, section 3.1).
const (
	cborUint   = 0
	cborNegInt = 1
	cborBytes  = 2
	cborText   = 3
	cborArray  = 4
	cborMap    = 5
	cborTag    = 6
	cborSimple = 7
)

// cborHead is the head of a data item: its major type and argument. Of floats bits holds the float's.
type cborHead struct {
	major, info byte
	indefinite  bool
	arg         uint64
}

func (h cborHead) kind() string {
	switch h.major {
	case cborUint, cborNegInt:
		return "an integer"
	case cborBytes:
		return "a byte string"
	case cborText:
		return "a string"
	case cborArray:
		return "an array"
	case cborMap:
		return "a map"
	}
	return "a simple value"
}

// isBreak ends an item of indefinite length.
func (h cborHead) isBreak() bool { return h.major == cborSimple && h.indefinite }

// head reads the head at i and returns what follows it.
func (d *scanner) head(i int) (h cborHead, end int) {
	if i >= len(d.b) {
		return h, d.fail(ReasonSyntax, "the payload ends at byte %d, want a data item", i)
	}
	h.major, h.info = d.b[i]>>5, d.b[i]&31
	rest := d.b[i+1:]
	size := 0
	switch {
	case h.info < 24:
		h.arg = uint64(h.info)
		return h, i + 1
	case h.info <= 27:
		size = 1 << (h.info - 24)
	case h.info == 31 && h.major >= cborBytes && h.major != cborTag:
		h.indefinite = true
		return h, i + 1
	default:
		return h, d.fail(ReasonSyntax, "byte %d (%#02x) begins no data item", i, d.b[i])
	}
	if len(rest) < size {
		return h, d.fail(ReasonSyntax, "the payload ends at byte %d, in a head", len(d.b))
	}
	switch size {
	case 1:
		h.arg = uint64(rest[0])
	case 2:
		h.arg = uint64(binary.BigEndian.Uint16(rest))
	case 4:
		h.arg = uint64(binary.BigEndian.Uint32(rest))
	case 8:
		h.arg = binary.BigEndian.Uint64(rest)
	}
	if h.major == cborSimple && size == 1 && h.arg < 32 {
		return h, d.fail(ReasonSyntax, "byte %d: a simple value in the wrong form", i)
	}
	return h, i + 1 + size
}

// str reads the text or byte string whose head h ends at i. Text aliases the payload, or scratch where it came in chunks.
func (d *scanner) cborString(h cborHead, i int) (text []byte, end int) {
	if !h.indefinite {
		if h.arg > uint64(len(d.b)-i) {
			return nil, d.fail(ReasonSyntax, "the payload ends in %s of %d bytes", h.kind(), h.arg)
		}
		text, end = d.b[i:i+int(h.arg)], i+int(h.arg)
		if h.major == cborText && !utf8.Valid(text) {
			return nil, d.fail(ReasonUTF8, "a string before byte %d is not valid UTF-8", end)
		}
		return text, end
	}
	d.scratch = d.scratch[:0]
	for {
		chunk, next := d.head(i)
		if next < 0 {
			return nil, next
		}
		if chunk.isBreak() {
			return d.scratch, next
		}
		if chunk.major != h.major || chunk.indefinite {
			return nil, d.fail(ReasonSyntax, "byte %d begins no part of %s", i, h.kind())
		}
		kept := d.scratch
		if text, next = d.cborString(chunk, next); next < 0 {
			return nil, next
		}
		d.scratch, i = append(kept, text...), next
	}
}

// cborFloat returns the float64 of a simple item with 2, 4 or 8 bytes.
func (h cborHead) float() float64 {
	switch h.info {
	case 25:
		return float16(uint16(h.arg))
	case 26:
		return float64(math.Float32frombits(uint32(h.arg)))
	}
	return math.Float64frombits(h.arg)
}

// float16 widens IEEE 754 binary16 (RFC 8949, appendix D).
func float16(bits uint16) float64 {
	exp, mant := int(bits>>10&31), float64(bits&1023)
	var v float64
	switch exp {
	case 0:
		v = math.Ldexp(mant, -24)
	case 31:
		v = math.Inf(1)
		if mant != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(mant+1024, exp-25)
	}
	if bits&0x8000 != 0 {
		v = -v
	}
	return v
}

// object reads the map whose head h ends at i; at is its place.
func (d *cborDecoder) object(h cborHead, i int, at *place, depth int) int {
	if depth > MaxDepth {
		return d.fail(ReasonDepth, "nested deeper than %d", MaxDepth)
	}
	d.objects++
	object := d.objects
	var prev *place
	for n := uint64(0); h.indefinite || n < h.arg; n++ {
		k, next := d.head(i)
		if next < 0 {
			return next
		}
		if k.isBreak() && h.indefinite {
			return next
		}
		var key []byte
		if key, i = d.key(k, next); i < 0 {
			return i
		}
		if len(key) > MaxKeyBytes {
			return d.fail(ReasonKeyTooLong, "the key %s is longer than %d bytes", excerpt(key), MaxKeyBytes)
		}
		if d.keys++; d.keys > MaxKeys {
			return d.fail(ReasonTooManyFields, "more than %d keys", MaxKeys)
		}
		p := d.fields.child(at, prev, key)
		if p == nil {
			return d.fail(ReasonKeyTooLong, "the keys down to %s join to more than %d bytes", excerpt(key), MaxNameBytes)
		}
		if p.object == object {
			return d.fail(ReasonDuplicateKey, "the key %s stands twice in one map", excerpt(key))
		}
		p.object = object
		prev = p
		if i = d.value(i, p, depth); i < 0 {
			return i
		}
	}
	return i
}

func (d *cborDecoder) key(h cborHead, i int) (key []byte, end int) {
	switch {
	case h.major == cborText:
		return d.cborString(h, i)
	case h.major == cborUint:
		d.scratch = strconv.AppendUint(d.scratch[:0], h.arg, 10)
		return d.scratch, i
	case h.major == cborNegInt && h.arg < math.MaxInt64:
		d.scratch = strconv.AppendInt(d.scratch[:0], -1-int64(h.arg), 10)
		return d.scratch, i
	}
	return nil, d.fail(ReasonName, "a key is %s before byte %d: want a string or an integer", h.kind(), i)
}

// value reads the item at i; p is its place.
func (d *cborDecoder) value(i int, p *place, depth int) int {
	h, i := d.head(i)
	tag := uint64(0)
	for tags := 0; i >= 0 && h.major == cborTag; tags++ {
		if tags == MaxDepth {
			return d.fail(ReasonDepth, "more than %d tags on one item", MaxDepth)
		}
		tag = h.arg
		h, i = d.head(i)
	}
	if i < 0 {
		return i
	}
	switch h.major {
	case cborUint, cborNegInt:
		return d.takeInteger(p, h.major == cborNegInt, h.arg, i)
	case cborBytes:
		text, end := d.cborString(h, i)
		if end < 0 {
			return end
		}
		if tag == 2 || tag == 3 { // RFC 8949, section 3.4.3: bignums
			return d.takeBignum(p, text, tag == 3, end)
		}
		if d.took(p, "a byte string") < 0 {
			return -1
		}
		return end
	case cborText:
		text, end := d.cborString(h, i)
		if end < 0 || d.takeString(p, text) < 0 {
			return -1
		}
		return end
	case cborArray:
		if p.role != roleReading && d.took(p, "an array") < 0 {
			return -1
		}
		return d.array(h, i, p, depth+1)
	case cborMap:
		if d.took(p, "a map") < 0 {
			return -1
		}
		return d.object(h, i, p, depth+1)
	}
	switch {
	case h.indefinite:
		return d.fail(ReasonSyntax, "a break where a value should be, before byte %d", i)
	case h.info == 20, h.info == 21:
		return d.takeBool(p, h.info == 21, i)
	case h.info == 22, h.info == 23: // null, undefined
		return i
	case h.info >= 25:
		return d.takeFloat(p, h.float(), i)
	}
	if d.took(p, "a simple value") < 0 {
		return -1
	}
	return i
}

// array reads the array whose head h ends at i; at is the place it stands at.
func (d *cborDecoder) array(h cborHead, i int, at *place, depth int) int {
	if depth > MaxDepth {
		return d.fail(ReasonDepth, "nested deeper than %d", MaxDepth)
	}
	at = d.fields.arrayAt(at)
	var prev *place
	for n := uint64(0); h.indefinite || n < h.arg; n++ {
		if h.indefinite {
			k, next := d.head(i)
			if next < 0 {
				return next
			}
			if k.isBreak() {
				return next
			}
		}
		element := at
		if !at.muted {
			if d.keys++; d.keys > MaxKeys {
				return d.fail(ReasonTooManyFields, "more than %d keys and elements", MaxKeys)
			}
			d.scratch = strconv.AppendUint(d.scratch[:0], n, 10)
			if element = d.fields.child(at, prev, d.scratch); element == nil {
				return d.fail(ReasonKeyTooLong, "the keys down to element %d join to more than %d bytes", n, MaxNameBytes)
			}
			prev = element
		}
		if i = d.value(i, element, depth); i < 0 {
			return i
		}
	}
	return i
}

// takeInteger takes arg, or -1-arg where neg is set.
func (d *cborDecoder) takeInteger(p *place, neg bool, arg uint64, end int) int {
	if p.role == roleNone {
		return end
	}
	if neg && arg == math.MaxUint64 { // -2^64
		return d.takeFloat(p, -math.MaxUint64, end)
	}
	if neg {
		arg++
	}
	d.scratch = d.scratch[:0]
	if neg {
		d.scratch = append(d.scratch, '-')
	}
	d.scratch = strconv.AppendUint(d.scratch, arg, 10)
	return d.takeNumber(p, number{mant: arg, neg: neg, whole: true}, d.scratch, end)
}

func (d *cborDecoder) takeFloat(p *place, f float64, end int) int {
	switch {
	case p.role == roleNone:
		return end
	case math.IsNaN(f) || math.IsInf(f, 0):
		if p.role != roleReading {
			return d.took(p, "no finite number")
		}
		if !d.use(p) {
			return -1
		}
		d.refuse(p, ReasonNotFinite, strconv.FormatFloat(f, 'g', -1, 64)+" is not a finite number")
		return end
	case p.role == roleReading:
		if f == 0 {
			f = 0 // not -0
		}
		return d.takeReading(p, f, end)
	}
	d.scratch = strconv.AppendFloat(d.scratch[:0], f, 'g', -1, 64)
	n, _ := scanNumber(d.scratch, false)
	return d.takeNumber(p, n, d.scratch, end)
}

func (d *cborDecoder) takeBignum(p *place, magnitude []byte, neg bool, end int) int {
	f := 0.0
	for _, c := range magnitude {
		f = f*256 + float64(c)
	}
	if neg {
		f = -1 - f
	}
	return d.takeFloat(p, f, end)
}

// skipCBOR passes over the item at i.
func (d *scanner) skipCBOR(i, depth int) int {
	if depth > MaxDepth {
		return d.fail(ReasonDepth, "nested deeper than %d", MaxDepth)
	}
	h, i := d.head(i)
	if i < 0 {
		return i
	}
	items := uint64(0)
	switch h.major {
	case cborBytes, cborText:
		_, end := d.cborString(h, i)
		return end
	case cborTag:
		return d.skipCBOR(i, depth+1)
	case cborSimple:
		if h.indefinite {
			return d.fail(ReasonSyntax, "a break where a value should be, before byte %d", i)
		}
		return i
	case cborArray:
		items = h.arg
	case cborMap:
		if items = 2 * h.arg; h.arg > math.MaxInt64 {
			return d.fail(ReasonSyntax, "the payload ends in a map")
		}
	default:
		return i
	}
	for n := uint64(0); h.indefinite || n < items; n++ {
		if h.indefinite {
			k, next := d.head(i)
			if next < 0 {
				return next
			}
			if k.isBreak() {
				if h.major == cborMap && n%2 == 1 {
					return d.fail(ReasonSyntax, "a key without a value before byte %d", next)
				}
				return next
			}
		}
		if i = d.skipCBOR(i, depth+1); i < 0 {
			return i
		}
	}
	return i
}
