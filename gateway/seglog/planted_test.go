package seglog

import (
	"fmt"
	"testing"

	"sluice/gateway/seglog/fsys"
	"sluice/gateway/seglog/fsys/simfs"
)

// noSyncDir loses directory syncs, lyingSync acknowledges before the disk has the data, retrySync asks again until fsync
// says yes, and noSyncFirst forgets the first sync of every file.
type (
	noSyncDir struct{ fsys.FS }
	lyingSync struct{ fsys.FS }
	retrySync struct{ fsys.FS }
	lyingFile struct{ fsys.File }
	retryFile struct{ fsys.File }
)

func (noSyncDir) SyncDir(string) error { return nil }

func (p lyingSync) Open(n string) (fsys.File, error) {
	f, err := p.FS.Open(n)
	return lyingFile{f}, err
}
func (p lyingSync) Create(n string) (fsys.File, error) {
	f, err := p.FS.Create(n)
	return lyingFile{f}, err
}
func (lyingFile) Sync() error { return nil }

func (p retrySync) Open(n string) (fsys.File, error) {
	f, err := p.FS.Open(n)
	return retryFile{f}, err
}
func (p retrySync) Create(n string) (fsys.File, error) {
	f, err := p.FS.Create(n)
	return retryFile{f}, err
}
func (f retryFile) Sync() error {
	if err := f.File.Sync(); err == nil {
		return nil
	}
	return f.File.Sync()
}

// A test that cannot fail is worth nothing: each of these defects must be found.
func TestCrashTests_FindPlantedDefects(t *testing.T) {
	crash := func(plant func(fsys.FS) fsys.FS) error {
		k := countOps(t, false)
		for n := 1; n <= k; n++ {
			for _, p := range append([]simfs.Policy{simfs.Kill}, simfs.Policies...) {
				for seed := range uint64(4) {
					if err := crashRun(n, p, seed, false, plant); err != nil {
						return fmt.Errorf("crash before %d, %s: %w", n, p, err)
					}
				}
			}
		}
		return nil
	}
	fault := func(plant func(fsys.FS) fsys.FS) error {
		k := countOps(t, false)
		for n := 1; n <= k; n++ {
			for _, p := range []simfs.Policy{simfs.DropAll, simfs.Random} {
				if err := faultRun(n, simfs.FailedSync, p, 0, false, plant); err != nil {
					return fmt.Errorf("fault at %d, %s: %w", n, p, err)
				}
			}
		}
		return nil
	}
	deathAfterFault := func(func(fsys.FS) fsys.FS) error { return killAfterFault(false, nil) }
	flips := func(func(fsys.FS) fsys.FS) error { return flipRun(1, nil) }
	none := func(fs fsys.FS) fsys.FS { return fs }
	for _, test := range []struct {
		name  string
		set   *bool
		plant func(fsys.FS) fsys.FS
		find  func(func(fsys.FS) fsys.FS) error
	}{
		{"directory is not synced", nil, func(fs fsys.FS) fsys.FS { return noSyncDir{fs} }, crash},
		{"acknowledged before the sync", nil, func(fs fsys.FS) fsys.FS { return lyingSync{fs} }, crash},
		{"failed sync is retried", nil, func(fs fsys.FS) fsys.FS { return retrySync{fs} }, fault},
		{"failed segment is used again", &planted.noSeal, none, fault},
		{"new segment is named before it is synced", &planted.renameFirst, none, crash},
		{"opening does not write the last group again", &planted.noSettle, none, deathAfterFault},
		{"torn group is continued without a look behind", &planted.noResync, none, crash},
		{"checksum without LSN", &planted.crcWithoutLSN, none, flips},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.set != nil {
				*test.set = true
				defer func() { *test.set = false }()
			}
			if err := test.find(test.plant); err == nil {
				t.Fatal("not found")
			} else {
				t.Log("found: ", err)
			}
		})
	}
}
