package seglog

// Second is the first LSN of the oldest segment but one: what TrimTo leaves first when it releases one segment. ok is false when
// there is one segment only.
func (l *Log) Second() (lsn LSN, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) < 2 {
		return 0, false
	}
	return l.segments[1].first, true
}
