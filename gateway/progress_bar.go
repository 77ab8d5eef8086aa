package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// progressBar draws on a terminal, elsewhere it is silent; stop takes the bar away.
func progressBar(w io.Writer) (show func(done, total uint64), stop func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, func() {}
	}
	return func(done, total uint64) { fmt.Fprintf(w, "\r%s", bar(done, total)) }, func() { fmt.Fprint(w, "\r\033[K") }
}

// bar draws how much of the whole is done.
func bar(done, whole uint64) string {
	const width = 40
	share := min(float64(done)/float64(max(whole, 1)), 1)
	full := int(share * width)
	return fmt.Sprintf("[%s%s] %3.0f %%", strings.Repeat("=", full), strings.Repeat(" ", width-full), share*100)
}
