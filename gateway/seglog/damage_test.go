package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"sluice/gateway/seglog/fsys/simfs"
)

// image is a synced log of three segments on a simulated disk.
type image struct {
	names  []string
	files  map[string][]byte
	bodies map[LSN][]byte
	home   map[LSN]string // segment of each record
	used   map[string]int // bytes of each segment up to the end of its last record
}

const imageBody = 700

func makeImage() (image, error) {
	disk := simfs.New(1)
	l, _, err := Open("d", Options{FS: disk, SegmentBytes: minSegmentBytes})
	if err != nil {
		return image{}, err
	}
	im := image{files: map[string][]byte{}, bodies: map[LSN][]byte{}, home: map[LSN]string{}, used: map[string]int{}}
	for i := 0; l.Segments() < 3 || i%4 != 0; i++ {
		lsn, err := l.Append(3, int64(i), testBody(uint64(i+1), imageBody+i%3))
		if err != nil {
			return im, err
		}
		im.bodies[lsn] = testBody(uint64(i+1), imageBody+i%3)
		if i%3 == 0 {
			if err := l.Commit(); err != nil {
				return im, err
			}
		}
	}
	if err := l.Commit(); err != nil {
		return im, err
	}
	for _, s := range l.segments {
		im.names = append(im.names, s.path)
		im.files[s.path] = disk.ReadFile(s.path)
		im.used[s.path] = int(s.end)
		for lsn := s.first; lsn <= s.last; lsn++ {
			im.home[lsn] = s.path
		}
	}
	return im, l.Close()
}

// read opens the image with one file changed and returns the records found; an error when one of them is wrong, or when the
// log cannot take another record afterwards.
func (im image) read(name string, b []byte, verify bool) (found map[LSN]bool, rec Recovery, reported int, err error) {
	disk := simfs.New(1)
	for n, f := range im.files {
		disk.WriteFile(n, f)
	}
	disk.WriteFile(name, b)
	l, rec, err := Open("d", Options{FS: disk, SegmentBytes: minSegmentBytes, Verify: verify, OnDamage: func(Damage) { reported++ }})
	if err != nil {
		return nil, rec, 0, err
	}
	defer l.Close()
	found = map[LSN]bool{}
	body := []byte("after")
	lsn, err := l.Append(9, 0, body)
	if err == nil {
		err = l.Commit()
	}
	if err != nil {
		return nil, rec, 0, fmt.Errorf("append afterwards: %w", err)
	}
	c := l.Cursor(0)
	defer c.Close()
	var last Record
	for {
		r, ok, err := c.TryNext()
		if err != nil {
			return nil, rec, 0, err
		}
		if !ok {
			break
		}
		if last = r; r.LSN == lsn && r.Type == 9 {
			if !bytes.Equal(r.Body, body) {
				return nil, rec, 0, errors.New("the record appended afterwards is wrong")
			}
			continue
		}
		if r.Type != 3 || r.Time != int64(r.LSN-1) || !bytes.Equal(r.Body, im.bodies[r.LSN]) {
			return nil, rec, 0, fmt.Errorf("LSN %d is wrong", r.LSN)
		}
		found[r.LSN] = true
	}
	if last.LSN != lsn {
		return nil, rec, 0, fmt.Errorf("the record appended afterwards, LSN %d, is not the last: %d", lsn, last.LSN)
	}
	return found, rec, reported, nil
}

// flipRun flips bits of every step-th byte: at most the record that holds the byte may go, and then it is reported.
func flipRun(step int, count *int) error {
	im, err := makeImage()
	if err != nil {
		return err
	}
	for k, name := range im.names {
		for off := 0; off < im.used[name]; off += step {
			for _, verify := range []bool{false, true} {
				b := slices.Clone(im.files[name])
				b[off] ^= byte(1 + off%255)
				found, rec, reported, err := im.read(name, b, verify)
				if err != nil {
					return fmt.Errorf("byte %d of segment %d: %w", off, k, err)
				}
				if count != nil {
					*count++
				}
				lost := len(im.bodies) - len(found)
				if lost > 1 || (lost > 0 && off < headerBytes) {
					return fmt.Errorf("byte %d of segment %d: %d records lost", off, k, lost)
				}
				// The last record's damage cannot be told from a torn write.
				if all := reported + len(rec.Damaged); lost != all && !(rec.TornBytes > 0 && k == len(im.names)-1) {
					return fmt.Errorf("byte %d of segment %d: %d lost, %d reported", off, k, lost, all)
				}
			}
		}
	}
	return nil
}

func TestLog_FlippedByteCostsAtMostItsRecord(t *testing.T) {
	step := 7
	if testing.Short() {
		step = 211
	}
	n := 0
	if err := flipRun(step, &n); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d flips", n)
}

func TestLog_TruncationCostsOnlyWhatWasCut(t *testing.T) {
	im, err := makeImage()
	if err != nil {
		t.Fatal(err)
	}
	for k, name := range im.names {
		for size := 0; size < im.used[name]; size += 13 * stride() {
			found, rec, reported, err := im.read(name, im.files[name][:size], size%2 == 0)
			if err != nil {
				t.Fatalf("segment %d cut at %d: %v", k, size, err)
			}
			for lsn := range im.bodies {
				if im.home[lsn] != name && !found[lsn] {
					t.Fatalf("segment %d cut at %d: LSN %d of another segment is lost", k, size, lsn)
				}
			}
			if k < len(im.names)-1 && size > 0 && reported+len(rec.Damaged) == 0 {
				t.Fatalf("segment %d cut at %d: not reported", k, size)
			}
		}
	}
}

func TestLog_DamagedRangeIsSetAsideAndKnownNextTime(t *testing.T) {
	im, err := makeImage()
	if err != nil {
		t.Fatal(err)
	}
	disk := simfs.New(1)
	for n, f := range im.files {
		disk.WriteFile(n, f)
	}
	name := im.names[0]
	b := slices.Clone(im.files[name])
	copy(b[headerBytes+recordHeader:], "scribble")
	disk.WriteFile(name, b)
	for pass := range 2 {
		l, rec, err := Open("d", Options{FS: disk, SegmentBytes: minSegmentBytes, Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(rec.Damaged) != 1 {
			t.Fatalf("pass %d: %+v", pass, rec)
		}
		d := rec.Damaged[0]
		if d.Offset != headerBytes || d.After != 0 || d.Resumed != 2 || d.Torn || d.Known != (pass == 1) {
			t.Fatalf("pass %d: %+v", pass, d)
		}
		if !bytes.Equal(disk.ReadFile(d.SavedAs), b[d.Offset:d.Offset+d.Bytes]) || !strings.HasPrefix(d.SavedAs, name+".damaged-") {
			t.Fatalf("pass %d: saved as %q", pass, d.SavedAs)
		}
		l.Close()
	}
}

func TestLog_NewerVersionIsRefusedAndNothingTouched(t *testing.T) {
	im, err := makeImage()
	if err != nil {
		t.Fatal(err)
	}
	disk := simfs.New(1)
	for n, f := range im.files {
		disk.WriteFile(n, f)
	}
	b := slices.Clone(im.files[im.names[2]])
	for _, at := range []int{0, headerCopy} {
		b[at+8] = 2
		copy(b[at+12:], le32(crcOf(b[at:at+12])))
	}
	disk.WriteFile(im.names[2], b)
	disk.WriteFile("d/9.spare", []byte("half"))
	disk.Trace(func(op string) {
		for _, w := range []string{"write", "rename", "remove", "create", "sync", "truncate"} {
			if strings.HasPrefix(op, w) {
				t.Errorf("%s", op)
			}
		}
	})
	if _, _, err := Open("d", Options{FS: disk}); !errors.Is(err, ErrVersion) {
		t.Fatalf("err %v", err)
	}
}

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
func le32(v uint32) []byte  { return binary.LittleEndian.AppendUint32(nil, v) }
