package broker

import "slices"

// held is a queue of acknowledgement frames waiting for their commits. It is guarded by its connection's mutex.
type held struct {
	frames []byte
	marks  []mark
	// How much of both is already gone.
	bytesGone, marksGone int
}

// mark stands for one frame in held.frames.
type mark struct {
	pos      uint64 // the commit to wait for; 0: none
	stored   uint64 // the commit of the store to wait for, too; 0: none
	received int64  // broker time of the message, ns; 0: not journalled, its acknowledgement only keeps its place
	epoch    uint32 // of pos: see faults
	size     uint32 // of the frame
}

func (h *held) len() int { return len(h.marks) - h.marksGone }

func (h *held) push(frame []byte, m mark) {
	m.size = uint32(len(frame))
	h.frames = append(h.frames, frame...)
	h.marks = append(h.marks, m)
}

func (h *held) first() mark { return h.marks[h.marksGone] }

// pop removes the first n frames and returns them; what it returns is valid until the next push.
func (h *held) pop(n int) (frames []byte, marks []mark) {
	marks = h.marks[h.marksGone : h.marksGone+n]
	size := 0
	for i := range marks {
		size += int(marks[i].size)
	}
	frames = h.frames[h.bytesGone : h.bytesGone+size]
	h.bytesGone += size
	h.marksGone += n
	switch {
	case h.marksGone == len(h.marks):
		const keep = 512 // marks; an idle connection should not hold on to a burst's memory
		if cap(h.marks) > keep {
			*h = held{}
		} else {
			*h = held{frames: h.frames[:0], marks: h.marks[:0]}
		}
	case h.marksGone > 1024 && h.marksGone > len(h.marks)/2:
		*h = held{frames: slices.Clone(h.frames[h.bytesGone:]), marks: slices.Clone(h.marks[h.marksGone:])}
	}
	return frames, marks
}

// faults remembers at which position each fault of the journal struck, because positions lost in a fault are given
// again: an acknowledgement that waits for position 7 of before must not be sent when 7 is committed after.
type faults struct {
	epoch  uint32   // how many faults there were
	floors []uint64 // of the latest epochs that ended: up to here they were durable
}

const floorsKept = 64

func (f *faults) after(floor uint64) *faults {
	g := &faults{epoch: f.epoch + 1}
	g.floors = append(slices.Clone(f.floors), floor)
	if len(g.floors) > floorsKept {
		g.floors = g.floors[1:]
	}
	return g
}

// state tells whether m's message is durable, or lost for good. durable must have been read before f was.
func (f *faults) state(m mark, durable uint64) (due, lost bool) {
	if m.pos == 0 {
		return true, false
	}
	if m.epoch == f.epoch {
		return m.pos <= durable, false
	}
	if ago := int(f.epoch - m.epoch); ago <= len(f.floors) {
		due = m.pos <= f.floors[len(f.floors)-ago]
	}
	return due, !due
}
