package peers;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.selector.SelectMessageQueueByHash;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;

/**
 * DefaultMQProducer: one message, or one batch, per line of standard input, one receipt or error per line of standard
 * output.
 *
 * `--compress-type` is ZLIB, LZ4 or ZSTD.
 */
public final class Send {
    private Send() {
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        System.setProperty("rocketmq.message.compressType", options.optional("--compress-type", "ZLIB"));
        DefaultMQProducer producer = new DefaultMQProducer(options.required("--group"));
        producer.setNamesrvAddr(options.required("--name-server"));
        producer.setMqClientApiTimeout(30_000); // a JVM that starts on a busy machine needs its time
        Namespaces.set(producer, options);
        producer.setSendMsgTimeout(options.number("--timeout-ms", 10_000));
        producer.start();
        Options.print(Map.of("ready", true));

        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            if (!line.isBlank()) {
                Options.print(send(producer, Options.parse(line)));
            }
        }
        producer.shutdown();
        System.exit(0);
    }

    private static Map<String, Object> send(DefaultMQProducer producer, JsonObject line) {
        Map<String, Object> answer = new LinkedHashMap<>();
        try {
            SendResult result;
            if (line.has("batch")) {
                result = producer.send(messages(line.getAsJsonArray("batch")));
            } else if (present(line, "ordering_key")) {
                String key = line.get("ordering_key").getAsString();
                result = producer.send(message(line), new SelectMessageQueueByHash(), key);
            } else {
                result = producer.send(message(line));
            }
            answer.put("msg_id", result.getMsgId());
            answer.put("offset_msg_id", result.getOffsetMsgId());
            answer.put("status", result.getSendStatus().name());
            answer.put("queue_id", result.getMessageQueue().getQueueId());
            answer.put("queue_offset", result.getQueueOffset());
            answer.put("broker", result.getMessageQueue().getBrokerName());
        } catch (Exception e) {
            answer.put("error", e.toString());
        }
        return answer;
    }

    private static List<Message> messages(JsonArray lines) {
        List<Message> messages = new ArrayList<>();
        for (JsonElement line : lines) {
            messages.add(message(line.getAsJsonObject()));
        }
        return messages;
    }

    static Message message(JsonObject line) {
        Message message = new Message();
        message.setTopic(line.get("topic").getAsString());
        message.setBody(Base64.getDecoder().decode(line.get("body_base64").getAsString()));
        if (present(line, "tag")) {
            message.setTags(line.get("tag").getAsString());
        }
        if (present(line, "keys")) {
            message.setKeys(line.get("keys").getAsString());
        }
        if (present(line, "delay_level")) {
            message.setDelayTimeLevel(line.get("delay_level").getAsInt());
        }
        if (present(line, "properties")) {
            for (Map.Entry<String, JsonElement> property : line.getAsJsonObject("properties").entrySet()) {
                message.putUserProperty(property.getKey(), property.getValue().getAsString());
            }
        }
        if (present(line, "protocol")) {
            // What the newer client's setters for timers and priorities do, in a form that both versions compile.
            for (Map.Entry<String, JsonElement> property : line.getAsJsonObject("protocol").entrySet()) {
                MessageAccessor.putProperty(message, property.getKey(), property.getValue().getAsString());
            }
        }
        return message;
    }

    static boolean present(JsonObject line, String name) {
        return line.has(name) && !line.get(name).isJsonNull();
    }
}
