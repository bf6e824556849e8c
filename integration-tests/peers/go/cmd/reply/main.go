// Reply answers every message of a topic with its body behind "re: "; one line per reply, until standard input ends.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"

	"peers/lines"
)

func main() {
	nameServer := flag.String("name-server", "", "host:port of the name server")
	group := flag.String("group", "", "consumer group")
	topic := flag.String("topic", "", "topic")
	flag.Parse()
	lines.Quiet()
	instance := fmt.Sprintf("peer-%d", os.Getpid())

	replier, err := rocketmq.NewProducer(
		producer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		producer.WithGroupName(*group+"-replies"),
		producer.WithInstanceName(instance),
	)
	lines.Must(err)
	lines.Must(replier.Start())
	receiver, err := rocketmq.NewPushConsumer(
		consumer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		consumer.WithGroupName(*group),
		consumer.WithInstance(instance),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithConsumerModel(consumer.Clustering),
	)
	lines.Must(err)
	lines.Must(receiver.Subscribe(*topic, consumer.MessageSelector{},
		func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			for _, message := range messages {
				lines.Print(reply(replier, message))
			}
			return consumer.ConsumeSuccess, nil
		}))
	lines.Must(receiver.Start())
	lines.Ready()

	lines.Drain()
	lines.Must(receiver.Shutdown())
	lines.Must(replier.Shutdown())
}

func reply(replier rocketmq.Producer, message *primitive.MessageExt) map[string]string {
	// The client reads what it is given here as properties, so the body is set afterwards.
	answer, err := consumer.CreateReplyMessage(message, nil)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	answer.Body = append([]byte("re: "), message.Body...)
	if _, err := replier.SendSync(context.Background(), answer); err != nil {
		return map[string]string{"error": err.Error()}
	}
	return map[string]string{"replied": "SEND_OK"}
}
