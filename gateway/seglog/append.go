package seglog

import (
	"errors"
	"fmt"
)

// reserveShare of the newest segment is kept for AppendUrgent once no further segment can be had: 1/8.
const reserveShare = 8

// Append queues a record for the next commit and returns its LSN. parts are joined into the body and copied.
// typ must not be 0; t is ns since the Unix epoch. The record is durable when Durable() has reached its LSN.
func (l *Log) Append(typ byte, t int64, parts ...[]byte) (LSN, error) {
	return l.append(false, typ, t, parts)
}

// AppendUrgent is Append into the part of the log kept free for it when the log is full: ticks and operator commands.
// That part is the last eighth of the newest segment; it is certain only where that segment was pre-allocated (the first
// one under Run and those larger than a segment are not). When it is used up, AppendUrgent returns ErrFull as well.
func (l *Log) AppendUrgent(typ byte, t int64, parts ...[]byte) (LSN, error) {
	return l.append(true, typ, t, parts)
}

func (l *Log) append(urgent bool, typ byte, t int64, parts [][]byte) (LSN, error) {
	body := 0
	for _, p := range parts {
		body += len(p)
	}
	if body > MaxRecord {
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, body, MaxRecord)
	}
	if typ == 0 {
		return 0, errors.New("append: record type 0")
	}
	size := recordHeader + body

	l.mu.Lock()
	for {
		if err := l.refusal(urgent, size); err != nil {
			l.mu.Unlock()
			return 0, err
		}
		queued := len(l.pending) + l.inflight
		if queued == 0 || queued+size <= l.o.MaxPendingBytes {
			break
		}
		if !l.running {
			l.mu.Unlock()
			return 0, fmt.Errorf("%w: %d bytes wait for a commit", ErrFull, queued)
		}
		l.room.Wait()
	}
	lsn := l.next
	l.next++
	wasEmpty := len(l.pending) == 0
	l.pending = appendRecord(l.pending, lsn, typ, t, body, parts)
	l.mu.Unlock()
	if wasEmpty {
		notify(l.kick)
	}
	return lsn, nil
}

// refusal is why a record of size bytes cannot be queued, nil when it can. The caller holds mu.
func (l *Log) refusal(urgent bool, size int) error {
	if l.closed {
		return ErrClosed
	}
	if l.readOnly {
		return ErrReadOnly
	}
	if l.o.Retain || (l.err == nil && l.nextErr == nil) {
		return nil
	}
	if l.err != nil && !(urgent && errors.Is(l.err, ErrFull)) {
		return l.err
	}
	var free int64
	if l.active != nil {
		free = l.active.capacity - l.active.end - int64(len(l.pending)+l.inflight)
		if !urgent {
			free -= l.active.capacity / reserveShare
		}
	}
	if int64(size) <= free {
		return nil
	}
	if l.err != nil {
		return l.err
	}
	l.refused = true
	return l.nextErr
}

// notify wakes the reader of a channel of capacity 1; when it is full the reader is awake already.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
