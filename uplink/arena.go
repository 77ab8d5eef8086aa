package uplink

// arena holds the bodies of the records in a forwarder's hand, and is used again for the next hand.
type arena struct {
	blocks [][]byte
	used   int // blocks that hold something; the last of them is being filled
}

const (
	arenaFirst = 4 << 10 // a single alert needs no more
	arenaBlock = 64 << 10
)

// reset forgets all bodies. What a small hand did not need is let go, so that a drained backlog leaves nothing behind.
func (a *arena) reset() {
	if a.used <= 1 && len(a.blocks) > 1 {
		a.blocks = a.blocks[:1:1]
	}
	a.used = 0
}

// keep returns a copy of b.
func (a *arena) keep(b []byte) []byte {
	for {
		if a.used > 0 {
			block := &a.blocks[a.used-1]
			if at := len(*block); at+len(b) <= cap(*block) {
				*block = append(*block, b...)
				return (*block)[at:len(*block):len(*block)]
			}
		}
		if a.used == len(a.blocks) {
			size := arenaBlock
			if a.used == 0 {
				size = arenaFirst
			}
			a.blocks = append(a.blocks, make([]byte, 0, max(size, len(b))))
		}
		a.blocks[a.used] = a.blocks[a.used][:0]
		a.used++
	}
}
