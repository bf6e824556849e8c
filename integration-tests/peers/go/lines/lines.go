// Package lines is the conversation with the test: JSON objects, one a line, on standard input and output.
package lines

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

var output sync.Mutex

// Quiet keeps the client's log to errors; it goes to standard error.
func Quiet() { rlog.SetLogLevel("error") }

// Must ends the program when the client refuses an order that is not about one message.
func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Ready tells the test that the client runs.
func Ready() { Print(map[string]bool{"ready": true}) }

// Print writes one line.
func Print(object any) {
	line, err := json.Marshal(object)
	Must(err)
	output.Lock()
	defer output.Unlock()
	_, err = os.Stdout.Write(append(line, '\n'))
	Must(err)
}

// Read hands each line of standard input to the function until there are no more.
func Read[T any](handle func(T)) {
	decoder := json.NewDecoder(bufio.NewReader(os.Stdin))
	for {
		var object T
		err := decoder.Decode(&object)
		if err == io.EOF {
			return
		}
		Must(err)
		handle(object)
	}
}

// Drain returns when standard input ends.
func Drain() {
	_, err := io.Copy(io.Discard, os.Stdin)
	Must(err)
}
