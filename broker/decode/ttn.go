package decode

import (
	"strconv"
	"strings"
)

// ttnDecoder reads The Things Stack v3: uplinks with their decoded payload, and joins. Readings are what decoded_payload holds, called as
// there, and rx_rssi and rx_snr of the gateway listed first. A frame is numbered by its session's address and its counter, so that the
// counter may start again after a join.
type ttnDecoder struct{ up *jsonDecoder }

func newTTN(spec Spec) (Decoder, error) {
	if err := spec.preset(); err != nil {
		return nil, err
	}
	return &ttnDecoder{newLayout(spec, ttnLayout)}, nil
}

// Slots of what LoRaWAN uplinks say besides readings.
const (
	loraAddress = iota // the session's device address, hex
	loraFrame          // the frame as the device sent it
	loraNoBattery
	loraObject // something was decoded
)

func (d *ttnDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	switch _, kind := lastLevel(m.Topic); kind {
	case "join":
		return out.state(true, StateBirth, 0)
	case "up":
		d.up.read(m, out)
		return d.up.uplink(out, "a payload formatter")
	}
	return nil
}

// uplink numbers the frame and says where its content was not decoded, and by what it would be.
func (d *jsonDecoder) uplink(out *Batch, by string) error {
	if d.err != nil {
		return d.finish(out)
	}
	s := &out.Samples[0]
	// A counter of 0 may be left out: protobuf's JSON has no zeros.
	if address, err := strconv.ParseUint(d.texts[loraAddress], 16, 32); err == nil {
		s.Sequence, s.HasSequence = address<<32|s.Sequence&0xffffffff, true
	}
	if d.texts[loraFrame] != "" && d.texts[loraObject] == "" {
		s.Refused = append(s.Refused, Refusal{"frame", ReasonNoReadings, "the frame was not decoded; it needs " + by})
	}
	return d.finish(out)
}

func ttnLayout(path string) placement {
	if rest, ok := strings.CutPrefix(path, "uplink_message.decoded_payload."); ok {
		return placement{role: roleReading, name: joinedName(rest), array: true}
	}
	switch path {
	case "received_at", "uplink_message.received_at":
		return placement{role: roleTime}
	case "end_device_ids.dev_addr":
		return placement{role: roleText, slot: loraAddress}
	case "uplink_message.frm_payload":
		return placement{role: roleText, slot: loraFrame}
	case "uplink_message.f_cnt":
		return placement{role: roleSequence}
	case "uplink_message.rx_metadata":
		return placement{array: true}
	case "uplink_message.rx_metadata.0.rssi":
		return placement{role: roleReading, name: "rx_rssi", unit: "dBm"}
	case "uplink_message.rx_metadata.0.snr":
		return placement{role: roleReading, name: "rx_snr", unit: "dB"}
	case "uplink_message.decoded_payload":
		return placement{role: roleText, slot: loraObject}
	case "end_device_ids", "uplink_message", "uplink_message.rx_metadata.0":
		return placement{}
	}
	return placement{skip: true}
}
