package peers;

import java.lang.reflect.Method;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragelyByCircle;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueConsistentHash;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;

/**
 * How a push consumer shares messages with others, and where it starts: `--message-model BROADCASTING` with its files
 * below `--offset-directory`, `--strategy AVG_BY_CIRCLE` or another name, `--consume-from TIMESTAMP` with
 * `--consume-timestamp`.
 */
final class Sharing {
    private Sharing() {
    }

    static void set(DefaultMQPushConsumer consumer, Options options) throws ReflectiveOperationException {
        String directory = options.optional("--offset-directory", null);
        if (directory != null) {
            // Read once, by a class that is not loaded before the start.
            System.setProperty("rocketmq.client.localOffsetStoreDir", directory);
        }
        String model = options.optional("--message-model", null);
        if (model != null) {
            setMessageModel(consumer, model);
        }
        String strategy = options.optional("--strategy", null);
        if (strategy != null) {
            consumer.setAllocateMessageQueueStrategy(strategy(strategy));
        }
        String from = options.optional("--consume-from", null);
        if (from != null) {
            consumer.setConsumeFromWhere(ConsumeFromWhere.valueOf("CONSUME_FROM_" + from));
        }
        String timestamp = options.optional("--consume-timestamp", null);
        if (timestamp != null) {
            consumer.setConsumeTimestamp(timestamp);
        }
    }

    /** The type of the parameter is in one package in 4.9 and in another in 5.x. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    private static void setMessageModel(DefaultMQPushConsumer consumer, String model)
        throws ReflectiveOperationException {
        for (Method method : DefaultMQPushConsumer.class.getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                Class type = method.getParameterTypes()[0];
                method.invoke(consumer, Enum.valueOf(type, model));
            }
        }
    }

    private static AllocateMessageQueueStrategy strategy(String name) {
        switch (name) {
            case "AVG":
                return new AllocateMessageQueueAveragely();
            case "AVG_BY_CIRCLE":
                return new AllocateMessageQueueAveragelyByCircle();
            case "CONSISTENT_HASH":
                return new AllocateMessageQueueConsistentHash();
            default:
                throw new IllegalArgumentException("unknown strategy " + name);
        }
    }
}
