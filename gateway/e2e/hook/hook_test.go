package hook

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The reference implementation signs, our own check verifies.
func TestVerify_AgreesWithTheReferenceImplementation(t *testing.T) {
	ref, err := standardwebhooks.NewWebhook(Secret)
	if err != nil {
		t.Fatal(err)
	}
	body, now := []byte(`{"a":1}`), time.Now()
	sig, err := ref.Sign("msg_1", now, body)
	if err != nil {
		t.Fatal(err)
	}
	header := func(id string, at time.Time, sig string) http.Header {
		h := http.Header{}
		h.Set("webhook-id", id)
		h.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
		h.Set("webhook-signature", sig)
		return h
	}
	if err := Verify(Secret, header("msg_1", now, "v1,AAAA "+sig), body, now); err != nil {
		t.Errorf("signature of the reference refused: %v", err)
	}
	for name, h := range map[string]http.Header{
		"other id":        header("msg_2", now, sig),
		"other timestamp": header("msg_1", now.Add(time.Second), sig),
		"no signature":    header("msg_1", now, ""),
		"other version":   header("msg_1", now, "v2"+sig[2:]),
		"no id":           header("", now, sig),
	} {
		if Verify(Secret, h, body, now) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if Verify(Secret, header("msg_1", now, sig), []byte(`{"a":2}`), now) == nil {
		t.Error("other body: accepted")
	}
	if Verify(Secret, header("msg_1", now, sig), body, now.Add(time.Hour)) == nil {
		t.Error("an hour old: accepted")
	}
}

func notification(status, fingerprint string) string {
	ends := "0001-01-01T00:00:00Z"
	if status == "resolved" {
		ends = "2026-01-01T00:01:00Z"
	}
	return fmt.Sprintf(`{"version":"4","groupKey":"g","truncatedAlerts":0,"status":%q,"receiver":"ops","alerts":[{"status":%q,
		"labels":{"alertname":"Hot"},"startsAt":"2026-01-01T00:00:00Z","endsAt":%q,"fingerprint":%q}]}`, status, status, ends, fingerprint)
}

func post(t *testing.T, r *Receiver, id, body string) (int, error) {
	t.Helper()
	req, _ := http.NewRequest("POST", r.URL(), bytes.NewReader([]byte(body)))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("webhook-id", id)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func TestReceiver_FailsAsItIsTold(t *testing.T) {
	r, err := NewReceiver("")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, c := range []struct {
		mode  Mode
		code  int // 0: no answer
		taken int
	}{{Up, 200, 1}, {Broken, 503, 1}, {Reset, 0, 2}, {Down, 0, 2}, {Up, 200, 3}} {
		if err := r.Set(c.mode); err != nil {
			t.Fatal(err)
		}
		code, err := post(t, r, "1", notification("firing", "f"))
		if code != c.code || (err != nil) != (c.code == 0) || len(r.Taken()) != c.taken {
			t.Errorf("mode %s: code %d, %v, %d taken; want %d, %d taken", c.mode, code, err, len(r.Taken()), c.code, c.taken)
		}
	}
	if code, _ := post(t, r, "2", `{"version":"3"}`); code != 400 || len(r.Bad()) != 1 {
		t.Errorf("a body that is no v4 notification: code %d, %d bad", code, len(r.Bad()))
	}
}

func TestCheckAlternation_NamesRepeatedAndLostChanges(t *testing.T) {
	for _, c := range []struct {
		name, sequence string
		errors         int
	}{
		{"as it should be", "frfr", 0},
		{"fires twice", "ffr", 1},
		{"resolve lost", "f", 1},
		{"resolves twice", "frr", 1},
		{"resolves first", "rfr", 1},
	} {
		r, err := NewReceiver("")
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range c.sequence {
			for range 2 { // every notification is delivered twice under one id
				post(t, r, fmt.Sprint(i), notification(map[rune]string{'f': "firing", 'r': "resolved"}[s], "fp"))
			}
		}
		r.Close()
		transitions, errs := Transitions(r.Taken())
		if len(errs) != 0 || len(transitions["fp"]) != len(c.sequence) {
			t.Errorf("%s: %d transitions, %v; want %d", c.name, len(transitions["fp"]), errs, len(c.sequence))
		}
		if errs := CheckAlternation(transitions); len(errs) != c.errors {
			t.Errorf("%s: %d errors %v, want %d", c.name, len(errs), errs, c.errors)
		}
	}
	two := []Request{{ID: "1", Body: []byte("a")}, {ID: "1", Body: []byte("b")}}
	if _, errs := Transitions(two); len(errs) != 1 {
		t.Errorf("two bodies under one id: errors %v, want one", errs)
	}
}
