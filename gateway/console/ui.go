package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// The dashboard is in ui/dist once make has built it; ui/dist.txt stands for it in a checkout without Node, which compiles all the same.
//
//go:embed ui/dist*
var uiFiles embed.FS

// uiBuilt tells whether this binary holds the dashboard.
func uiBuilt() bool { return dashboard()["index.html"] != nil }

// uiFile is one file of the dashboard, in the forms in which it may be sent.
type uiFile struct {
	contentType string
	tag         string // of its content, the same for each form: it is only ever sent as a weak one
	raw         []byte
	gzip        []byte // nil: not worth it
	brotli      []byte
}

// dashboard is the dashboard's files by their path below ui/dist. It is empty where it was not built.
var dashboard = sync.OnceValue(func() map[string]*uiFile {
	files := map[string]*uiFile{}
	root, err := fs.Sub(uiFiles, "ui/dist")
	if err != nil {
		return files
	}
	// A walk of a folder that is not there fails on its root, which is what "not built" looks like.
	_ = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		base, form := name, path.Ext(name)
		if form == ".gz" || form == ".br" {
			base = strings.TrimSuffix(name, form)
		}
		f := files[base]
		if f == nil {
			f = &uiFile{contentType: contentTypeOf(base)}
			files[base] = f
		}
		switch form {
		case ".gz":
			f.gzip = b
		case ".br":
			f.brotli = b
		default:
			sum := sha256.Sum256(b)
			f.raw, f.tag = b, `W/"`+hex.EncodeToString(sum[:8])+`"`
		}
		return nil
	})
	return files
})

// contentTypeOf knows the few kinds there are; the machine's own table may say anything.
func contentTypeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	if t := mime.TypeByExtension(path.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// home is the dashboard, or the plain page where it was not built.
func (s *site) home(w http.ResponseWriter, r *http.Request) {
	f := dashboard()["index.html"]
	if f == nil {
		s.plain(w, r)
		return
	}
	f.send(w, r, "no-cache")
}

// asset is a file of the dashboard whose name changes with its content.
func (s *site) asset(w http.ResponseWriter, r *http.Request) {
	f := dashboard()["assets/"+r.PathValue("name")]
	if f == nil || f.raw == nil {
		problem(w, http.StatusNotFound, "there is nothing at this path")
		return
	}
	f.send(w, r, "public, max-age=31536000, immutable")
}

// send answers in the smallest form the browser takes.
func (f *uiFile) send(w http.ResponseWriter, r *http.Request, cache string) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", cache)
	h.Set("Etag", f.tag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), strings.TrimPrefix(f.tag, "W/")) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	b := f.raw
	switch accepted := r.Header.Values("Accept-Encoding"); {
	case f.brotli != nil && accepts(accepted, "br"):
		b = f.brotli
		h.Set("Content-Encoding", "br")
	case f.gzip != nil && accepts(accepted, "gzip"):
		b = f.gzip
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

// accepts tells whether Accept-Encoding (RFC 9110, section 12.5.3) names a coding, and not to refuse it. "*" is not read as a yes:
// who means a coding names it.
func accepts(header []string, coding string) bool {
	for _, line := range header {
		for item := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(item, ";")
			if !strings.EqualFold(strings.TrimSpace(name), coding) {
				continue
			}
			key, q, found := strings.Cut(strings.TrimSpace(params), "=")
			if !found || !strings.EqualFold(strings.TrimSpace(key), "q") {
				return true
			}
			weight, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
			return err == nil && weight > 0
		}
	}
	return false
}

// What page/index.html says about the dashboard where it is not built, and what stands there where it is.
const (
	unbuiltNote = `<p id="unbuilt" class="notice">The dashboard is not in this binary: <code>make build</code> on a machine with npm (Node 20.19 or later) puts it in. This plain page shows the same figures.</p>`
	builtNote   = `<p class="quiet">This is the plain status page. <a href="/">The dashboard</a> shows more.</p>`
)

var plainPage = sync.OnceValue(func() *uiFile {
	b, err := fs.ReadFile(assets, "page/index.html")
	if err != nil || !bytes.Contains(b, []byte(unbuiltNote)) {
		panic("console: page/index.html is not what it was") // a file missing from the build
	}
	if uiBuilt() {
		b = bytes.Replace(b, []byte(unbuiltNote), []byte(builtNote), 1)
	}
	sum := sha256.Sum256(b)
	return &uiFile{contentType: "text/html; charset=utf-8", tag: `W/"` + hex.EncodeToString(sum[:8]) + `"`, raw: b}
})

// plain is the status page that needs no build.
func (s *site) plain(w http.ResponseWriter, r *http.Request) { plainPage().send(w, r, "no-cache") }
