package peers;

import java.util.concurrent.atomic.AtomicLongArray;

/** Durations counted in buckets, 64 to each doubling of nanoseconds. */
final class Buckets {
    private static final int PRECISION = 6;

    private final AtomicLongArray counts = new AtomicLongArray(64 << PRECISION);

    void add(long nanos) {
        long counted = Math.max(0, nanos);
        int shift = Math.max(0, 64 - PRECISION - 1 - Long.numberOfLeadingZeros(counted));
        counts.incrementAndGet((shift << PRECISION) + (int) (counted >> shift));
    }

    double quantileMicros(double share) {
        long total = 0;
        for (int i = 0; i < counts.length(); i++) {
            total += counts.get(i);
        }
        long wanted = (long) Math.ceil(total * share);
        long seen = 0;
        for (int i = 0; i < counts.length(); i++) {
            seen += counts.get(i);
            if (counts.get(i) > 0 && seen >= wanted) {
                int shift = Math.max(0, (i >> PRECISION) - 1);
                long low = (long) (i - (shift << PRECISION)) << shift;
                return (low + ((1L << shift) - 1) / 2.0) / 1_000;
            }
        }
        return 0;
    }
}
