package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/gateway/seglog"
)

func TestAudit_ListIsBoundedAndDamageLeavesIt(t *testing.T) {
	f := NewFold()
	lsn := seglog.LSN(0)
	apply := func(body []byte) error {
		lsn++
		return f.Apply(&seglog.Record{LSN: lsn, Time: int64(lsn), Type: RecordAudit, Body: body}, &recorder{})
	}
	for i := range auditKept + 5 {
		a := Audit{Author: "ann", Role: "admin", Op: "purge", Detail: fmt.Sprint(i)}
		body, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := apply(body); err != nil {
			t.Fatal(err)
		}
	}
	list := f.Audits()
	if len(list) != auditKept || list[0].Detail != fmt.Sprint(auditKept+4) || list[auditKept-1].Detail != "5" || list[0].LSN != lsn || list[0].Time != int64(lsn) {
		t.Errorf("%d entries, from %+v to %+v", len(list), list[0], list[len(list)-1])
	}
	for _, body := range []string{"", "{", `{"author":1}`, "\x00"} {
		if err := apply([]byte(body)); err == nil {
			t.Errorf("a record of %q is taken", body)
		}
	}
	if got := f.Audits(); len(got) != auditKept || got[0] != list[0] {
		t.Errorf("damaged records changed the list: %+v", got[0])
	}
}

func TestAudit_EntriesAreBoundedText(t *testing.T) {
	a := Audit{Author: strings.Repeat("ä", 500), Role: "admin\xff", Op: strings.Repeat("x", 500), Detail: strings.Repeat("€", 5000)}
	a.bound()
	for _, s := range []string{a.Author, a.Role, a.Op, a.Detail} {
		if !utf8.ValidString(s) || len(s) > maxAuditDetail {
			t.Errorf("%d bytes, valid %v", len(s), utf8.ValidString(s))
		}
	}
	if len(a.Author) != maxAuditWord || len(a.Op) != maxAuditWord || len(a.Detail) != maxAuditDetail/3*3 {
		t.Errorf("cut to %d, %d and %d bytes", len(a.Author), len(a.Op), len(a.Detail))
	}
}
