package decode

import (
	"bytes"
	"errors"
)

// availabilityDecoder reads what devices, their wills and their gateways say about being there: online, offline, true, false, 1, 0,
// ON, OFF, connected, disconnected, in any case, or an object whose field state, status or online says so.
type availabilityDecoder struct{ object jsonDecoder }

func newAvailability(spec Spec) (Decoder, error) {
	switch {
	case spec.TimeField != "" || spec.Sequence != "":
		return nil, errors.New("time, sequence: format availability has none")
	case len(spec.Fields) > 0 || len(spec.Labels) > 0:
		return nil, errors.New("fields, labels: format availability has none; capture a topic level instead")
	}
	return newAvailabilityDecoder(), nil
}

func newAvailabilityDecoder() *availabilityDecoder {
	return &availabilityDecoder{object: *newLayout(Spec{}, availabilityLayout)}
}

func availabilityLayout(path string) placement {
	switch path {
	case "state", "status", "online":
		return placement{role: roleText}
	}
	return placement{skip: true}
}

func (d *availabilityDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	online, err := d.read(m, out)
	if err != nil {
		return err
	}
	return out.state(online, StateAvailability, 0)
}

// read tells what the payload says.
func (d *availabilityDecoder) read(m *Message, out *Batch) (online bool, err error) {
	text := bytes.TrimSpace(m.Payload)
	if len(text) > 0 && text[0] == '{' {
		d.object.read(m, out)
		out.reset()
		if d.object.err != nil {
			return false, d.object.err
		}
		text = []byte(d.object.texts[0])
	}
	switch online, ok := availabilityWord(text); {
	case ok:
		return online, nil
	case len(text) == 0:
		return false, &Error{ReasonEmpty, "nothing says whether the device is there"}
	}
	return false, &Error{ReasonType, excerpt(text) + " is neither online nor offline"}
}

func availabilityWord(text []byte) (online, ok bool) {
	if online, ok := onlineWord(text); ok {
		return online, true
	}
	for _, w := range [...]string{"true", "on", "1", "connected", "alive", "up"} {
		if foldEqual(text, w) {
			return true, true
		}
	}
	for _, w := range [...]string{"false", "off", "0", "disconnected", "dead", "down"} {
		if foldEqual(text, w) {
			return false, true
		}
	}
	return false, false
}

// onlineWord reads the two words that never are a reading.
func onlineWord(text []byte) (online, ok bool) {
	if len(text) > 16 {
		return false, false
	}
	text = bytes.TrimSpace(text)
	return foldEqual(text, "online"), foldEqual(text, "online") || foldEqual(text, "offline")
}
