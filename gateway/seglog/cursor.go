package seglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/gateway/seglog/fsys"
)

// Cursor reads records in LSN order. Not safe for concurrent use; several cursors may run beside each other and beside Append.
//
// Where the log was trimmed under it, it goes on at First(); damage it steps over. Skipped counts both, and the record's
// LSN shows where.
type Cursor struct {
	l    *Log
	next LSN

	seg  *segment // nil: to be found
	f    fsys.File
	r    segmentReader
	off  int64
	last LSN // last LSN readable in seg, as of the last look
	past LSN // last record of seg that the cursor passed
	wake chan struct{}

	trimmed, lost uint64
}

// Cursor starts at from, or at First() when from is older. Close it after use.
func (l *Log) Cursor(from LSN) *Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) > 0 {
		from = max(from, l.segments[0].first)
	}
	return &Cursor{l: l, next: max(from, 1), wake: make(chan struct{}, 1)}
}

// Next returns the next visible record, waiting for one until ctx ends or the log is closed.
func (c *Cursor) Next(ctx context.Context) (Record, error) {
	for {
		r, ok, err := c.TryNext()
		if ok || err != nil {
			return r, err
		}
		l := c.l
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return Record{}, ErrClosed
		}
		if l.visible >= c.next {
			l.mu.Unlock()
			continue
		}
		select { // a wake-up left over from an earlier wait
		case <-c.wake:
		default:
		}
		l.waiters = append(l.waiters, c)
		l.mu.Unlock()
		select {
		case <-c.wake:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-l.done:
			err = ErrClosed
		}
		l.mu.Lock()
		for i, w := range l.waiters {
			if w == c {
				l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
				break
			}
		}
		l.mu.Unlock()
		return Record{}, err
	}
}

// TryNext returns ok false when no further record is visible yet. After an error the cursor stands where it stood.
func (c *Cursor) TryNext() (r Record, ok bool, err error) {
	for {
		if c.seg == nil || c.next > c.last {
			ok, err := c.look()
			if !ok || err != nil {
				return Record{}, false, err
			}
		}
		b, err := c.r.record(c.off)
		if err != nil {
			return Record{}, false, fmt.Errorf("read %s: %w", c.seg.path, err)
		}
		lsn := LSN(0)
		if b != nil {
			lsn = recordLSN(b)
		}
		switch {
		case b == nil || lsn > c.last:
			if err := c.skipDamage(); err != nil {
				return Record{}, false, err
			}
		case lsn < c.next: // on the way to where we start
			c.off, c.past = c.off+int64(len(b)), lsn
		default:
			c.off, c.past = c.off+int64(len(b)), lsn
			c.lost += uint64(lsn - c.next)
			c.next = lsn + 1
			return Record{LSN: lsn, Type: b[24], Time: recordTime(b), Body: b[recordHeader:len(b):len(b)]}, true, nil
		}
	}
}

// look refreshes what the cursor may read and opens the segment that holds next. ok is false when nothing is visible yet.
func (c *Cursor) look() (ok bool, err error) {
	l := c.l
	for {
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			c.leave()
			return false, ErrClosed
		}
		if c.next > l.visible || len(l.segments) == 0 {
			l.mu.Unlock()
			return false, nil
		}
		if s := c.seg; s != nil && !s.gone && c.next <= s.last {
			c.last = min(s.last, l.visible)
			c.r.end = s.end
			l.mu.Unlock()
			return true, nil
		}
		// The last segment that starts at or before next.
		i := len(l.segments) - 1
		for i > 0 && l.segments[i].first > c.next {
			i--
		}
		s := l.segments[i]
		if s.last < c.next && i+1 < len(l.segments) { // LSNs that never were, see Options.MinNext
			s = l.segments[i+1]
			c.next = max(c.next, s.first)
		}
		if s.first > c.next {
			c.trimmed += uint64(s.first - c.next)
			c.next = s.first
		}
		if c.next > s.last || c.next > l.visible {
			l.mu.Unlock()
			return false, nil
		}
		last, end := min(s.last, l.visible), s.end
		l.mu.Unlock()

		c.leave()
		f, err := l.fs.Open(s.path)
		if errors.Is(err, fsys.ErrNotExist) {
			if l.readOnly {
				l.forget(s)
			}
			l.mu.Lock()
			gone := s.gone
			l.mu.Unlock()
			if gone {
				continue
			}
		}
		if err != nil {
			return false, fmt.Errorf("open segment: %w", err)
		}
		c.seg, c.f, c.off, c.last, c.past = s, f, headerBytes, last, s.first-1
		c.r.reset(f, seedOf(s.id))
		c.r.end = end
		return true, nil
	}
}

// skipDamage steps over bytes that hold no valid record although next should stand there.
func (c *Cursor) skipDamage() error {
	l, s := c.l, c.seg
	if err := l.forgetRecycled(s); err != nil {
		return err
	}
	l.mu.Lock()
	gone, last := s.gone, min(s.last, l.visible)
	l.mu.Unlock()
	if gone { // not damage: the file has another use by now
		c.leave()
		return nil
	}
	if c.last > last { // a failed sync has ended this segment earlier: the records stand in the next one, or will
		c.last = last
		return nil
	}
	at, ok, err := c.r.resync(c.off+1, c.past+1, c.last)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	d := Damage{Segment: s.path, Offset: c.off, After: c.past}
	if ok {
		d.Bytes = at - c.off
		b, err := c.r.bytes(at, recordHeader)
		if err != nil || len(b) < recordHeader {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		d.Resumed = LSN(binary.LittleEndian.Uint64(b[8:]) &^ markBit)
		c.off = at // next follows when the record is read
	} else {
		d.Bytes = c.r.end - c.off
		c.lost += uint64(c.last + 1 - c.next)
		c.next = c.last + 1
		c.off = c.r.end
	}
	l.mu.Lock()
	gone = s.gone
	l.mu.Unlock()
	if gone { // it was recycled while we searched
		c.leave()
		return nil
	}
	if d, fresh := l.setAside(c.f, d); fresh && l.o.OnDamage != nil {
		l.o.OnDamage(d)
	}
	return nil
}

// Position is the LSN the cursor looks for next.
func (c *Cursor) Position() LSN { return c.next }

// Skipped counts LSNs that were trimmed before the cursor came to them, and those lost to damage.
func (c *Cursor) Skipped() (trimmed, damaged uint64) { return c.trimmed, c.lost }

func (c *Cursor) leave() {
	if c.f != nil {
		c.f.Close()
	}
	c.seg, c.f, c.last = nil, nil, 0
}

// Close releases the cursor's file.
func (c *Cursor) Close() error {
	c.leave()
	c.r = segmentReader{}
	return nil
}

// SeekTime returns the first LSN whose record time is at or after t, or Next() when there is none. It takes record times as
// non-decreasing from segment to segment; within one it reads them all.
func (l *Log) SeekTime(t int64) (LSN, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, ErrClosed
	}
	lo, hi := 0, len(l.segments) // segments[lo-1].firstTime < t <= segments[hi].firstTime
	for lo < hi {
		mid := (lo + hi) / 2
		if l.segments[mid].firstTime < t {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	from := LSN(1)
	if len(l.segments) > 0 {
		from = l.segments[max(lo-1, 0)].first
	}
	l.mu.Unlock()
	c := l.Cursor(from)
	defer c.Close()
	for {
		r, ok, err := c.TryNext()
		if err != nil {
			return 0, err
		}
		if !ok {
			return l.Next(), nil
		}
		if r.Time >= t {
			return r.LSN, nil
		}
	}
}
