package sim

import (
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Why acknowledgements are read off the store: Paho completes a token without an error when it sends the message
// again, though nothing was acknowledged. Should this test fail after an update, tokens may have become usable.
func TestPaho_TokenCompletesAtResendWithoutAnAcknowledgement(t *testing.T) {
	srv := newTestServer(t)
	srv.set(func(s *testServer) { s.mute = true })
	o := mqtt.NewClientOptions().AddBroker(srv.url()).SetClientID("p").SetCleanSession(false).SetMaxReconnectInterval(20 * time.Millisecond)
	c := mqtt.NewClient(o)
	if token := c.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer c.Disconnect(1000)
	token := c.Publish("a", 1, false, "x")
	eventually(t, "the message", func() bool { return len(srv.received()) == 1 })
	srv.cutAll()
	eventually(t, "the message again", func() bool { return len(srv.received()) == 2 })
	if !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Errorf("the token is not complete, or has the error %v", token.Error())
	}
}
