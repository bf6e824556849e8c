package peers;

import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;

/** Requests: one message per line of standard input, one reply or error per line of standard output. */
public final class Request {
    private Request() {
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        int timeout = options.number("--timeout-ms", 30_000);
        DefaultMQProducer producer = new DefaultMQProducer(options.required("--group"));
        producer.setNamesrvAddr(options.required("--name-server"));
        producer.setMqClientApiTimeout(30_000); // a JVM that starts on a busy machine needs its time
        producer.setInstanceName("peer-" + ProcessHandle.current().pid());
        // The default of 3 s is short on a small machine that does a lot besides.
        producer.setMqClientApiTimeout(20_000);
        producer.start();
        Options.print(Map.of("ready", true));

        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            if (!line.isBlank()) {
                Options.print(request(producer, Options.parse(line), timeout));
            }
        }
        producer.shutdown();
        System.exit(0);
    }

    private static Map<String, Object> request(DefaultMQProducer producer, JsonObject line, int timeout) {
        Map<String, Object> answer = new LinkedHashMap<>();
        try {
            Message reply = producer.request(Send.message(line), timeout);
            answer.put("body_base64", Base64.getEncoder().encodeToString(reply.getBody()));
            answer.put("properties", reply.getProperties());
        } catch (Exception e) {
            answer.put("error", e.toString());
        }
        return answer;
    }
}
