package sim

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Scenario is what a scenario file holds: faults and, where the story needs them, settings of the fleet.
type Scenario struct {
	Description string
	Faults      []Fault
	set         map[string]func(*Config)
}

// FleetKeys lists the keys that a scenario's fleet section may set.
func FleetKeys() []string { return slices.Sorted(mapKeys(fleetKeys)) }

// Apply puts the scenario's settings into cfg, except those whose key is in keep (the flags a user gave), and adds its
// faults.
func (s *Scenario) Apply(cfg *Config, keep map[string]bool) {
	for key, set := range s.set {
		if !keep[key] {
			set(cfg)
		}
	}
	cfg.Faults = append(cfg.Faults, s.Faults...)
}

// LoadScenario reads and checks a scenario file. The error names file, line and column of everything that is wrong.
func LoadScenario(file string) (*Scenario, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	return ParseScenario(file, data)
}

// maxScenario bounds a scenario file in bytes.
const maxScenario = 1 << 20

// ParseScenario checks data, which messages call name, and returns the scenario. Unknown keys, duplicate keys, aliases
// and values of the wrong kind are errors; all are reported, joined, as "name:line:column: key: what is wanted".
func ParseScenario(name string, data []byte) (*Scenario, error) {
	if len(data) > maxScenario {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, maxScenario)
	}
	var doc yaml.Node
	if err := yaml.Load(data, &doc); err != nil {
		var le *yaml.LoadError
		if errors.As(err, &le) {
			return nil, fmt.Errorf("%s:%d:%d: %s", name, le.Mark.Line, le.Mark.Column, le.Message)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &scenarioParser{name: name}
	s := &Scenario{set: map[string]func(*Config){}}
	root := &doc
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	p.mapping(root, map[string]func(*yaml.Node){
		"description": func(n *yaml.Node) { s.Description = p.text(n, "description") },
		"fleet":       func(n *yaml.Node) { p.fleet(n, s) },
		"faults": func(n *yaml.Node) {
			if n.Kind != yaml.SequenceNode {
				p.bad(n, "faults", "want a list")
				return
			}
			for _, item := range n.Content {
				s.Faults = append(s.Faults, p.fault(item))
			}
		},
	})
	if len(p.errs) == 0 && len(s.Faults) == 0 && len(s.set) == 0 {
		p.bad(root, "faults", "the scenario says nothing: give faults or fleet")
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return s, nil
}

type scenarioParser struct {
	name  string
	names []string // of the faults so far
	errs  []error
}

func (p *scenarioParser) bad(n *yaml.Node, key, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d:%d: %s: %s", p.name, n.Line, n.Column, key, fmt.Sprintf(format, args...)))
}

// mapping calls the function of each key with its value.
func (p *scenarioParser) mapping(n *yaml.Node, keys map[string]func(*yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		p.bad(n, "scenario", "want a mapping with %s", strings.Join(slices.Sorted(mapKeys(keys)), ", "))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		set, ok := keys[k.Value]
		switch {
		case k.Kind != yaml.ScalarNode || !ok:
			p.bad(k, strconv.Quote(k.Value), "unknown key; the keys here are %s", strings.Join(slices.Sorted(mapKeys(keys)), ", "))
		case seen[k.Value]:
			p.bad(k, k.Value, "given twice")
		case v.Kind == yaml.AliasNode:
			p.bad(v, k.Value, "aliases are not supported")
		default:
			set(v)
		}
		seen[k.Value] = true
	}
}

// fleetKeys sets one key of the fleet section from its node.
var fleetKeys = map[string]func(p *scenarioParser, n *yaml.Node) func(*Config){
	"devices": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.count(n, "devices")
		return func(c *Config) { c.Devices = int(v) }
	},
	"connections": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.count(n, "connections")
		return func(c *Config) { c.Connections = int(v) }
	},
	"count": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.count(n, "count")
		return func(c *Config) { c.Count = v }
	},
	"qos": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.count(n, "qos")
		return func(c *Config) { c.QoS = byte(min(v, 255)) }
	},
	"seed": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.count(n, "seed")
		return func(c *Config) { c.Seed = uint64(v) }
	},
	"inflight": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.count(n, "inflight")
		return func(c *Config) { c.Inflight = int(v) }
	},
	"rate": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.number(n, "rate")
		return func(c *Config) { c.Rate, c.TotalRate = v, 0 }
	},
	"total-rate": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.number(n, "total-rate")
		return func(c *Config) { c.TotalRate, c.Rate = v, 0 }
	},
	"duration": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.duration(n, "duration")
		return func(c *Config) { c.Duration = v }
	},
	"day": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.duration(n, "day")
		return func(c *Config) { c.Day = v }
	},
	"site": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.text(n, "site")
		return func(c *Config) { c.Site = v }
	},
	"topic": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.text(n, "topic")
		return func(c *Config) { c.Topic = v }
	},
	"profiles": func(p *scenarioParser, n *yaml.Node) func(*Config) {
		v := p.list(n, "profiles")
		return func(c *Config) { c.Profiles = v }
	},
}

// fleet reads the fleet section and checks it as part of an otherwise default Config.
func (p *scenarioParser) fleet(n *yaml.Node, s *Scenario) {
	at := map[string]*yaml.Node{}
	keys := map[string]func(*yaml.Node){}
	for key, read := range fleetKeys {
		keys[key] = func(n *yaml.Node) { s.set[key], at[key] = read(p, n), n }
	}
	before := len(p.errs)
	p.mapping(n, keys)
	if len(p.errs) > before {
		return
	}
	for key, set := range s.set { // one key at a time, so that the message points at it
		cfg := Defaults()
		set(&cfg)
		if err := cfg.Validate(); err != nil {
			p.bad(at[key], key, "%s", strings.TrimPrefix(err.Error(), key+": "))
		}
	}
	slices.SortFunc(p.errs[before:], func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
}

func (p *scenarioParser) fault(n *yaml.Node) Fault {
	var f Fault
	at := map[string]*yaml.Node{}
	on := func(key string, read func(*yaml.Node)) func(*yaml.Node) {
		return func(n *yaml.Node) { at[key] = n; read(n) }
	}
	before := len(p.errs)
	p.mapping(n, map[string]func(*yaml.Node){
		"name":        on("name", func(n *yaml.Node) { f.Name = p.text(n, "name") }),
		"kind":        on("kind", func(n *yaml.Node) { f.Kind = p.text(n, "kind") }),
		"devices":     on("devices", func(n *yaml.Node) { f.Devices = p.text(n, "devices") }),
		"start":       on("start", func(n *yaml.Node) { f.Start = p.duration(n, "start") }),
		"duration":    on("duration", func(n *yaml.Node) { f.Duration = p.duration(n, "duration") }),
		"off":         on("off", func(n *yaml.Node) { f.Off = p.boolean(n, "off") }),
		"probability": on("probability", func(n *yaml.Node) { f.Probability = p.number(n, "probability") }),
		"metric":      on("metric", func(n *yaml.Node) { f.Metric = p.text(n, "metric") }),
		"magnitude":   on("magnitude", func(n *yaml.Node) { f.Magnitude = p.number(n, "magnitude") }),
		"delay":       on("delay", func(n *yaml.Node) { f.Delay = p.duration(n, "delay") }),
		"offset":      on("offset", func(n *yaml.Node) { f.Offset = p.duration(n, "offset") }),
		"offline":     on("offline", func(n *yaml.Node) { f.Offline = p.duration(n, "offline") }),
		"every":       on("every", func(n *yaml.Node) { f.Every = p.duration(n, "every") }),
		"payload":     on("payload", func(n *yaml.Node) { f.Payload = p.text(n, "payload") }),
	})
	if len(p.errs) > before {
		return f
	}
	f = f.withDefaults()
	for _, problem := range f.problems() {
		where := at[problem.key]
		if where == nil {
			where = n
		}
		p.bad(where, problem.key, "%s", problem.text)
	}
	if slices.Contains(p.names, f.Name) {
		where := n
		if at["name"] != nil {
			where = at["name"]
		}
		p.bad(where, "name", "%q is taken: give each fault its own name", f.Name)
	}
	p.names = append(p.names, f.Name)
	return f
}

func (p *scenarioParser) text(n *yaml.Node, key string) string {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		p.bad(n, key, "want a non-empty string")
	}
	return n.Value
}

func (p *scenarioParser) list(n *yaml.Node, key string) (items []string) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		p.bad(n, key, "want a list of strings")
		return nil
	}
	for _, item := range n.Content {
		items = append(items, p.text(item, key))
	}
	return items
}

func (p *scenarioParser) boolean(n *yaml.Node, key string) bool {
	if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
		p.bad(n, key, "want true or false, got %q", n.Value)
	}
	return n.Value == "true"
}

func (p *scenarioParser) number(n *yaml.Node, key string) float64 {
	v, err := strconv.ParseFloat(n.Value, 64)
	if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		p.bad(n, key, "want a number, got %q", n.Value)
		return 0
	}
	return v
}

func (p *scenarioParser) count(n *yaml.Node, key string) int64 {
	v, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || v < 0 {
		p.bad(n, key, "want a whole number of 0 or more, got %q", n.Value)
		return 0
	}
	return v
}

func (p *scenarioParser) duration(n *yaml.Node, key string) time.Duration {
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		p.bad(n, key, "want a duration such as \"30s\" or \"1h30m\", got %q", n.Value)
		return 0
	}
	return d
}

func mapKeys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// ParseFault reads a fault from a command line: kind, then settings as in a scenario file, such as
// "spike:devices=freezer-*,start=30s,magnitude=20".
func ParseFault(s string) (Fault, error) {
	kind, rest, _ := strings.Cut(s, ":")
	root := &yaml.Node{Kind: yaml.MappingNode}
	add := func(k, v string) {
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: k}, &yaml.Node{Kind: yaml.ScalarNode, Value: v})
	}
	add("kind", kind)
	for part := range strings.SplitSeq(rest, ",") {
		if part == "" {
			continue
		}
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return Fault{}, fmt.Errorf("%q: want key=value after the kind, got %q", s, part)
		}
		add(strings.TrimSpace(k), strings.TrimSpace(v))
	}
	p := &scenarioParser{}
	f := p.fault(root)
	var errs []error
	for _, err := range p.errs {
		errs = append(errs, errors.New(strings.TrimPrefix(err.Error(), ":0:0: ")))
	}
	return f, errors.Join(errs...)
}
