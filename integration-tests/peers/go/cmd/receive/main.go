// Receive drives the official Go push consumer, clustering and concurrent: one line per delivery, until standard
// input ends. With -fail N the first N deliveries of each message are answered with "later".
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"

	"peers/lines"
)

type delivery struct {
	Topic          string            `json:"topic"`
	Tag            *string           `json:"tag"`
	Keys           *string           `json:"keys"`
	Properties     map[string]string `json:"properties"`
	Body           []byte            `json:"body_base64"`
	MsgID          string            `json:"msg_id"`
	OffsetMsgID    string            `json:"offset_msg_id"`
	QueueID        int               `json:"queue_id"`
	QueueOffset    int64             `json:"queue_offset"`
	ReconsumeTimes int32             `json:"reconsume_times"`
	BornHost       string            `json:"born_host"`
	Failed         bool              `json:"failed"`
}

func main() {
	nameServer := flag.String("name-server", "", "host:port of the name server")
	group := flag.String("group", "", "consumer group")
	topic := flag.String("topic", "", "topic")
	expression := flag.String("expression", "*", "tags, joined by ||")
	fail := flag.Int("fail", 0, "deliveries of each message to answer with later")
	delayLevel := flag.Int("delay-level", 0, "delay level of the next delivery, 0 leaves it to the broker")
	maxReconsumeTimes := flag.Int("max-reconsume-times", 16, "deliveries before the dead letter topic")
	flag.Parse()
	lines.Quiet()

	receiver, err := rocketmq.NewPushConsumer(
		consumer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		consumer.WithGroupName(*group),
		consumer.WithInstance(fmt.Sprintf("peer-%d", os.Getpid())),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithConsumerModel(consumer.Clustering),
		consumer.WithConsumeMessageBatchMaxSize(1),
		consumer.WithMaxReconsumeTimes(int32(*maxReconsumeTimes)),
	)
	lines.Must(err)
	selector := consumer.MessageSelector{Type: consumer.TAG, Expression: *expression}
	lines.Must(receiver.Subscribe(*topic, selector,
		func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			failed := false
			for _, message := range messages {
				failed = int(message.ReconsumeTimes) < *fail
				lines.Print(line(message, failed))
			}
			if !failed {
				return consumer.ConsumeSuccess, nil
			}
			if concurrent, ok := primitive.GetConcurrentlyCtx(ctx); ok {
				concurrent.DelayLevelWhenNextConsume = *delayLevel
			}
			return consumer.ConsumeRetryLater, nil
		}))
	lines.Must(receiver.Start())
	lines.Ready()

	lines.Drain()
	lines.Must(receiver.Shutdown())
}

func line(message *primitive.MessageExt, failed bool) delivery {
	properties := message.GetProperties()
	return delivery{
		Topic:          message.Topic,
		Tag:            optional(properties, primitive.PropertyTags),
		Keys:           optional(properties, primitive.PropertyKeys),
		Properties:     properties,
		Body:           message.Body,
		MsgID:          message.MsgId,
		OffsetMsgID:    message.OffsetMsgId,
		QueueID:        message.Queue.QueueId,
		QueueOffset:    message.QueueOffset,
		ReconsumeTimes: message.ReconsumeTimes,
		BornHost:       message.BornHost,
		Failed:         failed,
	}
}

func optional(properties map[string]string, name string) *string {
	if value, ok := properties[name]; ok {
		return &value
	}
	return nil
}
