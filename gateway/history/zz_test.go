package history

import (
	"fmt"
	"sluice/gateway/seglog"
)

func (r *rig) missingPlanned() {
	got := r.all()
	var have map[int64]float64
	for k, v := range got {
		if len(k) > 0 && have == nil && containsStr(k, `device="d0"`) {
			have = v
		}
	}
	n, first, last, late := 0, int64(0), int64(0), 0
	prev := int64(0)
	for at := range seglog.LSN(plannedRecords) {
		d, t, _ := planned(at + 1)
		if d != 0 {
			continue
		}
		if _, ok := have[t/1e6]; !ok {
			n++
			if first == 0 {
				first = t
			}
			last = t
			if (t-t0)/second%2 != 0 {
				late++
			}
			if (t-prev)/second != 100 {
				fmt.Println("missing run starts at", (t-t0)/second, "rec", at+1, "prev", (prev-t0)/second)
			}
			prev = t
		}
	}
	fmt.Println("missing", n, "late", late, (first-t0)/second, (last-t0)/second)
}
func containsStr(a, b string) bool {
	for i := 0; i+len(b) <= len(a); i++ {
		if a[i:i+len(b)] == b {
			return true
		}
	}
	return false
}
