package uplink

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"sync"

	"sluice/gateway/seglog"
)

// quarantineIndex is what a quarantine's log holds, as far as it was read: it follows the log when somebody asks.
type quarantineIndex struct {
	mu     sync.Mutex
	upTo   seglog.LSN        // read
	gone   map[uint64]uint64 // removed ids: 64 to a word, by id / 64
	groups map[groupKey]*QuarantineGroup
	stale  bool // groups hold what is not there any more
}

type groupKey struct{ stage, reason, source string }

// QuarantineGroup is what was refused at one stage for one reason from one source, and is still held.
type QuarantineGroup struct {
	Stage          Stage
	Reason, Source string
	Items, Count   uint64
	Oldest, Newest int64  // times, ns
	Example        string // the newest one's detail
	ExampleID      uint64
}

func (x *quarantineIndex) init() {
	x.gone = make(map[uint64]uint64)
	x.groups = make(map[groupKey]*QuarantineGroup)
}

func (x *quarantineIndex) isRemoved(id uint64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.removed(id)
}

func (x *quarantineIndex) removed(id uint64) bool { return x.gone[id/64]&(1<<(id%64)) != 0 }

// follow reads what was put since.
func (x *quarantineIndex) follow(q *Quarantine) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.read(q)
}

func (x *quarantineIndex) read(q *Quarantine) error {
	if q.log.Visible() <= x.upTo {
		return nil
	}
	return q.each(uint64(x.upTo)+1, func(r seglog.Record) bool {
		x.upTo = r.LSN
		if r.Type <= quarantineFree {
			x.group(r)
			return true
		}
		removal, _ := parseRemoval(r)
		for _, of := range removal.of {
			for _, id := range of.ids {
				x.gone[id/64] |= 1 << (id % 64)
				x.stale = true
			}
		}
		return true
	})
}

func (x *quarantineIndex) group(r seglog.Record) {
	v, ok := viewItem(r)
	if !ok || x.removed(uint64(r.LSN)) {
		return
	}
	g := x.groups[groupKey{string(v.stage), string(v.reason), string(v.source)}]
	if g == nil {
		g = &QuarantineGroup{Stage: Stage(v.stage), Reason: string(v.reason), Source: string(v.source), Oldest: r.Time}
		x.groups[groupKey{string(v.stage), g.Reason, g.Source}] = g
	}
	g.Items++
	g.Count += v.count
	g.Oldest, g.Newest = min(g.Oldest, r.Time), max(g.Newest, r.Time)
	if g.ExampleID = uint64(r.LSN); string(v.detail) != g.Example {
		g.Example = string(v.detail)
	}
}

// dropped forgets what is not in the log any more.
func (x *quarantineIndex) dropped() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stale = true
}

// current is read, with groups that hold nothing but what is there.
func (x *quarantineIndex) current(q *Quarantine) error {
	if err := x.read(q); err != nil || !x.stale {
		return err
	}
	first := uint64(q.log.First())
	for word := range x.gone {
		if word < first/64 {
			delete(x.gone, word)
		}
	}
	clear(x.groups)
	x.stale = false
	return q.each(first, func(r seglog.Record) bool {
		if r.LSN > x.upTo {
			return false
		}
		x.group(r)
		return true
	})
}

// countKept counts the items below to by whom they are about. Of what it returns Noted is not set.
func (x *quarantineIndex) countKept(q *Quarantine, to uint64) (losses []QuarantineLoss, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.read(q); err != nil {
		return nil, err
	}
	at := make(map[party]int)
	err = q.each(uint64(q.log.First()), func(r seglog.Record) bool {
		if uint64(r.LSN) >= to {
			return false
		}
		v, ok := viewItem(r)
		if !ok || x.removed(uint64(r.LSN)) {
			return true
		}
		p := v.party()
		i, known := at[p]
		if !known {
			i = len(losses)
			at[p] = i
			losses = append(losses, lossOf(p, LostFull, r.Time, 0))
		}
		l := &losses[i]
		l.From, l.To = min(l.From, r.Time), max(l.To, r.Time)
		l.Count += v.count
		l.items++
		return true
	})
	return losses, err
}

// QuarantineFilter picks items; zero values match all.
type QuarantineFilter struct {
	Stage       Stage
	Reason      string
	Source      string // a source's name, or a destination's
	Destination string // a destination's name: of sink stage items only
	Search      string // in topic, detail, source, payload and points, whatever the case
}

func (f *QuarantineFilter) matchGroup(stage Stage, reason, source string) bool {
	return (f.Stage == "" || f.Stage == stage) && (f.Reason == "" || f.Reason == reason) && (f.Source == "" || f.Source == source) &&
		(f.Destination == "" || stage == StageSink && f.Destination == source)
}

// matcher is a filter ready for many items.
type matcher struct {
	QuarantineFilter
	needle []byte
}

func (f QuarantineFilter) matcher() *matcher {
	return &matcher{f, []byte(strings.ToLower(f.Search))}
}

func (m *matcher) match(v *itemView) bool {
	if !m.matchGroup(Stage(v.stage), string(v.reason), string(v.source)) {
		return false
	}
	if len(m.needle) == 0 {
		return true
	}
	for _, s := range [...][]byte{v.topic, v.detail, v.source, v.payload, v.points} {
		if bytes.Contains(bytes.ToLower(s), m.needle) {
			return true
		}
	}
	return false
}

// Groups lists what is held, by stage, reason and source, the largest group first.
func (q *Quarantine) Groups() ([]QuarantineGroup, error) {
	q.index.mu.Lock()
	defer q.index.mu.Unlock()
	if err := q.index.current(q); err != nil {
		return nil, err
	}
	list := make([]QuarantineGroup, 0, len(q.index.groups))
	for _, g := range q.index.groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b QuarantineGroup) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Source, b.Source))
	})
	return list, nil
}

// Find returns up to limit items that match, with ids below before, the newest first, and how many match in all; before 0 starts at
// the newest.
func (q *Quarantine) Find(f QuarantineFilter, before uint64, limit int) (items []Item, total uint64, err error) {
	if total, err = q.count(f); err != nil || limit <= 0 {
		return nil, total, err
	}
	m := f.matcher()
	first, end := uint64(q.log.First()), uint64(q.log.Visible())+1
	if before > 0 {
		end = min(end, before)
	}
	for window := uint64(max(2*limit, 1000)); end > first && len(items) < limit; window *= 4 {
		from := max(first, end-min(end, window))
		var found []Item // oldest first
		err := q.kept(from, end, func(r seglog.Record, v *itemView) bool {
			if m.match(v) {
				if it, err := parseItem(r); err == nil {
					if found = append(found, it); len(found) >= 2*limit {
						found = append(found[:0], found[len(found)-limit:]...)
					}
				}
			}
			return true
		})
		if err != nil {
			return nil, total, err
		}
		for i := len(found) - 1; i >= 0 && len(items) < limit; i-- {
			items = append(items, found[i])
		}
		end = from
	}
	return items, total, nil
}

// IDs lists all items that match, the oldest first.
func (q *Quarantine) IDs(f QuarantineFilter) (ids []uint64, err error) {
	m := f.matcher()
	err = q.kept(uint64(q.log.First()), uint64(q.log.Visible())+1, func(r seglog.Record, v *itemView) bool {
		if m.match(v) {
			ids = append(ids, uint64(r.LSN))
		}
		return true
	})
	return ids, err
}

func (q *Quarantine) count(f QuarantineFilter) (n uint64, err error) {
	if f.Search != "" {
		ids, err := q.IDs(f)
		return uint64(len(ids)), err
	}
	groups, err := q.Groups()
	for i := range groups {
		if g := &groups[i]; f.matchGroup(g.Stage, g.Reason, g.Source) {
			n += g.Items
		}
	}
	return n, err
}

// kept calls f for the items [from, end) that are still there, the oldest first, until it returns false.
func (q *Quarantine) kept(from, end uint64, f func(seglog.Record, *itemView) bool) error {
	if err := q.index.follow(q); err != nil {
		return err
	}
	return q.each(from, func(r seglog.Record) bool {
		if uint64(r.LSN) >= end {
			return false
		}
		v, ok := viewItem(r)
		if !ok || q.index.isRemoved(uint64(r.LSN)) {
			return true
		}
		return f(r, &v)
	})
}

// Get returns an item by its id; ok is false when it is not held (any more).
func (q *Quarantine) Get(id uint64) (it Item, ok bool, err error) {
	err = q.Some([]uint64{id}, func(found Item) { it, ok = found, true })
	return it, ok, err
}

// Some calls f for those of the items with these ids, ascending, that are held.
func (q *Quarantine) Some(ids []uint64, f func(Item)) error {
	if len(ids) == 0 {
		return nil
	}
	next := 0
	return q.kept(ids[0], ids[len(ids)-1]+1, func(r seglog.Record, _ *itemView) bool {
		for next < len(ids) && ids[next] < uint64(r.LSN) {
			next++
		}
		if next < len(ids) && ids[next] == uint64(r.LSN) {
			if it, err := parseItem(r); err == nil {
				f(it)
			}
		}
		return true
	})
}

// idsAtOnce bounds the ids of one removal.
const idsAtOnce = 10_000

// Delete removes items for good, with ids ascending; they count as losses from now on. It returns how many there were, once that
// survives power loss.
func (q *Quarantine) Delete(now int64, ids []uint64) (deleted int, err error) {
	for len(ids) > 0 && err == nil {
		n := min(len(ids), idsAtOnce)
		var x removal
		k := 0
		if err = q.Some(ids[:n], func(it Item) { x.add(it.party(), it.ID, it.Count); k++ }); err == nil && k > 0 {
			err = q.remove(quarantineDeleted, Cause{}, now, &x)
		}
		if err == nil {
			err = q.Sync()
		}
		if err == nil {
			deleted += k
		}
		ids = ids[n:]
	}
	q.Compact()
	return deleted, err
}

// Taken removes an item that was put back on its way, by the journal record cause: what happened before a crash happens once. It is durable
// after Sync.
func (q *Quarantine) Taken(cause Cause, id uint64, destination, source string, count uint64) error {
	p := party{destination != "", destination + source}
	var x removal
	x.add(p, id, count)
	return q.remove(quarantineTaken, cause, cause.Time, &x)
}

func (q *Quarantine) remove(typ byte, cause Cause, t int64, x *removal) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	from := ""
	if typ == quarantineTaken {
		from = pipelineProducer
	}
	q.begin(cause)
	q.buf = x.append(q.buf)
	if err := q.record(typ, from, cause, t); err != nil {
		return asFull(err)
	}
	return nil
}

// Compact releases the oldest segments as long as nothing in them is left. A failure costs room only.
func (q *Quarantine) Compact() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.log.Segments() > 1 {
		to, ok := q.log.Second()
		if !ok || q.commit() != nil {
			return
		}
		if left, err := q.index.countKept(q, uint64(to)); err != nil || len(left) > 0 {
			return
		}
		if q.storeState() != nil || q.log.TrimBefore(to) != nil {
			return
		}
		q.index.dropped()
		q.diskBytes = q.log.DiskBytes()
	}
}

// Losses lists what left the quarantine for good, oldest first.
func (q *Quarantine) Losses() []QuarantineLoss {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.state.losses)
}

// Requeued counts the records of a destination that were put back into its outbox, ever.
func (q *Quarantine) Requeued(destination string) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.state.requeued[party{true, destination}]
}

// QuarantineStats is what a quarantine amounts to.
type QuarantineStats struct {
	Items, Count    uint64 // held
	Last            uint64 // the newest id given out
	Skipped         uint64 // puts that were replays, since it was opened
	Bytes, MaxBytes int64
}

// Stats returns the counts.
func (q *Quarantine) Stats() (QuarantineStats, error) {
	groups, err := q.Groups()
	q.mu.Lock()
	defer q.mu.Unlock()
	s := QuarantineStats{Last: uint64(q.log.Next()) - 1, Skipped: q.skipped, Bytes: q.log.Bytes(), MaxBytes: q.o.MaxBytes}
	for i := range groups {
		s.Items += groups[i].Items
		s.Count += groups[i].Count
	}
	return s, err
}
