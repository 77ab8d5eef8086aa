package acl

import "strings"

// maySubscribe refuses a filter that a deny covers whole, or that meets no line that grants reading.
func (f *File) maySubscribe(clientID, username, filter string) bool {
	granted := false
	if own := f.section(username); own != nil {
		for _, e := range own.lines {
			switch {
			case e.access&denied != 0 && covers(e.topic, filter):
				return false
			case e.access&read != 0 && overlaps(e.topic, filter):
				granted = true
			}
		}
	}
	if granted {
		return true
	}
	if strings.ContainsAny(username, "+#") || strings.ContainsAny(clientID, "+#") {
		return false
	}
	for i := range f.patterns {
		p := &f.patterns[i]
		if p.byUser && username == "" {
			continue
		}
		switch topic := p.expand(clientID, username); {
		case p.access&denied != 0 && covers(topic, filter):
			return false
		case p.access&read != 0 && overlaps(topic, filter):
			return true
		}
	}
	return false
}

// expand puts names in their places.
func (p *pattern) expand(clientID, username string) string {
	var b strings.Builder
	for _, part := range p.parts {
		b.WriteString(part.text)
		switch part.kind {
		case 'u':
			b.WriteString(username)
		case 'c':
			b.WriteString(clientID)
		}
	}
	return b.String()
}

// overlaps tells whether some topic matches both filters.
func overlaps(a, b string) bool {
	if strings.HasPrefix(a, "$") != strings.HasPrefix(b, "$") {
		return false
	}
	for {
		la, restA, moreA := strings.Cut(a, "/")
		lb, restB, moreB := strings.Cut(b, "/")
		switch {
		case la == "#" || lb == "#":
			return true
		case la != lb && la != "+" && lb != "+":
			return false
		case !moreA || !moreB:
			return moreA == moreB || restA == "#" || restB == "#"
		}
		a, b = restA, restB
	}
}

// covers tells whether every topic that matches filter matches line, too.
func covers(line, filter string) bool {
	if strings.HasPrefix(line, "$") != strings.HasPrefix(filter, "$") {
		return false
	}
	for {
		l, restL, moreL := strings.Cut(line, "/")
		f, restF, moreF := strings.Cut(filter, "/")
		switch {
		case l == "#":
			return true
		case f == "#" || l != f && l != "+":
			return false
		case !moreF:
			return !moreL || restL == "#"
		case !moreL:
			return false
		}
		line, filter = restL, restF
	}
}
