package peers;

import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * DefaultMQPushConsumer, clustering unless told otherwise: one line per delivery, until standard input ends.
 *
 * `--client-rebalance false` lets the broker divide the queues and say whether they are popped (5.x).
 * `--fail N` answers RECONSUME_LATER to the first N deliveries of each message; the line then says "failed": true.
 * `--orderly true` consumes in order; `--hold MILLIS` is how long the listener takes for a message, and the line then
 * says from when to when it did.
 */
public final class Receive {
    private Receive() {
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        int fail = options.number("--fail", 0);
        int delayLevel = options.number("--delay-level", 0);

        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(options.required("--group"));
        consumer.setNamesrvAddr(options.required("--name-server"));
        consumer.setMqClientApiTimeout(30_000); // a JVM that starts on a busy machine needs its time
        Namespaces.set(consumer, options);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.setMaxReconsumeTimes(options.number("--max-reconsume-times", 16));
        // How soon the client learns the route of its new %RETRY% topic; the default of 30 s only makes tests wait.
        consumer.setPollNameServerInterval(1_000);
        consumer.setInstanceName(options.optional("--instance-name", "peer-" + ProcessHandle.current().pid()));
        Sharing.set(consumer, options);
        if ("false".equals(options.optional("--client-rebalance", "true"))) {
            // The client of 4.9 does not have it.
            consumer.getClass().getMethod("setClientRebalance", boolean.class).invoke(consumer, false);
        }
        consumer.subscribe(options.required("--topic"), options.optional("--expression", "*"));
        int hold = options.number("--hold", 0);
        if (Boolean.parseBoolean(options.optional("--orderly", "false"))) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                boolean failed = false;
                for (MessageExt message : messages) {
                    failed = message.getReconsumeTimes() < fail;
                    Map<String, Object> line = line(message, failed);
                    line.put("begun_at", System.currentTimeMillis());
                    pause(hold);
                    line.put("ended_at", System.currentTimeMillis());
                    Options.print(line);
                }
                return failed ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                boolean failed = false;
                for (MessageExt message : messages) {
                    failed = message.getReconsumeTimes() < fail;
                    Options.print(line(message, failed));
                }
                context.setDelayLevelWhenNextConsume(delayLevel);
                return failed ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        Options.print(Map.of("ready", true));

        while (System.in.read() >= 0) {
            // What is written to standard input does not matter; its end is the order to stop.
        }
        consumer.shutdown();
        System.exit(0);
    }

    private static void pause(int millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private static Map<String, Object> line(MessageExt message, boolean failed) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("topic", message.getTopic());
        line.put("tag", message.getTags());
        line.put("keys", message.getKeys());
        line.put("properties", message.getProperties());
        line.put("body_base64", Base64.getEncoder().encodeToString(message.getBody()));
        line.put("msg_id", message.getMsgId());
        line.put("offset_msg_id", offsetMessageId(message));
        line.put("queue_id", message.getQueueId());
        line.put("queue_offset", message.getQueueOffset());
        line.put("reconsume_times", message.getReconsumeTimes());
        line.put("born_host", message.getBornHostString());
        line.put("failed", failed);
        return line;
    }

    /** The client hands out a subclass whose `getMsgId` is the unique id; the id made of address and offset is beside it. */
    private static String offsetMessageId(MessageExt message) {
        if (message instanceof MessageClientExt) {
            return ((MessageClientExt) message).getOffsetMsgId();
        }
        return message.getMsgId();
    }
}
