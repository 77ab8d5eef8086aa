package console

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// answerSchemas compiles the document's schemas of answers by method and path; names that the document does not know are errors.
func answerSchemas(t *testing.T, doc []byte) map[string]*jsonschema.Schema {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range v.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any) {
		s.(map[string]any)["additionalProperties"] = false
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.AssertContent()
	if err := c.AddResource("doc.json", v); err != nil {
		t.Fatal(err)
	}
	all := map[string]*jsonschema.Schema{}
	for path, methods := range v.(map[string]any)["paths"].(map[string]any) {
		for method, op := range methods.(map[string]any) {
			for code, response := range op.(map[string]any)["responses"].(map[string]any) {
				content, _ := response.(map[string]any)["content"].(map[string]any)
				body, _ := content["application/json"].(map[string]any)
				if code[0] != '2' || body["schema"] == nil {
					continue
				}
				escaped := strings.NewReplacer("~", "~0", "/", "~1").Replace(path)
				s, err := c.Compile("doc.json#/paths/" + escaped + "/" + method + "/responses/" + code + "/content/application~1json/schema")
				if err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				all[strings.ToUpper(method)+" "+path] = s
			}
		}
	}
	return all
}

// fill puts something into every field of v.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1_700_000_000, 123_000_000).UTC()))
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && depth < 12 {
				fill(v.Field(i), depth+1)
				tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				if words := enums[v.Type().Name()+"."+tag]; words != nil {
					v.Field(i).SetString(words[0])
				}
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), depth)
		fill(v.Index(1), depth)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e, depth)
		v.SetMapIndex(reflect.ValueOf("device").Convert(v.Type().Key()), e)
	case reflect.String:
		v.SetString("word")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf(map[string]any{"replayed": 1}))
		}
	}
}

func TestOpenAPI_AnswersWithEverythingInThemAreAsDescribed(t *testing.T) {
	schemas := answerSchemas(t, openAPI)
	for _, row := range table() {
		if row.out == nil || !described(row) {
			continue
		}
		key := row.method + " " + row.pattern
		s := schemas[key]
		if s == nil {
			t.Errorf("%s: the document describes no JSON answer", key)
			continue
		}
		for _, full := range []bool{true, false} {
			v := reflect.New(reflect.TypeOf(row.out))
			if full {
				fill(v.Elem(), 0)
			} else if row.pattern != "/api/v1/status" {
				continue
			} else {
				status := v.Interface().(*Status)
				status.complete()
			}
			b, err := json.Marshal(v.Interface())
			if err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			got, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(got); err != nil {
				t.Errorf("%s: %v\nin %s", key, err, b)
			}
		}
	}
}

func TestOpenAPI_IsServed(t *testing.T) {
	r := ask(t, &plant{}, "GET", "/api/openapi.json")
	var doc struct {
		OpenAPI string         `json:"openapi"`
		Paths   map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body(t, r)), &doc); err != nil || r.StatusCode != 200 || doc.OpenAPI != "3.1.0" || doc.Paths["/api/v1/events"] == nil {
		t.Errorf("GET /api/openapi.json = %s, %v, %s", r.Status, err, doc.OpenAPI)
	}
}
