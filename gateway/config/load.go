package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v4"
)

// maxFileBytes bounds sluice.yaml.
const maxFileBytes = 1 << 20

// Load reads, layers and checks the configuration. What is wrong with it comes as Errors, all at once; the Config beside Errors
// has defaults in their place and serves only to look for further faults. Any other error means that the file could not be
// read. The environment is the process's own: SLUICE_ and the key's path in capitals with _ for
// every dot (SLUICE_MQTT_ALLOW_ANONYMOUS). A list or map takes YAML there: SLUICE_RULES_FILES='[a.yaml, b.yaml]'. An empty
// variable counts as absent.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse is Load for the bytes of a file. path serves messages and is where relative paths start.
func Parse(path string, data []byte) (*Config, error) {
	c := Default()
	c.File = path
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	d := &decoder{dir: dir, places: map[string]place{}, scalars: map[string]string{}, sections: map[string]bool{}, budget: maxNodes}
	root := d.parseYAML(path, data)
	leaves := map[string]*yaml.Node{}
	if root != nil {
		d.places[""] = at(path, root)
		d.collect(path, root, reflect.TypeFor[Config](), "", leaves)
	}
	if err := d.layer(c, path, leaves); err != nil {
		return nil, err
	}
	check(c, d)
	c.Warnings = d.warnings.inOrder()
	if len(d.errs) > 0 {
		return c, d.errs.inOrder()
	}
	return c, nil
}

// layer lets viper pick, for every key of the schema, the environment's value or the file's, and stores it in c.
func (d *decoder) layer(c *Config, file string, leaves map[string]*yaml.Node) error {
	v := viper.New()
	tree := map[string]any{}
	for key, node := range leaves {
		nest(tree, key, node)
	}
	if err := v.MergeConfigMap(tree); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	known := map[string]bool{}
	err := eachLeaf(reflect.ValueOf(c).Elem(), "", func(key string, field reflect.Value, tag fieldTag) error {
		env := EnvName(key)
		known[env] = true
		if err := v.BindEnv(key, env); err != nil {
			return fmt.Errorf("bind %s: %w", env, err)
		}
		switch x := v.Get(key).(type) {
		case nil: // the default stands
		case *yaml.Node:
			d.decode(file, x, field, key, tag)
		case string:
			d.decodeEnv(env, x, field, key, tag)
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.strayEnv(known)
	return nil
}

// strayEnv warns about SLUICE_ variables that set nothing. They are no errors: a Kubernetes service named sluice puts
// SLUICE_SERVICE_HOST and its kin into every pod beside it.
func (d *decoder) strayEnv(known map[string]bool) {
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || known[name] || value == "" || name == "SLUICE_ADDRESS" { // of the commands
			continue
		}
		d.warnings = append(d.warnings, Error{File: "environment " + name, Msg: "sets no key" + didYouMean(name, names)})
	}
}

const envPrefix = "SLUICE_"

// EnvName is the environment variable that sets key: mqtt.limits.connections is SLUICE_MQTT_LIMITS_CONNECTIONS.
func EnvName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// nest puts value at the dotted key of tree.
func nest(tree map[string]any, key string, value any) {
	parts := strings.Split(key, ".")
	for _, p := range parts[:len(parts)-1] {
		next, ok := tree[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[p] = next
		}
		tree = next
	}
	tree[parts[len(parts)-1]] = value
}

// parseYAML returns the root mapping, or nil for an empty file and after an error.
func (d *decoder) parseYAML(file string, data []byte) *yaml.Node {
	if len(data) > maxFileBytes {
		d.errs = append(d.errs, Error{File: file, Msg: fmt.Sprintf("longer than %d bytes", maxFileBytes)})
		return nil
	}
	var doc, second yaml.Node
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err == nil {
		err = loader.Load(&doc)
	}
	if err == io.EOF {
		return nil
	}
	if err == nil {
		switch err = loader.Load(&second); {
		case err == nil:
			d.errorAt(at(file, &second), "want one YAML document, found a second one")
			return nil
		case err == io.EOF:
			err = nil
		}
	}
	if err != nil {
		e := Error{File: file, Line: 1, Column: 1, Msg: err.Error()}
		var le *yaml.LoadError
		if errors.As(err, &le) {
			e.Msg = le.Message
			if le.Mark.Line > 0 {
				e.Line, e.Column = le.Mark.Line, max(le.Mark.Column, 1)
			}
		}
		if strings.TrimSpace(e.Msg) == "" {
			e.Msg = "not YAML"
		}
		d.errs = append(d.errs, e)
		return nil
	}
	node := &doc
	if node.Kind == yaml.DocumentNode {
		if len(node.Content) == 0 {
			return nil
		}
		node = node.Content[0]
	}
	if node.Kind == 0 || isNull(node) {
		return nil
	}
	return node
}
