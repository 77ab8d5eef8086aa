// The consumer is an example of a program behind a JetStream cluster that many gateways feed: it reads their records, forgets
// what came twice, lets corrections replace what they correct, and prints exact hourly aggregates as JSON lines. It uses nothing of the gateway but
// the record format, which docs/destinations.md describes.
//
//	consumer --url nats://127.0.0.1:4222 --stream EDGE --subject 'edge.>'
//
// It reads the stream from its beginning to its present end and keeps everything in memory. A service would go on reading, and keep
// windows in a database: insert, or update where the version is greater. See docs/scaling.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	flags := flag.NewFlagSet("consumer", flag.ContinueOnError)
	url := flags.String("url", nats.DefaultURL, "address of a NATS server")
	stream := flags.String("stream", "EDGE", "stream to read")
	subject := flags.String("subject", "edge.>", "subjects to read")
	creds := flags.String("creds", "", "credentials file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options := []nats.Option{nats.Name("hourly consumer")}
	if *creds != "" {
		options = append(options, nats.UserCredentials(*creds))
	}
	nc, err := nats.Connect(*url, options...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	hours, refused, err := read(ctx, js, *stream, *subject)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(out)
	for _, row := range hours.Rows() {
		if err := enc.Encode(row); err != nil {
			return err
		}
	}
	fmt.Fprintf(log, "%d repeats passed over, %d records not understood\n", hours.Repeats, refused)
	return nil
}

// read takes in what the stream holds at the moment of the call.
func read(ctx context.Context, js jetstream.JetStream, stream, subject string) (h *Hours, refused int, err error) {
	// An ordered consumer has no state on the server and begins again by itself where a message got lost.
	c, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}, DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return nil, 0, fmt.Errorf("read stream %s: %w", stream, err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("read stream %s: %w", stream, err)
	}
	h = new(Hours)
	for left := info.NumPending; left > 0; {
		batch, err := c.Fetch(int(min(left, 500)))
		if err != nil {
			return nil, 0, fmt.Errorf("read stream %s: %w", stream, err)
		}
		got := 0
		for m := range batch.Messages() {
			got++
			if left--; h.Add(m.Data()) != nil {
				refused++
			}
		}
		if err := errors.Join(batch.Error(), ctx.Err()); err != nil {
			return nil, 0, fmt.Errorf("read stream %s: %w", stream, err)
		}
		if got == 0 {
			break // what was pending is gone: the stream's limits took it
		}
	}
	return h, refused, nil
}
