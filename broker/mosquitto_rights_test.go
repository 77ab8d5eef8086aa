package broker

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sluice/broker/acl"
	"sluice/broker/passwd"
)

// siteACL is the acl_file of the site that moves over. "watch" and "boss" are the test's own.
const siteACL = `# general section: clients without a name
topic read public/#
topic write inbox/+
topic deny public/hidden

user watch
topic read #
topic read $x/#
user boss
topic readwrite #
topic readwrite $x/#

user ann
topic cmd/ann/#
topic read plant/+/state
topic write plant/+/set
topic deny cmd/ann/secret
topic readwrite with some blanks/#
topic write $x/open
topic deny devices/ann/locked

user ben
topic readwrite all/#
topic deny all/+/not
topic write only/written
topic read only/read

user cat/dog
topic read nothing/much

pattern readwrite devices/%u/#
pattern write clients/%c/up
pattern read clients/%c/down
pattern deny devices/%u/firmware
pattern write mixed/%c-%u/x
pattern readwrite end
`

var siteUsers = map[string]string{"watch": "w", "boss": "b", "ann": "pw-ann", "ben": "pw with blanks", "cat/dog": "ü€", "+": "plus"}

// who is a client of the table: a user name, "" for none, and a client id.
type who struct{ user, id string }

var siteClients = []who{{"", "a1"}, {"ann", "c1"}, {"ann", "c#2"}, {"ben", "c3"}, {"cat/dog", "c4"}, {"+", "c5"}}

var siteTopics = []string{
	"public", "public/a", "public/a/b", "public/hidden", "public/hidden/x", "inbox/a", "inbox/a/b", "inbox/",
	"cmd/ann", "cmd/ann/x", "cmd/ann/secret", "cmd/ann/secret/x", "cmd/ben/x",
	"plant/1/state", "plant//state", "plant/1/set", "plant/1/2/set",
	"with some blanks/x", "with some", "$x/open", "$x/closed",
	"devices/ann/t", "devices/ann", "devices/ann/firmware", "devices/ann/firmware/1", "devices/ann/locked", "devices/ben/t",
	"devices/cat/dog/t", "devices/cat/dog/firmware", "devices/x/t",
	"all/a", "all/a/not", "all/a/b/not", "only/written", "only/read", "nothing/much",
	"clients/c1/up", "clients/c1/down", "clients/c3/up", "clients/c4/down", "clients/a1/up", "clients/a1/down",
	"mixed/c1-ann/x", "mixed/c1-ben/x", "mixed/c3-ben/x", "end", "unheard/of",
}

// site is a broker under test with the site's two files.
type site struct {
	name, address string
}

func (s site) connect(t *testing.T, w who, willTopic string) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
	str := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	flags, payload := byte(2), str(w.id)
	if willTopic != "" {
		flags |= 4
		payload += str(willTopic) + str("will of "+w.id)
	}
	if w.user != "" {
		flags |= 0xC0
		payload += str(w.user) + str(siteUsers[w.user])
	}
	body := "\x00\x04MQTT\x04" + string([]byte{flags}) + "\x00\x3C" + payload
	c.write(append([]byte{0x10, byte(len(body))}, body...))
	if p := c.expectKind(typeConnack); p[3] != 0 {
		t.Fatalf("%s: CONNACK %d for %+v", s.name, p[3], w)
	}
	return c
}

func (c *rawClient) subscribe(filters ...string) []byte {
	c.t.Helper()
	body := []byte{0, 1}
	for _, f := range filters {
		body = append(append(append(body, byte(len(f)>>8), byte(len(f))), f...), 0)
	}
	c.write(append([]byte{0x82, byte(len(body))}, body...))
	return c.expectKind(9)[4:]
}

// until reads publishes up to the one on topic end and returns the payloads before it.
func (c *rawClient) until(payload string) (seen []string) {
	c.t.Helper()
	for {
		p, err := c.packet(5 * time.Second)
		if err != nil {
			c.t.Fatalf("waiting for %s: %v after %q", payload, err, seen)
		}
		if p[0]>>4 != typePublish {
			continue
		}
		n := int(p[2])<<8 | int(p[3])
		if string(p[4+n:]) == payload {
			return seen
		}
		seen = append(seen, string(p[4+n:]))
	}
}

func (c *rawClient) ping() {
	c.t.Helper()
	c.send("C0 00")
	for {
		if p, err := c.packet(5 * time.Second); err != nil {
			c.t.Fatal(err)
		} else if p[0] == 0xD0 {
			return
		}
	}
}

// rights finds out what each client may publish and is sent, as "write user/id topic" and "read ...".
func (s site) rights(t *testing.T) map[string]bool {
	watch, boss := s.connect(t, who{"watch", "w"}, ""), s.connect(t, who{"boss", "b"}, "")
	watch.subscribe("#", "$x/#")
	got := map[string]bool{}
	for k, w := range siteClients {
		c := s.connect(t, w, "")
		for _, topic := range siteTopics {
			c.write(publishFrame(false, 0, 0, topic, []byte(topic)))
		}
		c.write(publishFrame(false, 1, 7, "unheard/of", []byte("denied, and still acknowledged")))
		c.expect("40 02 00 07")
		c.ping()
		mark := fmt.Sprintf("mark %d", k)
		boss.write(publishFrame(false, 0, 0, "end", []byte(mark)))
		for _, topic := range watch.until(mark) {
			got[fmt.Sprintf("write %s/%s %s", w.user, w.id, topic)] = true
		}
		c.subscribe("#", "$x/#")
		for _, topic := range siteTopics {
			boss.write(publishFrame(false, 0, 0, topic, []byte(topic)))
		}
		if w.id == "c#2" || w.user == "+" { // no pattern is for them: they never see the end
			c.write(unhex("C0 00"))
			boss.ping()
			watch.until("unheard/of")
			c.drainInto(got, w)
			continue
		}
		boss.write(publishFrame(false, 0, 0, "end", []byte(mark)))
		for _, topic := range c.until(mark) {
			got[fmt.Sprintf("read %s/%s %s", w.user, w.id, topic)] = true
		}
		watch.until(mark)
	}
	// Wills.
	for _, topic := range []string{"cmd/ann/x", "cmd/ben/x", "devices/ann/t", "cmd/ann/secret"} {
		c := s.connect(t, who{"ann", "c1"}, topic)
		c.Close()
		time.AfterFunc(100*time.Millisecond, func() { _, _ = boss.Write(publishFrame(false, 0, 0, "end", []byte("after will"))) })
		for _, m := range watch.until("after will") {
			got["will "+topic+" "+m] = true
		}
	}
	return got
}

// drainInto reads what comes until the line is quiet.
func (c *rawClient) drainInto(got map[string]bool, w who) {
	for {
		p, err := c.packet(100 * time.Millisecond)
		if err != nil {
			return
		}
		if p[0]>>4 == typePublish {
			got[fmt.Sprintf("read %s/%s %s", w.user, w.id, p[4+int(p[3]):])] = true
		}
	}
}

// writeSite makes the two files, the passwords with mosquitto's own program, in both of its formats.
func writeSite(t *testing.T) (passwordFile, aclFile string) {
	dir := t.TempDir()
	passwordFile, aclFile = filepath.Join(dir, "passwd"), filepath.Join(dir, "acl")
	if err := os.WriteFile(aclFile, []byte(siteACL), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(passwordFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program := needs(t, "mosquitto_passwd")
	for user, password := range siteUsers {
		format := "sha512-pbkdf2"
		if user == "ben" {
			format = "sha512"
		}
		if out, err := exec.Command(program, "-H", format, "-b", passwordFile, user, password).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v %s", err, out)
		}
	}
	return passwordFile, aclFile
}

func TestRights_AreThoseOfMosquittoWithTheSameFiles(t *testing.T) {
	passwordFile, aclFile := writeSite(t)
	address := startMosquittoWith(t, "allow_anonymous true\npassword_file "+passwordFile+"\nacl_file "+aclFile+"\n")
	users, err := passwd.Load(passwordFile)
	if err != nil {
		t.Fatal(err)
	}
	rights, err := acl.Load(aclFile)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, &stubJournal{auto: true}, func(c *Config) {
		c.AllowAnonymous, c.Authenticate, c.Rights = true, users.Verify, rights
	})
	theirs := site{"mosquitto", address}.rights(t)
	ours := site{"sluice", b.Addrs()[0].String()}.rights(t)
	if len(theirs) < 60 {
		t.Errorf("mosquitto grants only %d rights: the table is not looking", len(theirs))
	}
	for k := range theirs {
		if !ours[k] {
			t.Errorf("mosquitto grants and sluice does not: %s", k)
		}
	}
	for k := range ours {
		if !theirs[k] {
			t.Errorf("sluice grants and mosquitto does not: %s", k)
		}
	}
	t.Logf("%d clients, %d topics, %d rights", len(siteClients), len(siteTopics), len(theirs))
	// Logins: the same answers too.
	for i, tc := range []struct{ user, password string }{
		{"ann", "pw-ann"}, {"ann", "pw-ben"}, {"ben", "pw with blanks"}, {"ben", "pw"}, {"nobody", "x"}, {"cat/dog", "ü€"}, {"", ""}, {"ann", ""},
	} {
		var codes []byte
		for _, address := range []string{address, b.Addrs()[0].String()} {
			nc, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			c := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
			body := "\x00\x04MQTT\x04\xC2\x00\x3C\x00\x02i" + string([]byte{byte('a' + i), 0, byte(len(tc.user))}) + tc.user + string([]byte{0, byte(len(tc.password))}) + tc.password
			c.write(append([]byte{0x10, byte(len(body))}, body...))
			codes = append(codes, c.expectKind(typeConnack)[3])
			nc.Close()
		}
		if codes[0] != codes[1] {
			t.Errorf("login as %q with %q: mosquitto CONNACK %d, sluice %d", tc.user, tc.password, codes[0], codes[1])
		}
	}
}

// startMosquittoWith starts Debian's mosquitto with a configuration of its own.
func startMosquittoWith(t *testing.T, conf string) (address string) {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not on everybody's path
		if _, err := os.Stat(path); err != nil {
			path = needs(t, "mosquitto")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root\n" // else it drops to one that cannot read the test's files
	}
	if err := os.WriteFile(file, []byte("listener "+port+" 127.0.0.1\npersistence false\n"+user+conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(path, "-c", file)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("mosquitto's log:\n%s", log.String())
		}
	})
	eventually(t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return address
}
