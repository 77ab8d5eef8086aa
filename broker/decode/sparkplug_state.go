package decode

import (
	"encoding/binary"
	"errors"

	"sluice/gateway/telemetry"
)

// Snapshot implements Stateful: what births said, by node in order of first use.
//
//	nodes: group | node | flags 1 born 2 bdSeq | seq | bdSeq | asked | the node's own metrics | devices: name | born | metrics
//	metrics: name | flags 1 alias | alias | datatype
func (d *sparkplugDecoder) Snapshot(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(d.nodes)))
	for _, n := range d.nodes {
		b = telemetry.AppendString(telemetry.AppendString(b, n.group), n.node)
		b = append(b, bit(n.born, 1)|bit(n.hasBdSeq, 2), n.seq)
		b = binary.AppendUvarint(b, n.bdSeq)
		b = binary.AppendVarint(b, n.asked)
		b = n.own.snapshot(b)
		b = binary.AppendUvarint(b, uint64(len(n.devices)))
		for _, dev := range n.devices {
			b = dev.snapshot(telemetry.AppendString(b, dev.name))
		}
	}
	return b
}

func bit(is bool, mask byte) byte {
	if is {
		return mask
	}
	return 0
}

func (dev *spDevice) snapshot(b []byte) []byte {
	b = append(b, bit(dev.born, 1))
	b = binary.AppendUvarint(b, uint64(len(dev.names)))
	for _, name := range dev.names {
		b = telemetry.AppendString(b, name.name)
		b = append(b, bit(name.hasAlias, 1))
		b = binary.AppendUvarint(b, name.alias)
		b = binary.AppendUvarint(b, uint64(name.datatype))
	}
	return b
}

var errState = errors.New("state of the decoder is damaged")

// Restore implements Stateful.
func (d *sparkplugDecoder) Restore(b []byte) error {
	d.nodes, d.byName, d.known = nil, map[string]*spNode{}, 0
	r := telemetry.NewDecoder(b)
	for range r.Count(8) {
		n := &spNode{group: r.String(), node: r.String()}
		flags := r.Byte()
		n.born, n.hasBdSeq = flags&1 != 0, flags&2 != 0
		n.seq, n.bdSeq, n.asked = r.Byte(), r.Uvarint(), r.Varint()
		d.restoreDevice(r, n, &n.own)
		for range r.Count(3) {
			d.restoreDevice(r, n, n.addDevice(r.String()))
			d.known++
		}
		d.add(n)
	}
	if r.Err() != nil || len(r.Rest()) != 0 {
		d.nodes, d.byName, d.known = nil, map[string]*spNode{}, 0
		return errState
	}
	return nil
}

func (d *sparkplugDecoder) restoreDevice(r *telemetry.Decoder, n *spNode, dev *spDevice) {
	dev.born = r.Byte()&1 != 0
	for range r.Count(4) {
		name := &spName{device: dev, name: r.String()}
		name.hasAlias = r.Byte()&1 != 0
		name.alias, name.datatype = r.Uvarint(), uint32(r.Uvarint())
		name.metric = d.metricOf(name.name)
		n.learn(name)
		d.known++
	}
}
