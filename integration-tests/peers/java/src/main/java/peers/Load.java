package peers;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;

/**
 * DefaultMQProducer as fast as it goes: one line of figures. The command line and what the figures mean are in the
 * module `load` of the integration tests.
 */
public final class Load {
    private static final int IN_FLIGHT = 1024;
    private static final int AWAITING = 64;
    private static final int BATCH = 32;
    private static final int ONE_WAY_RUN = 10_000;

    private final DefaultMQProducer producer;
    private final String topic;
    private final String mode;
    private final byte[] body;

    private Load(DefaultMQProducer producer, Options options) {
        this.producer = producer;
        this.topic = options.required("--topic");
        this.mode = options.required("--mode");
        this.body = new byte[options.number("--body", 1024)];
        java.util.Arrays.fill(body, (byte) 'x');
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        DefaultMQProducer producer = new DefaultMQProducer("send-load");
        producer.setNamesrvAddr(options.required("--name-server"));
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.start();

        Load load = new Load(producer, options);
        load.part(new Tally(options.number("--warm-up-ms", 1_000)));
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long cpuBefore = system.getProcessCpuTime();
        long start = System.nanoTime();
        Tally tally = new Tally(options.number("--run-ms", 1_000));
        load.part(tally);

        Map<String, Object> outcome = new LinkedHashMap<>();
        outcome.put("seconds", (System.nanoTime() - start) / 1e9);
        outcome.put("cpu_seconds", (system.getProcessCpuTime() - cpuBefore) / 1e9);
        outcome.put("messages", tally.messages.get());
        outcome.put("failures", tally.failures.get());
        outcome.put("p50_us", tally.times.quantileMicros(0.5));
        outcome.put("p99_us", tally.times.quantileMicros(0.99));
        outcome.put("peak_mib", peakMib());
        Options.print(outcome);
        producer.shutdown();
        System.exit(0);
    }

    private void part(Tally tally) throws Exception {
        switch (mode) {
            case "awaited":
                loop(tally, 1, () -> producer.send(message()));
                break;
            case "awaited-64":
                List<Thread> threads = new ArrayList<>();
                for (int i = 0; i < AWAITING; i++) {
                    threads.add(new Thread(() -> loop(tally, 1, () -> producer.send(message()))));
                }
                threads.forEach(Thread::start);
                for (Thread thread : threads) {
                    thread.join();
                }
                break;
            case "async":
                inFlight(tally);
                break;
            case "one-way":
                oneWay(tally);
                break;
            case "batch-32":
                loop(tally, BATCH, () -> producer.send(batch()));
                break;
            default:
                throw new IllegalArgumentException("unknown mode " + mode);
        }
        fence();
    }

    private interface Sending {
        void run() throws Exception;
    }

    private static void loop(Tally tally, int messages, Sending sending) {
        for (long start = System.nanoTime(); start - tally.until < 0; start = System.nanoTime()) {
            try {
                sending.run();
                tally.succeeded(start, messages);
            } catch (Exception e) {
                tally.failed(messages, e);
            }
        }
    }

    /**
     * One-way sends are begun by the event loop that also writes them. Once 65535 wait to be written, it waits for room
     * that only it can make, three seconds for each further message; so an awaited send comes before it gets there.
     */
    private void oneWay(Tally tally) throws Exception {
        long[] sent = {0};
        loop(tally, 1, () -> {
            if (++sent[0] % ONE_WAY_RUN == 0) {
                producer.send(message());
            } else {
                producer.sendOneway(message());
            }
        });
    }

    private void inFlight(Tally tally) throws InterruptedException {
        Semaphore room = new Semaphore(IN_FLIGHT);
        while (true) {
            room.acquire();
            long start = System.nanoTime();
            if (start - tally.until >= 0) {
                room.release();
                break;
            }
            try {
                producer.send(message(), new SendCallback() {
                    @Override
                    public void onSuccess(SendResult result) {
                        tally.succeeded(start, 1);
                        room.release();
                    }

                    @Override
                    public void onException(Throwable e) {
                        tally.failed(1, e);
                        room.release();
                    }
                });
            } catch (Exception e) {
                tally.failed(1, e);
                room.release();
            }
        }
        room.acquire(IN_FLIGHT);
    }

    /** What was sent before has left when this is answered; a broker that is busy with it may refuse at first. */
    private void fence() throws Exception {
        for (int attempt = 1; ; attempt++) {
            try {
                producer.send(message());
                return;
            } catch (Exception e) {
                if (attempt == 20) {
                    throw e;
                }
                Thread.sleep(100);
            }
        }
    }

    private Message message() {
        return new Message(topic, body);
    }

    private List<Message> batch() {
        List<Message> batch = new ArrayList<>(BATCH);
        for (int i = 0; i < BATCH; i++) {
            batch.add(message());
        }
        return batch;
    }

    static double peakMib() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Double.parseDouble(line.replaceAll("[^0-9]", "")) / 1024;
            }
        }
        throw new IOException("no VmHWM in /proc/self/status");
    }

    /** What was done in one part of the run. */
    private static final class Tally {
        final long until;
        final AtomicLong messages = new AtomicLong();
        final AtomicLong failures = new AtomicLong();
        final Buckets times = new Buckets();

        Tally(int millis) {
            until = System.nanoTime() + millis * 1_000_000L;
        }

        void succeeded(long start, int count) {
            times.add(System.nanoTime() - start);
            messages.addAndGet(count);
        }

        void failed(int count, Throwable e) {
            if (failures.getAndAdd(count) == 0) {
                System.err.println("the first failure: " + e);
            }
        }
    }
}
