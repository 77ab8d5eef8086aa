package sim

import (
	"slices"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func publishPacket(id uint16) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.MessageID = 1, id
	return p
}

func TestUnacked_KeepsOrderThroughAcknowledgements(t *testing.T) {
	var told []string
	note := func(what string) func(*delivery) {
		return func(d *delivery) { told = append(told, what+string(rune('0'+d.id))) }
	}
	u := newUnacked(note("p"), note("r"), note("a"))
	keys := []string{"", "o.65535", "o.1", "o.7", "o.3"} // identifiers wrap: the order of their numbers means nothing
	for id := uint64(1); id <= 4; id++ {
		u.expect(&delivery{id: id})
		u.Put(keys[id], publishPacket(uint16(id)))
		if !u.taken() {
			t.Fatalf("delivery %d was not taken", id)
		}
	}
	u.Del("o.1")
	u.Del("o.1")  // a second PUBACK
	u.Del("o.99") // one for nothing
	if got := u.All(); !slices.Equal(got, []string{"o.65535", "o.7", "o.3"}) || u.len() != 3 {
		t.Errorf("All() = %v, len %d", got, u.len())
	}
	first, second := u.Get("o.7").(*packets.PublishPacket), u.Get("o.7").(*packets.PublishPacket)
	first.Dup = true
	if second.Dup || first == second {
		t.Error("Get handed out the same packet twice")
	}
	if u.Get("o.1") != nil {
		t.Error("Get found an acknowledged message")
	}
	u.Reset() // paho does this with a clean session
	u.Close()
	if left := u.takeAll(); len(left) != 3 || left[0].id != 1 || left[1].id != 3 || left[2].id != 4 || u.len() != 0 {
		t.Errorf("takeAll() = %v", left)
	}
	if want := []string{"p1", "p2", "p3", "p4", "a2", "r3", "r3"}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestUnacked_TakeOlderLeavesTheYoung(t *testing.T) {
	quiet := func(*delivery) {}
	u := newUnacked(quiet, quiet, func(*delivery) { t.Error("acknowledged") })
	u.expect(&delivery{id: 1})
	u.Put("o.1", publishPacket(1))
	border := time.Now()
	d := &delivery{id: 2, since: border.Add(time.Second)}
	u.expect(d)
	u.Put("o.2", publishPacket(2))
	if old := u.takeOlder(border.Add(time.Millisecond)); len(old) != 1 || old[0].id != 1 {
		t.Errorf("takeOlder() = %v", old)
	}
	u.Del("o.1") // a late PUBACK for what was given up changes nothing
	if u.len() != 1 || !slices.Equal(u.All(), []string{"o.2"}) {
		t.Errorf("left: %v", u.All())
	}
}

func TestUnacked_IgnoresWhatNobodyExpects(t *testing.T) {
	quiet := func(*delivery) { t.Error("told") }
	u := newUnacked(quiet, quiet, quiet)
	u.Open()
	u.Put("o.1", publishPacket(1))
	u.Put("i.2", publishPacket(2))
	u.Put("o.3", packets.NewControlPacket(packets.Subscribe))
	u.Del("i.2")
	if u.len() != 0 || len(u.All()) != 0 {
		t.Errorf("kept %v", u.All())
	}
}
