package acl

import "strings"

// node is one level of the topic lines of one user, merged into a tree.
type node struct {
	below map[string]*node // by level; nil: none
	plus  *node            // +
	here  access           // lines that end here
	rest  access           // lines that end in # below here
}

func (n *node) add(topic string, a access) {
	for level := range strings.SplitSeq(topic, "/") {
		switch level {
		case "#":
			n.rest |= a
			return
		case "+":
			if n.plus == nil {
				n.plus = &node{}
			}
			n = n.plus
		default:
			next := n.below[level]
			if next == nil {
				next = &node{}
				if n.below == nil {
					n.below = map[string]*node{}
				}
				n.below[level] = next
			}
			n = next
		}
	}
	n.here |= a
}

// match is the union of all lines that match topic, which is matched level by level; at the first, wildcards do not match $.
func (n *node) match(topic string, first bool) access {
	level, rest, more := strings.Cut(topic, "/")
	wild := !first || topic == "" || topic[0] != '$'
	var a access
	if wild {
		a = n.rest
	}
	for next, i := n.below[level], 0; i < 2; next, i = n.plus, i+1 {
		if next == nil || i == 1 && !wild {
			continue
		}
		if more {
			a |= next.match(rest, false)
		} else {
			a |= next.here | next.rest // a/# matches a, too
		}
	}
	return a
}

// pattern is one pattern line.
type pattern struct {
	parts  []part
	access access
	byUser bool // has %u
}

// part is a piece of a pattern: text, then a name when kind is not 0.
type part struct {
	text string
	kind byte // 'u', 'c' or 0
}

func compile(topic string, a access) pattern {
	p := pattern{access: a}
	for from := 0; ; {
		i := from
		for i < len(topic) && !(topic[i] == '%' && i+1 < len(topic) && (topic[i+1] == 'u' || topic[i+1] == 'c')) {
			i++
		}
		if i == len(topic) {
			p.parts = append(p.parts, part{text: topic[from:]})
			return p
		}
		p.parts = append(p.parts, part{topic[from:i], topic[i+1]})
		p.byUser = p.byUser || topic[i+1] == 'u'
		from = i + 2
	}
}

// match matches topic with the pattern once names stand in it. Names hold no wildcards.
func (p *pattern) match(clientID, username, topic string) bool {
	c := cursor{parts: p.parts, id: clientID, user: username}
	b, ok := c.next()
	if !ok || topic == "" || (b == '$') != (topic[0] == '$') {
		return false
	}
	for i := 0; ; {
		// b, if ok, is the pattern's byte that meets topic[i].
		switch {
		case !ok:
			return i == len(topic)
		case b == '#' && c.wildcard:
			return true
		case b == '+' && c.wildcard:
			for i < len(topic) && topic[i] != '/' {
				i++
			}
		case i < len(topic) && topic[i] == b:
			i++
		case i == len(topic) && b == '/':
			// What is left of the pattern may be /#, which matches the level above, too.
			b, ok = c.next()
			return ok && b == '#' && c.wildcard
		default:
			return false
		}
		b, ok = c.next()
	}
}

// cursor walks over a pattern byte by byte, names in their places.
type cursor struct {
	parts    []part
	id, user string
	part, at int
	inName   bool
	wildcard bool // the last byte was the pattern's own, not a name's
}

func (c *cursor) next() (b byte, ok bool) {
	for c.part < len(c.parts) {
		p := &c.parts[c.part]
		if !c.inName {
			if c.at < len(p.text) {
				c.at++
				c.wildcard = true
				return p.text[c.at-1], true
			}
			c.inName, c.at = true, 0
		}
		name := ""
		switch p.kind {
		case 'u':
			name = c.user
		case 'c':
			name = c.id
		}
		if c.at < len(name) {
			c.at++
			c.wildcard = false
			return name[c.at-1], true
		}
		c.inName, c.at = false, 0
		c.part++
	}
	return 0, false
}
