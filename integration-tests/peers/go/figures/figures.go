// Package figures measures the process it is in.
package figures

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"peers/lines"
)

const precision = 6

// Buckets counts durations, 64 buckets to each doubling of nanoseconds.
type Buckets [64 << precision]atomic.Int64

// Add counts one.
func (b *Buckets) Add(duration time.Duration) {
	nanos := uint64(max(0, duration.Nanoseconds()))
	shift := max(0, bits.Len64(nanos)-precision-1)
	b[shift<<precision+int(nanos>>shift)].Add(1)
}

// QuantileMicros is the time that this share of the counted ones does not exceed.
func (b *Buckets) QuantileMicros(share float64) float64 {
	var total, seen int64
	for i := range b {
		total += b[i].Load()
	}
	wanted := int64(math.Ceil(float64(total) * share))
	for i := range b {
		count := b[i].Load()
		seen += count
		if count > 0 && seen >= wanted {
			shift := max(0, i>>precision-1)
			low := (i - shift<<precision) << shift
			return (float64(low) + float64(int(1)<<shift-1)/2) / 1000
		}
	}
	return 0
}

// CPUSeconds is the user and system time so far.
func CPUSeconds() float64 {
	var usage syscall.Rusage
	lines.Must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// PeakMiB is the most memory that was ever resident.
func PeakMiB() float64 {
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
