// Command bench measures the gateway side by side with Debian's mosquitto on one machine: how fast and how dearly messages
// are taken in durably, in bulk and as they trickle in over many connections, what a subscriber and idle connections cost,
// what the whole pipeline costs a message, how soon it is up, and how soon an alert is out. Servers and the load generator are
// child processes; CPU is what /proc says of the server alone. Absolute figures move with the machine: compare the rows of one
// run.
//
//	go run ./gateway/bench            everything, a few minutes
//	go run ./gateway/bench -run ingest,start -json out.json
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway/e2e/proc"
)

// bench is one run of the program.
type bench struct {
	binary  string
	dir     string
	commit  time.Duration
	rounds  int
	measure time.Duration
	points  int
	away    time.Duration
	report  report
}

// report is the JSON output; each part is absent unless it ran.
type report struct {
	Machine  machine       `json:"machine"`
	Ingest   []ingestRow   `json:"ingest,omitempty"`
	Pipeline []pipelineRow `json:"pipeline,omitempty"`
	Start    []startRow    `json:"start,omitempty"`
	Alert    []alertRow    `json:"alert,omitempty"`
	Sparse   []sparseRow   `json:"sparse,omitempty"`
	Fanout   []fanoutRow   `json:"fanout,omitempty"`
	Idle     []idleRow     `json:"idle,omitempty"`
	Backlog  []backlogRow  `json:"backlog,omitempty"`
	Outage   []outageRow   `json:"outage,omitempty"`
	Failures []string      `json:"failures,omitempty"`
}

type machine struct {
	CPUs       int    `json:"cpus"`
	Model      string `json:"model"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the data directory
	Commit     string `json:"commit_interval"`
}

func main() {
	children := map[string]func([]string) error{"load": loadMain, "journalled": journalledMain, "crowd": crowdMain, "fan": fanMain}
	if len(os.Args) > 1 && children[os.Args[1]] != nil {
		if err := children[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var b bench
	parts := flag.String("run", "ingest,sparse,fanout,idle,pipeline,start,alert", "which parts, in this order")
	jsonFile := flag.String("json", "", "also write the figures to this file, - for stdout instead of the tables")
	flag.StringVar(&b.binary, "sluice", "", "gateway binary (default: built from this module)")
	flag.StringVar(&b.dir, "dir", os.TempDir(), "where data directories go: a real disk, or the figures say nothing about durability")
	flag.DurationVar(&b.commit, "commit", 5*time.Millisecond, "journal.commit_interval")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of ingest, sparse and fanout, the servers in turn")
	flag.DurationVar(&b.measure, "measure", 8*time.Second, "measured time of each load")
	flag.IntVar(&b.points, "points", 2_000_000, "points on disk for -run backlog")
	flag.DurationVar(&b.away, "away", time.Minute, "how long the store is away for -run outage")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if b.binary == "" {
		dir, err := os.MkdirTemp("", "sluice-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if b.binary, err = proc.Build(dir); err != nil {
			return err
		}
	}
	var err error
	if b.report.Machine, err = b.describeMachine(); err != nil {
		return err
	}
	out := io.Writer(os.Stdout)
	if *jsonFile == "-" {
		out = io.Discard
	}
	m := b.report.Machine
	fmt.Fprintf(out, "%d CPUs (%s), Linux %s, data on %s, commit_interval %s\n", m.CPUs, m.Model, m.Kernel, m.FileSystem, m.Commit)
	if strings.HasPrefix(m.FileSystem, "tmpfs") {
		fmt.Fprintln(out, "the data directory is in memory: fdatasync costs nothing there; use -dir")
	}
	known := map[string]func(io.Writer) error{"ingest": b.ingest, "pipeline": b.pipeline, "start": b.start, "alert": b.alert,
		"sparse": b.sparse, "fanout": b.fanout, "idle": b.idle,
		"backlog": b.backlog, "outage": b.outage}
	for _, part := range strings.Split(*parts, ",") {
		if known[part] == nil {
			return fmt.Errorf("unknown part %q", part)
		}
		if err := known[part](out); err != nil {
			b.report.Failures = append(b.report.Failures, part+": "+err.Error())
			fmt.Fprintf(out, "\n%s: %v\n", part, err)
		}
	}
	if *jsonFile != "" {
		if err := b.writeJSON(*jsonFile); err != nil {
			return err
		}
	}
	if len(b.report.Failures) > 0 {
		return errors.New("some parts failed")
	}
	return nil
}

func (b *bench) writeJSON(name string) error {
	text, err := json.MarshalIndent(&b.report, "", "  ")
	if err != nil {
		return err
	}
	if name == "-" {
		_, err = os.Stdout.Write(append(text, '\n'))
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}

func (b *bench) describeMachine() (machine, error) {
	m := machine{Model: "unknown", Commit: b.commit.String()}
	if cpu, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(cpu)) {
			key, value, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(key) {
			case "processor":
				m.CPUs++
			case "model name":
				m.Model = strings.TrimSpace(value)
			}
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	var fs unix.Statfs_t
	if err := unix.Statfs(b.dir, &fs); err != nil {
		return m, fmt.Errorf("%s: %w", b.dir, err)
	}
	names := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
	if m.FileSystem = names[int64(fs.Type)]; m.FileSystem == "" {
		m.FileSystem = fmt.Sprintf("%#x", fs.Type)
	}
	return m, nil
}

// measured is a load on a server, with what the server spent during the measured time.
type measured struct {
	loadResult
	CPU          time.Duration
	RSS, PeakRSS int64
	Behind       uint64        // messages acknowledged but not yet through the pipeline when the measured time ended
	CatchUp      time.Duration // until they were
}

// readingsPerMessage is what newFrame's payload carries.
const readingsPerMessage = 3

// apply runs the generator as a child against s.
func (b *bench) apply(s *server, l load) (*measured, error) {
	l.Address = s.address
	cmd := exec.Command("/proc/self/exe", l.args()...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var m measured
	var begin time.Duration
	var accepted uint64
	var ended time.Time
	var failed error
	sc := bufio.NewScanner(pipe)
	for sc.Scan() {
		switch line := sc.Text(); line {
		case "begin":
			begin, err = s.proc.CPU()
			failed = errors.Join(failed, err)
		case "end":
			end, err := s.proc.CPU()
			m.CPU = end - begin
			var memErr error
			m.RSS, m.PeakRSS, memErr = s.proc.Memory()
			failed = errors.Join(failed, err, memErr)
			if ended = time.Now(); s.http != "" {
				accepted, err = s.accepted()
				failed = errors.Join(failed, err)
			}
		default:
			failed = errors.Join(failed, json.Unmarshal([]byte(line), &m.loadResult))
		}
	}
	if err := errors.Join(sc.Err(), cmd.Wait(), failed); err != nil {
		return nil, fmt.Errorf("load on %s: %w\n%s", s.name, err, lastLines(s.proc.Log.String(), 10))
	}
	if m.Acked == 0 {
		return nil, fmt.Errorf("load on %s: nothing acknowledged", s.name)
	}
	if s.http == "" {
		return &m, nil
	}
	m.Behind = m.Total - min(accepted/readingsPerMessage, m.Total)
	for accepted < readingsPerMessage*m.Total {
		if time.Since(ended) > time.Minute {
			return nil, fmt.Errorf("%s took in %d readings of %d messages a minute after the load", s.name, accepted, m.Total)
		}
		time.Sleep(10 * time.Millisecond)
		if accepted, err = s.accepted(); err != nil {
			return nil, err
		}
		m.CatchUp = time.Since(ended)
	}
	return &m, nil
}

// perMessage is the server's CPU for one message, in µs.
func (m *measured) perMessage() float64 { return float64(m.CPU.Microseconds()) / float64(m.Acked) }

func (m *measured) rate() float64 { return float64(m.Acked) / m.Seconds }

// table prints aligned columns.
func table(w io.Writer, title string, header string, rows [][]string) {
	fmt.Fprintf(w, "\n%s\n", title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, strings.ReplaceAll(header, "|", "\t")+"\t")
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t")+"\t")
	}
	tw.Flush()
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

func lastLines(s string, n int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
