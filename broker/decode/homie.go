package decode

import (
	"bytes"
	"fmt"
	"strings"
)

// homieDecoder reads the Homie convention, 4 and 5: <device>/<node>/<property>, one value each, called node_property; $state as the
// device's state; units from .../$unit (4) or $description (5). Values that are no number and no boolean are not readings. What
// follows the device in the topic is what # stands for, or what stands behind homie/<device>.
type homieDecoder struct {
	wanted      Spec
	description *jsonDecoder
	scalar      scalar
}

func newHomie(spec Spec) (Decoder, error) {
	if err := spec.preset(); err != nil {
		return nil, err
	}
	if len(spec.Labels) > 0 {
		return nil, errScalarLabels(spec.Format)
	}
	return &homieDecoder{wanted: Spec{Fields: spec.Fields}, description: newLayout(Spec{}, homieDescription)}, nil
}

func errScalarLabels(format string) error {
	return fmt.Errorf("labels: format %s carries none; capture a topic level instead", format)
}

func (d *homieDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	if strings.HasPrefix(m.capture("device"), "$") { // $broadcast
		return nil
	}
	rest := m.Rest
	if rest == "" { // the source's topic names node and property
		if rest = afterDevice(m.Topic, "homie/5/"); rest == "" {
			rest = afterDevice(m.Topic, "homie/")
		}
	}
	switch rest {
	case "$state":
		return d.state(m, out)
	case "$description":
		d.description.read(m, out)
		return d.description.finish(out)
	}
	before, last := lastLevel(rest)
	switch {
	case last == "$unit" && strings.Count(rest, "/") == 2:
		metric := d.scalar.metric(before)
		if unit := d.description.unitWord(bytes.TrimSpace(m.Payload)); unit != "" && nameFault(metric) == "" && len(metric) <= MaxNameBytes {
			s := out.add()
			s.Units = append(s.Units, Unit{metric, unit})
		}
		return nil
	case strings.Count(rest, "/") != 1, strings.HasPrefix(rest, "$"), strings.HasPrefix(last, "$"):
		return nil
	}
	metric := d.scalar.metric(rest)
	if !d.wanted.wants(metric) {
		return nil
	}
	return d.scalar.read(m.Payload, out, metric, "", false)
}

func (d *homieDecoder) state(m *Message, out *Batch) error {
	switch state := string(bytes.TrimSpace(m.Payload)); state {
	case "init", "ready":
		return out.state(true, StateAvailability, 0)
	case "alert":
		return out.state(true, StateAlert, 0)
	case "sleeping":
		return out.state(true, StateSleeping, 0)
	case "disconnected":
		return out.state(false, StateAvailability, 0)
	case "lost":
		return out.state(false, StateLost, 0)
	case "":
		return nil // how Homie removes a device
	}
	return &Error{ReasonType, excerpt(m.Payload) + " is no state of Homie"}
}

// homieDescription finds nodes.<node>.properties.<property>.unit.
func homieDescription(path string) placement {
	levels := strings.Split(path, ".")
	if levels[0] != "nodes" || len(levels) > 2 && levels[2] != "properties" {
		return placement{skip: true}
	}
	if len(levels) == 5 {
		if levels[4] != "unit" {
			return placement{skip: true}
		}
		return placement{role: roleUnit, name: joinedName(levels[1] + "_" + levels[3])}
	}
	return placement{}
}
