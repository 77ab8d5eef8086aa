package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"sluice/broker/passwd"
)

// writeAccess writes a password file and an access list.
func writeAccess(t *testing.T, dir, acl string, users ...string) {
	t.Helper()
	path := filepath.Join(dir, "passwd")
	f := passwd.New()
	if data, err := os.ReadFile(path); err == nil { // who stays keeps the hash
		if f, err = passwd.Parse(path, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range []string{"ann", "ben"} {
		switch wanted := strings.Contains(strings.Join(users, " "), u); {
		case wanted && !f.Has(u):
			if err := f.Set(u, []byte("pw-"+u)); err != nil {
				t.Fatal(err)
			}
		case !wanted:
			f.Delete(u)
		}
	}
	for name, data := range map[string][]byte{"passwd": f.Bytes(), "acl": []byte(acl)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReload_PutsUsersAndAccessListInForceAtOnce(t *testing.T) {
	dir := t.TempDir()
	writeAccess(t, dir, "pattern readwrite dev/%u/#\n", "ann", "ben")
	file := filepath.Join(dir, "sluice.yaml")
	text := "gateway: { id: g, data_dir: data }\nmqtt: { listeners: [ { address: \"127.0.0.1:0\" } ], password_file: passwd, acl_file: acl }\nhttp: { address: \"\" }\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	g, err := openGateway(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for by := time.Now().Add(10 * time.Second); !g.ready.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(by) {
			t.Fatal("the gateway does not serve")
		}
	}
	login := func(user string) (c paho.Client, lost chan error, err error) {
		lost = make(chan error, 1)
		c = paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + g.broker.Addrs()[0].String()).SetClientID(user).SetUsername(user).
			SetPassword("pw-" + user).SetAutoReconnect(false).SetConnectionLostHandler(func(_ paho.Client, err error) { lost <- err }))
		token := c.Connect()
		if !token.WaitTimeout(10 * time.Second) {
			t.Fatal("no CONNACK")
		}
		return c, lost, token.Error()
	}
	ann, annLost, err := login("ann")
	if err != nil {
		t.Fatal(err)
	}
	_, benLost, err := login("ben")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 10)
	ann.Subscribe("#", 1, func(_ paho.Client, m paho.Message) { got <- m.Topic() }).Wait()
	heard := func(topic string) bool {
		t.Helper()
		ann.Publish(topic, 1, false, "x").Wait()
		ann.Publish("dev/ann/mark", 1, false, "x").Wait()
		first := <-got
		if first == "dev/ann/mark" {
			return false
		}
		<-got
		return true
	}
	if !heard("dev/ann/a") || heard("dev/ben/a") {
		t.Error("before: rights are not those of the list")
	}
	writeAccess(t, dir, "pattern readwrite dev/%u/mark\nuser ann\ntopic dev/ben/#\n", "ann")
	if err := g.reload(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-benLost:
	case <-time.After(5 * time.Second):
		t.Error("who lost the user is still connected")
	}
	if _, _, err := login("ben"); err == nil {
		t.Error("who lost the user may log in")
	}
	if heard("dev/ann/a") || !heard("dev/ben/a") {
		t.Error("after: rights are not those of the new list")
	}
	// A broken list changes nothing, and says where.
	writeAccess(t, dir, "topik #\n", "ann", "ben")
	if err := g.reload(); err == nil || !strings.Contains(err.Error(), "acl:1:1: want user, topic, pattern or #") {
		t.Errorf("reload = %v", err)
	}
	if heard("dev/ann/a") || !heard("dev/ben/a") {
		t.Error("a broken list changed the rights")
	}
	if _, _, err := login("ben"); err == nil {
		t.Error("a broken list let new users in")
	}
	select {
	case err := <-annLost:
		t.Errorf("who kept the user was disconnected: %v", err)
	default:
	}
}
