package rules

import (
	"encoding/json"

	"sluice/rules/expr"
)

// shape is a fragment of JSON Schema. The tables that the parser reads files with carry them, so the two cannot part.
type shape map[string]any

var (
	durationShape = shape{"type": "string", "pattern": `^(\d+(w|d|h|ms|m|s))+$`, "examples": []string{"30s", "5m", "1h30m", "5d"}}
	afterShape    = shape{"type": "string", "pattern": `^((\d+(w|d|h|ms|m|s))+|\d+(\.\d+)?x)$`, "examples": []string{"3x", "10m"}}
	nameShape     = shape{"type": []string{"string", "number", "boolean"}, "minLength": 1, "maxLength": maxName, "pattern": `^[^/+#]+$`}
	inhibitShape  = oneOrMore(objectOf(inhibitKeys(nil, nil, nil)))
)

func textShape(most int) shape { return shape{"type": "string", "minLength": 1, "maxLength": most} }

// scalarShape is text that YAML may take for a number or a boolean.
func scalarShape(most int) shape {
	return shape{"type": []string{"string", "number", "boolean"}, "minLength": 1, "maxLength": most}
}

func choice(words ...string) shape { return shape{"enum": words} }

func namesShape(least int) shape {
	return shape{"type": "array", "items": nameShape, "minItems": least, "uniqueItems": true}
}

func mapOf(value shape) shape {
	return shape{"type": "object", "additionalProperties": value, "propertyNames": shape{"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}}
}

func oneOrMore(item shape) shape {
	return shape{"anyOf": []shape{item, {"type": "array", "items": item, "minItems": 1}}}
}

// listOf is a list whose items are described when asked: descriptions nest as the tables do.
func listOf(item func() shape) shape { return shape{"type": "array", "items": item} }

// objectOf describes a mapping by its keys.
func objectOf(keys []key) shape {
	properties := shape{}
	required := []string{}
	for _, k := range keys {
		if k.later != "" {
			continue
		}
		s := shape{}
		for name, v := range k.shape {
			s[name] = v
		}
		if k.doc != "" {
			s["description"] = k.doc
		}
		properties[k.name] = s
		if k.required {
			required = append(required, k.name)
		}
	}
	s := shape{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

func objectShape(keys func(*parser, *Rule) []key) shape {
	return objectOf(keys(&parser{}, &Rule{Absent: &Absent{}, Anomaly: &Anomaly{}, Active: &Active{}}))
}

func ruleShape() shape {
	s := objectOf((&parser{}).ruleKeys(&Rule{}, &ruleNodes{}))
	s["oneOf"] = []shape{{"required": []string{"expr"}}, {"required": []string{"absent"}}, {"required": []string{"anomaly"}}}
	s["dependentRequired"] = shape{"clear": []string{"expr"}}
	_, examples := expr.Functions()
	s["properties"].(shape)["expr"].(shape)["examples"] = append([]string{"temperature > 8 and humidity < 30"}, examples...)
	return s
}

// MarshalJSON asks for what is described late.
func (s shape) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(s))
	for k, v := range s {
		if late, ok := v.(func() shape); ok {
			v = late()
		}
		m[k] = v
	}
	return json.Marshal(m)
}

// Schema is the JSON Schema (draft 2020-12) of rule files, for editors: what it refuses Parse refuses too, but for text that YAML
// takes for a number. Parse checks more: expressions, names, patterns.
func Schema() []byte {
	s := objectOf((&parser{}).fileKeys())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = "https://sluice.invalid/schema/rules.json"
	s["title"] = "sluice rule file"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("rules: the schema does not encode: " + err.Error()) // strings, numbers and maps of them
	}
	return append(b, '\n')
}
