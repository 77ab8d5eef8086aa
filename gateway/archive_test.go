package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog"
)

// archiveOf makes an archive of files, as pairs of name and text.
func archiveOf(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	a := newArchiver(&b, time.Now())
	for i := 0; i < len(files); i += 2 {
		if err := a.addBytes(files[i], []byte(files[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestArchive_WhatIsNotWholeIsRefused(t *testing.T) {
	good := archiveOf(t, "META", "{}", "journal/1.seg", strings.Repeat("x", 3000))
	if _, err := readArchive(bytes.NewReader(good), nil); err != nil {
		t.Fatalf("a whole archive: %v", err)
	}
	for n := 0; n <= bytes.LastIndexByte(good, '}'); n += 97 { // what follows is padding
		if _, err := readArchive(bytes.NewReader(good[:n]), nil); err == nil {
			t.Fatalf("cut at %d of %d: not noticed", n, len(good))
		}
	}
	at := bytes.Index(good, []byte("xxxx"))
	bad := bytes.Clone(good)
	bad[at+100] ^= 1
	if _, err := readArchive(bytes.NewReader(bad), nil); !errors.Is(err, errArchive) || !strings.Contains(err.Error(), "journal/1.seg is damaged") {
		t.Errorf("a bit that flipped: %v", err)
	}
	if _, err := readArchive(bytes.NewReader(archiveOf(t, "journal/1.seg", "x")), nil); !errors.Is(err, errArchive) {
		t.Errorf("without META: %v", err)
	}
}

func TestArchive_NamesThatLeadElsewhereAreRefused(t *testing.T) {
	for _, name := range []string{"../META", "/etc/passwd", "journal/../../x", "journal/./x", "LOCK", "else/x", "journal\\x", "", "META/x", "sluice.sock", "restore.tmp/x"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1, Mode: 0o600})
		w.Write([]byte("x"))
		w.Close()
		dir := t.TempDir()
		if _, _, err := restore(&b, dir, false); !errors.Is(err, errArchive) {
			t.Errorf("%q: %v", name, err)
		}
		if there, err := contents(dir); err != nil || len(there) > 0 {
			t.Errorf("%q left %v behind, %v", name, there, err)
		}
	}
	for _, typ := range []byte{tar.TypeSymlink, tar.TypeDir, tar.TypeLink, tar.TypeFifo} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Typeflag: typ, Name: "journal", Linkname: "/etc", Mode: 0o600})
		w.Close()
		if _, _, err := restore(&b, t.TempDir(), false); !errors.Is(err, errArchive) {
			t.Errorf("entry of type %q: %v", typ, err)
		}
	}
}

// A copy has an instance of its own for records to come, and keeps that of the records it was restored with.
func TestRestore_CopyTellsWhatItWasRestoredWithFromWhatFollows(t *testing.T) {
	from := t.TempDir()
	j, _, err := seglog.Open(filepath.Join(from, "journal"), seglog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := j.Append(2, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(from, "plant-7")
	if err != nil {
		t.Fatal(err)
	}
	original := d.meta
	d.Close()
	var archive bytes.Buffer
	m, err := backupOffline(t.Context(), &archive, from, false)
	if err != nil || m.Journal != 5 {
		t.Fatalf("backup: %+v, %v", m, err)
	}
	again := archive.Bytes()
	to := t.TempDir()
	if _, _, err := restore(&archive, to, false); err != nil {
		t.Fatal(err)
	}
	if d, err = openDataDir(to, "plant-7"); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.meta.instanceOf(5); got != original.Instance {
		t.Errorf("record 5 has instance %s, want the original's %s", got, original.Instance)
	}
	if got := d.meta.instanceOf(6); got == original.Instance || got != d.meta.Instance {
		t.Errorf("record 6 has instance %s, want one of the copy's own", got)
	}
	if _, _, err := restore(bytes.NewReader(again), to, true); !errors.Is(err, seglog.ErrLocked) {
		t.Errorf("into a directory in use: %v", err)
	}
}

func TestRestore_OneThatWasNotFinishedKeepsTheGatewayFromStarting(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, restoring), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir, "a"); err == nil || !strings.Contains(err.Error(), "sluice restore --force") {
		t.Errorf("openDataDir = %v", err)
	}
}

func FuzzReadArchive(f *testing.F) {
	var b bytes.Buffer
	a := newArchiver(&b, time.Unix(1e9, 0))
	a.addBytes("META", []byte("{}"))
	a.close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := readArchive(bytes.NewReader(raw), func(name string, _ io.Reader) error {
			if !safeName(name) {
				t.Errorf("passed %q on", name)
			}
			return nil
		})
		if err == nil && m == nil {
			t.Error("no manifest and no error")
		}
	})
}

func TestPowerCut_EveryAcknowledgedRecordThatIsMissingOrDamagedIsCounted(t *testing.T) {
	dir := t.TempDir()
	l, _, err := seglog.Open(dir, powerCutOptions(nil))
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for n := uint64(1); n <= 100; n++ {
		b = powerCutBody(b, n)
		if n == 40 {
			b[30] ^= 1
		}
		if _, err := l.Append(1, 1, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ acked, missing, first uint64 }{{39, 0, 0}, {40, 1, 40}, {100, 1, 40}, {130, 31, 40}} {
		v, err := verifyPowerCut(dir, tt.acked)
		if err != nil || v.Missing != tt.missing || v.FirstBad != tt.first || v.Last != 100 {
			t.Errorf("acked %d: %+v, %v; want %d missing from %d on", tt.acked, v, err, tt.missing, tt.first)
		}
	}
}

func TestPowerCut_SaysWhatLooksWrongBeforeThePlugIsPulled(t *testing.T) {
	for _, tt := range []struct {
		m      medium
		median time.Duration
		want   string
	}{
		{medium{fileSystem: "ext4", options: "rw,relatime", known: true, rotational: true, writeCache: "write back"}, 9 * time.Millisecond, ""},
		{medium{fileSystem: "ext4", options: "rw", known: true}, 40 * time.Microsecond, ""},
		{medium{fileSystem: "ext4", options: "rw"}, 2 * time.Millisecond, ""},
		{medium{fileSystem: "tmpfs", options: "rw"}, time.Microsecond, "memory"},
		{medium{fileSystem: "ext4", options: "rw,relatime,nobarrier", known: true}, time.Millisecond, "nobarrier"},
		{medium{fileSystem: "ext4", options: "rw,barrier=0"}, time.Millisecond, "barrier=0"},
		{medium{fileSystem: "ext4", options: "rw", known: true, rotational: true}, 100 * time.Microsecond, "cannot be that fast"},
		{medium{fileSystem: "ext4", options: "rw", known: true, rotational: true, writeCache: "write through"}, 100 * time.Microsecond, "no flushes"},
		{medium{fileSystem: "xfs", options: "rw", known: true}, 2 * time.Microsecond, "no disk does"},
	} {
		got := strings.Join(suspicions(tt.m, tt.median), "; ")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%+v, %v: %q, want %q", tt.m, tt.median, got, tt.want)
		}
	}
	info := "22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,nobarrier\nbroken\n"
	if fs, o := mountOf(info, "259:2"); fs != "ext4" || o != "rw,relatime,rw,nobarrier" {
		t.Errorf("mountOf = %q, %q", fs, o)
	}
	if fs, _ := mountOf(info, "8:1"); fs != "" {
		t.Errorf("mountOf of a device that is not mounted = %q", fs)
	}
}

func TestMeta_WithoutEarlierReadsAsBefore(t *testing.T) {
	var m meta
	if err := json.Unmarshal([]byte(`{"format":1,"instance":"x","gateway":"a"}`), &m); err != nil || m.instanceOf(7) != "x" {
		t.Errorf("%+v, %v", m, err)
	}
}
