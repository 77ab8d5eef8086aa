// Package acl reads mosquitto's acl_file and answers what a client may publish and read, so that a site moves over by copying
// the file. It knows no connections, reads no configuration and starts no goroutine.
//
//	topic [read|write|readwrite|deny] <topic>     before any user line: clients without a user name
//	user <name>                                   the topic lines that follow are this user's alone
//	topic ...
//	pattern [read|write|readwrite|deny] <topic>   everybody's; %u is the user name, %c the client id
//	# a comment, at the start of a line
//
// A topic may hold the wildcards + and #, and blanks where an access word stands before it. As in mosquitto 2.0, a deny wins
// over every grant of its kind, a user's own lines are asked before the patterns, what nothing grants is denied, and a topic
// that starts with $ is matched only by lines that start with $.
package acl

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

const maxFileBytes = 64 << 20

// access is a set of rights. An entry with denied set grants none.
type access byte

const (
	read access = 1 << iota
	write
	denied
)

// File is the compiled contents of one acl_file. It does not change; its methods are safe for concurrent use.
type File struct {
	users     map[string]*section
	anonymous section   // topic lines before any user line
	patterns  []pattern // those that deny first, else in the file's order
}

// section holds the topic lines of one user.
type section struct {
	tree  node
	lines []entry // the same, for subscriptions
}

type entry struct {
	topic  string
	access access
}

// LineError is one line that is not understood.
type LineError struct {
	File         string
	Line, Column int // from 1
	Msg          string
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// Load reads an acl_file. Every line that is not understood is a LineError, all joined; there is no File then.
func Load(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read acl file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return nil, fmt.Errorf("read acl file: %s is not a plain file of at most %d bytes", path, maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read acl file: %w", err)
	}
	return Parse(path, data)
}

// Allowed tells whether a client may publish to topic, or be sent what was published there. username is "" for a client
// without one. It allocates nothing.
//
// Asked about reading a filter with wildcards, it tells whether there may be a topic below it that the client may read:
// what is delivered is asked about again, topic by topic.
func (f *File) Allowed(clientID, username, topic string, toWrite bool) bool {
	want := read
	if toWrite {
		want = write
	} else if strings.IndexByte(topic, '+') >= 0 || strings.IndexByte(topic, '#') >= 0 {
		return f.maySubscribe(clientID, username, topic)
	}
	if own := f.section(username); own != nil {
		switch a := own.tree.match(topic, true); {
		case a&denied != 0:
			return false
		case a&want != 0:
			return true
		}
	}
	if len(f.patterns) == 0 {
		return false
	}
	// A name with a wildcard would turn its pattern into one for other clients' topics, too.
	if strings.ContainsAny(username, "+#") || strings.ContainsAny(clientID, "+#") {
		return false
	}
	for i := range f.patterns {
		p := &f.patterns[i]
		if p.access&(want|denied) == 0 || p.byUser && username == "" {
			continue
		}
		if p.match(clientID, username, topic) {
			return p.access&denied == 0
		}
	}
	return false
}

func (f *File) section(username string) *section {
	if username == "" {
		return &f.anonymous
	}
	return f.users[username]
}

// Live is the file in force, to be replaced while it is asked. The zero Live denies everything.
type Live struct{ file atomic.Pointer[File] }

// Store puts f in force: whatever is asked from now on is answered by it.
func (l *Live) Store(f *File) { l.file.Store(f) }

// Allowed asks the file in force.
func (l *Live) Allowed(clientID, username, topic string, toWrite bool) bool {
	f := l.file.Load()
	return f != nil && f.Allowed(clientID, username, topic, toWrite)
}
