package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway/e2e/wire"
)

// crowdMain is a process that holds many connections. It reads commands, a line each, and answers each with a line: "open N",
// "close", "churn N".
func crowdMain(args []string) error {
	var address string
	fs := flag.NewFlagSet("crowd", flag.ContinueOnError)
	fs.StringVar(&address, "address", "", "broker")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var open []*wire.Conn
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var word string
		var n int
		_, _ = fmt.Sscan(in.Text(), &word, &n)
		var err error
		switch word {
		case "open":
			open = make([]*wire.Conn, n)
			err = inParallel(n, func(i int) (err error) {
				open[i], err = settle(address, i)
				return err
			})
		case "close":
			for _, c := range open {
				_ = c.Close()
			}
			open = nil
		case "churn":
			err = inParallel(n, func(i int) error {
				c, err := wire.Dial(context.Background(), address, wire.Connect{ClientID: "churn-" + strconv.Itoa(i), Clean: true, KeepAlive: 600})
				if err != nil {
					return err
				}
				if i%2 == 0 { // half of them say goodbye
					_, err = c.Net.Write(wire.AppendDisconnect(nil))
				}
				return errors.Join(err, c.Close())
			})
		default:
			err = fmt.Errorf("unknown command %q", word)
		}
		if err != nil {
			return err
		}
		fmt.Println("done")
	}
	return in.Err()
}

// settle opens a connection that has subscribed to a topic of its own and published once.
func settle(address string, i int) (*wire.Conn, error) {
	c, err := wire.Dial(context.Background(), address, wire.Connect{ClientID: "idle-" + strconv.Itoa(i), Clean: true, KeepAlive: 3600})
	if err != nil {
		return nil, err
	}
	out := wire.AppendSubscribe(nil, wire.V311, 1, "bench/cmd/"+strconv.Itoa(i), 1)
	f := newFrame(i % 100)
	f.stamp(0, time.Now())
	if _, err := c.Net.Write(append(out, f.bytes...)); err != nil {
		return c, err
	}
	for range 2 { // SUBACK and PUBACK
		if _, err := c.Read(10 * time.Second); err != nil {
			return c, err
		}
	}
	c.R = nil // of the generator's memory
	return c, nil
}

func inParallel(n int, f func(i int) error) error {
	const at = 32
	var wg sync.WaitGroup
	errs := make([]error, at)
	for w := range at {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += at {
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rest measures s with connections that do nothing.
func (b *bench) rest(s *server, connections, churned int) (row *idleRow, err error) {
	cmd := exec.Command("/proc/self/exe", "crowd", "-address", s.address)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close(), cmd.Wait()) }()
	answers := bufio.NewScanner(out)
	do := func(command string) error {
		if _, err := io.WriteString(in, command+"\n"); err != nil {
			return err
		}
		if !answers.Scan() {
			return fmt.Errorf("%s on %s: the connections ended\n%s", command, s.name, lastLines(s.proc.Log.String(), 10))
		}
		return nil
	}
	// Memory of what ended is given back some seconds later.
	memory := func() (float64, error) {
		time.Sleep(12 * time.Second)
		rss, _, err := s.proc.Memory()
		return mib(rss), err
	}
	row = &idleRow{Connections: connections, Churned: churned}
	rss, _, err := s.proc.Memory()
	if err != nil {
		return nil, err
	}
	row.Before = mib(rss)
	for round := range 3 {
		if err := do(fmt.Sprintf("open %d", connections)); err != nil {
			return nil, err
		}
		m, err := memory()
		if err != nil {
			return nil, err
		}
		row.Rounds = append(row.Rounds, m)
		if round == 0 {
			const watched = 3 * time.Second
			before, err := s.proc.CPU()
			if err != nil {
				return nil, err
			}
			time.Sleep(watched)
			after, err := s.proc.CPU()
			if err != nil {
				return nil, err
			}
			row.CPU = 100 * float64(after-before) / float64(watched)
		}
		if err := do("close"); err != nil {
			return nil, err
		}
	}
	if err := do(fmt.Sprintf("churn %d", churned)); err != nil {
		return nil, err
	}
	row.AfterChurn, err = memory()
	return row, err
}

// fanResult is what the fan-out's generator says.
type fanResult struct {
	Published uint64  `json:"published"` // and acknowledged
	Delivered uint64  `json:"delivered"` // each once
	Seconds   float64 `json:"seconds"`
	Latency   latency `json:"latency"`
	cpu       time.Duration
	rss       int64
}

// fan runs the generator of the fan-out against s.
func (b *bench) fan(s *server) (*fanResult, error) {
	cmd := exec.Command("/proc/self/exe", "fan", "-address", s.address, "-for", b.measure.String())
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	before, err := s.proc.CPU()
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("fan-out on %s: %w\n%s", s.name, err, lastLines(s.proc.Log.String(), 10))
	}
	r := &fanResult{}
	if err := json.Unmarshal(out, r); err != nil {
		return nil, err
	}
	after, err := s.proc.CPU()
	r.cpu = after - before
	var memErr error
	r.rss, _, memErr = s.proc.Memory()
	return r, errors.Join(err, memErr)
}
