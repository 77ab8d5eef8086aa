package acl

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse is Load for the bytes of a file; name serves messages.
func Parse(name string, data []byte) (*File, error) {
	p := parser{file: &File{users: map[string]*section{}}}
	var errs []error
	line := 0
	for raw := range strings.Lines(string(data)) {
		line++
		if column, msg := p.line(raw); msg != "" {
			errs = append(errs, &LineError{name, line, column, msg})
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p.file.patterns = append(p.denying, p.granting...)
	return p.file, nil
}

type parser struct {
	file              *File
	section           *section // of the last user line; nil: before any
	denying, granting []pattern
}

// line takes one line; a message other than "" says what is wrong at column.
func (p *parser) line(raw string) (column int, msg string) {
	text := strings.TrimRight(raw, " \t\r\n\v\f")
	if text == "" || text[0] == '#' {
		return 0, ""
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		if text[i] == '\t' {
			return i + 1, "want blanks between words, found a tab"
		}
		return i + 1, fmt.Sprintf("control character %#x", text[i])
	}
	if !utf8.ValidString(text) {
		return 1, "the line is not UTF-8"
	}
	keyword, rest := word(text)
	at := len(text) - len(rest) + 1
	switch keyword {
	case "user":
		if rest == "" {
			return at, "want a name after user"
		}
		p.section = p.file.users[rest]
		if p.section == nil {
			p.section = &section{}
			p.file.users[rest] = p.section
		}
		return 0, ""
	case "topic", "pattern":
	default:
		return len(text) - len(strings.TrimLeft(text, " ")) + 1, fmt.Sprintf("want user, topic, pattern or #, found %q", keyword)
	}
	if rest == "" {
		return at, "want a topic after " + keyword
	}
	a, topic := read|write, rest
	if first, after := word(rest); after != "" {
		switch first {
		case "read":
			a = read
		case "write":
			a = write
		case "readwrite":
		case "deny":
			a = denied
		default:
			return at, fmt.Sprintf("want read, write, readwrite or deny before a topic with blanks, found %q", first)
		}
		topic = after
	}
	at = len(text) - len(topic) + 1
	if i, what := filterFault(topic); what != "" {
		return at + i, what
	}
	switch {
	case keyword == "pattern" && a == denied:
		p.denying = append(p.denying, compile(topic, a))
	case keyword == "pattern":
		p.granting = append(p.granting, compile(topic, a))
	case p.section != nil:
		p.section.add(topic, a)
	default:
		p.file.anonymous.add(topic, a)
	}
	return 0, ""
}

func (s *section) add(topic string, a access) {
	s.tree.add(topic, a)
	s.lines = append(s.lines, entry{topic, a})
}

// word splits off the first word; blanks before it and after it go.
func word(s string) (first, rest string) {
	first, rest, _ = strings.Cut(strings.TrimLeft(s, " "), " ")
	return first, strings.TrimLeft(rest, " ")
}

// filterFault says what keeps topic from being a topic filter, and where.
func filterFault(topic string) (at int, what string) {
	if len(topic) > 65535 {
		return 65535, "a topic has at most 65535 bytes"
	}
	for i, r := range topic {
		if r != '#' && r != '+' {
			continue
		}
		if i > 0 && topic[i-1] != '/' || i+1 < len(topic) && topic[i+1] != '/' {
			return i, fmt.Sprintf("%c stands for whole levels: want it between slashes", r)
		}
		if r == '#' && i+1 < len(topic) {
			return i, "# comes last"
		}
	}
	return 0, ""
}
