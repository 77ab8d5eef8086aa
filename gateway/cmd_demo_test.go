package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// Whoever has mosquitto has port 1883 taken: the demonstration goes elsewhere and says so.
func TestDemo_LeavesATakenPortToWhoHasIt(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var said bytes.Buffer
	got := freeWhenTaken(&said, taken.Addr().String())
	if got == taken.Addr().String() || !strings.Contains(said.String(), taken.Addr().String()) {
		t.Errorf("freeWhenTaken = %s, and said %q", got, &said)
	}
	free, err := net.Listen("tcp", got)
	if err != nil {
		t.Fatalf("listen on %s: %v", got, err)
	}
	free.Close()
	said.Reset()
	if again := freeWhenTaken(&said, got); again != got || said.Len() > 0 {
		t.Errorf("freeWhenTaken(%s) = %s, and said %q", got, again, &said)
	}
}
