// Request drives the official Go producer's requests: one message per line of standard input, one reply or error per
// line of standard output.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"

	"peers/lines"
)

type order struct {
	Topic string `json:"topic"`
	Body  []byte `json:"body_base64"`
}

type answer struct {
	Body       []byte            `json:"body_base64"`
	Properties map[string]string `json:"properties"`
}

type failure struct {
	Error string `json:"error"`
}

func main() {
	nameServer := flag.String("name-server", "", "host:port of the name server")
	group := flag.String("group", "", "producer group")
	timeout := flag.Int("timeout-ms", 30_000, "deadline of one request in milliseconds")
	flag.Parse()
	lines.Quiet()

	requester, err := rocketmq.NewProducer(
		producer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		producer.WithGroupName(*group),
		producer.WithInstanceName(fmt.Sprintf("peer-%d", os.Getpid())),
	)
	lines.Must(err)
	lines.Must(requester.Start())
	lines.Ready()

	lines.Read(func(o order) {
		ttl := time.Duration(*timeout) * time.Millisecond
		reply, err := requester.Request(context.Background(), ttl, primitive.NewMessage(o.Topic, o.Body))
		if err != nil {
			lines.Print(failure{Error: err.Error()})
			return
		}
		lines.Print(answer{Body: reply.Body, Properties: reply.GetProperties()})
	})
	lines.Must(requester.Shutdown())
}
