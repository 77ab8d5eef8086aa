package seglog

import (
	"encoding/binary"
	"errors"
	"io"

	"sluice/gateway/seglog/fsys"
)

const (
	readMin = 16 << 10  // a reader that follows the log's end
	readMax = 256 << 10 // one that catches up
)

// segmentReader reads one segment file through a buffer. end bounds it: nothing at or behind end is looked at.
type segmentReader struct {
	f    fsys.File
	seed uint32
	end  int64

	buf   []byte
	at    int64 // file offset of buf[0]
	small int   // reads in a row that needed only readMin
}

// reset points the reader at another file and keeps the buffer.
func (r *segmentReader) reset(f fsys.File, seed uint32) {
	r.f, r.seed, r.end, r.buf, r.at = f, seed, 0, r.buf[:0], 0
}

// bytes returns the n bytes at off, or fewer where the file ends. They are valid until the next call.
func (r *segmentReader) bytes(off int64, n int) ([]byte, error) {
	if rel := off - r.at; rel >= 0 && rel+int64(n) <= int64(len(r.buf)) {
		return r.buf[rel : rel+int64(n)], nil
	}
	want := min(r.end-off, readMax)
	want = max(want, int64(n))
	if want <= readMin {
		r.small++
	} else {
		r.small = 0
	}
	if int64(cap(r.buf)) < want || (r.small > 64 && cap(r.buf) > readMin) {
		size := int64(readMin)
		for size < want {
			size *= 2
		}
		r.buf = make([]byte, 0, size)
	}
	got, err := r.f.ReadAt(r.buf[:want], off)
	if err != nil && !errors.Is(err, io.EOF) {
		r.buf = r.buf[:0]
		return nil, err
	}
	r.buf, r.at = r.buf[:got], off
	return r.buf[:min(n, got)], nil
}

// record returns the whole record at off, nil when there is no valid one. An error is the device's.
func (r *segmentReader) record(off int64) ([]byte, error) {
	if off+recordHeader > r.end {
		return nil, nil
	}
	b, err := r.bytes(off, recordHeader)
	if err != nil || len(b) < recordHeader {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(b)
	if !validLength(n) || off+8+int64(n) > r.end {
		return nil, nil
	}
	want := binary.LittleEndian.Uint32(b[4:])
	b, err = r.bytes(off, 8+int(n))
	if err != nil || len(b) < 8+int(n) || recordCRC(r.seed, b) != want || b[24] == 0 {
		return nil, err
	}
	return b, nil
}

// resyncWork bounds what resync spends on checksums, in multiples of the bytes it searches: bodies can be full of bytes that
// look like the head of a long record. Beyond it only records up to resyncSmall are recognised.
const (
	resyncWork  = 16
	resyncSmall = 4 << 10
)

// resync finds the next valid record at or behind off whose LSN lies in [lo, hi]. ok is false when there is none.
func (r *segmentReader) resync(off int64, lo, hi LSN) (at int64, ok bool, err error) {
	budget := resyncWork * max(r.end-off, 1<<20)
	var window [64 << 10]byte
	for off+recordHeader <= r.end {
		got, err := r.f.ReadAt(window[:min(int64(len(window)), r.end-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, false, err
		}
		if got < recordHeader {
			return 0, false, nil
		}
		for i := 0; i+recordHeader <= got; i++ {
			n := binary.LittleEndian.Uint32(window[i:])
			lsn := LSN(binary.LittleEndian.Uint64(window[i+8:]) &^ markBit)
			if lsn < lo || lsn > hi || n < recordFixed || n > recordFixed+MaxRecord || (budget < 0 && n > resyncSmall) {
				continue
			}
			budget -= int64(n)
			b, err := r.record(off + int64(i))
			if err != nil {
				return 0, false, err
			}
			if b != nil {
				return off + int64(i), true, nil
			}
		}
		off += int64(got - recordHeader + 1)
	}
	return 0, false, nil
}
