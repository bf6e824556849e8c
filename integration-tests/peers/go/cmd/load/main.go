// Load drives the official Go producer as fast as it goes: one line of figures. The command line and what the figures
// mean are in the module `load` of the integration tests.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"math/bits"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"

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
	start, cpuBefore := time.Now(), cpuSeconds()
	t := newTally(*run)
	l.part(t)
	lines.Print(outcome{
		Seconds:    time.Since(start).Seconds(),
		CPUSeconds: cpuSeconds() - cpuBefore,
		Messages:   t.messages.Load(),
		Failures:   t.failures.Load(),
		P50:        t.quantileMicros(0.5),
		P99:        t.quantileMicros(0.99),
		PeakMiB:    peakMiB(),
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

// A tally is what was done in one part of the run. Durations are counted in buckets, 64 to each doubling of
// nanoseconds.
type tally struct {
	until    time.Time
	messages atomic.Int64
	failures atomic.Int64
	buckets  [64 << precision]atomic.Int64
}

const precision = 6

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
	nanos := uint64(time.Since(start).Nanoseconds())
	t.messages.Add(messages)
	shift := max(0, bits.Len64(nanos)-precision-1)
	t.buckets[shift<<precision+int(nanos>>shift)].Add(1)
}

func (t *tally) quantileMicros(share float64) float64 {
	var total, seen int64
	for i := range t.buckets {
		total += t.buckets[i].Load()
	}
	wanted := int64(math.Ceil(float64(total) * share))
	for i := range t.buckets {
		count := t.buckets[i].Load()
		seen += count
		if count > 0 && seen >= wanted {
			shift := max(0, i>>precision-1)
			low := (i - shift<<precision) << shift
			return (float64(low) + float64(int(1)<<shift-1)/2) / 1000
		}
	}
	return 0
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	lines.Must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func peakMiB() float64 {
	status, err := os.ReadFile("/proc/self/status")
	lines.Must(err)
	for _, line := range strings.Split(string(status), "\n") {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			return kib / 1024
		}
	}
	lines.Must(fmt.Errorf("no VmHWM in /proc/self/status"))
	return 0
}
