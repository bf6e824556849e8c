package peers;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;

/** Replies to every message of a topic with its body behind "re: "; one line per reply, until standard input ends. */
public final class Reply {
    private Reply() {
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        DefaultMQProducer producer = new DefaultMQProducer(options.required("--group") + "-replies");
        producer.setNamesrvAddr(options.required("--name-server"));
        producer.setMqClientApiTimeout(30_000); // a JVM that starts on a busy machine needs its time
        producer.setInstanceName("peer-" + ProcessHandle.current().pid());
        producer.setMqClientApiTimeout(20_000);
        producer.start();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(options.required("--group"));
        consumer.setNamesrvAddr(options.required("--name-server"));
        consumer.setMqClientApiTimeout(30_000); // a JVM that starts on a busy machine needs its time
        consumer.setInstanceName("peer-" + ProcessHandle.current().pid());
        // The default of 3 s is short on a small machine that does a lot besides.
        consumer.setMqClientApiTimeout(20_000);
        consumer.setPollNameServerInterval(1_000);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(options.required("--topic"), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                reply(producer, message);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        Options.print(Map.of("ready", true));

        while (System.in.read() >= 0) {
            // What is written to standard input does not matter; its end is the order to stop.
        }
        consumer.shutdown();
        producer.shutdown();
        System.exit(0);
    }

    private static void reply(DefaultMQProducer producer, MessageExt message) {
        try {
            ByteArrayOutputStream body = new ByteArrayOutputStream();
            body.write("re: ".getBytes(StandardCharsets.UTF_8));
            body.write(message.getBody());
            SendResult result = producer.send(MessageUtil.createReplyMessage(message, body.toByteArray()), 3_000);
            Options.print(Map.of("replied", result.getSendStatus().name()));
        } catch (Exception e) {
            Options.print(Map.of("error", e.toString()));
        }
    }
}
