// Package proc starts and ends the child processes of tests and benchmarks, and reads what they cost from /proc. It ends
// only processes it started, by their handle, and the kernel ends them when the parent dies. A Proc owns one goroutine that
// waits for the child.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Proc is a started child.
type Proc struct {
	Name    string
	Started time.Time
	Log     *Log // stdout and stderr
	cmd     *exec.Cmd
	done    chan struct{} // closed when the child ended
}

// Start runs argv with extra environment entries; Log keeps its output.
func Start(name string, env []string, argv ...string) (*Proc, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SLUICE_") { // the gateway's own settings come from the test alone
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	p := &Proc{Name: name, Log: &Log{}, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.Log, p.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.Started = time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the child's process id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Signal sends a signal; it is an error when the child has ended.
func (p *Proc) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the child with SIGKILL and waits for it.
func (p *Proc) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// Stop sends SIGTERM and waits up to timeout, then kills. It returns the exit code, and an error when it had to kill.
func (p *Proc) Stop(timeout time.Duration) (int, error) {
	p.cmd.Process.Signal(syscall.SIGTERM)
	code, err := p.Wait(timeout)
	if err != nil {
		p.Kill()
	}
	return code, err
}

// Wait waits up to timeout for the child to end by itself and returns its exit code, -1 for death by signal.
func (p *Proc) Wait(timeout time.Duration) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(timeout):
		return -1, fmt.Errorf("%s (pid %d) still runs after %v", p.Name, p.PID(), timeout)
	}
}

// Alive reports whether the child still runs.
func (p *Proc) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ticksPerSecond is the unit of utime and stime in /proc/PID/stat: USER_HZ, 100 on every Linux port Go supports.
const ticksPerSecond = 100

// CPU returns the user and system time the child has used; resolution 10 ms.
func (p *Proc) CPU() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	// The command name, in parentheses, may hold spaces: fields are counted from behind it. utime and stime are fields 14, 15.
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	f := strings.Fields(string(rest))
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", p.PID(), len(f))
	}
	utime, err1 := strconv.ParseInt(f[11], 10, 64)
	stime, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(utime+stime) * time.Second / ticksPerSecond, errors.Join(err1, err2)
}

// Memory returns the resident set and its highest value so far, in bytes.
func (p *Proc) Memory() (rss, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		var into *int64
		switch key {
		case "VmRSS":
			into = &rss
		case "VmHWM":
			into = &peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/%d/status: %s: %w", p.PID(), key, err)
		}
		*into = kib << 10
	}
	return rss, peak, nil
}

// Log keeps what a child printed, at most the last MaxLog bytes. Safe for concurrent use.
type Log struct {
	mu sync.Mutex // guards b
	b  []byte
}

// MaxLog bounds a Log, in bytes.
const MaxLog = 1 << 20

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	if over := len(l.b) - MaxLog; over > 0 {
		l.b = append(l.b[:0], l.b[over:]...)
	}
	return len(b), nil
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// FreePort returns a loopback TCP port that was free a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Build compiles the gateway of the module that holds this source file into dir and returns the binary's path.
func Build(dir string, flags ...string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "sluice")
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", out, "./gateway")...)
	cmd.Dir = root
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./gateway: %w\n%s", err, b)
	}
	return out, nil
}

// ModuleRoot finds the directory of go.mod, from the working directory upwards, else from this source file.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	_, file, _, _ := runtime.Caller(0)
	for _, from := range []string{dir, filepath.Dir(file)} {
		for d := from; ; d = filepath.Dir(d) {
			if b, err := os.ReadFile(filepath.Join(d, "go.mod")); err == nil && bytes.HasPrefix(b, []byte("module sluice\n")) {
				return d, nil
			}
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	return "", errors.New("no go.mod of module sluice above the working directory")
}

// WaitAccept polls until address accepts a TCP connection, the child ended, or timeout passed. It returns the time of
// success since the child's start.
func (p *Proc) WaitAccept(address string, timeout time.Duration) (time.Duration, error) {
	deadline := time.Now().Add(timeout)
	for {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			took := time.Since(p.Started)
			c.Close()
			return took, nil
		}
		if !p.Alive() {
			return 0, fmt.Errorf("%s ended with code %d before %s accepted:\n%s", p.Name, p.cmd.ProcessState.ExitCode(), address, p.Log)
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("%s does not accept on %s after %v: %w\n%s", p.Name, address, timeout, err, p.Log)
		}
		select {
		case <-p.done:
		case <-time.After(500 * time.Microsecond):
		}
	}
}
