package broker

// window is the client's receive maximum: how many QoS 1 and 2 messages may be on their way to it. mochi 2.7.9 has one, too,
// but it forgets to open it again; so that one is switched off. It is guarded by its connection's mutex.
type window struct {
	size    int // 0: no limit
	open    int // sent and not finished
	waiting []byte
	gone    int // bytes of waiting that were sent
}

// send tells whether a PUBLISH to the client may go now; if not, the window keeps it.
func (w *window) send(frame []byte) bool {
	const qos = 0x06
	if w.size == 0 || frame[0]&qos == 0 {
		return true
	}
	if w.open < w.size && len(w.waiting) == 0 {
		w.open++
		return true
	}
	w.waiting = append(w.waiting, frame...)
	return false
}

// finish takes the end of a message from the client and returns the next one to send, nil when there is none. It is valid
// until the next send.
func (w *window) finish() []byte {
	if w.open > 0 {
		w.open--
	}
	if len(w.waiting) == 0 || w.open >= w.size {
		return nil
	}
	_, size, _ := frameSize(w.waiting[w.gone:])
	frame := w.waiting[w.gone : w.gone+size]
	w.open++
	switch w.gone += size; {
	case w.gone == len(w.waiting):
		w.waiting, w.gone = nil, 0
	case w.gone > 64<<10 && w.gone > len(w.waiting)/2:
		w.waiting, w.gone = append([]byte(nil), w.waiting[w.gone:]...), 0
	}
	return frame
}

// finished notes that the client is done with a message: PUBACK, PUBCOMP, or a PUBREC that refuses.
func (c *conn) finished(frame []byte, header int) {
	const failure = 0x80
	if frame[0]>>4 == typePubrec && (len(frame) < header+3 || frame[header+2] < failure) {
		return
	}
	c.mu.Lock()
	if next := c.window.finish(); next != nil && !c.closing {
		c.out.queue = append(c.out.queue, next...)
		c.flush(false)
		return
	}
	c.mu.Unlock()
}
