package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A copy that root restores for a service is the service's, to the last file: one that it cannot open keeps it from starting.
func TestRestore_ByRootGivesEverythingToTheDirectorysOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	const service = 54321
	dir := t.TempDir()
	if err := os.Chown(dir, service, service); err != nil {
		t.Fatal(err)
	}
	meta := `{"format":1,"instance":"00112233445566778899aabbccddeeff","gateway":"plant-7"}`
	for _, force := range []bool{false, true} {
		if _, _, err := restore(bytes.NewReader(archiveOf(t, "META", meta, "state/checkpoint.a", "x")), dir, force); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid != service || st.Gid != service {
			t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, service, service)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
