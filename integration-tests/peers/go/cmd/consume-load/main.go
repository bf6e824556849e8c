// Consume-load puts the official Go push consumer to work: one line of figures. The command line and what the figures
// mean are in the module `consume_load` of the integration tests.
package main

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"

	"peers/figures"
	"peers/lines"
)

type outcome struct {
	Messages   int64   `json:"messages"`
	Seconds    float64 `json:"seconds"`
	P50        float64 `json:"p50_us"`
	P99        float64 `json:"p99_us"`
	CPUSeconds float64 `json:"cpu_seconds"`
	PeakMiB    float64 `json:"peak_mib"`
}

type load struct {
	work        string
	messages    int64
	from        int64 // messages that were due before, in nanoseconds since 1970, do not count
	seen        atomic.Int64
	ages        figures.Buckets
	lock        sync.Mutex
	first, last time.Time
	cpuAtFirst  float64
	done        chan struct{}
	end         sync.Once
}

func main() {
	nameServer := flag.String("name-server", "", "host:port of the name server")
	topic := flag.String("topic", "", "topic")
	group := flag.String("group", "", "consumer group")
	kind := flag.String("kind", "push", "push")
	work := flag.String("work", "", "drain, latency, first or idle")
	messages := flag.Int64("messages", 1, "how many to take or to note")
	settle := flag.Int64("settle-ms", 0, "how long after the start the first message is due that counts")
	run := flag.Int("run-ms", 1000, "how long to wait")
	flag.Parse()
	lines.Quiet()
	if *kind != "push" {
		lines.Must(fmt.Errorf("the Go client has no %q consumer", *kind))
	}

	l := &load{work: *work, messages: *messages, done: make(chan struct{})}
	l.from = time.Now().Add(time.Duration(*settle) * time.Millisecond).UnixNano()
	from := consumer.ConsumeFromFirstOffset
	if *work == "latency" {
		from = consumer.ConsumeFromLastOffset
	}
	start, cpuBefore := time.Now(), figures.CPUSeconds()
	receiver, err := rocketmq.NewPushConsumer(
		consumer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		consumer.WithGroupName(*group),
		consumer.WithConsumeFromWhere(from),
	)
	lines.Must(err)
	lines.Must(receiver.Subscribe(*topic, consumer.MessageSelector{},
		func(_ context.Context, batch ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			for _, message := range batch {
				l.note(message)
			}
			return consumer.ConsumeSuccess, nil
		}))
	lines.Must(receiver.Start())

	var said outcome
	switch *work {
	case "idle":
		length := time.Duration(*run) * time.Millisecond
		time.Sleep(length / 2)
		start, cpuBefore = time.Now(), figures.CPUSeconds()
		time.Sleep(length)
		said.Seconds = time.Since(start).Seconds()
	case "first":
		<-l.done
		said.Seconds = l.first.Sub(start).Seconds()
		said.P50 = said.Seconds * 1e6
		said.P99 = said.P50
	default:
		<-l.done
		said.Seconds = l.last.Sub(l.first).Seconds()
		said.P50, said.P99 = l.ages.QuantileMicros(0.5), l.ages.QuantileMicros(0.99)
		if *work == "latency" {
			cpuBefore = l.cpuAtFirst
		}
	}
	said.CPUSeconds = figures.CPUSeconds() - cpuBefore
	said.Messages = min(l.seen.Load(), l.messages)
	said.PeakMiB = figures.PeakMiB()
	// What a graceful stop would take is not measured.
	lines.Print(said)
}

func (l *load) note(message *primitive.MessageExt) {
	now := time.Now()
	if l.work == "latency" {
		due := due(message.Body)
		if due < l.from {
			return
		}
		l.ages.Add(time.Duration(now.UnixNano() - due))
	}
	number := l.seen.Add(1)
	isFirst, isLast := number == 1, number == l.messages
	if !isFirst && !isLast {
		return
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	if isFirst {
		l.first, l.cpuAtFirst = now, figures.CPUSeconds()
	}
	if isLast {
		l.last = now
		l.end.Do(func() { close(l.done) })
	}
}

func due(body []byte) int64 {
	var nanos int64
	for _, digit := range body {
		if digit == ' ' {
			break
		}
		nanos = nanos*10 + int64(digit-'0')
	}
	return nanos
}
