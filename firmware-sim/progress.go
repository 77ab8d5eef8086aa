package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"sluice/firmware-sim/sim"
)

// progress writes to stderr: one line that is kept up to date on a terminal, else a line every ten seconds. It is
// also the writer of the log, so that a log line never lands in the middle of the live one.
type progress struct {
	out   io.Writer
	quiet bool
	live  bool
	every time.Duration

	mu    sync.Mutex // guards the screen
	shown bool       // the live line is on the screen
}

// newProgress decides how to show progress; plain asks for plain lines on a terminal too, because something else
// writes to it.
func newProgress(out io.Writer, quiet, plain bool) *progress {
	p := &progress{out: out, quiet: quiet, live: isTerminal(out) && !plain, every: 10 * time.Second}
	if p.live {
		p.every = 250 * time.Millisecond
	}
	return p
}

// watch shows the fleet's progress until done is closed.
func (p *progress) watch(f *sim.Fleet, done <-chan struct{}) {
	if p.quiet {
		<-done
		return
	}
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	last := f.Stats()
	for {
		select {
		case <-done:
			p.clear()
			return
		case <-ticker.C:
			now := f.Stats()
			p.show(line(now, last))
			if !p.live || now.Elapsed-last.Elapsed >= time.Second {
				last = now
			}
		}
	}
}

func (p *progress) show(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		fmt.Fprintln(p.out, s)
		return
	}
	if f, ok := p.out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 1 && len(s) >= width {
			s = s[:width-1] // a line that wraps cannot be written over
		}
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", s)
	p.shown = true
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// Write takes a log line.
func (p *progress) Write(b []byte) (int, error) {
	if p.quiet && !bytes.Contains(b, []byte("level=ERROR")) {
		return len(b), nil
	}
	p.clear()
	return p.out.Write(b)
}

// line tells the progress since last.
func line(now, last sim.Stats) string {
	rate := 0.0
	if dt := (now.Elapsed - last.Elapsed).Seconds(); dt > 0 {
		rate = float64(now.Published-last.Published) / dt
	}
	s := fmt.Sprintf("%d/%d connected  sent %d  acked %d  in flight %d  %.0f/s  reconnects %d",
		now.Connected, now.Connections, now.Published, now.Acked+now.Sent, now.InFlight, rate, now.LostConnections)
	if now.Resent > 0 {
		s += fmt.Sprintf("  resent %d", now.Resent)
	}
	if now.Behind > time.Second {
		s += fmt.Sprintf("  behind %s", now.Behind.Round(time.Second))
	}
	if eta, ok := remaining(now); ok {
		s += fmt.Sprintf("  ETA %s", eta.Round(time.Second))
	}
	return s
}

// remaining estimates the time to the last reading from the speed so far.
func remaining(s sim.Stats) (time.Duration, bool) {
	if s.Planned == 0 || s.Readings == 0 {
		return 0, false
	}
	left := float64(s.Planned-s.Readings) / float64(s.Readings)
	return time.Duration(left * float64(s.Elapsed)), true
}

func (p *progress) summary(s sim.Stats, stopped bool) {
	if p.quiet {
		return
	}
	how := "finished"
	if stopped {
		how = "stopped"
	}
	rate := 0.0
	if s.Elapsed > 0 {
		rate = float64(s.Published) / s.Elapsed.Seconds()
	}
	fmt.Fprintf(p.out, "%s after %s: %d readings, %d published (%.0f/s), %d acknowledged, %d lost, %d resent\n",
		how, s.Elapsed.Round(10*time.Millisecond), s.Readings, s.Published, rate, s.Acked, s.Lost, s.Resent)
	if s.Sent > 0 {
		fmt.Fprintf(p.out, "%d at QoS 0, without acknowledgement\n", s.Sent)
	}
	fmt.Fprintf(p.out, "%d connects, %d lost connections, %d failed attempts", s.Connects, s.LostConnections, s.ConnectFailures)
	if s.AckMax > 0 {
		fmt.Fprintf(p.out, "; publish to acknowledgement p50 %s, p99 %s, max %s",
			s.AckP50.Round(10*time.Microsecond), s.AckP99.Round(10*time.Microsecond), s.AckMax.Round(10*time.Microsecond))
	}
	fmt.Fprintln(p.out)
}
