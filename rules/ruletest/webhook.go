package ruletest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/rules"
	"sluice/rules/notify"
)

// checkWebhook looks at what a webhook was told until now. It returns "" when x holds.
func (p *play) checkWebhook(x *rules.Expectation) string {
	var found []told
	alerts := 0
	for _, t := range p.sent {
		reason := t.Notification.Reason
		if t.Receiver != x.Webhook || x.Reason != "" && x.Reason != reason.String() || x.Reason == "" && reason == notify.Repeated {
			continue
		}
		if n := matching(x, t.Notification); n > 0 {
			found = append(found, t)
			alerts += n
		}
	}
	what := "notification"
	if x.Status != "" {
		what = x.Status + " notification"
	}
	var want, got []string
	switch {
	case x.Count != nil && len(found) != *x.Count:
		want, got = append(want, plural(*x.Count, what)), append(got, plural(len(found), what))
	case x.Count == nil && len(found) == 0:
		want, got = append(want, "at least 1 "+what), append(got, "none")
	}
	if x.Alerts != nil && alerts != *x.Alerts {
		want, got = append(want, plural(*x.Alerts, "alert")+" in them"), append(got, plural(alerts, "alert")+" in them")
	}
	if x.Body != nil && len(found) > 0 {
		w, g := p.checkBody(x, &found[len(found)-1])
		want, got = append(want, w...), append(got, g...)
	}
	if len(want) == 0 {
		return ""
	}
	return p.failure(x, want, got)
}

// matching counts the alerts of a notification that x asks for.
func matching(x *rules.Expectation, n *notify.Notification) (count int) {
	for i := range n.Alerts {
		a := &n.Alerts[i]
		if (x.Status == "" || a.Firing == (x.Status == "firing")) && (x.Alert == "" || a.Labels.Get(rules.AlertNameLabel) == x.Alert) && contains(a.Labels, x.Labels) {
			count++
		}
	}
	return count
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// toldOf is what a webhook was told so far, a line each.
func (p *play) toldOf(webhook string) (lines []string) {
	for _, t := range p.sent {
		if t.Receiver != webhook {
			continue
		}
		var alerts []string
		for i := range t.Alerts {
			state := "resolved"
			if t.Alerts[i].Firing {
				state = "firing"
			}
			alerts = append(alerts, state+" "+t.Alerts[i].Labels.String())
		}
		if n := len(alerts); n > 5 {
			alerts = append(alerts[:5], fmt.Sprintf("and %d more", n-5))
		}
		lines = append(lines, fmt.Sprintf("%-8s %-9s %s", t.at, t.Notification.Reason, strings.Join(alerts, ", ")))
	}
	return lines
}

// checkBody compares what x names with the body of a notification, and returns the differences.
func (p *play) checkBody(x *rules.Expectation, t *told) (want, got []string) {
	if p.options.Body == nil {
		return []string{"a body"}, []string{"bodies are not rendered here"}
	}
	body, err := p.options.Body(t.n, t.Notification)
	if err != nil {
		return []string{"a body"}, []string{err.Error()}
	}
	if text, ok := x.Body.(string); ok {
		if text == string(body) {
			return nil, nil
		}
		return []string{"body " + strconv.Quote(text)}, []string{"body " + strconv.Quote(string(body))}
	}
	var have any
	if err := json.Unmarshal(body, &have); err != nil {
		return []string{"a body of JSON"}, []string{strconv.Quote(string(body))}
	}
	var d difference
	d.compare("body", x.Body, have)
	return d.want, d.got
}

// difference is what a value lacks of a pattern: an object has the keys that are named, a list is the same one after the other.
type difference struct{ want, got []string }

func (d *difference) compare(path string, want, have any) {
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			d.add(path, want, have)
			return
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if v, ok := h[key]; ok {
				d.compare(path+"."+key, w[key], v)
			} else {
				d.want, d.got = append(d.want, path+"."+key+" "+compact(w[key])), append(d.got, path+"."+key+" is not there")
			}
		}
	case []any:
		h, ok := have.([]any)
		if !ok || len(h) != len(w) {
			d.add(path, want, have)
			return
		}
		for i := range w {
			d.compare(path+"["+strconv.Itoa(i)+"]", w[i], h[i])
		}
	case float64:
		if h, ok := have.(float64); !ok || !near(w, h) {
			d.add(path, want, have)
		}
	default:
		if want != have {
			d.add(path, want, have)
		}
	}
}

func (d *difference) add(path string, want, have any) {
	d.want, d.got = append(d.want, path+" "+compact(want)), append(d.got, path+" "+compact(have))
}

// compact is a value as JSON, for people.
func compact(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
