package decode

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// senmlDecoder reads SenML packs (RFC 8428) in JSON or CBOR, told apart by the first byte. Records are resolved first: base
// fields are added, and a time below 2^28 s counts from the arrival. v, vb (0 or 1) and s (as <metric>_sum) are readings; vs and
// vd are not. Units are the records' u or bu.
//
// The resolved name is the base name and the name joined. Where a record has both, the base name without the separator it ends
// in is the device and the name the metric. Where it has one, what follows its last slash, or outside of URNs its last
// colon, is the metric and what comes before the device; without either a URN is a device whose metric is called value, and any
// other name a metric. The device becomes the label device, or node where the topic gives a label device already.
type senmlDecoder struct {
	scanner
	spec   Spec
	labels stringCache
	names  map[senmlFull]senmlName

	// Of the payload at hand.
	m    *Message
	out  *Batch
	base senmlRecord // what holds until a record says otherwise
	keys int
	read int // readings so far
}

type senmlFull struct{ base, name string }

type senmlName struct{ device, metric, fault string }

// senmlRecord is one record; set tells which fields it has.
type senmlRecord struct {
	set        senmlFields
	bn, n      string
	bu, u      string
	bv, v      float64
	bs, s      float64
	bt, t      int64 // ns
	vb         bool
	refused    string // the field that holds no number
	why, about string // the reason and its detail
}

type senmlFields uint16

const (
	senmlBN senmlFields = 1 << iota
	senmlBT
	senmlBU
	senmlBV
	senmlBS
	senmlBVer
	senmlN
	senmlU
	senmlV
	senmlVS
	senmlVB
	senmlS
	senmlT
	senmlUT
	senmlVD
)

// senmlLabels are the fields by their labels in JSON and CBOR (RFC 8428, table 4). No field has the CBOR label 1000.
var senmlLabels = []struct {
	text  string
	label int64
	field senmlFields
}{
	{"n", 0, senmlN}, {"u", 1, senmlU}, {"v", 2, senmlV}, {"t", 6, senmlT}, {"bn", -2, senmlBN}, {"bt", -3, senmlBT}, {"bu", -4, senmlBU},
	{"bv", -5, senmlBV}, {"bs", -6, senmlBS}, {"bver", -1, senmlBVer}, {"vs", 3, senmlVS}, {"vb", 4, senmlVB}, {"s", 5, senmlS}, {"ut", 7, senmlUT},
	{"vd", 8, senmlVD},
}

// senmlVersion is the version of RFC 8428; packs of a later one must be refused.
const senmlVersion = 10

func newSenML(spec Spec) (Decoder, error) {
	switch {
	case spec.TimeField != "":
		return nil, errors.New("time: format senml has its own")
	case spec.Sequence != "":
		return nil, errors.New("sequence: format senml carries none")
	case len(spec.Labels) > 0:
		return nil, errors.New("labels: format senml carries none but the device")
	}
	if err := spec.places(); err != nil {
		return nil, err
	}
	return &senmlDecoder{spec: spec, names: map[senmlFull]senmlName{}}, nil
}

func (d *senmlDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	d.begin(m.Payload)
	d.m, d.out, d.keys, d.read, d.base = m, out, 0, 0, senmlRecord{}
	d.pack()
	d.end()
	d.m, d.out = nil, nil
	if d.err == nil && d.read == 0 {
		for i := range out.Samples {
			if s := &out.Samples[i]; len(s.Refused) > 0 {
				d.err = noReadings(s.Refused)
				break
			}
		}
	}
	if d.err != nil {
		out.reset()
		return d.err
	}
	return nil
}

func (d *senmlDecoder) pack() {
	i := d.space(0)
	switch {
	case i == len(d.b):
		d.fail(ReasonEmpty, "the payload is empty")
	case d.b[i] == '[':
		if !utf8.Valid(d.b) {
			d.fail(ReasonUTF8, "the payload is not valid UTF-8")
			return
		}
		if i = d.jsonPack(i); i >= 0 {
			if i = d.space(i); i < len(d.b) {
				d.unexpected(i, "nothing after the pack")
			}
		}
	case d.b[0]>>5 == cborArray:
		if i = d.cborPack(); i >= 0 && i < len(d.b) {
			d.fail(ReasonSyntax, "%d bytes after the pack", len(d.b)-i)
		}
	default:
		d.fail(ReasonType, "the payload is no array of records: %s", excerpt(d.b))
	}
}

func (d *senmlDecoder) jsonPack(i int) int {
	for {
		if i = d.space(i + 1); i >= len(d.b) || d.b[i] != '{' {
			return d.unexpected(i, "a record")
		}
		var r senmlRecord
		if i = d.jsonRecord(i, &r); i < 0 || !d.resolve(&r) {
			return -1
		}
		if i = d.space(i); i >= len(d.b) {
			return d.unexpected(i, "a comma or ]")
		}
		switch d.b[i] {
		case ',':
		case ']':
			return i + 1
		default:
			return d.unexpected(i, "a comma or ]")
		}
	}
}

func (d *senmlDecoder) jsonRecord(i int, r *senmlRecord) int {
	if i = d.space(i + 1); i < len(d.b) && d.b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(d.b) || d.b[i] != '"' {
			return d.unexpected(i, "a key")
		}
		key, end := d.str(i)
		if end < 0 {
			return end
		}
		field, ok := d.field(r, key)
		if !ok {
			return -1
		}
		if i = d.space(end); i >= len(d.b) || d.b[i] != ':' {
			return d.unexpected(i, "a colon")
		}
		if i = d.jsonField(d.space(i+1), r, field); i < 0 {
			return i
		}
		if i = d.space(i); i >= len(d.b) {
			return d.unexpected(i, "a comma or }")
		}
		switch d.b[i] {
		case ',':
			i = d.space(i + 1)
		case '}':
			return i + 1
		default:
			return d.unexpected(i, "a comma or }")
		}
	}
}

// field finds a field by its JSON label and marks it as set; 0 is a field that may be skipped.
func (d *senmlDecoder) field(r *senmlRecord, key []byte) (senmlFields, bool) {
	if d.keys++; d.keys > MaxBatch*4 {
		return 0, d.fail(ReasonTooManyFields, "more than %d fields", MaxBatch*4) > 0
	}
	for i := range senmlLabels {
		if senmlLabels[i].text == string(key) {
			return senmlLabels[i].field, d.mark(r, senmlLabels[i].field)
		}
	}
	// RFC 8428, section 4.4: who does not know such a field must not read the record.
	if len(key) > 0 && key[len(key)-1] == '_' {
		return 0, d.fail(ReasonSyntax, "the field %s must be understood and is not known", excerpt(key)) > 0
	}
	return 0, true
}

func (d *senmlDecoder) mark(r *senmlRecord, f senmlFields) bool {
	if r.set&f != 0 {
		return d.fail(ReasonDuplicateKey, "the field %s stands twice in one record", f) > 0
	}
	r.set |= f
	return true
}

func (f senmlFields) String() string {
	for i := range senmlLabels {
		if senmlLabels[i].field == f {
			return senmlLabels[i].text
		}
	}
	return "?"
}

func (d *senmlDecoder) jsonField(i int, r *senmlRecord, f senmlFields) int {
	if i >= len(d.b) {
		return d.unexpected(i, "a value")
	}
	switch {
	case d.b[i] == '"':
		text, end := d.str(i)
		if end < 0 || !d.text(r, f, text) {
			return -1
		}
		return end
	case d.word(i, "true"), d.word(i, "false"):
		v := d.b[i] == 't'
		if !d.truth(r, f, v) {
			return -1
		}
		if v {
			return i + 4
		}
		return i + 5
	case d.b[i] == '-' || isDigit(d.b[i]):
		n, length := scanNumber(d.b[i:], false)
		if length < 0 {
			return d.noValue(i)
		}
		if !d.number(r, f, n, d.b[i:i+length]) {
			return -1
		}
		return i + length
	}
	end := d.skip(i, 2)
	if end >= 0 && f != 0 && !d.other(r, f, excerpt(d.b[i:end])) {
		return -1
	}
	return end
}

func (d *senmlDecoder) cborPack() int {
	h, i := d.head(0)
	if i < 0 {
		return i
	}
	if !h.indefinite && h.arg == 0 {
		return d.fail(ReasonEmpty, "the pack has no records")
	}
	for n := uint64(0); h.indefinite || n < h.arg; n++ {
		rec, next := d.head(i)
		switch {
		case next < 0:
			return next
		case h.indefinite && rec.isBreak():
			return next
		case rec.major != cborMap:
			return d.fail(ReasonSyntax, "record %d is %s, not a map", n, rec.kind())
		}
		var r senmlRecord
		if i = d.cborRecord(rec, next, &r); i < 0 || !d.resolve(&r) {
			return -1
		}
	}
	return i
}

func (d *senmlDecoder) cborRecord(h cborHead, i int, r *senmlRecord) int {
	for n := uint64(0); h.indefinite || n < h.arg; n++ {
		k, next := d.head(i)
		var f senmlFields
		ok := true
		switch {
		case next < 0:
			return next
		case h.indefinite && k.isBreak():
			return next
		case k.major == cborText:
			var key []byte
			if key, next = d.cborString(k, next); next < 0 {
				return next
			}
			f, ok = d.field(r, key)
		case k.major == cborUint && k.arg < 1000:
			f, ok = d.cborLabel(r, int64(k.arg))
		case k.major == cborNegInt && k.arg < 1000:
			f, ok = d.cborLabel(r, -1-int64(k.arg))
		default:
			return d.fail(ReasonSyntax, "a label of a field is %s", k.kind())
		}
		if !ok {
			return -1
		}
		if i = d.cborField(next, r, f); i < 0 {
			return i
		}
	}
	return i
}

func (d *senmlDecoder) cborLabel(r *senmlRecord, label int64) (senmlFields, bool) {
	if d.keys++; d.keys > MaxBatch*4 {
		return 0, d.fail(ReasonTooManyFields, "more than %d fields", MaxBatch*4) > 0
	}
	for i := range senmlLabels {
		if senmlLabels[i].label == label {
			return senmlLabels[i].field, d.mark(r, senmlLabels[i].field)
		}
	}
	return 0, true
}

func (d *senmlDecoder) cborField(start int, r *senmlRecord, f senmlFields) int {
	h, i := d.head(start)
	for tags := 0; i >= 0 && h.major == cborTag && tags < MaxDepth; tags++ { // 1, an epoch time, is the only one expected
		h, i = d.head(i)
	}
	if i < 0 {
		return i
	}
	ok := true
	switch {
	case h.major == cborUint:
		ok = d.number(r, f, number{mant: h.arg, whole: true}, d.decimal(false, h.arg))
	case h.major == cborNegInt && h.arg < math.MaxUint64:
		ok = d.number(r, f, number{mant: h.arg + 1, neg: true, whole: true}, d.decimal(true, h.arg+1))
	case h.major == cborText:
		var text []byte
		if text, i = d.cborString(h, i); i < 0 {
			return i
		}
		ok = d.text(r, f, text)
	case h.major == cborSimple && (h.info == 20 || h.info == 21):
		ok = d.truth(r, f, h.info == 21)
	case h.major == cborSimple && h.info >= 25 && !h.indefinite:
		v := h.float()
		if math.IsNaN(v) || math.IsInf(v, 0) {
			if r.refused == "" {
				r.refused, r.why, r.about = f.String(), ReasonNotFinite, "not a finite number"
			}
			break
		}
		d.scratch = strconv.AppendFloat(d.scratch[:0], v, 'g', -1, 64)
		n, _ := scanNumber(d.scratch, false)
		ok = d.number(r, f, n, d.scratch)
	default:
		end := d.skipCBOR(start, 2)
		if end >= 0 && !d.other(r, f, h.kind()) {
			return -1
		}
		return end
	}
	if !ok {
		return -1
	}
	return i
}

func (d *senmlDecoder) decimal(neg bool, v uint64) []byte {
	d.scratch = d.scratch[:0]
	if neg {
		d.scratch = append(d.scratch, '-')
	}
	d.scratch = strconv.AppendUint(d.scratch, v, 10)
	return d.scratch
}

func (d *senmlDecoder) number(r *senmlRecord, f senmlFields, n number, text []byte) bool {
	switch f {
	case senmlV, senmlBV, senmlS, senmlBS:
		v, ok := n.float(text)
		if !ok {
			r.refused, r.why, r.about = f.String(), ReasonNotFinite, excerpt(text)+" is beyond the range of float64"
			return true
		}
		switch f {
		case senmlV:
			r.v = v
		case senmlBV:
			r.bv = v
		case senmlS:
			r.s = v
		case senmlBS:
			r.bs = v
		}
	case senmlT, senmlBT:
		ns, ok := timeReader{shift: 9}.fromNumber(n)
		if !ok {
			return d.fail(ReasonTime, "%s: %s is outside the years 1678 to 2262", f, excerpt(text)) > 0
		}
		if f == senmlT {
			r.t = ns
		} else {
			r.bt = ns
		}
	case senmlBVer:
		if v, ok := n.integer(); !ok || v > senmlVersion {
			return d.fail(ReasonSyntax, "bver: version %s is not known, want at most %d", excerpt(text), senmlVersion) > 0
		}
	case 0, senmlUT:
	default:
		return d.other(r, f, "the number "+excerpt(text))
	}
	return true
}

func (d *senmlDecoder) text(r *senmlRecord, f senmlFields, text []byte) bool {
	switch f {
	case senmlN, senmlBN:
		if len(text) > MaxNameBytes {
			return d.fail(ReasonKeyTooLong, "%s: longer than %d bytes", f, MaxNameBytes) > 0
		}
		if f == senmlN {
			r.n = d.labels.intern(text)
		} else {
			r.bn = d.labels.intern(text)
		}
	case senmlU, senmlBU:
		if len(text) > maxUnitBytes || hasControl(text) {
			return d.fail(ReasonType, "%s: %s is no unit", f, excerpt(text)) > 0
		}
		if f == senmlU {
			r.u = d.labels.intern(text)
		} else {
			r.bu = d.labels.intern(text)
		}
	case 0, senmlVS, senmlVD:
	default:
		return d.other(r, f, "the string "+excerpt(text))
	}
	return true
}

func (d *senmlDecoder) truth(r *senmlRecord, f senmlFields, v bool) bool {
	if f == senmlVB {
		r.vb = v
		return true
	}
	return d.other(r, f, "a boolean")
}

// other deals with a value of the wrong type: a value field costs its record, any other field the pack.
func (d *senmlDecoder) other(r *senmlRecord, f senmlFields, what string) bool {
	switch f {
	case 0, senmlVS, senmlVD, senmlUT:
		return true
	case senmlV, senmlVB, senmlS:
		r.refused, r.why, r.about = f.String(), ReasonType, what
		return true
	}
	return d.fail(ReasonType, "%s: %s", f, what) > 0
}

// resolve adds the base fields to a record and takes its reading.
func (d *senmlDecoder) resolve(r *senmlRecord) bool {
	b := &d.base
	b.set |= r.set & (senmlBN | senmlBT | senmlBU | senmlBV | senmlBS)
	if r.set&senmlBN != 0 {
		b.bn = r.bn
	}
	if r.set&senmlBT != 0 {
		b.bt = r.bt
	}
	if r.set&senmlBU != 0 {
		b.bu = r.bu
	}
	if r.set&senmlBV != 0 {
		b.bv = r.bv
	}
	if r.set&senmlBS != 0 {
		b.bs = r.bs
	}
	if r.set&(senmlV|senmlVB|senmlS|senmlVS|senmlVD) == 0 {
		return true // base fields alone
	}
	name := d.name(b.bn, r.n)
	if name.fault != "" {
		return d.fail(ReasonName, "the name %s: %s", excerpt([]byte(b.bn+r.n)), name.fault) > 0
	}
	if r.refused == "" && r.set&(senmlV|senmlVB|senmlS) == 0 || !d.wants(name.metric) {
		return true // text or data
	}
	t, ok := d.time(b, r)
	if !ok {
		return false
	}
	s := d.sample(name, t, r)
	if r.refused != "" {
		s.Refused = append(s.Refused, Refusal{Field: name.metric, Reason: r.why, Detail: r.refused + ": " + r.about})
		return true
	}
	unit := r.u
	if unit == "" {
		unit = b.bu
	}
	switch {
	case r.set&senmlV != 0:
		d.take(s, name.metric, r.v+b.bv, unit)
	case r.set&senmlVB != 0:
		v := 0.0
		if r.vb {
			v = 1
		}
		d.take(s, name.metric, v, "")
	}
	if r.set&senmlS != 0 {
		d.take(s, d.sum(name.metric), r.s+b.bs, "")
	}
	return d.err == nil
}

func (d *senmlDecoder) take(s *Sample, metric string, v float64, unit string) {
	if d.read++; d.read > MaxBatch {
		d.fail(ReasonTooManyFields, "more than %d readings", MaxBatch)
		return
	}
	if math.IsInf(v, 0) {
		s.Refused = append(s.Refused, Refusal{metric, ReasonNotFinite, "the value and its base add up to infinity"})
		d.read--
		return
	}
	s.Readings = append(s.Readings, telemetry.Reading{Metric: metric, Value: v + 0})
	if unit != "" {
		s.Units = append(s.Units, Unit{metric, unit})
	}
}

func (d *senmlDecoder) wants(metric string) bool { return d.spec.wants(metric) }

// wants tells whether a metric is among the fields to read, for formats whose payloads name their metrics.
func (s *Spec) wants(metric string) bool {
	if len(s.Fields) == 0 {
		return true
	}
	for _, f := range s.Fields {
		if f == metric {
			return true
		}
	}
	return false
}

// time resolves a record's time, 0 where the pack has none (RFC 8428, section 4.5.3).
func (d *senmlDecoder) time(b, r *senmlRecord) (int64, bool) {
	if r.set&senmlT == 0 && b.set&senmlBT == 0 {
		return 0, true
	}
	t, ok := addTime(b.bt, r.t)
	const absolute = 1 << 28 * nsPerSecond
	if ok && t < absolute {
		t, ok = addTime(d.m.Received, t)
	}
	if !ok {
		d.fail(ReasonTime, "the times add up to one outside the years 1678 to 2262")
	}
	return t, ok
}

func addTime(a, b int64) (int64, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0)
}

// sample returns the sample of a name's device and a time: the last one, or a new one.
func (d *senmlDecoder) sample(name senmlName, t int64, r *senmlRecord) *Sample {
	if n := len(d.out.Samples); n > 0 {
		s := &d.out.Samples[n-1]
		device := ""
		if len(s.Labels) > 0 {
			device = s.Labels[0].Value
		}
		if s.Time == t && device == name.device && len(s.Readings)+1 < MaxReadings && !s.has(name.metric) &&
			(r.set&senmlS == 0 || !s.has(d.sum(name.metric))) {
			return s
		}
	}
	s := d.out.add()
	s.Time = t
	if name.device != "" {
		label := "device"
		if d.m.capture(label) != "" {
			label = "node"
		}
		s.Labels = append(s.Labels, telemetry.Label{Name: label, Value: name.device})
	}
	return s
}

func (s *Sample) has(metric string) bool {
	for i := range s.Readings {
		if s.Readings[i].Metric == metric {
			return true
		}
	}
	return false
}

func (d *senmlDecoder) sum(metric string) string {
	d.scratch = append(append(d.scratch[:0], metric...), "_sum"...)
	return d.labels.intern(d.scratch)
}

// name splits a resolved name, as the type's comment says.
func (d *senmlDecoder) name(base, name string) senmlName {
	key := senmlFull{base, name}
	if n, ok := d.names[key]; ok {
		return n
	}
	if len(d.names) >= maxPlaces {
		clear(d.names)
	}
	n := splitSenML(base, name)
	d.names[key] = n
	return n
}

func splitSenML(base, name string) senmlName {
	full := base + name
	if why := senmlNameFault(full); why != "" {
		return senmlName{fault: why}
	}
	if base != "" && name != "" {
		if device := strings.TrimRight(base, ":/._-"); device != "" {
			return named(device, name)
		}
	}
	urn := strings.HasPrefix(full, "urn:")
	i := strings.LastIndexByte(full, '/')
	if i < 0 && !urn {
		i = strings.LastIndexByte(full, ':')
	}
	switch {
	case i > 0 && i+1 < len(full):
		return named(strings.TrimRight(full[:i], ":/"), full[i+1:])
	case urn:
		return named(full, "value")
	}
	return named("", strings.Trim(full, ":/"))
}

func named(device, metric string) senmlName {
	n := senmlName{device: device, metric: joinedName(metric)}
	switch {
	case len(device) > MaxLabelBytes:
		n.fault = fmt.Sprintf("the device is longer than %d bytes", MaxLabelBytes)
	case len(metric) > MaxNameBytes:
		n.fault = fmt.Sprintf("longer than %d bytes", MaxNameBytes)
	default:
		n.fault = nameFault(n.metric)
	}
	return n
}

// senmlNameFault holds a name to RFC 8428, section 4.5.1.
func senmlNameFault(name string) string {
	if name == "" {
		return "a record without a name"
	}
	for i := range len(name) {
		c := name[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || isDigit(c)
		if !letter && (i == 0 || !strings.ContainsRune("-:./_", rune(c))) {
			return "want letters, digits and - : . / _ after a letter or digit"
		}
	}
	return ""
}
