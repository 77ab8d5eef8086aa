package history

import (
	"bufio"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// encoder writes Prometheus' JSON as it goes: a matrix of a million points is not held a second time.
type encoder struct {
	w   *bufio.Writer
	buf []byte
}

func writeAnswer(w http.ResponseWriter, data any, warnings, infos []string) {
	var plain []byte
	switch data.(type) {
	case promql.Vector, promql.Matrix, promql.Scalar, promql.String, []labels.Labels:
	default:
		var err error
		if plain, err = json.Marshal(data); err != nil { // strings and maps of them: cannot fail
			writeError(w, &apiError{http.StatusInternalServerError, "internal", err})
			return
		}
	}
	head(w, http.StatusOK)
	e := encoder{w: bufio.NewWriterSize(w, 16<<10)}
	e.raw(`{"status":"success","data":`)
	switch v := data.(type) {
	case promql.Vector:
		e.vector(v)
	case promql.Matrix:
		e.matrix(v)
	case promql.Scalar:
		e.raw(`{"resultType":"scalar","result":`)
		e.point(v.T, v.V)
		e.raw("}")
	case promql.String:
		e.raw(`{"resultType":"string","result":[`)
		e.time(v.T)
		e.raw(",")
		e.text(v.V)
		e.raw("]}")
	case []labels.Labels:
		e.list(len(v), func(i int) { e.labels(v[i]) })
	default:
		e.w.Write(plain)
	}
	for _, n := range []struct {
		name string
		list []string
	}{{"warnings", warnings}, {"infos", infos}} {
		if len(n.list) > 0 {
			e.raw(`,"` + n.name + `":`)
			e.list(len(n.list), func(i int) { e.text(n.list[i]) })
		}
	}
	e.raw("}")
	e.w.Flush() // nobody is left to be told of an error
}

func writeError(w http.ResponseWriter, a *apiError) {
	b, _ := json.Marshal(struct { // strings: cannot fail
		Status string `json:"status"`
		Kind   string `json:"errorType"`
		Error  string `json:"error"`
	}{"error", a.kind, a.err.Error()})
	head(w, a.code)
	w.Write(b)
}

func head(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
}

func (e *encoder) raw(s string) { e.w.WriteString(s) }

func (e *encoder) list(n int, item func(i int)) {
	e.raw("[")
	for i := range n {
		if i > 0 {
			e.raw(",")
		}
		item(i)
	}
	e.raw("]")
}

func (e *encoder) vector(v promql.Vector) {
	e.raw(`{"resultType":"vector","result":`)
	e.list(len(v), func(i int) {
		e.raw(`{"metric":`)
		e.labels(v[i].Metric)
		e.raw(`,"value":`)
		e.point(v[i].T, v[i].F)
		e.raw("}")
	})
	e.raw("}")
}

func (e *encoder) matrix(m promql.Matrix) {
	e.raw(`{"resultType":"matrix","result":`)
	e.list(len(m), func(i int) {
		e.raw(`{"metric":`)
		e.labels(m[i].Metric)
		e.raw(`,"values":`)
		e.list(len(m[i].Floats), func(k int) { e.point(m[i].Floats[k].T, m[i].Floats[k].F) })
		e.raw("}")
	})
	e.raw("}")
}

func (e *encoder) labels(l labels.Labels) {
	first := true
	e.raw("{")
	l.Range(func(l labels.Label) {
		if !first {
			e.raw(",")
		}
		first = false
		e.text(l.Name)
		e.raw(":")
		e.text(l.Value)
	})
	e.raw("}")
}

// text writes a JSON string; what is not UTF-8 becomes U+FFFD.
func (e *encoder) text(s string) {
	b, _ := json.Marshal(s)
	e.w.Write(b)
}

func (e *encoder) point(t int64, v float64) {
	e.raw("[")
	e.time(t)
	e.raw(`,"`)
	e.buf = appendValue(e.buf[:0], v)
	e.w.Write(e.buf)
	e.raw(`"]`)
}

// time writes seconds with as many decimals as there are, three at most.
func (e *encoder) time(ms int64) {
	b := e.buf[:0]
	if ms < 0 {
		b = append(b, '-')
	}
	u := uint64(max(ms, -ms))
	b = strconv.AppendUint(b, u/1000, 10)
	if rest := u % 1000; rest > 0 {
		b = append(b, '.', '0'+byte(rest/100), '0'+byte(rest/10%10), '0'+byte(rest%10))
	}
	e.w.Write(b)
	e.buf = b
}

// appendValue writes a float as Prometheus does: NaN, +Inf, -Inf, and an exponent only for the very small and large.
func appendValue(b []byte, v float64) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, v, format, -1, 64)
}
