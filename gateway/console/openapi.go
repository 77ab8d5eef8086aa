package console

import (
	_ "embed"
	"net/http"
)

// openAPI describes every row of the table but the pages. Tests hold it to the table and to what the handlers answer; see
// openapi_write_test.go for how it is brought up to date.
//
//go:embed openapi.json
var openAPI []byte

func (s *site) openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(openAPI)
}
