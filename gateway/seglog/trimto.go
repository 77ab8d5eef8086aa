package seglog

import "fmt"

// TrimTo is TrimBefore(lsn) that stops as soon as the segments take no more than keepBytes.
func (l *Log) TrimTo(keepBytes int64, lsn LSN) error {
	if l.readOnly {
		return ErrReadOnly
	}
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	for l.Bytes() > keepBytes {
		s, to := l.oldestBelow(lsn)
		if s == nil {
			return nil
		}
		if err := l.release(s, to); err != nil {
			return fmt.Errorf("trim %s: %w", s.path, err)
		}
	}
	return nil
}
