package store

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"time"

	"sluice/gateway/e2e/proc"
)

// Victoria is VictoriaMetrics as a child process: an InfluxDB-compatible store that is not ours.
//
// It does not overwrite. A second sample at an equal timestamp is kept beside the first; with deduplication on, the later
// one wins inside one part and the larger one across parts (seen on Debian's 1.79.5). So a test that reads it back
// compares raw samples (no deduplication) and either sends each window once or looks for the expected sample among them.
type Victoria struct {
	*proc.Proc
	Address string
	dir     string
}

// VictoriaBinary is the program's name in Debian's package victoria-metrics.
const VictoriaBinary = "victoria-metrics"

// HasVictoria reports whether the program is installed.
func HasVictoria() bool {
	_, err := exec.LookPath(VictoriaBinary)
	return err == nil
}

// StartVictoria starts it with its data in dir, and waits until it answers. A restart on the same dir and address keeps the
// data; address "" takes a free port.
func StartVictoria(dir, address string) (*Victoria, error) {
	if address == "" {
		port, err := proc.FreePort()
		if err != nil {
			return nil, err
		}
		address = fmt.Sprintf("127.0.0.1:%d", port)
	}
	// retentionPeriod: the default of a month would refuse readings a test stamps further back.
	// latencyOffset: else the last 30 s are hidden from queries. memory: it shares the machine with everything else.
	p, err := proc.Start("victoria-metrics", nil, VictoriaBinary, "-httpListenAddr="+address, "-storageDataPath="+dir,
		"-retentionPeriod=10y", "-search.latencyOffset=0s", "-search.disableCache", "-memory.allowedBytes=128MiB", "-loggerLevel=WARN")
	if err != nil {
		return nil, err
	}
	v := &Victoria{Proc: p, Address: address, dir: dir}
	deadline := time.Now().Add(20 * time.Second)
	for {
		resp, err := http.Get(v.URL() + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return v, nil
			}
		}
		if !p.Alive() || time.Now().After(deadline) {
			p.Kill()
			return nil, fmt.Errorf("victoria-metrics does not answer: %v\n%s", err, p.Log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// URL is its base address.
func (v *Victoria) URL() string { return "http://" + v.Address }

// VictoriaSeries is one exported series: every sample as stored, duplicates included. Timestamps are in ms.
type VictoriaSeries struct {
	Metric     map[string]string `json:"metric"`
	Values     []float64         `json:"values"`
	Timestamps []int64           `json:"timestamps"`
}

// Export returns all samples of the series that match a selector such as {device="a"}, without deduplication; one series
// may come in several pieces.
func (v *Victoria) Export(selector string) ([]VictoriaSeries, error) {
	resp, err := http.Get(v.URL() + "/internal/force_flush") // makes what was just written visible
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	resp, err = http.PostForm(v.URL()+"/api/v1/export", url.Values{"match[]": {selector}, "reduce_mem_usage": {"1"}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("export: %s: %s", resp.Status, b)
	}
	var out []VictoriaSeries
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var s VictoriaSeries
		if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		out = append(out, s)
	}
	return out, sc.Err()
}
