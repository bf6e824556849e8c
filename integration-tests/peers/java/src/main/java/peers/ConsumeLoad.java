package peers;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * DefaultMQPushConsumer or DefaultLitePullConsumer at work: one line of figures. The command line and what the figures
 * mean are in the module `consume_load` of the integration tests.
 */
public final class ConsumeLoad {
    private final String work;
    private final long messages;
    /** Messages that were due before, in nanoseconds since 1970, do not count. */
    private final long from;
    private final AtomicLong seen = new AtomicLong();
    private final CountDownLatch done = new CountDownLatch(1);
    private final Buckets ages = new Buckets();
    private volatile long first;
    private volatile long last;
    private volatile double cpuAtFirst;

    private ConsumeLoad(Options options) {
        this.work = options.required("--work");
        this.messages = Long.parseLong(options.required("--messages"));
        this.from = sinceEpoch() + TimeUnit.MILLISECONDS.toNanos(Long.parseLong(options.required("--settle-ms")));
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        ConsumeLoad load = new ConsumeLoad(options);
        long runMillis = Long.parseLong(options.optional("--run-ms", "1000"));
        double cpuBefore = cpuSeconds();
        long start = System.nanoTime();
        if (options.required("--kind").equals("lite-pull")) {
            load.litePull(options);
        } else {
            load.push(options);
        }
        Map<String, Object> outcome = new LinkedHashMap<>();
        switch (load.work) {
            case "idle":
                Thread.sleep(runMillis / 2);
                cpuBefore = cpuSeconds();
                start = System.nanoTime();
                Thread.sleep(runMillis);
                outcome.put("seconds", (System.nanoTime() - start) / 1e9);
                break;
            case "first":
                load.done.await();
                double micros = (load.first - start) / 1e3;
                outcome.put("seconds", micros / 1e6);
                outcome.put("p50_us", micros);
                outcome.put("p99_us", micros);
                break;
            default:
                load.done.await();
                outcome.put("seconds", (load.last - load.first) / 1e9);
                cpuBefore = load.work.equals("latency") ? load.cpuAtFirst : cpuBefore;
        }
        outcome.put("cpu_seconds", cpuSeconds() - cpuBefore);
        outcome.put("messages", Math.min(load.seen.get(), load.messages));
        outcome.putIfAbsent("p50_us", load.ages.quantileMicros(0.5));
        outcome.putIfAbsent("p99_us", load.ages.quantileMicros(0.99));
        outcome.put("peak_mib", Load.peakMib());
        Options.print(outcome);
        // What a graceful stop would take is not measured.
        Runtime.getRuntime().halt(0);
    }

    private ConsumeFromWhere from() {
        return work.equals("latency") ? ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET
            : ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET;
    }

    private void push(Options options) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(options.required("--group"));
        consumer.setNamesrvAddr(options.required("--name-server"));
        consumer.setConsumeFromWhere(from());
        consumer.subscribe(options.required("--topic"), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (batch, context) -> {
            note(batch);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
    }

    private void litePull(Options options) throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(options.required("--group"));
        consumer.setNamesrvAddr(options.required("--name-server"));
        consumer.setConsumeFromWhere(from());
        consumer.subscribe(options.required("--topic"), "*");
        consumer.start();
        Thread poller = new Thread(() -> {
            while (done.getCount() > 0) {
                note(consumer.poll(1_000));
            }
        });
        poller.setDaemon(true);
        poller.start();
    }

    private void note(List<MessageExt> batch) {
        for (MessageExt message : batch) {
            if (work.equals("latency")) {
                long due = due(message.getBody());
                if (due < from) {
                    continue;
                }
                ages.add(sinceEpoch() - due);
            }
            long number = seen.incrementAndGet();
            long now = System.nanoTime();
            if (number == 1) {
                first = now;
                cpuAtFirst = cpuSeconds();
            }
            if (number == messages) {
                last = now;
                done.countDown();
            }
        }
    }

    private static long due(byte[] body) {
        long nanos = 0;
        for (int i = 0; i < body.length && body[i] != ' '; i++) {
            nanos = nanos * 10 + body[i] - '0';
        }
        return nanos;
    }

    private static long sinceEpoch() {
        Instant now = Instant.now();
        return TimeUnit.SECONDS.toNanos(now.getEpochSecond()) + now.getNano();
    }

    private static double cpuSeconds() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
    }
}
