package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
)

// The power-cut test writes numbered records the way the journal does and says which are acknowledged, until the power is cut; then it
// looks whether each of them is there. What it shows is whether this disk, with this file system and its mount options, keeps what it has
// acknowledged: nothing that runs on the machine can find that out otherwise.

// powerCut is the folder that the test has of the directory it is given.
const powerCut = "sluice-power-cut"

// powerCutRecord is a record's size: about that of a small message.
const powerCutRecord = 200

// powerCutBody is the record of a number: any byte of it that is wrong shows.
func powerCutBody(b []byte, n uint64) []byte {
	b = binary.LittleEndian.AppendUint64(b[:0], n)
	r := rand.New(rand.NewPCG(n, 0x736c7569))
	for len(b) < powerCutRecord {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// powerCutOptions bound the test's files: as of the journal, and small.
func powerCutOptions(onCommit func(seglog.CommitInfo)) seglog.Options {
	return seglog.Options{SegmentBytes: 4 << 20, OnCommit: onCommit}
}

// powerCutKeep is how much of the log is kept.
const powerCutKeep = 64 << 20

// syncTimes are durations of syncs.
type syncTimes []time.Duration

func (s syncTimes) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Clone(s)
	slices.Sort(sorted)
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// measureSyncs writes 4 KiB and syncs them, again and again, for d.
func measureSyncs(ctx context.Context, dir string, d time.Duration) (times syncTimes, err error) {
	name := filepath.Join(dir, "measure")
	var disk fsys.OS
	if err := disk.Remove(name); err != nil && !errors.Is(err, fsys.ErrNotExist) {
		return nil, err
	}
	f, err := disk.Create(name)
	if err != nil {
		return nil, err
	}
	defer disk.Remove(name)
	defer f.Close()
	block := make([]byte, 4096)
	for i := range 64 { // blocks that exist and are written, as a segment's
		if _, err := f.WriteAt(block, int64(i)*4096); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil && len(times) < 1<<20; {
		block[0]++
		start := time.Now()
		if _, err := f.WriteAt(block, int64(len(times)%64)*4096); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	return times, ctx.Err()
}

// medium is what the system knows of what a directory is on.
type medium struct {
	device     string // major:minor
	fileSystem string
	options    string
	rotational bool
	known      bool   // rotational is
	writeCache string // "write back", "write through", "" not known
}

// mediumOf reads /proc and /sys; what is not there is not known.
func mediumOf(dir string) (m medium) {
	var st syscall.Stat_t
	if syscall.Stat(dir, &st) != nil {
		return m
	}
	major, minor := uint64(st.Dev)>>8&0xfff|uint64(st.Dev)>>32&^0xfff, uint64(st.Dev)&0xff|uint64(st.Dev)>>12&^0xff
	m.device = fmt.Sprintf("%d:%d", major, minor)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err == nil {
		m.fileSystem, m.options = mountOf(string(mounts), m.device)
	}
	queue := filepath.Join("/sys/dev/block", m.device, "queue")
	if _, err := os.Stat(queue); err != nil { // a partition's is its disk's
		queue = filepath.Join("/sys/dev/block", m.device, "..", "queue")
	}
	if b, err := os.ReadFile(filepath.Join(queue, "rotational")); err == nil {
		m.known, m.rotational = true, strings.TrimSpace(string(b)) == "1"
	}
	if b, err := os.ReadFile(filepath.Join(queue, "write_cache")); err == nil {
		m.writeCache = strings.TrimSpace(string(b))
	}
	return m
}

// mountOf finds file system and options of a device in /proc/self/mountinfo (proc_pid_mountinfo(5)).
func mountOf(mountinfo, device string) (fileSystem, options string) {
	for line := range strings.SplitSeq(mountinfo, "\n") {
		head, tail, ok := strings.Cut(line, " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 6 || len(rest) < 3 || fields[2] != device {
			continue
		}
		fileSystem, options = rest[0], fields[5]+","+rest[2]
	}
	return fileSystem, options
}

// Bounds below which a sync cannot have reached the medium.
const (
	// Half a turn of a disk with 15,000 turns a minute is 2 ms: the median of syncs that wait for the platter is not below a quarter of that.
	leastRotational = 500 * time.Microsecond
	// The fastest flash with a cache that survives power loss takes 10 to 20 µs for a flushed 4 KiB write.
	leastFlash = 8 * time.Microsecond
)

// suspicions says what speaks against this disk before the plug is pulled.
func suspicions(m medium, median time.Duration) (list []string) {
	switch m.fileSystem {
	case "tmpfs", "ramfs":
		list = append(list, m.fileSystem+" is memory: nothing on it survives a power cut")
	case "overlay":
		list = append(list, "overlay: this is a container's own layer, not a volume; it goes with the container")
	}
	for o := range strings.SplitSeq(m.options, ",") {
		switch o {
		case "nobarrier", "barrier=0":
			list = append(list, "mounted with "+o+": the disk is never told to write down what it has in its cache")
		case "nofail_flush", "fsync_mode=nobarrier":
			list = append(list, "mounted with "+o+": syncs do not flush the disk's cache")
		}
	}
	if m.writeCache == "write through" && m.known && m.rotational && median < leastRotational {
		list = append(list, "the kernel takes the disk's cache for one that writes through, and sends it no flushes; syncs are faster than its platter turns")
	} else if m.known && m.rotational && median < leastRotational {
		list = append(list, fmt.Sprintf("a sync takes %s, and a disk that turns cannot be that fast: it, or a controller, answers before it has written", median))
	}
	if median > 0 && median < leastFlash && (!m.known || !m.rotational) && m.fileSystem != "tmpfs" && m.fileSystem != "ramfs" {
		list = append(list, fmt.Sprintf("a sync takes %s, which no disk does: something answers before it has written", median))
	}
	return list
}

// cutPower writes until ctx ends. acked is called with the last number acknowledged, a few times a second; it must not be told of
// more than is durable. It continues where an earlier run ended.
func cutPower(ctx context.Context, dir string, acked func(n uint64) error) (times syncTimes, err error) {
	var last atomic.Uint64
	log, _, err := seglog.Open(dir, powerCutOptions(func(c seglog.CommitInfo) {
		last.Store(uint64(c.Durable))
		if len(times) < 1<<20 {
			times = append(times, c.Duration)
		}
	}))
	if err != nil {
		return nil, err
	}
	last.Store(uint64(log.Durable()))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return log.Run(ctx) })
	group.Go(func() error {
		var b []byte
		for n := uint64(log.Next()); ctx.Err() == nil; n++ {
			b = powerCutBody(b, n)
			if _, err := log.Append(1, time.Now().UnixNano(), b); err != nil {
				return err
			}
			for n%16 == 0 && last.Load()+64 < n && ctx.Err() == nil { // so many are on their way, as with devices
				time.Sleep(50 * time.Microsecond)
			}
			if n%10000 == 0 {
				if err := log.TrimTo(powerCutKeep, log.Durable()); err != nil {
					return err
				}
			}
		}
		return nil
	})
	group.Go(func() error {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for told := uint64(0); ; {
			if n := last.Load(); n != told {
				told = n
				if err := acked(n); err != nil {
					return err
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
		}
	})
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return times, errors.Join(err, log.Close())
}

// verdict is what the disk kept.
type verdict struct {
	First      uint64 `json:"first"` // what the test still holds
	Last       uint64 `json:"last"`
	Acked      uint64 `json:"acked"`
	Missing    uint64 `json:"missing"` // acknowledged, and not there or not as written
	FirstBad   uint64 `json:"first_bad"`
	Torn       int64  `json:"torn_bytes"` // of what was under way; that is no fault
	Unverified bool   `json:"unverified"` // nothing was acknowledged that could be missing
}

// verifyPowerCut looks whether everything up to acked is there.
func verifyPowerCut(dir string, acked uint64) (v verdict, err error) {
	if _, err := os.Stat(dir); err != nil {
		return v, fmt.Errorf("no test was run here: %w", err)
	}
	log, rec, err := seglog.Open(dir, powerCutOptions(nil))
	if err != nil {
		return v, err
	}
	defer log.Close()
	v = verdict{First: uint64(rec.First), Last: uint64(rec.Last), Acked: acked, Torn: rec.TornBytes}
	c := log.Cursor(1)
	defer c.Close()
	bad := func(from, to uint64) {
		if to = min(to, acked); from <= to {
			if v.Missing == 0 {
				v.FirstBad = from
			}
			v.Missing += to - from + 1
		}
	}
	next := max(v.First, 1)
	var want []byte
	for {
		r, ok, err := c.TryNext()
		if err != nil {
			return v, err
		}
		if !ok {
			break
		}
		n := uint64(r.LSN)
		bad(next, n-1)
		next = n + 1
		if want = powerCutBody(want, n); string(want) != string(r.Body) {
			bad(n, n)
		}
	}
	bad(next, acked)
	return v, nil
}

// reportTo sends each number to a peer that runs selftest power-cut --listen.
func reportTo(ctx context.Context, address string) (tell func(uint64) error, closeConn func() error, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("--report: %w", err)
	}
	return func(n uint64) error {
		conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := fmt.Fprintf(conn, "%d\n", n); err != nil {
			return fmt.Errorf("--report: %w", err)
		}
		return nil
	}, conn.Close, nil
}

// listenForAcks prints what a peer reports until the connection ends, which with a power cut it does after silence of the given time.
func listenForAcks(ctx context.Context, l net.Listener, silence time.Duration, w io.Writer) (last uint64, err error) {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	conn, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	fmt.Fprintf(w, "%s reports\n", conn.RemoteAddr())
	lines := bufio.NewScanner(conn)
	for {
		conn.SetReadDeadline(time.Now().Add(silence))
		if !lines.Scan() {
			break
		}
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			return last, fmt.Errorf("%s does not report numbers: %w", conn.RemoteAddr(), err)
		}
		last = n
		fmt.Fprintf(w, "acked %d\n", n)
	}
	return last, nil
}
