package peers;

import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * DefaultLitePullConsumer that subscribes and commits by hand: one line of standard input is one thing to do, answered by
 * one line, until standard input ends.
 *
 * `{"do": "poll", "timeout_ms": 1000}`, `{"do": "commit"}`, `{"do": "assignment"}`.
 */
public final class LitePull {
    private LitePull() {
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(options.required("--group"));
        consumer.setNamesrvAddr(options.required("--name-server"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setAutoCommit(false);
        consumer.setInstanceName("peer-" + ProcessHandle.current().pid());
        consumer.subscribe(options.required("--topic"), options.optional("--expression", "*"));
        consumer.start();
        Options.print(Map.of("ready", true));

        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            JsonObject order = Options.parse(line);
            Options.print(answer(consumer, order));
        }
        consumer.shutdown();
        System.exit(0);
    }

    private static Map<String, Object> answer(DefaultLitePullConsumer consumer, JsonObject order) throws Exception {
        Map<String, Object> answer = new LinkedHashMap<>();
        switch (order.get("do").getAsString()) {
            case "poll":
                List<Map<String, Object>> messages = new ArrayList<>();
                for (MessageExt message : consumer.poll(order.get("timeout_ms").getAsLong())) {
                    Map<String, Object> one = new LinkedHashMap<>();
                    one.put("queue_id", message.getQueueId());
                    one.put("queue_offset", message.getQueueOffset());
                    one.put("body", new String(message.getBody(), StandardCharsets.UTF_8));
                    messages.add(one);
                }
                answer.put("messages", messages);
                break;
            case "commit":
                Set<MessageQueue> assigned = consumer.assignment();
                // Marks what was polled; with queues it is sent at once.
                consumer.commit(assigned, true);
                answer.put("committed", assigned.size());
                break;
            case "assignment":
                List<Integer> queues = new ArrayList<>();
                for (MessageQueue queue : consumer.assignment()) {
                    queues.add(queue.getQueueId());
                }
                queues.sort(null);
                answer.put("queues", queues);
                break;
            default:
                throw new IllegalArgumentException("cannot " + order);
        }
        return answer;
    }
}
