package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds that keep a mistake, or a file from elsewhere, from costing more than a moment.
const (
	maxNodes  = 200_000 // values decoded, aliases counted each time they are used
	maxList   = 4096    // entries of one list
	maxErrors = 100     // reported
)

// place is where a key's value was written.
type place struct {
	file      string
	line, col int
}

func at(file string, n *yaml.Node) place { return place{file, n.Line, n.Column} }

// decoder turns YAML nodes into the schema's fields and collects every fault on the way.
type decoder struct {
	dir      string // of the file: relative paths start here
	places   map[string]place
	scalars  map[string]string
	sections map[string]bool // the keys among places that hold further keys
	budget   int
	errs     Errors
	warnings Errors
}

func (d *decoder) errorAt(p place, format string, args ...any) {
	if len(d.errs) == maxErrors {
		d.errs = append(d.errs, Error{File: p.file, Msg: "more faults follow"})
	}
	if len(d.errs) > maxErrors {
		return
	}
	d.errs = append(d.errs, Error{p.file, p.line, p.col, fmt.Sprintf(format, args...)})
}

// find returns the place of key, or of the closest section around it that was written.
func (d *decoder) find(key string) place {
	for {
		if p, ok := d.places[key]; ok || key == "" {
			return p
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
}

// written tells whether the file or the environment gave key a value.
func (d *decoder) written(key string) bool {
	_, ok := d.places[key]
	return ok
}

// fieldTag is a field's key and what its text means.
type fieldTag struct {
	key    string
	path   bool // resolved against the file's directory
	secret bool // refused when others can read the file
}

func tagOf(f reflect.StructField) (fieldTag, bool) {
	key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if key == "-" || key == "" {
		return fieldTag{}, false
	}
	return fieldTag{key, strings.Contains(options, "path"), strings.Contains(options, "secret")}, true
}

// isSection is true for the structs whose keys are addressed one by one: by viper, and by the environment.
func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct }

// eachLeaf calls f for every key below the sections of v: scalars, lists and maps.
func eachLeaf(v reflect.Value, prefix string, f func(key string, field reflect.Value, tag fieldTag) error) error {
	for i := range v.NumField() {
		tag, ok := tagOf(v.Type().Field(i))
		if !ok {
			continue
		}
		key := join(prefix, tag.key)
		var err error
		if isSection(v.Field(i).Type()) {
			err = eachLeaf(v.Field(i), key, f)
		} else {
			err = f(key, v.Field(i), tag)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// collect walks the sections of the file: it reports unknown and repeated keys and gathers the leaves.
func (d *decoder) collect(file string, n *yaml.Node, t reflect.Type, prefix string, leaves map[string]*yaml.Node) {
	d.eachKey(file, n, t, prefix, func(key string, _ int, tag fieldTag, ft reflect.Type, value *yaml.Node) {
		if isSection(ft) {
			d.collect(file, value, ft, key, leaves)
			return
		}
		leaves[key] = value
	})
}

// eachKey calls f for every known key of mapping n; prefix is n's own key.
func (d *decoder) eachKey(file string, n *yaml.Node, t reflect.Type, prefix string,
	f func(key string, field int, tag fieldTag, ft reflect.Type, value *yaml.Node)) {
	n = deref(n)
	d.sections[prefix] = true
	if isNull(n) { // a section whose keys are all commented out
		return
	}
	if n.Kind != yaml.MappingNode {
		d.errorAt(at(file, n), "%swant keys and values, got %s", label(prefix), describe(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := deref(n.Content[i]), n.Content[i+1]
		if d.budget--; d.budget < 0 {
			d.errorAt(at(file, k), "more than %d values; aliases count each time they are used", maxNodes)
			return
		}
		if k.Kind != yaml.ScalarNode {
			d.errorAt(at(file, k), "%sa key must be a word", label(prefix))
			continue
		}
		if first, ok := seen[k.Value]; ok {
			d.errorAt(at(file, k), "duplicate key %q, first on line %d", join(prefix, k.Value), first)
			continue
		}
		seen[k.Value] = k.Line
		field, tag, ok := fieldByKey(t, k.Value)
		if !ok {
			d.errorAt(at(file, k), "unknown key %q%s", join(prefix, k.Value), didYouMean(k.Value, keysOf(t)))
			continue
		}
		key := join(prefix, tag.key)
		d.places[key] = at(file, value)
		f(key, field, tag, t.Field(field).Type, value)
	}
}

func fieldByKey(t reflect.Type, key string) (int, fieldTag, bool) {
	for i := range t.NumField() {
		if tag, ok := tagOf(t.Field(i)); ok && tag.key == key {
			return i, tag, true
		}
	}
	return 0, fieldTag{}, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if tag, ok := tagOf(t.Field(i)); ok {
			keys = append(keys, tag.key)
		}
	}
	return keys
}

// label renders "key: " for messages, "" at the root.
func label(key string) string {
	if key == "" {
		return ""
	}
	return key + ": "
}

// decode stores the value of n in field. key names it in messages and in d.places.
func (d *decoder) decode(file string, n *yaml.Node, field reflect.Value, key string, tag fieldTag) {
	n = deref(n)
	if d.budget--; d.budget < 0 {
		if d.budget == -1 {
			d.errorAt(at(file, n), "more than %d values; aliases count each time they are used", maxNodes)
		}
		return
	}
	d.places[key] = at(file, n)
	switch field.Kind() {
	case reflect.Struct:
		d.eachKey(file, n, field.Type(), key, func(sub string, i int, t fieldTag, _ reflect.Type, value *yaml.Node) {
			d.decode(file, value, field.Field(i), sub, t)
		})
	case reflect.Slice:
		d.decodeList(file, n, field, key, tag)
	case reflect.Map:
		if ranges, ok := field.Addr().Interface().(*map[string]Range); ok {
			*ranges = d.decodeRanges(file, n, key)
			return
		}
		d.decodeMap(file, n, field, key)
	default:
		if n.Kind != yaml.ScalarNode || isNull(n) {
			d.errorAt(at(file, n), "%s: want %s, got %s", key, wanted(field.Type()), describe(n))
			return
		}
		d.decodeScalar(at(file, n), n.Value, n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0, field, key, tag)
	}
}

func (d *decoder) decodeList(file string, n *yaml.Node, field reflect.Value, key string, tag fieldTag) {
	if isNull(n) { // a list whose entries are all commented out
		field.SetZero()
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.errorAt(at(file, n), "%s: want a list, got %s", key, describe(n))
		return
	}
	if len(n.Content) > maxList {
		d.errorAt(at(file, n), "%s: want at most %d entries, got %d", key, maxList, len(n.Content))
		return
	}
	list := reflect.MakeSlice(field.Type(), 0, len(n.Content))
	for i, item := range n.Content {
		if d.budget < 0 {
			return
		}
		elem := reflect.New(field.Type().Elem()).Elem()
		if def, ok := elementDefaults[elem.Type()]; ok {
			elem.Set(reflect.ValueOf(def()))
		}
		d.decode(file, item, elem, key+"["+strconv.Itoa(i)+"]", tag)
		list = reflect.Append(list, elem)
	}
	field.Set(list)
}

// elementDefaults are what an entry of a list starts from.
var elementDefaults = map[reflect.Type]func() any{
	reflect.TypeFor[Listener]():    func() any { return defaultListener() },
	reflect.TypeFor[Source]():      func() any { return defaultSource() },
	reflect.TypeFor[Webhook]():     func() any { return defaultWebhook() },
	reflect.TypeFor[Destination](): func() any { return defaultDestination() },
}

func (d *decoder) decodeMap(file string, n *yaml.Node, field reflect.Value, key string) {
	m := map[string]string{}
	if isNull(n) {
		field.Set(reflect.ValueOf(m))
		return
	}
	if n.Kind != yaml.MappingNode {
		d.errorAt(at(file, n), "%s: want names and values, got %s", key, describe(n))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := deref(n.Content[i]), deref(n.Content[i+1])
		if d.budget--; d.budget < 0 {
			return
		}
		switch {
		case k.Kind != yaml.ScalarNode:
			d.errorAt(at(file, k), "%s: a name must be a word", key)
		case v.Kind != yaml.ScalarNode || isNull(v):
			d.errorAt(at(file, v), "%s: %s: want text, got %s", key, k.Value, describe(v))
		default:
			if _, ok := m[k.Value]; ok {
				d.errorAt(at(file, k), "duplicate key %q", join(key, k.Value))
			}
			m[k.Value] = v.Value
			d.places[join(key, k.Value)] = at(file, k)
		}
	}
	field.Set(reflect.ValueOf(m))
}

// decodeEnv stores an environment variable's text: scalars as they are, lists and maps as YAML.
func (d *decoder) decodeEnv(env, text string, field reflect.Value, key string, tag fieldTag) {
	file := "environment " + env
	for written := range d.places { // what the file said below this key no longer counts
		if strings.HasPrefix(written, key+"[") || strings.HasPrefix(written, key+".") {
			delete(d.places, written)
		}
	}
	d.places[key] = place{file: file}
	if k := field.Kind(); k != reflect.Slice && k != reflect.Map {
		d.decodeScalar(place{file: file}, text, false, field, key, tag)
		return
	}
	if n := d.parseYAML(file, []byte(text)); n != nil {
		d.decode(file, n, field, key, tag)
	}
}

// decodeScalar stores text in field; quoted tells whether the file had it in quotes.
func (d *decoder) decodeScalar(p place, text string, quoted bool, field reflect.Value, key string, tag fieldTag) {
	d.scalars[key] = text
	fail := func(detail string) {
		d.errorAt(p, "%s: want %s, got %q%s", key, wanted(field.Type()), text, detail)
	}
	switch field.Interface().(type) {
	case time.Duration:
		x, err := ParseDuration(text)
		if err != nil {
			fail(reason(err))
			return
		}
		field.SetInt(int64(x))
	case Bytes:
		x, err := ParseBytes(text)
		switch {
		case octalLooking(text):
			fail(octalHint(text))
		case err != nil:
			fail(reason(err))
		default:
			field.SetInt(int64(x))
		}
	case int:
		x, err := strconv.Atoi(text)
		switch {
		case quoted && p.line > 0:
			fail(" in quotes")
		case octalLooking(text):
			fail(octalHint(text))
		case err != nil:
			fail("")
		default:
			field.SetInt(int64(x))
		}
	case bool:
		if text != "true" && text != "false" {
			fail("")
			return
		}
		field.SetBool(text == "true")
	case string:
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			d.errorAt(p, "%s: control characters and invalid UTF-8 are refused", key)
			return
		}
		if tag.path {
			text = resolve(d.dir, text)
		}
		field.SetString(text)
	}
}

func reason(err error) string {
	if errors.Is(err, errUnit) {
		return ""
	}
	return ", " + err.Error()
}

func octalHint(text string) string {
	return fmt.Sprintf(": a leading zero means octal to some readers of YAML; write %s", strings.TrimLeft(text, "0"))
}

// wanted says what a value of t looks like.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return `a duration such as "30s"`
	case reflect.TypeFor[Bytes]():
		return `a size such as "16MiB"`
	case reflect.TypeFor[int]():
		return "a whole number"
	case reflect.TypeFor[bool]():
		return "true or false"
	}
	return "text"
}

// describe says what n is, for messages.
func describe(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" && slices.Contains([]string{"", "~", "null", "Null", "NULL"}, n.Value)
}

// deref follows an alias to what it stands for.
func deref(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && n.Alias != nil && i < 8; i++ {
		n = n.Alias
	}
	return n
}
