package broker

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// answer is what comes back until the connection is closed; open means it is not within a moment.
func answer(t *testing.T, c *rawClient) (got []byte, open bool) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	got, err := io.ReadAll(c.in)
	return got, errors.Is(err, os.ErrDeadlineExceeded)
}

func TestConnect_MalformedIsRefusedWithTheCodeOfItsVersion(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	const closed = ""
	for _, tc := range []struct{ name, packet, want string }{
		{"wrong name, 3.1.1", "10 0D 00 04 4D 51 54 58 04 02 00 3C 00 01 70", closed},
		{"wrong name, 5", "10 0E 00 04 4D 51 54 58 05 02 00 3C 00 00 01 78", "20 03 00 84 00"},
		{"name in small letters", "10 0D 00 04 6D 71 74 74 04 02 00 3C 00 01 70", closed},
		{"level 3 with MQTT", "10 0D 00 04 4D 51 54 54 03 02 00 3C 00 01 70", "20 02 00 01"},
		{"level 4 with MQIsdp", "10 0F 00 06 4D 51 49 73 64 70 04 02 00 3C 00 01 70", "20 02 00 01"},
		{"level 6", "10 0E 00 04 4D 51 54 54 06 02 00 3C 00 00 01 78", "20 03 00 84 00"},
		{"mosquitto's bridge bit", "10 0D 00 04 4D 51 54 54 84 02 00 3C 00 01 70", "20 02 00 01"},
		{"reserved flag, 3.1.1", "10 0D 00 04 4D 51 54 54 04 03 00 3C 00 01 70", closed},
		{"reserved flag, 5", "10 0E 00 04 4D 51 54 54 05 03 00 3C 00 00 01 78", "20 03 00 81 00"},
		{"flags of the fixed header", "11 0E 00 04 4D 51 54 54 05 02 00 3C 00 00 01 78", "20 03 00 81 00"},
		{"will QoS 3", "10 13 00 04 4D 51 54 54 04 1E 00 3C 00 01 63 00 01 77 00 01 78", closed},
		{"will QoS without will", "10 0E 00 04 4D 51 54 54 05 0A 00 3C 00 00 01 78", "20 03 00 81 00"},
		{"will retain without will", "10 0D 00 04 4D 51 54 54 04 22 00 3C 00 01 70", closed},
		{"will on a wildcard, 5", "10 15 00 04 4D 51 54 54 05 06 00 3C 00 00 01 63 00 00 01 23 00 01 78", "20 03 00 90 00"},
		{"password without name, 3.1.1", "10 10 00 04 4D 51 54 54 04 42 00 3C 00 01 70 00 01 78", closed},
		{"excess byte, 3.1.1", "10 0E 00 04 4D 51 54 54 04 02 00 3C 00 01 70 00", closed},
		{"excess byte, 5", "10 0F 00 04 4D 51 54 54 05 02 00 3C 00 00 01 78 00", "20 03 00 81 00"},
		{"cut", "10 0C 00 04 4D 51 54 54 04 02 00 3C 00 01", closed},
		{"cut, 5", "10 0D 00 04 4D 51 54 54 05 02 00 3C 00 00 01", "20 03 00 81 00"},
		{"id not UTF-8, 5", "10 0E 00 04 4D 51 54 54 05 02 00 3C 00 00 01 FF", "20 03 00 81 00"},
		{"id with NUL, 3.1.1", "10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 00", closed},
		{"surrogate in id, 5", "10 10 00 04 4D 51 54 54 05 02 00 3C 00 00 03 ED A0 80", "20 03 00 81 00"},
		{"no id and not clean, 3.1.1", "10 0C 00 04 4D 51 54 54 04 00 00 3C 00 00", "20 02 00 02"},
		{"no id, 3.1", "10 0E 00 06 4D 51 49 73 64 70 03 02 00 3C 00 00", "20 02 00 02"},
		{"a PUBLISH's property", "10 11 00 04 4D 51 54 54 05 02 00 3C 03 23 00 01 00 01 78", "20 03 00 82 00"},
		{"unknown property", "10 10 00 04 4D 51 54 54 05 02 00 3C 02 7F 00 00 01 78", "20 03 00 82 00"},
		{"property twice", "10 14 00 04 4D 51 54 54 05 02 00 3C 06 21 00 01 21 00 02 00 01 78", "20 03 00 82 00"},
		{"receive maximum 0", "10 11 00 04 4D 51 54 54 05 02 00 3C 03 21 00 00 00 01 78", "20 03 00 82 00"},
		{"maximum packet size 0", "10 13 00 04 4D 51 54 54 05 02 00 3C 05 27 00 00 00 00 00 01 78", "20 03 00 82 00"},
		{"request problem information 2", "10 10 00 04 4D 51 54 54 05 02 00 3C 02 17 02 00 01 78", "20 03 00 82 00"},
		{"authentication data without method", "10 12 00 04 4D 51 54 54 05 02 00 3C 04 16 00 01 00 00 01 78", "20 03 00 82 00"},
		{"authentication method", "10 12 00 04 4D 51 54 54 05 02 00 3C 04 15 00 01 41 00 01 78", "20 03 00 8C 00"},
		{"property cut", "10 0D 00 04 4D 51 54 54 05 02 00 3C 02 21 00", "20 03 00 81 00"},
		{"length in five bytes", "10 80 80 80 80 01", closed},
		{"length longer than need be", "10 8D 00 00 04 4D 51 54 54 04 02 00 3C 00 01 70", closed},
	} {
		c := dial(t, b)
		c.send(tc.packet)
		if got, open := answer(t, c); open || !bytes.Equal(got, unhex(tc.want)) {
			t.Errorf("%s: answered % X, open %v; want %q and closed", tc.name, got, open, tc.want)
		}
	}
}

func TestConnect_WhatTheStandardsAllowIsAccepted(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, func(c *Config) {
		c.AllowAnonymous = true
		c.Authenticate = func(user string, password []byte) bool { return user == "u" && string(password) == "p" }
	})
	for _, tc := range []struct {
		name, packet string
		code         byte
	}{
		{"no id, 3.1.1", "10 0C 00 04 4D 51 54 54 04 02 00 3C 00 00", 0},
		{"empty will", "10 12 00 04 4D 51 54 54 04 06 00 3C 00 01 63 00 01 77 00 00", 0},
		{"empty name and password", "10 11 00 04 4D 51 54 54 04 C2 00 3C 00 01 70 00 00 00 00", 0},
		{"name and empty password", "10 12 00 04 4D 51 54 54 04 C2 00 3C 00 01 70 00 01 75 00 00", 5},
		{"empty will, name, password", "10 18 00 04 4D 51 54 54 04 C6 00 3C 00 01 63 00 01 77 00 00 00 01 75 00 01 70", 0},
		{"right password", "10 13 00 04 4D 51 54 54 04 C2 00 3C 00 01 70 00 01 75 00 01 70", 0},
		{"long id", "10 2A 00 04 4D 51 54 54 04 02 00 3C 00 1E 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61", 0},
	} {
		c := dial(t, b)
		c.send(tc.packet)
		p, err := c.packet(2 * time.Second)
		if err != nil || len(p) != 4 || p[3] != tc.code {
			t.Errorf("%s: % X, %v; want CONNACK %d", tc.name, p, err, tc.code)
		}
		if tc.code == 0 { // what followed the CONNECT was not lost
			c.send("C0 00")
			c.expect("D0 00")
		}
		c.Close()
		eventually(t, "its session ended", func() bool { return b.server.Clients.Len() == 0 })
	}
	l := dialV3(t, b, "l")
	l.send("82 06 00 01 00 01 77 00")
	l.expectKind(9)
	c := dial(t, b)
	c.send("10 12 00 04 4D 51 54 54 04 06 00 3C 00 01 63 00 01 77 00 00 C0 00") // and a ping in the same segment
	c.expect(connackV3)
	c.expect("D0 00")
	c.Close()
	l.expect("30 03 00 01 77")
}

func TestPacket_MalformedEndsTheConnectionWithTheReason(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	for _, tc := range []struct {
		name, packet string
		v3           bool // malformed for MQTT 3.1.1, too
		reason       byte
	}{
		{"type 0", "00 00", true, 0x81},
		{"CONNACK", "20 02 00 00", true, 0x82},
		{"SUBACK", "90 03 00 01 00", true, 0x82},
		{"PINGRESP", "D0 00", true, 0x82},
		{"AUTH", "F0 00", true, 0x82},
		{"second CONNECT", connectV5, true, 0x82},
		{"PUBLISH QoS 3", "36 07 00 01 61 00 01 00 78", true, 0x81},
		{"PUBLISH DUP and QoS 0", "38 05 00 01 61 00 78", true, 0x82},
		{"PUBLISH id 0", "32 07 00 01 61 00 00 00 78", true, 0x82},
		{"PUBLISH on +", "30 05 00 01 2B 00 78", true, 0x90},
		{"PUBLISH on #", "32 07 00 01 23 00 01 00 78", true, 0x90},
		{"PUBLISH without topic", "30 04 00 00 00 78", true, 0x82},
		{"PUBLISH topic not UTF-8", "30 05 00 01 FF 00 78", true, 0x81},
		{"PUBLISH topic with NUL", "30 05 00 01 00 00 78", true, 0x81},
		{"PUBLISH topic cut", "30 04 00 09 61 00", true, 0x81},
		{"PUBLISH alias 0", "30 08 00 01 61 03 23 00 00 78", false, 0x94},
		{"PUBLISH alias too large", "30 08 00 01 61 03 23 FF FF 78", false, 0x94},
		{"PUBLISH alias unknown", "30 07 00 00 03 23 00 05 78", false, 0x94},
		{"PUBLISH alias twice", "30 0B 00 01 61 06 23 00 01 23 00 01 78", false, 0x82},
		{"PUBLISH subscription identifier", "30 07 00 01 61 02 0B 01 78", false, 0x82},
		{"PUBLISH payload format 2", "30 07 00 01 61 02 01 02 78", false, 0x82},
		{"PUBLISH response topic with wildcard", "30 09 00 01 61 04 08 00 01 23 78", false, 0x82},
		{"PUBLISH property of CONNECT", "30 08 00 01 61 03 21 00 01 78", false, 0x82},
		{"PUBLISH property cut", "30 06 00 01 61 02 23 00", false, 0x81},
		{"PUBLISH property length beyond", "30 05 00 01 61 09 78", false, 0x81},
		{"PUBLISH user property not UTF-8", "30 0A 00 01 61 06 26 00 01 FF 00 00", false, 0x81},
		{"PUBACK id 0", "40 02 00 00", true, 0x82},
		{"PUBACK flags", "42 02 00 01", true, 0x81},
		{"PUBACK cut", "40 01 00", true, 0x81},
		{"PUBACK reason", "40 03 00 01 01", true, 0x82},
		{"PUBACK excess", "40 05 00 01 00 00 00", true, 0x81},
		{"PUBREL flags", "60 02 00 01", true, 0x81},
		{"PUBREL reason", "62 03 00 01 10", true, 0x82},
		{"PUBCOMP excess", "70 05 00 01 00 00 00", true, 0x81},
		{"SUBSCRIBE flags", "80 07 00 01 00 00 01 61 00", true, 0x81},
		{"SUBSCRIBE id 0", "82 07 00 00 00 00 01 61 00", true, 0x82},
		{"SUBSCRIBE without filters", "82 03 00 01 00", false, 0x82},
		{"SUBSCRIBE QoS 3", "82 07 00 01 00 00 01 61 03", true, 0x82},
		{"SUBSCRIBE reserved options", "82 07 00 01 00 00 01 61 40", true, 0x81},
		{"SUBSCRIBE retain handling 3", "82 07 00 01 00 00 01 61 30", true, 0x82},
		{"SUBSCRIBE shared and no local", "82 10 00 01 00 00 0A 24 73 68 61 72 65 2F 67 2F 61 04", true, 0x82},
		{"SUBSCRIBE identifier 0", "82 09 00 01 02 0B 00 00 01 61 00", false, 0x82},
		{"SUBSCRIBE identifier twice", "82 0B 00 01 04 0B 01 0B 02 00 01 61 00", false, 0x82},
		{"SUBSCRIBE cut", "82 06 00 01 00 00 01 61", true, 0x81},
		{"SUBSCRIBE filter not UTF-8", "82 07 00 01 00 00 01 FF 00", true, 0x81},
		{"UNSUBSCRIBE flags", "A0 06 00 01 00 00 01 61", true, 0x81},
		{"UNSUBSCRIBE without filters", "A2 03 00 01 00", false, 0x82},
		{"UNSUBSCRIBE identifier", "A2 08 00 01 02 0B 01 00 01 61", false, 0x82},
		{"PINGREQ flags", "C1 00", true, 0x81},
		{"PINGREQ excess", "C0 01 00", true, 0x81},
		{"DISCONNECT flags", "E1 00", true, 0x81},
		{"DISCONNECT reason of a server", "E0 01 8B", false, 0x82},
		{"DISCONNECT excess", "E0 03 00 00 00", true, 0x81},
		{"DISCONNECT server reference", "E0 06 00 04 1C 00 01 61", false, 0x82},
		{"DISCONNECT expiry from zero", "E0 07 00 05 11 00 00 00 01", false, 0x82},
		{"length longer than need be", "C0 80 00", true, 0x81},
		{"larger than allowed", "30 FF FF FF 7F", true, 0x95},
	} {
		c := dialV5(t, b, "c5")
		c.send(tc.packet)
		got, open := answer(t, c)
		if open || len(got) < 3 || got[0] != 0xE0 || got[2] != tc.reason || int(got[1]) != len(got)-2 {
			t.Errorf("%s, MQTT 5: answered % X, open %v; want DISCONNECT %02X and closed", tc.name, got, open, tc.reason)
		}
		if !tc.v3 {
			continue
		}
		c = dialV3(t, b, "c3")
		c.send(tc.packet)
		if got, open := answer(t, c); open || len(got) > 0 {
			t.Errorf("%s, MQTT 3.1.1: answered % X, open %v; want nothing and closed", tc.name, got, open)
		}
	}
	if n := b.Stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}
