// Send drives the official Go producer: one message, or one batch, per line of standard input, one receipt or error per
// line of standard output.
package main

import (
	"context"
	"flag"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"

	"peers/lines"
)

type order struct {
	Topic      string            `json:"topic"`
	Tag        string            `json:"tag"`
	Keys       string            `json:"keys"`
	Properties map[string]string `json:"properties"`
	Body       []byte            `json:"body_base64"`
	DelayLevel int               `json:"delay_level"`
	// Properties of the protocol's own, for which this client has no setters.
	Protocol map[string]string `json:"protocol"`
	// Sent together; all else is empty then.
	Batch []order `json:"batch"`
	// Go hashes it in its own way, unlike Java.
	OrderingKey string `json:"ordering_key"`
}

type receipt struct {
	MsgID       string `json:"msg_id,omitempty"`
	OffsetMsgID string `json:"offset_msg_id,omitempty"`
	Status      string `json:"status,omitempty"`
	QueueID     int    `json:"queue_id"`
	QueueOffset int64  `json:"queue_offset"`
	Broker      string `json:"broker,omitempty"`
	Error       string `json:"error,omitempty"`
}

var statuses = map[primitive.SendStatus]string{
	primitive.SendOK:                "SEND_OK",
	primitive.SendFlushDiskTimeout:  "FLUSH_DISK_TIMEOUT",
	primitive.SendFlushSlaveTimeout: "FLUSH_SLAVE_TIMEOUT",
	primitive.SendSlaveNotAvailable: "SLAVE_NOT_AVAILABLE",
}

func main() {
	nameServer := flag.String("name-server", "", "host:port of the name server")
	group := flag.String("group", "", "producer group")
	timeout := flag.Int("timeout-ms", 10_000, "deadline of one send in milliseconds")
	flag.Parse()
	lines.Quiet()

	sender, err := rocketmq.NewProducer(
		producer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		producer.WithGroupName(*group),
		producer.WithQueueSelector(byKeyOrInTurn{producer.NewHashQueueSelector(), producer.NewRoundRobinQueueSelector()}),
		producer.WithSendMsgTimeout(time.Duration(*timeout)*time.Millisecond),
	)
	lines.Must(err)
	lines.Must(sender.Start())
	lines.Ready()

	lines.Read(func(o order) { lines.Print(send(sender, o)) })
	lines.Must(sender.Shutdown())
}

// byKeyOrInTurn takes the queue that the key says, and the next one without a key, as producers do by default.
type byKeyOrInTurn struct {
	byKey, inTurn producer.QueueSelector
}

func (s byKeyOrInTurn) Select(message *primitive.Message, queues []*primitive.MessageQueue, lastBroker string) *primitive.MessageQueue {
	if message.GetShardingKey() != "" {
		return s.byKey.Select(message, queues, lastBroker)
	}
	return s.inTurn.Select(message, queues, lastBroker)
}

func message(o order) *primitive.Message {
	message := primitive.NewMessage(o.Topic, o.Body)
	message.WithProperties(o.Properties)
	if o.Tag != "" {
		message.WithTag(o.Tag)
	}
	if o.Keys != "" {
		// One string, as it is on the wire; WithKeys would append a separator of its own.
		message.WithProperty(primitive.PropertyKeys, o.Keys)
	}
	if o.DelayLevel != 0 {
		message.WithDelayTimeLevel(o.DelayLevel)
	}
	if o.OrderingKey != "" {
		message.WithShardingKey(o.OrderingKey)
	}
	for name, value := range o.Protocol {
		message.WithProperty(name, value)
	}
	return message
}

func send(sender rocketmq.Producer, o order) receipt {
	messages := []*primitive.Message{}
	for _, one := range o.Batch {
		messages = append(messages, message(one))
	}
	if len(messages) == 0 {
		messages = append(messages, message(o))
	}
	result, err := sender.SendSync(context.Background(), messages...)
	if err != nil {
		return receipt{Error: err.Error()}
	}
	return receipt{
		MsgID:       result.MsgID,
		OffsetMsgID: result.OffsetMsgID,
		Status:      statuses[result.Status],
		QueueID:     result.MessageQueue.QueueId,
		QueueOffset: result.QueueOffset,
		Broker:      result.MessageQueue.BrokerName,
	}
}
