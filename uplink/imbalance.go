package uplink

// Imbalance is how many records the counters do not agree on with the log: every record that was ever put has a number of its own there, and
// must be counted once. Anything but 0 is a bug. Safe for concurrent use.
func (b *Outbox) Imbalance() (n int64) {
	for _, t := range b.all() {
		t.mu.Lock()
		n += int64(uint64(t.log.Next()) - 1 - t.count().Enqueued)
		t.mu.Unlock()
	}
	return n
}
