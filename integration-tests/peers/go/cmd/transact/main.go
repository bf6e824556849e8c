// Transact drives the official Go producer of transactions: one message per line of standard input, whose "local" says
// how its local part ends (commit, rollback or unknown); one receipt or error per line of standard output, and one line
// per check.
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
	Topic      string            `json:"topic"`
	Tag        string            `json:"tag"`
	Keys       string            `json:"keys"`
	Properties map[string]string `json:"properties"`
	Body       []byte            `json:"body_base64"`
	Local      string            `json:"local"`
}

type receipt struct {
	MsgID  string `json:"msg_id,omitempty"`
	Status string `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

type check struct {
	Checked string `json:"checked"`
	Topic   string `json:"topic"`
	QueueID int    `json:"queue_id"`
}

var states = map[string]primitive.LocalTransactionState{
	"commit":   primitive.CommitMessageState,
	"rollback": primitive.RollbackMessageState,
	"unknown":  primitive.UnknowState,
}

// listener hands the local part's end from the order to the client, which asks for it during the send.
type listener struct {
	local   string
	checked primitive.LocalTransactionState
}

func (l *listener) ExecuteLocalTransaction(*primitive.Message) primitive.LocalTransactionState {
	return states[l.local]
}

func (l *listener) CheckLocalTransaction(half *primitive.MessageExt) primitive.LocalTransactionState {
	id := half.GetProperty(primitive.PropertyUniqueClientMessageIdKeyIndex)
	lines.Print(check{Checked: id, Topic: half.Topic, QueueID: half.Queue.QueueId})
	return l.checked
}

func main() {
	nameServer := flag.String("name-server", "", "host:port of the name server")
	group := flag.String("group", "", "producer group")
	checked := flag.String("check", "unknown", "what every check is answered with")
	flag.Parse()
	lines.Quiet()

	l := &listener{checked: states[*checked]}
	sender, err := rocketmq.NewTransactionProducer(l,
		producer.WithNameServer(primitive.NamesrvAddr{*nameServer}),
		producer.WithGroupName(*group),
		producer.WithInstanceName(fmt.Sprintf("peer-%d", os.Getpid())),
		producer.WithSendMsgTimeout(10*time.Second),
	)
	lines.Must(err)
	lines.Must(sender.Start())
	lines.Ready()

	lines.Read(func(o order) { lines.Print(send(sender, l, o)) })
	lines.Must(sender.Shutdown())
}

func send(sender rocketmq.TransactionProducer, l *listener, o order) receipt {
	message := primitive.NewMessage(o.Topic, o.Body)
	message.WithProperties(o.Properties)
	if o.Tag != "" {
		message.WithTag(o.Tag)
	}
	l.local = o.Local
	result, err := sender.SendMessageInTransaction(context.Background(), message)
	if err != nil {
		return receipt{Error: err.Error()}
	}
	status := "SEND_OK"
	if result.Status != primitive.SendOK {
		status = fmt.Sprint(result.Status)
	}
	return receipt{MsgID: result.MsgID, Status: status}
}
