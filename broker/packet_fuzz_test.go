package broker

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// packetSeeds has each type of packet, whole and damaged.
var packetSeeds = []string{
	connectV3, connectV5,
	"10 0F 00 06 4D 51 49 73 64 70 03 02 00 3C 00 01 70",                                                                   // MQTT 3.1
	"10 18 00 04 4D 51 54 54 04 C6 00 3C 00 01 63 00 01 77 00 00 00 01 75 00 01 70",                                        // empty will
	"10 11 00 04 4D 51 54 54 04 C2 00 3C 00 01 70 00 00 00 00",                                                             // empty name and password
	"10 2A 00 04 4D 51 54 54 05 C6 00 3C 05 11 00 00 00 0A 00 01 63 05 18 00 00 00 05 00 01 77 00 01 78 00 01 75 00 01 70", // all of it
	"10 0E 00 04 4D 51 54 54 05 03 00 3C 00 00 01 78",                                                                      // reserved flag
	"10 12 00 04 4D 51 54 54 05 02 00 3C 04 15 00 01 41 00 01 78",                                                          // authentication method
	"20 02 00 00", "90 03 00 01 00", "B0 02 00 01", "D0 00",
	"30 04 00 01 61 78", "32 06 00 01 61 00 01 78", "34 07 00 01 61 00 07 00 78", "3B 06 00 01 61 00 01 78", "36 07 00 01 61 00 01 00 78",
	"32 0E 00 01 61 00 01 07 26 00 01 6B 00 01 76 78", "30 08 00 01 61 03 23 00 01 78", "30 05 00 01 2B 00 78", "30 04 00 09 61 00",
	"40 02 00 01", "40 03 00 01 10", "40 04 00 01 00 00", "40 01 00", "50 02 00 01", "50 03 00 01 97", "62 02 00 01", "62 03 00 01 92",
	"60 02 00 01", "70 02 00 01", "70 05 00 01 00 00 00",
	"82 06 00 01 00 01 23 01", "82 07 00 01 00 00 01 23 01", "82 06 00 01 00 00 01 61", "82 0A 00 01 02 0B 05 00 01 61 2C",
	"82 10 00 01 00 00 0A 24 73 68 61 72 65 2F 67 2F 61 04", "A2 05 00 02 00 01 23", "A2 06 00 01 00 00 01 61", "A2 03 00 01 00",
	"C0 00", "C0 01 00", "E0 00", "E0 01 04", "E0 07 00 05 11 00 00 00 01", "F0 00", "F0 02 18 00", "00 00", "C0 80 00", "30 FF FF FF FF 01",
}

// FuzzPacket holds the check before the library to this: it panics on nothing, and what it lets through the library decodes.
func FuzzPacket(f *testing.F) {
	for _, s := range packetSeeds {
		f.Add(unhex(s), false)
		f.Add(unhex(s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, v5 bool) {
		header, size, err := frameSize(b)
		if err != nil || header == 0 || size > len(b) || size > 1<<16 {
			return
		}
		frame := b[:size]
		version := byte(4)
		if v5 {
			version = 5
		}
		if frame[0]>>4 == typeConnect {
			if k := readConnect(frame, header); !k.accept {
				return
			}
		} else if validate(frame, header, v5) != 0 {
			return
		}
		pk := packets.Packet{ProtocolVersion: version}
		if err := pk.FixedHeader.Decode(frame[0]); err != nil {
			t.Fatalf("% X passed, and the library says: %v", frame, err)
		}
		pk.FixedHeader.Remaining = size - header
		body := bytes.Clone(frame[header:])
		decode := map[byte]func([]byte) error{
			typeConnect: pk.ConnectDecode, typePublish: pk.PublishDecode, typePuback: pk.PubackDecode, typePubrec: pk.PubrecDecode,
			typePubrel: pk.PubrelDecode, typePubcomp: pk.PubcompDecode, typeSubscribe: pk.SubscribeDecode,
			typeUnsubscribe: pk.UnsubscribeDecode, typeDisconnect: pk.DisconnectDecode,
		}[frame[0]>>4]
		if decode == nil {
			return
		}
		if err := decode(body); err != nil {
			t.Fatalf("% X (MQTT 5 %v) passed, and the library says: %v", frame, v5, err)
		}
	})
}
