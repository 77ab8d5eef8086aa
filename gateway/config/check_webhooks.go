package config

import (
	"fmt"
	"mime"
	"time"
)

// notifications checks how a webhook wants to be told.
func (k *checker) notifications(key string, w *Webhook) {
	const most = 31 * 24 * time.Hour
	k.duration(key+".group_wait", w.GroupWait, 0, time.Hour)
	k.duration(key+".group_interval", w.GroupInterval, 0, 24*time.Hour)
	k.duration(key+".flap_floor", w.FlapFloor, 0, 24*time.Hour)
	k.duration(key+".digest_after", w.DigestAfter, 0, most)
	if w.RepeatInterval != 0 {
		k.duration(key+".repeat_interval", w.RepeatInterval, time.Minute, most)
	}
	k.oneOf(key+".include", w.Include, []string{"changes", "group"}, nil)
	seen := map[string]bool{}
	for i, name := range w.GroupBy {
		at := fmt.Sprintf("%s.group_by[%d]", key, i)
		switch {
		case name == "" && k.sound(at):
			k.fail(at, "a label needs a name")
		case name == "..." && len(w.GroupBy) > 1:
			k.fail(at, `"..." is every label: it stands alone`)
		case seen[name]:
			k.fail(at, "%q is listed twice", name)
		}
		seen[name] = true
	}
	k.template(key, w)
}

func (k *checker) template(key string, w *Webhook) {
	if w.Format != "template" {
		for _, sub := range []string{".template_file", ".content_type"} {
			if k.written(key + sub) {
				k.fail(key+sub, "belongs to format template, not to %s", w.Format)
			}
		}
		return
	}
	if w.TemplateFile == "" {
		if k.sound(key + ".template_file") {
			k.fail(key+".template_file", "is required with format template")
		}
	} else {
		k.readable(key+".template_file", w.TemplateFile, false)
	}
	if _, _, err := mime.ParseMediaType(w.ContentType); err != nil && k.sound(key+".content_type") {
		k.fail(key+".content_type", `want a media type such as "application/json", got %q`, w.ContentType)
	}
}
