package decode

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/gateway/telemetry"
)

// sparkplugDecoder reads Sparkplug B (Eclipse Sparkplug 3.0). Births say what the metrics are; data names them or gives the alias
// that the birth bound. A gap in a node's sequence numbers, and data that no birth explains, ask the node for a rebirth, at
// most once in rebirthEvery. Labels are group, node and, for what belongs to a device, device. A metric's name is the birth's with / as _;
// numbers and booleans are readings, everything else is not. Node Control/..., Device Control/... and bdSeq are not readings.
//
// A node's death is that of its devices too. A death certificate of an earlier connection, which a broker may deliver after the
// next birth, is told by its bdSeq and counts for nothing.
type sparkplugDecoder struct {
	spec   Spec
	labels stringCache

	nodes  []*spNode // in the order of their first birth or question
	byName map[string]*spNode
	known  int // metrics of all births

	// Of the payload at hand.
	m       *Message
	out     *Batch
	p       spPayload
	metric  spMetric
	command []byte
}

// Limits of what births may make the decoder remember.
const (
	maxSpNodes   = 10_000
	maxSpMetrics = 100_000 // of all nodes
)

// rebirthEvery is the least time between two questions to one node, in ns. A birth can be a large message over a thin link.
const rebirthEvery = 60 * nsPerSecond

// spNode is an edge node: what its births said, and where its sequence is.
type spNode struct {
	group, node string
	born        bool // an NBIRTH was seen and no NDEATH since
	seq         uint8
	bdSeq       uint64
	hasBdSeq    bool
	asked       int64 // when a rebirth was asked for; 0: never
	own         spDevice
	devices     []*spDevice // by first birth
	byName      map[string]*spDevice
	aliases     map[uint64]*spName
}

// spDevice is a device of a node, or the node itself with an empty name.
type spDevice struct {
	name   string
	born   bool
	names  []*spName
	byName map[string]*spName
}

// spName is a metric as a birth declared it.
type spName struct {
	device   *spDevice
	name     string // as on the wire
	metric   string // as the reading is called; "": none of ours
	alias    uint64
	hasAlias bool
	datatype uint32
}

// spPayload is a payload's head; metrics are read in a second pass.
type spPayload struct {
	timestamp int64 // ms
	seq       uint64
	hasSeq    bool
	metrics   int
}

func newSparkplug(spec Spec) (Decoder, error) {
	switch {
	case spec.TimeField != "":
		return nil, errors.New("time: format sparkplug has its own")
	case spec.Sequence != "":
		return nil, errors.New("sequence: format sparkplug has its own")
	case len(spec.Labels) > 0:
		return nil, errors.New("labels: format sparkplug has group, node and device")
	}
	if err := spec.places(); err != nil {
		return nil, err
	}
	return &sparkplugDecoder{spec: spec, byName: map[string]*spNode{}}, nil
}

func (d *sparkplugDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	d.m, d.out = m, out
	err := d.decode()
	d.m, d.out = nil, nil
	if err != nil { // a nil *Error is no nil error
		out.Samples, out.States = out.Samples[:0], out.States[:0]
		return err
	}
	return nil
}

// spTopic is namespace/group/type/node[/device], after whatever a bridge put before it.
func spTopic(topic string) (kind, group, node, device string, ok bool) {
	const namespace = "spBv1.0/"
	if i := strings.Index(topic, namespace); i == 0 || i > 0 && topic[i-1] == '/' {
		topic = topic[i+len(namespace):]
	} else {
		return "", "", "", "", false
	}
	group, rest, _ := strings.Cut(topic, "/")
	kind, rest, _ = strings.Cut(rest, "/")
	node, device, _ = strings.Cut(rest, "/")
	return kind, group, node, device, true
}

func (d *sparkplugDecoder) decode() *Error {
	kind, group, node, device, ok := spTopic(d.m.Topic)
	if !ok {
		return &Error{ReasonSyntax, "the topic is not one of Sparkplug B: no level spBv1.0"}
	}
	if group == "STATE" { // a host application's; group and type change places
		return nil
	}
	switch kind {
	case "NBIRTH", "NDATA", "NDEATH":
		if node == "" || device != "" {
			return &Error{ReasonSyntax, "the topic names no edge node, or too much"}
		}
	case "DBIRTH", "DDATA", "DDEATH":
		if node == "" || device == "" || strings.Contains(device, "/") {
			return &Error{ReasonSyntax, "the topic names no device, or too much"}
		}
	case "NCMD", "DCMD", "STATE":
		return nil
	default:
		return &Error{ReasonSyntax, "the topic's message type is unknown: " + excerpt([]byte(kind))}
	}
	for _, level := range [...]string{group, node, device} {
		if len(level) > MaxLabelBytes || hasControl(level) {
			return &Error{ReasonLabel, "a level of the topic is longer than 256 bytes or holds control characters"}
		}
	}
	if err := d.head(); err != nil {
		return err
	}
	n := d.node(group, node)
	if n == nil {
		return &Error{ReasonTooManyFields, fmt.Sprintf("%d edge nodes are known already", len(d.nodes))}
	}
	switch kind {
	case "NBIRTH":
		return d.nodeBirth(n)
	case "NDEATH":
		return d.nodeDeath(n)
	}
	d.follow(n)
	switch kind {
	case "DBIRTH":
		return d.deviceBirth(n, device)
	case "DDEATH":
		return d.deviceDeath(n, device)
	case "DDATA":
		return d.data(n, n.byName[device])
	}
	return d.data(n, &n.own)
}

// head reads the payload's head and checks that all of it is protobuf.
func (d *sparkplugDecoder) head() *Error {
	d.p = spPayload{}
	ok := protoFields(d.m.Payload, func(num protowire.Number, typ protowire.Type, bits uint64, v []byte) bool {
		switch num {
		case payloadTimestamp:
			d.p.timestamp = int64(bits)
			return typ == protowire.VarintType
		case payloadSeq:
			d.p.seq, d.p.hasSeq = bits, true
			return typ == protowire.VarintType
		case payloadMetrics:
			d.p.metrics++
			return typ == protowire.BytesType && d.metric.parse(v)
		}
		return true
	})
	switch {
	case !ok:
		return &Error{ReasonSyntax, "the payload is not a Sparkplug B protobuf"}
	case d.p.metrics > MaxBatch:
		return &Error{ReasonTooManyFields, fmt.Sprintf("%d metrics, want at most %d", d.p.metrics, MaxBatch)}
	}
	return nil
}

// each calls f with every metric of the payload, which head has checked.
func (d *sparkplugDecoder) each(f func(m *spMetric) *Error) (err *Error) {
	protoFields(d.m.Payload, func(num protowire.Number, _ protowire.Type, _ uint64, v []byte) bool {
		if num == payloadMetrics && d.metric.parse(v) {
			err = f(&d.metric)
		}
		return err == nil
	})
	return err
}

// node finds or makes a node; nil when there are too many.
func (d *sparkplugDecoder) node(group, node string) *spNode {
	if n := d.byName[group+"/"+node]; n != nil {
		return n
	}
	if len(d.nodes) >= maxSpNodes {
		return nil
	}
	n := &spNode{group: strings.Clone(group), node: strings.Clone(node)}
	d.add(n)
	return n
}

func (d *sparkplugDecoder) add(n *spNode) {
	d.nodes = append(d.nodes, n)
	d.byName[n.group+"/"+n.node] = n
}

func (n *spNode) addDevice(name string) *spDevice {
	dev := &spDevice{name: name}
	if n.byName == nil {
		n.byName = map[string]*spDevice{}
	}
	n.devices = append(n.devices, dev)
	n.byName[name] = dev
	return dev
}

// follow takes the payload's sequence number into account. A number that was the last one is a resend.
func (d *sparkplugDecoder) follow(n *spNode) {
	switch {
	case !n.born || !d.p.hasSeq:
	case d.p.seq == uint64(n.seq):
	case d.p.seq == uint64(n.seq+1):
		n.seq++
	default:
		n.seq = uint8(d.p.seq)
		d.ask(n)
	}
}

// ask asks a node for its births, unless it was asked a moment ago.
func (d *sparkplugDecoder) ask(n *spNode) {
	now := d.m.Received
	if n.asked != 0 && now >= n.asked && now-n.asked < rebirthEvery {
		return
	}
	n.asked = now
	d.command = rebirthRequest(d.command[:0], now)
	prefix := d.m.Topic[:strings.Index(d.m.Topic, "spBv1.0/")]
	d.out.Commands = append(d.out.Commands, Command{Topic: prefix + "spBv1.0/" + n.group + "/NCMD/" + n.node, Payload: d.command})
}

func (d *sparkplugDecoder) nodeBirth(n *spNode) *Error {
	for _, dev := range n.devices { // until their own births come
		d.unbirth(n, dev)
	}
	n.born, n.seq, n.asked = true, uint8(d.p.seq), 0
	n.bdSeq, n.hasBdSeq = d.readBdSeq()
	if err := d.birth(n, &n.own); err != nil {
		n.born = false
		return err
	}
	return nil
}

func (d *sparkplugDecoder) readBdSeq() (v uint64, ok bool) {
	_ = d.each(func(m *spMetric) *Error {
		if string(m.name) == "bdSeq" && (m.field == metricInt || m.field == metricLong) {
			v, ok = m.bits, true
		}
		return nil
	})
	return v, ok
}

func (d *sparkplugDecoder) nodeDeath(n *spNode) *Error {
	if v, ok := d.readBdSeq(); ok && n.hasBdSeq && v != n.bdSeq {
		return nil
	}
	n.born = false
	d.state(n, &n.own, false, 0)
	for _, dev := range n.devices {
		if dev.born {
			d.unbirth(n, dev)
			d.state(n, dev, false, 0)
		}
	}
	return nil
}

func (d *sparkplugDecoder) deviceBirth(n *spNode, name string) *Error {
	if !n.born {
		d.ask(n) // its metrics are known from here on; the node's are not
	}
	dev := n.byName[name]
	if dev == nil {
		if d.known >= maxSpMetrics {
			return &Error{ReasonTooManyFields, fmt.Sprintf("%d metrics and devices are known already", d.known)}
		}
		dev = n.addDevice(strings.Clone(name))
		d.known++
	}
	return d.birth(n, dev)
}

func (d *sparkplugDecoder) deviceDeath(n *spNode, name string) *Error {
	dev := n.byName[name]
	if dev == nil {
		dev = &spDevice{name: name}
	}
	d.unbirth(n, dev)
	d.state(n, dev, false, d.p.timestamp)
	return nil
}

// unbirth forgets what dev's birth said.
func (d *sparkplugDecoder) unbirth(n *spNode, dev *spDevice) {
	d.known -= len(dev.names)
	for _, name := range dev.names {
		if name.hasAlias && n.aliases[name.alias] == name {
			delete(n.aliases, name.alias)
		}
	}
	dev.born, dev.names, dev.byName = false, nil, nil
}

// birth learns the metrics of dev and takes their values in.
func (d *sparkplugDecoder) birth(n *spNode, dev *spDevice) *Error {
	d.unbirth(n, dev)
	taken := map[string]bool{}
	err := d.each(func(m *spMetric) *Error {
		if len(m.name) == 0 {
			return &Error{ReasonName, "a birth has a metric without a name"}
		}
		if len(m.name) > MaxNameBytes {
			return &Error{ReasonKeyTooLong, fmt.Sprintf("the metric %s is longer than %d bytes", excerpt(m.name), MaxNameBytes)}
		}
		if d.known >= maxSpMetrics {
			return &Error{ReasonTooManyFields, fmt.Sprintf("%d metrics of births are known already", d.known)}
		}
		name := &spName{device: dev, name: string(m.name), alias: m.alias, hasAlias: m.hasAlias, datatype: m.datatype}
		if dev.byName[name.name] != nil {
			return &Error{ReasonDuplicateKey, fmt.Sprintf("the metric %s stands twice in a birth", excerpt(m.name))}
		}
		name.metric = d.metricOf(name.name)
		if taken[name.metric] && name.metric != "" {
			return &Error{ReasonDuplicateKey, fmt.Sprintf("two metrics of a birth are called %s", excerpt([]byte(name.metric)))}
		}
		if m.hasAlias && n.aliases[m.alias] != nil {
			return &Error{ReasonDuplicateKey, fmt.Sprintf("the alias %d stands for two metrics", m.alias)}
		}
		taken[name.metric] = true
		d.known++
		n.learn(name)
		return nil
	})
	if err != nil {
		d.unbirth(n, dev)
		return err
	}
	dev.born = true
	d.state(n, dev, true, d.p.timestamp)
	return d.values(n, dev)
}

// metricOf names the reading of a metric; "" is none.
func (d *sparkplugDecoder) metricOf(name string) string {
	if name == "bdSeq" || strings.HasPrefix(name, "Node Control/") || strings.HasPrefix(name, "Device Control/") {
		return ""
	}
	metric := strings.ReplaceAll(name, "/", "_")
	if nameFault(metric) != "" || !d.spec.wants(metric) {
		return ""
	}
	return metric
}

func (n *spNode) learn(name *spName) {
	dev := name.device
	if dev.byName == nil {
		dev.byName = map[string]*spName{}
	}
	dev.names = append(dev.names, name)
	dev.byName[name.name] = name
	if name.hasAlias {
		if n.aliases == nil {
			n.aliases = map[uint64]*spName{}
		}
		n.aliases[name.alias] = name
	}
}

func (d *sparkplugDecoder) data(n *spNode, dev *spDevice) *Error {
	if !n.born || dev == nil || !dev.born {
		d.ask(n)
	}
	if dev == nil {
		return &Error{ReasonBirth, "data of a device whose birth was not seen; a rebirth is asked for"}
	}
	return d.values(n, dev)
}

// values takes the metrics of a payload in, one sample for each stretch of equal times.
func (d *sparkplugDecoder) values(n *spNode, dev *spDevice) *Error {
	var s *Sample
	read := 0
	err := d.each(func(m *spMetric) *Error {
		name := d.find(n, dev, m)
		ms := m.timestamp
		if ms == 0 {
			ms = d.p.timestamp
		}
		if ms < 0 || ms > math.MaxInt64/1_000_000 {
			return &Error{ReasonTime, "a timestamp is outside the years 1678 to 2262"}
		}
		t := ms * 1_000_000
		if s == nil || s.Time != t || s.Historical != m.historical || len(s.Readings) == MaxReadings ||
			name != nil && name.metric != "" && s.has(name.metric) {
			s = d.sample(n, dev, t)
			s.Historical = m.historical
		}
		if name == nil {
			d.ask(n)
			s.Refused = append(s.Refused, Refusal{spCalled(m), ReasonBirth, "no birth says what this is; a rebirth is asked for"})
			return nil
		}
		if name.metric == "" || m.null {
			return nil
		}
		if len(m.unit) > 0 {
			if unit := d.unitWord(m.unit); unit != "" {
				s.Units = append(s.Units, Unit{name.metric, unit})
			}
		}
		datatype := m.datatype
		if datatype == 0 {
			datatype = name.datatype
		}
		v, ok := m.number(datatype)
		switch {
		case !ok:
			return nil
		case math.IsNaN(v) || math.IsInf(v, 0):
			s.Refused = append(s.Refused, Refusal{name.metric, ReasonNotFinite, "not a finite number"})
			return nil
		}
		s.Readings = append(s.Readings, telemetry.Reading{Metric: name.metric, Value: v + 0})
		read++
		return nil
	})
	if err != nil {
		return err
	}
	kept := d.out.Samples[:0]
	for i := range d.out.Samples {
		if s := &d.out.Samples[i]; len(s.Readings) > 0 || len(s.Refused) > 0 || len(s.Units) > 0 {
			d.out.Samples[len(kept)], d.out.Samples[i] = d.out.Samples[i], d.out.Samples[len(kept)]
			kept = d.out.Samples[:len(kept)+1]
		}
	}
	d.out.Samples = kept
	return nil
}

// find returns what births said of a metric, nil where no birth explains it.
func (d *sparkplugDecoder) find(n *spNode, dev *spDevice, m *spMetric) *spName {
	if len(m.name) > 0 {
		return dev.byName[string(m.name)]
	}
	if name := n.aliases[m.alias]; m.hasAlias && name != nil && name.device == dev {
		return name
	}
	return nil
}

func spCalled(m *spMetric) string {
	if len(m.name) > 0 {
		if len(m.name) > MaxNameBytes || hasControl(m.name) {
			return "metric"
		}
		return string(m.name)
	}
	return fmt.Sprintf("alias %d", m.alias)
}

func (d *sparkplugDecoder) unitWord(text []byte) string {
	if len(text) > maxUnitBytes || hasControl(text) || !utf8.Valid(text) {
		return ""
	}
	return d.labels.intern(text)
}

func (d *sparkplugDecoder) sample(n *spNode, dev *spDevice, t int64) *Sample {
	s := d.out.add()
	s.Time = t
	s.Labels = spLabels(s.Labels, n, dev)
	return s
}

func spLabels(l []telemetry.Label, n *spNode, dev *spDevice) []telemetry.Label {
	l = append(l, telemetry.Label{Name: "group", Value: n.group}, telemetry.Label{Name: "node", Value: n.node})
	if dev.name != "" {
		l = append(l, telemetry.Label{Name: "device", Value: dev.name})
	}
	return l
}

func (d *sparkplugDecoder) state(n *spNode, dev *spDevice, online bool, ms int64) {
	reason := StateDeath
	if online {
		reason = StateBirth
	}
	t := int64(0)
	if ms > 0 && ms <= math.MaxInt64/1_000_000 {
		t = ms * 1_000_000
	}
	_ = d.out.state(online, reason, t, spLabels(nil, n, dev)...)
}
