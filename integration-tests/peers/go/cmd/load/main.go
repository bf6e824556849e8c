// Load drives the official Go producer as fast as it goes: one line of figures. The command line and what the figures
// mean are in the module `load` of the integration tests.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"

	"peers/figures"
	"peers/lines"
)

const (
	inFlight  = 1024
	awaiting  = 64
	batchSize = 32
)

type outcome struct {
	Messages   int64   `json:"messages"`
	Failures   int64   `json:"failures"`
	Seconds    float64 `json:"seconds"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	CPUSeconds float64 `json:"cpu_seconds"`
	PeakMiB    float64 `json:"peak_mib"`
}

type load struct {
	sender rocketmq.Producer
	topic  string
	mode   string
	body   []byte
}

func main() {
	nameServer := flag.String("name-server", "", "host:port of the name server")
	topic := flag.String("topic", "", "topic to send to")
	mode := flag.String("mode", "", "awaited, awaited-64, async, one-way or batch-32")
	body := flag.Int("body", 1024, "bytes of each body")
	warmUp := flag.Int("warm-up-ms", 1000, "how long to send before measuring")
	run := flag.Int("run-ms", 1000, "how long to send while measuring")
	flag.Parse()
	lines.Quiet()

	sender, err := rocketmq.NewProducer(
		producer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		producer.WithGroupName("send-load"),
		producer.WithCompressMsgBodyOverHowmuch(math.MaxInt32),
	)
	lines.Must(err)
	lines.Must(sender.Start())

	l := load{sender: sender, topic: *topic, mode: *mode, body: bytes.Repeat([]byte{'x'}, *body)}
	l.part(newTally(*warmUp))
	start, cpuBefore := time.Now(), figures.CPUSeconds()
	t := newTally(*run)
	l.part(t)
	lines.Print(outcome{
		Seconds:    time.Since(start).Seconds(),
		CPUSeconds: figures.CPUSeconds() - cpuBefore,
		Messages:   t.messages.Load(),
		Failures:   t.failures.Load(),
		P50:        t.times.QuantileMicros(0.5),
		P99:        t.times.QuantileMicros(0.99),
		PeakMiB:    figures.PeakMiB(),
	})
	lines.Must(sender.Shutdown())
}

func (l *load) part(t *tally) {
	one := func() error { _, err := l.sender.SendSync(context.Background(), l.message()); return err }
	switch l.mode {
	case "awaited":
		loop(t, 1, one)
	case "awaited-64":
		var group sync.WaitGroup
		for i := 0; i < awaiting; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				loop(t, 1, one)
			}()
		}
		group.Wait()
	case "async":
		l.inFlight(t)
	case "one-way":
		loop(t, 1, func() error { return l.sender.SendOneWay(context.Background(), l.message()) })
	case "batch-32":
		loop(t, batchSize, func() error {
			batch := make([]*primitive.Message, batchSize)
			for i := range batch {
				batch[i] = l.message()
			}
			_, err := l.sender.SendSync(context.Background(), batch...)
			return err
		})
	default:
		lines.Must(fmt.Errorf("unknown mode %q", l.mode))
	}
	l.fence(one)
}

func loop(t *tally, messages int64, send func() error) {
	for start := time.Now(); start.Before(t.until); start = time.Now() {
		t.note(start, messages, send())
	}
}

func (l *load) inFlight(t *tally) {
	room := make(chan struct{}, inFlight)
	for {
		room <- struct{}{}
		start := time.Now()
		if !start.Before(t.until) {
			<-room
			break
		}
		done := func(_ context.Context, _ *primitive.SendResult, err error) {
			t.note(start, 1, err)
			<-room
		}
		if err := l.sender.SendAsync(context.Background(), done, l.message()); err != nil {
			t.note(start, 1, err)
			<-room
		}
	}
	for i := 0; i < inFlight; i++ {
		room <- struct{}{}
	}
}

// What was sent before has left when this is answered; a broker that is busy with it may refuse at first.
func (l *load) fence(send func() error) {
	for attempt := 1; ; attempt++ {
		err := send()
		if err == nil {
			return
		}
		if attempt == 20 {
			lines.Must(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *load) message() *primitive.Message { return primitive.NewMessage(l.topic, l.body) }

// A tally is what was done in one part of the run.
type tally struct {
	until    time.Time
	messages atomic.Int64
	failures atomic.Int64
	times    figures.Buckets
}

func newTally(millis int) *tally {
	return &tally{until: time.Now().Add(time.Duration(millis) * time.Millisecond)}
}

func (t *tally) note(start time.Time, messages int64, err error) {
	if err != nil {
		if t.failures.Add(messages) == messages {
			fmt.Fprintln(os.Stderr, "the first failure:", err)
		}
		return
	}
	t.messages.Add(messages)
	t.times.Add(time.Since(start))
}
