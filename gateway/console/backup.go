package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// Copier is what a Gateway offers that can copy its data directory while it runs.
type Copier interface {
	// Backup writes a tar archive to w. It may be called by one at a time: ErrBusy. ErrInvalid.
	Backup(ctx context.Context, w io.Writer, withHistory bool) error
	// BackupName is what the archive of now is called.
	BackupName() string
}

func hasCopier(s *site) bool { return s.copier != nil }

// backupStall is how long the client may take no byte of an archive.
const backupStall = time.Minute

func (s *site) backup(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	withHistory := q.oneOf("history", "", "true", "false") == "true"
	if !q.ok(w) || !s.audited(w, r, "backup", "") {
		return
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "application/x-tar")
		return
	}
	out := &archiveWriter{w: w, c: http.NewResponseController(w), name: s.copier.BackupName()}
	err := s.copier.Backup(r.Context(), out, withHistory)
	switch {
	case err == nil:
	case !out.begun:
		s.fail(w, err)
	default:
		// The archive ends without its manifest, and the connection without its last chunk: nobody takes it for whole.
		if !errors.Is(err, context.Canceled) {
			s.log.Error("backup cut short", "err", err)
		}
		panic(http.ErrAbortHandler)
	}
}

// archiveWriter begins the answer with the first byte, and lets it take as long as the client keeps reading.
type archiveWriter struct {
	w     http.ResponseWriter
	c     *http.ResponseController
	name  string
	begun bool
}

func (a *archiveWriter) Write(b []byte) (int, error) {
	if !a.begun {
		a.begun = true
		h := a.w.Header()
		h.Set("Content-Type", "application/x-tar")
		h.Set("Content-Disposition", `attachment; filename="`+a.name+`"`)
		h.Set("Cache-Control", "no-store")
	}
	if err := a.c.SetWriteDeadline(time.Now().Add(backupStall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return a.w.Write(b)
}
