package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
	"sluice/uplink/rollup"
)

// snapshotVersion is raised when the layout changes; a checkpoint of another version is not used, and the journal is replayed.
const snapshotVersion = 4

var errSnapshot = errors.New("checkpoint is damaged or of another version")

// Snapshot appends the whole state to b; equal states give equal bytes. In the order written, integers as varints:
//
//	version | lsn | now | stepped | resumed | spec | rejected | commands | ledgers | reasons | decoders | streams | devices |
//	windows by stream | backfills | hold | clients | audits | rules | notifications
func (f *Fold) Snapshot(b []byte) []byte {
	b = append(b, snapshotVersion)
	b = binary.AppendUvarint(b, uint64(f.lsn))
	b = binary.AppendVarint(b, f.now)
	b = binary.AppendVarint(b, f.stepped)
	b = binary.AppendVarint(b, f.resumed)
	b = telemetry.AppendString(b, string(f.c.raw))
	b = binary.AppendUvarint(b, f.rejected)
	b = binary.AppendVarint(b, f.commands.since)
	b = binary.AppendUvarint(b, f.commands.count)

	b = binary.AppendUvarint(b, uint64(len(f.ledgers)))
	for _, l := range f.ledgers {
		b = l.snapshot(telemetry.AppendString(b, l.name))
	}
	b = binary.AppendUvarint(b, uint64(len(f.byReason)))
	for _, reason := range slices.Sorted(maps.Keys(f.byReason)) {
		b = binary.AppendUvarint(telemetry.AppendString(b, reason), f.byReason[reason])
	}
	b = f.c.snapshotDecoders(b)
	b = f.snapshotDevices(b)
	for _, st := range f.streams {
		b = st.rollup.Snapshot(b)
	}
	b = f.backfills.snapshot(b)
	b = f.hold.snapshot(b)
	b = binary.AppendUvarint(b, uint64(len(f.order)))
	for _, id := range f.order {
		b = f.clients[id].snapshot(telemetry.AppendString(b, id))
	}
	b = f.audits.snapshot(b)
	engine := f.engine.Snapshot(nil)
	b = binary.AppendUvarint(b, uint64(len(engine)))
	b = append(b, engine...)
	policy := f.policy.Snapshot(nil)
	b = binary.AppendUvarint(b, uint64(len(policy)))
	return append(b, policy...)
}

func (f *Fold) snapshotDevices(b []byte) []byte {
	number := make(map[*stream]uint64, len(f.streams))
	b = binary.AppendUvarint(b, uint64(len(f.streams)))
	for i, st := range f.streams {
		number[st] = uint64(i)
		b = telemetry.AppendString(b, st.measurement)
		b = binary.AppendUvarint(b, uint64(st.rollup.Window()))
	}
	b = binary.AppendUvarint(b, uint64(len(f.devices)))
	for _, d := range f.devices {
		b = binary.AppendUvarint(b, number[d.stream])
		b = binary.AppendUvarint(b, uint64(len(d.labels)))
		b = d.labels.AppendKey(b)
		b = binary.AppendUvarint(b, uint64(len(d.metrics)))
		for _, m := range d.metrics {
			b = telemetry.AppendString(b, m)
		}
		b = binary.AppendUvarint(b, uint64(len(d.sequences)))
		for i := range d.sequences {
			b = d.sequences[i].snapshot(telemetry.AppendString(b, d.sequences[i].source))
		}
		b = binary.AppendUvarint(b, uint64(len(d.units)))
		for _, u := range d.units {
			b = telemetry.AppendString(telemetry.AppendString(b, u.Metric), u.Unit)
		}
		b = d.state.snapshot(b)
		b = binary.AppendVarint(b, d.firstSeen)
		b = binary.AppendVarint(b, d.lastSeen)
		b = d.cadence.Snapshot(b)
		b = binary.AppendVarint(b, d.rawTime)
		b = binary.AppendVarint(b, d.rawShift)
		b = telemetry.AppendString(b, d.source)
	}
	return b
}

// RestoreFold reads what Snapshot wrote.
func RestoreFold(b []byte) (*Fold, error) {
	d := telemetry.NewDecoder(b)
	if d.Byte() != snapshotVersion {
		return nil, errSnapshot
	}
	f := NewFold()
	f.lsn = seglog.LSN(d.Uvarint())
	f.now, f.stepped, f.resumed = d.Varint(), d.Varint(), d.Varint()
	raw := append([]byte(nil), d.Bytes()...)
	f.rejected = d.Uvarint()
	f.commands = commandRate{since: d.Varint(), count: d.Uvarint()}
	for range d.Count(11) {
		l := &namedLedger{name: d.String()}
		l.restore(d)
		f.ledgers = append(f.ledgers, l)
	}
	for range d.Count(2) {
		reason := d.String()
		f.byReason[reason] = d.Uvarint()
	}
	if d.Err() != nil {
		return nil, errSnapshot
	}
	c, err := compile(raw)
	if err != nil {
		return nil, fmt.Errorf("spec in the checkpoint: %w", err)
	}
	f.use(c)
	if !c.restoreDecoders(d) {
		return nil, errSnapshot
	}
	f.engine = rules.NewEngine(c.rules, rules.Options{Zone: c.zone})
	if err := f.restoreDevices(d); err != nil {
		return nil, err
	}
	for _, st := range f.streams {
		if st.rollup.Restore(d, f.rollupDevice) != nil {
			return nil, errSnapshot
		}
	}
	if err := f.restoreBackfills(d); err != nil {
		return nil, err
	}
	if f.hold, err = restoreHold(d); err != nil {
		return nil, errSnapshot
	}
	for range d.Count(3) {
		id := d.String()
		f.clients[id] = restoreResends(d)
		f.order = append(f.order, id)
	}
	f.audits = restoreAudits(d)
	engine, policy := d.Bytes(), d.Bytes()
	if d.Err() != nil || len(d.Rest()) != 0 {
		return nil, errSnapshot
	}
	if err := f.engine.Restore(engine); err != nil {
		return nil, fmt.Errorf("rules in the checkpoint: %w", err)
	}
	if f.policy, err = notify.Restore(policy, c.spec.Receivers, c.rules); err != nil {
		return nil, fmt.Errorf("notifications in the checkpoint: %w", err)
	}
	for _, dev := range f.devices {
		dev.subject = f.engine.Subject(dev.stream.measurement, dev.labels)
	}
	return f, nil
}

func (f *Fold) restoreDevices(d *telemetry.Decoder) error {
	for range d.Count(2) {
		st := &stream{measurement: d.String()}
		window := time.Duration(d.Uvarint())
		if window <= 0 {
			return errSnapshot
		}
		st.rollup = rollup.New(rollup.Config{Window: window})
		f.adopt(st)
		f.streams = append(f.streams, st)
	}
	for range d.Count(12) {
		k := d.Uvarint()
		if k >= uint64(len(f.streams)) {
			return errSnapshot
		}
		dev := &device{stream: f.streams[k]}
		for range d.Count(2) {
			dev.labels = append(dev.labels, telemetry.Label{Name: d.String(), Value: d.String()})
		}
		dev.pointLabels = f.withGateway(dev.labels)
		for range d.Count(1) {
			dev.metrics = append(dev.metrics, d.String())
		}
		f.series += len(dev.metrics)
		for range d.Count(6) {
			q := sourceSequence{source: d.String()}
			q.restore(d)
			dev.sequences = append(dev.sequences, q)
		}
		for range d.Count(2) {
			dev.units = append(dev.units, decode.Unit{Metric: d.String(), Unit: d.String()})
		}
		dev.state.restore(d)
		dev.firstSeen, dev.lastSeen = d.Varint(), d.Varint()
		if !dev.cadence.Restore(d) {
			return errSnapshot
		}
		dev.rawTime, dev.rawShift = d.Varint(), d.Varint()
		dev.source = d.String()
		dev.rollup.ID = uint32(len(f.devices))
		f.devices = append(f.devices, dev)
		f.byKey[string(dev.stream.key(nil, dev.labels))] = dev
	}
	if d.Err() != nil {
		return errSnapshot
	}
	return nil
}

func (f *Fold) rollupDevice(id uint32) *rollup.Device {
	if int(id) >= len(f.devices) {
		return nil
	}
	return &f.devices[id].rollup
}

func (r *resends) snapshot(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(r.pos))
	b = binary.AppendUvarint(b, uint64(len(r.ring)))
	for _, k := range r.ring {
		b = binary.LittleEndian.AppendUint64(b, k)
	}
	return b
}

func restoreResends(d *telemetry.Decoder) *resends {
	r := &resends{pos: int(d.Uvarint())}
	for range d.Count(8) {
		r.ring = append(r.ring, d.Uint64())
	}
	if r.pos < 0 || r.pos >= resendWindow {
		r.pos = 0
	}
	return r
}
