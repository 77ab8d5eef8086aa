package broker

import (
	"bytes"
	"encoding/binary"
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// identify returns the user name the client has proved, "" for an anonymous one.
func (b *Broker) identify(c *conn, pk *packets.Packet) (user string, r loginResult) {
	switch {
	case c.certUser != "":
		c.mu.Lock()
		c.proved = c.certUser
		c.mu.Unlock()
		if c.certificate != nil && c.certificate.revoked() { // since the handshake
			return "", loginWrong
		}
		return c.certUser, loginRight
	case !pk.Connect.UsernameFlag || b.logins == nil:
		if b.cfg.AllowAnonymous || c.local && b.logins == nil {
			return "", loginRight
		}
		return "", loginWrong
	}
	user = string(pk.Connect.Username)
	for range 3 {
		var generation uint64
		c.waiting(func() {
			r, generation = b.logins.check(c.address, user, pk.Connect.Password, b.now(), b.limits.ConnectTimeout)
		})
		switch r {
		case loginRight:
			b.count.loginsHashed.Add(1)
		case loginRemembered:
			b.count.loginsRemembered.Add(1)
		default:
			return "", r
		}
		c.mu.Lock()
		c.proved = user
		c.mu.Unlock()
		// Either Reload sees proved, or this sees that the users changed meanwhile.
		if b.logins.current(generation) {
			return user, r
		}
	}
	return "", loginBusy
}

// hasUsers tells whether user names prove anything.
func (b *Broker) hasUsers() bool { return b.logins != nil }

// mayHaveSession keeps a session with who it belongs to, and from going to and fro between two clients of one id.
func (b *Broker) mayHaveSession(c *conn, cl *mqtt.Client) bool {
	was, ok := b.server.Clients.Get(cl.ID)
	if !ok {
		if n := b.limits.Sessions; n >= 0 && b.server.Clients.Len() >= n {
			b.count.tooManySessions.Add(1)
			return b.refuse(cl, packets.ErrQuotaExceeded, packets.Err3ServerUnavailable)
		}
		return true
	}
	if !bytes.Equal(was.Properties.Username, cl.Properties.Username) {
		// Another user's session: to take it over would be to read what waits there.
		b.count.authFailures.Add(1)
		return b.refuse(cl, packets.ErrClientIdentifierNotValid, packets.Err3ClientIdentifierNotValid)
	}
	other := connOf(was)
	if other == nil || b.limits.Takeovers < 0 {
		return true
	}
	other.mu.Lock()
	alive := !other.closing
	if other.takeovers.last == 0 {
		other.takeovers = allowance{tokens: float64(b.limits.Takeovers), last: b.now()}
	}
	ok = !alive || other.takeovers.spend(b.now(), b.limits.Takeovers)
	left := other.takeovers
	other.mu.Unlock()
	if !ok {
		if b.count.takeoversRefused.Add(1) == 1 {
			b.log.Warn("two clients fight for one id; who has the session keeps it, further cases are only counted",
				"client", cl.ID, "address", c.address, "held_by", other.address)
		}
		return b.refuse(cl, packets.ErrConnectionRateExceeded, packets.Err3ServerUnavailable)
	}
	c.mu.Lock()
	c.takeovers = left
	c.mu.Unlock()
	return true
}

// mayHaveWill refuses a will on what is no topic. Whether the client may publish there is asked when the will is due, as
// mosquitto does: a device with too few rights is served.
func (b *Broker) mayHaveWill(cl *mqtt.Client, pk *packets.Packet) bool {
	if pk.Connect.WillFlag && (!plainTopic(pk.Connect.WillTopic) || !b.topicFits(pk.Connect.WillTopic)) {
		return b.refuse(cl, packets.ErrTopicNameInvalid, packets.Err3NotAuthorized)
	}
	return true
}

// Reload puts new users, rights and certificates in force. Passwords verified before are asked about again at the next
// login. A client stays connected while keep, which is given its user name, says so and no revocation list names its
// certificate; keep nil: all may stay. What is wrong with certificates is returned; those before stay in force then.
func (b *Broker) Reload(keep func(username string) bool) (err error) {
	if b.logins != nil {
		b.logins.changed()
	}
	for _, l := range b.listeners {
		if l.tls != nil {
			if e := b.refreshTLS(l, true); err == nil {
				err = e
			}
		}
	}
	for _, c := range b.all() {
		c.mu.Lock()
		user := c.proved
		c.mu.Unlock()
		// What the handshake found out was set before proved was; an anonymous client has neither.
		byCertificate := user != "" && c.certUser != ""
		if byCertificate && c.certificate != nil && c.certificate.revoked() || !byCertificate && user != "" && keep != nil && !keep(user) {
			b.count.revoked.Add(1)
			_ = c.disconnect(reasonNotAuthorized)
		}
	}
	return err
}

// topicFits tells whether a topic or a filter is within Limits.
func (b *Broker) topicFits(topic string) bool {
	return len(topic) <= b.limits.TopicBytes && strings.Count(topic, "/") < b.limits.TopicLevels
}

// topicFits looks at the topic in a PUBLISH's body; one that is cut is left to others.
func (c *conn) topicFits(body []byte) bool {
	if len(body) < 2 {
		return true
	}
	n := int(binary.BigEndian.Uint16(body))
	if n > c.b.limits.TopicBytes {
		return false
	}
	// Fewer bytes than levels are allowed need no count.
	return n < c.b.limits.TopicLevels || n > len(body)-2 || bytes.Count(body[2:2+n], []byte{'/'}) < c.b.limits.TopicLevels
}
