package seglog

import (
	"bytes"
	"testing"

	"sluice/gateway/seglog/fsys/simfs"
)

// FuzzSegment opens a directory whose newest segment is arbitrary bytes, alone and behind a good one.
func FuzzSegment(f *testing.F) {
	im, err := makeImage()
	if err != nil {
		f.Fatal(err)
	}
	last := im.names[2]
	f.Add(im.files[last][:im.used[last]], true)
	f.Add(im.files[last][:headerBytes+10], false)
	f.Add([]byte{}, true)
	f.Add(make([]byte, headerBytes+100), false)
	long := bytes.Clone(im.files[last][:headerBytes+800])
	long[headerBytes+2] = 0xff
	f.Add(long, true)
	f.Fuzz(func(t *testing.T, b []byte, behind bool) {
		disk := simfs.New(1)
		name := last
		disk.WriteFile(name, b)
		if behind {
			disk.WriteFile(im.names[0], im.files[im.names[0]])
			disk.WriteFile(im.names[1], im.files[im.names[1]])
		}
		l, _, err := Open("d", Options{FS: disk, SegmentBytes: minSegmentBytes, Verify: true})
		if err != nil {
			return // a newer version
		}
		defer l.Close()
		lsn, err := l.Append(1, 1, []byte("after"))
		if err == nil {
			err = l.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
		c := l.Cursor(0)
		defer c.Close()
		var prev LSN
		good := 0
		for {
			r, ok, err := c.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if r.LSN <= prev {
				t.Fatalf("LSN %d after %d", r.LSN, prev)
			}
			if h := im.home[r.LSN]; h != "" && h != last && bytes.Equal(r.Body, im.bodies[r.LSN]) {
				good++
			}
			prev = r.LSN
		}
		if prev != lsn {
			t.Fatalf("last is %d, want %d", prev, lsn)
		}
		if behind {
			want := 0
			for _, h := range im.home {
				if h != last {
					want++
				}
			}
			if good != want {
				t.Fatalf("%d of %d records of other segments", good, want)
			}
		}
	})
}

func FuzzSlots(f *testing.F) {
	f.Add(encodeSlot([]byte("value"), 7), encodeSlot(nil, 8))
	f.Add([]byte{}, encodeSlot([]byte("x"), 1)[:20])
	f.Add(encodeSlot([]byte("value"), 1<<63), []byte(nil))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		disk := simfs.New(1)
		disk.WriteFile("d/cp.a", append([]byte{}, a...))
		disk.WriteFile("d/cp.b", append([]byte{}, b...))
		s, err := OpenSlots(disk, "d", "cp")
		if err != nil {
			return
		}
		before, err := s.Both()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Store([]byte("new"), true); err != nil {
			t.Fatal(err)
		}
		disk.Restart(simfs.DropAll, 0)
		s, err = OpenSlots(disk, "d", "cp")
		if err != nil {
			t.Fatal(err)
		}
		both, err := s.Both()
		if err != nil || len(both) == 0 || string(both[0]) != "new" {
			t.Fatalf("%q %v", both, err)
		}
		if len(before) > 0 && (len(both) != 2 || !bytes.Equal(both[1], before[0])) {
			t.Fatalf("the older value is gone: %q, before %q", both, before)
		}
	})
}
