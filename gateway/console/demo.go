package console

import (
	"context"
	"net/http"
)

// Demo is what a visitor of a demonstration may play with. Safe for concurrent use.
type Demo interface {
	DemoState() DemoState
	// ChangeDemo does what is asked for at once; ErrNotFound: no fault has that name. ErrInvalid: it makes no sense.
	ChangeDemo(c DemoChange) error
}

// DemoState is /api/v1/demo.
type DemoState struct {
	Link      string      `json:"link"`      // up or down: the link to the stand-in cloud
	Automatic bool        `json:"automatic"` // link and faults follow a script of a minute, until somebody takes over
	Faults    []DemoFault `json:"faults"`
}

// DemoFault is something that can go wrong with the simulated devices.
type DemoFault struct {
	Name    string `json:"name"`
	On      bool   `json:"on"`
	Summary string `json:"summary"` // what happens, and what to look at
}

// DemoChange is the body of POST /api/v1/demo; what is left out stays. Any change but automatic: true ends the script.
type DemoChange struct {
	Link      string       `json:"link"`
	Fault     *FaultSwitch `json:"fault"`
	Automatic *bool        `json:"automatic"`
}

// FaultSwitch switches one fault.
type FaultSwitch struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
}

func (s *site) demoState(w http.ResponseWriter, _ *http.Request) {
	v := s.demo.DemoState()
	v.Faults = list(v.Faults)
	s.answer(w, http.StatusOK, v)
}

func (s *site) changeDemo(w http.ResponseWriter, r *http.Request) {
	var c DemoChange
	if s.read(w, r, &c) {
		journalled(r) // a visitor's play is no operator's action, and would bury those
		s.change(w, r, func(context.Context) error { return s.demo.ChangeDemo(c) })
	}
}
