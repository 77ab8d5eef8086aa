package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// What comes out of order the TSDB logs apart, in wbl, and puts into chunks whose numbers it logs too. Chunks wait in a buffer for their
// file. After a crash the TSDB takes those numbers that are beyond the last chunk in a file for lost, and takes their readings from the
// log; after a second crash, when the first start has written chunks with higher numbers, it believes that all are there. So before
// a start goes on, all of it becomes a block, and wbl is empty; and when that is cut short, what it added is removed before the next
// try, which finds everything as it was after the first crash:
//
//	SETTLING   number of the last file in chunks_head before the start, in decimal
const settlingName = "SETTLING"

// unsettled tells, before the TSDB is opened, whether there is something to be settled, and removes what an earlier try left; again is
// true when there was one.
func unsettled(dir string) (settle, again bool, err error) {
	flag := filepath.Join(dir, settlingName)
	if folderSize(filepath.Join(dir, "wbl")) == 0 {
		return false, false, remove(flag)
	}
	chunks := filepath.Join(dir, "chunks_head")
	entries, err := os.ReadDir(chunks)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, false, err
	}
	last := -1
	if b, err := os.ReadFile(flag); err == nil {
		if n, err := strconv.Atoi(string(b)); err == nil {
			last = n
		}
	}
	newest := 0
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if last >= 0 && n > last {
			if err := remove(filepath.Join(chunks, e.Name())); err != nil {
				return false, false, err
			}
			continue
		}
		newest = max(newest, n)
	}
	if last >= 0 {
		return true, true, nil
	}
	next := flag + ".new"
	if err := os.WriteFile(next, []byte(strconv.Itoa(newest)), 0o600); err != nil {
		return false, false, err
	}
	return true, false, os.Rename(next, flag)
}

// settled makes blocks of what came out of order before. Damaged files that make the TSDB panic are an error.
func (s *store) settled() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("damaged files: %v", p)
		}
	}()
	if err := s.db.CompactOOOHead(context.Background()); err != nil {
		return fmt.Errorf("compact what came out of order: %w", err)
	}
	return remove(filepath.Join(s.dir, settlingName))
}

// remove deletes a file that may not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
