package console

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// After a change of the table or of its types: give new rows a line in openapi_words_test.go, then
//
//	go test ./gateway/console -run TestOpenAPI_DescribesEveryRow -update
var update = flag.Bool("update", false, "write openapi.json anew")

type object = map[string]any

// described leaves out what people and Prometheus' clients read.
func described(row route) bool {
	return strings.HasPrefix(row.pattern, "/api/") || slices.Contains([]string{"/healthz", "/readyz", "/metrics"}, row.pattern)
}

// writeOpenAPI makes the document from the table, its types with their comments, and operations.
func writeOpenAPI(t *testing.T) []byte {
	t.Helper()
	w := &schemaWriter{t: t, comments: fieldComments(t), schemas: object{}}
	paths := object{}
	for _, row := range table() {
		if !described(row) {
			continue
		}
		key := row.method + " " + row.pattern
		words, ok := operations[key]
		if !ok {
			t.Errorf("%s has no line in operations (openapi_words_test.go)", key)
		}
		at, _ := paths[row.pattern].(object)
		if at == nil {
			at = object{}
			paths[row.pattern] = at
		}
		at[strings.ToLower(row.method)] = w.operation(&row, &words)
	}
	w.schemas["Problem"] = object{"type": "object", "description": "RFC 9457", "required": []string{"type", "title", "status", "detail"}, "properties": object{
		"type": object{"type": "string"}, "title": object{"type": "string"}, "status": object{"type": "integer"}, "detail": object{"type": "string"},
	}}
	doc := object{
		"openapi": "3.1.0",
		"info": object{"title": "sluice", "version": "1", "description": "HTTP API of a sluice gateway. Names may be added to answers; none changes its " +
			"meaning or goes away. x-role is the least role that may ask; x-scope says whether somebody who may see certain labels only is refused (refused), " +
			"sees their part (own), or sees the same as everybody (all). PromQL is below /prometheus/api/v1/, as Prometheus documents it."},
		"security": []any{object{}, object{"bearer": []string{}}, object{"session": []string{}}},
		"paths":    paths,
		"components": object{"schemas": w.schemas, "securitySchemes": object{
			"bearer":  object{"type": "http", "scheme": "bearer"},
			"session": object{"type": "apiKey", "in": "cookie", "name": "sluice_session"},
		}},
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(doc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type schemaWriter struct {
	t        *testing.T
	comments map[string]string
	schemas  object
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

func (w *schemaWriter) operation(row *route, words *operation) object {
	op := object{
		"summary": words.summary, "operationId": operationID(row), "x-role": row.least.String(),
		"x-scope": map[scopeRule]string{unscoped: "refused", scoped: "own", noData: "all"}[row.scope],
	}
	var params []any
	errors := slices.Clone(words.errors)
	for _, m := range pathParameter.FindAllStringSubmatch(row.pattern, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
		errors = append(errors, http.StatusNotFound)
	}
	for _, p := range words.query {
		schema := object{"type": "string"}
		if p.integer {
			schema["type"] = "integer"
		}
		if p.enum != nil {
			schema["enum"] = p.enum
		}
		if p.repeat {
			schema = object{"type": "array", "items": schema}
		}
		params = append(params, object{"name": p.name, "in": "query", "description": p.description, "schema": schema})
	}
	if params != nil {
		op["parameters"] = params
	}
	if len(words.query) > 0 && row.method == http.MethodGet {
		errors = append(errors, http.StatusBadRequest)
	}
	if row.least > Nobody {
		errors = append(errors, http.StatusUnauthorized, http.StatusForbidden)
	}
	if row.in != nil {
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": w.of(reflect.TypeOf(row.in), true)}}}
		errors = append(errors, http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity)
	}
	if row.method != http.MethodGet && row.least > Nobody {
		errors = append(errors, http.StatusServiceUnavailable)
	}
	op["responses"] = w.responses(row, words, errors)
	return op
}

func (w *schemaWriter) responses(row *route, words *operation, errors []int) object {
	all := object{}
	for _, code := range errors {
		all[strconv.Itoa(code)] = object{"description": http.StatusText(code), "content": object{"application/problem+json": object{"schema": reference("Problem")}}}
	}
	var content object
	code := http.StatusOK
	switch {
	case words.answer != "":
		content = object{words.answer: object{}}
	case row.out != nil:
		content = object{"application/json": object{"schema": w.of(reflect.TypeOf(row.out), false)}}
	default:
		code = http.StatusNoContent
	}
	if reflect.TypeOf(row.out) == reflect.TypeFor[Created]() {
		code = http.StatusAccepted
	}
	if key := row.method + " " + row.pattern; key == "POST /api/v1/silences" || key == "POST /api/v1/tokens" {
		code = http.StatusCreated
	}
	ok := object{"description": http.StatusText(code)}
	if content != nil {
		ok["content"] = content
	}
	all[strconv.Itoa(code)] = ok
	if row.pattern == "/readyz" {
		all["503"] = object{"description": "a part makes no progress", "content": content}
	}
	return all
}

// operationID is the method and the words of the path, joined.
func operationID(row *route) string {
	words := strings.FieldsFunc(strings.TrimPrefix(row.pattern, "/api/v1"), func(r rune) bool { return !('a' <= r && r <= 'z') })
	return strings.ToLower(row.method) + "_" + strings.Join(words, "_")
}

func reference(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// of is the schema of a type; input: of a body, where nothing is required and no other names are taken.
func (w *schemaWriter) of(t reflect.Type, input bool) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[json.Marshaler]()) && t.Kind() != reflect.Struct:
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int64, reflect.Uint64, reflect.Uint32, reflect.Int32:
		return object{"type": "integer"}
	case reflect.Interface:
		return object{}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": w.of(t.Elem(), input)}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": w.of(t.Elem(), input)}
	case reflect.Pointer:
		return orNull(w.of(t.Elem(), input))
	case reflect.Struct:
		return w.structure(t, input)
	}
	w.t.Fatalf("no schema for %s", t)
	return nil
}

func orNull(s object) object {
	if kind, ok := s["type"].(string); ok {
		s = maps.Clone(s)
		s["type"] = []string{kind, "null"}
		return s
	}
	return object{"anyOf": []any{s, object{"type": "null"}}}
}

func (w *schemaWriter) structure(t reflect.Type, input bool) object {
	name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
	if _, done := w.schemas[name]; done {
		return reference(name)
	}
	s := object{"type": "object"}
	w.schemas[name] = s
	if text := w.comments[t.Name()]; text != "" {
		s["description"] = text
	}
	props, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || tag == "" || tag == "-" || !f.IsExported() {
			continue
		}
		if shadow, ok := fieldByTag(t, tag); ok && len(shadow.Index) < len(f.Index) {
			continue // an outer field of that name wins
		}
		p := w.of(f.Type, input)
		owner := t.Name()
		if len(f.Index) > 1 {
			owner = t.FieldByIndex(f.Index[:len(f.Index)-1]).Type.Name()
		}
		if words := enums[owner+"."+tag]; words != nil {
			p = maps.Clone(p)
			p["enum"] = words
		}
		if nullable[owner+"."+tag] {
			p = orNull(p)
		}
		if text := w.comments[owner+"."+f.Name]; text != "" {
			p = maps.Clone(p)
			p["description"] = text
		}
		props[tag] = p
		if !input && !strings.Contains(options, "omit") {
			required = append(required, tag)
		}
	}
	s["properties"] = props
	if input {
		s["additionalProperties"] = false
	} else if slices.Sort(required); len(required) > 0 {
		s["required"] = required
	}
	return reference(name)
}

// fieldByTag is the outermost field with a JSON name.
func fieldByTag(t reflect.Type, tag string) (found reflect.StructField, ok bool) {
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == tag && !f.Anonymous && (!ok || len(f.Index) < len(found.Index)) {
			found, ok = f, true
		}
	}
	return found, ok
}

// fieldComments are the comments behind the fields of this package's types, and above the types.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			d, ok := n.(*ast.GenDecl)
			if !ok {
				return true
			}
			for _, spec := range d.Specs {
				ts, ok := spec.(*ast.TypeSpec)
				if !ok {
					continue
				}
				st, ok := ts.Type.(*ast.StructType)
				if !ok {
					continue
				}
				all[ts.Name.Name] = oneLine(d.Doc)
				for _, field := range st.Fields.List {
					for _, id := range field.Names {
						if text := oneLine(field.Comment); text != "" {
							all[ts.Name.Name+"."+id.Name] = text
						}
					}
				}
			}
			return false
		})
	}
	return all
}

func oneLine(c *ast.CommentGroup) string {
	if c == nil {
		return ""
	}
	return strings.Join(strings.Fields(c.Text()), " ")
}

func TestOpenAPI_DescribesEveryRow(t *testing.T) {
	want := writeOpenAPI(t)
	if *update {
		if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	rows := map[string]bool{}
	for _, row := range table() {
		rows[row.method+" "+row.pattern] = true
	}
	for key := range operations {
		if !rows[key] {
			t.Errorf("operations has %s, which is no row of the table", key)
		}
	}
	if !bytes.Equal(openAPI, want) {
		t.Error("openapi.json is not what the table and its types say: go test ./gateway/console -run TestOpenAPI_DescribesEveryRow -update")
	}
}
