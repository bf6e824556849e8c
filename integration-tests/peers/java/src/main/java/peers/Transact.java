package peers;

import com.google.gson.JsonObject;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * TransactionMQProducer: one message per line of standard input, whose "local" says how its local part ends (commit,
 * rollback or unknown); one receipt or error per line of standard output, and one line per check.
 *
 * `--check commit` is what every check is answered with.
 */
public final class Transact {
    private Transact() {
    }

    public static void main(String[] args) throws Exception {
        Options options = new Options(args);
        LocalTransactionState checked = state(options.optional("--check", "unknown"));
        TransactionMQProducer producer = new TransactionMQProducer(options.required("--group"));
        producer.setNamesrvAddr(options.required("--name-server"));
        producer.setMqClientApiTimeout(30_000); // a JVM that starts on a busy machine needs its time
        producer.setSendMsgTimeout(10_000);
        // How soon the brokers are known; the default of 30 s only makes tests wait.
        producer.setMqClientApiTimeout(20_000);
        producer.setPollNameServerInterval(1_000);
        producer.setHeartbeatBrokerInterval(1_000);
        producer.setInstanceName("peer-" + ProcessHandle.current().pid());
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object local) {
                return state((String) local);
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt half) {
                Map<String, Object> line = new LinkedHashMap<>();
                line.put("checked", half.getTransactionId());
                line.put("topic", half.getTopic());
                line.put("queue_id", half.getQueueId());
                Options.print(line);
                return checked;
            }
        });
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

    private static Map<String, Object> send(TransactionMQProducer producer, JsonObject line) {
        Map<String, Object> answer = new LinkedHashMap<>();
        try {
            String local = line.get("local").getAsString();
            TransactionSendResult result = producer.sendMessageInTransaction(Send.message(line), local);
            answer.put("msg_id", result.getMsgId());
            answer.put("status", result.getSendStatus().name());
        } catch (Exception e) {
            answer.put("error", e.toString());
        }
        return answer;
    }

    private static LocalTransactionState state(String name) {
        switch (name) {
            case "commit":
                return LocalTransactionState.COMMIT_MESSAGE;
            case "rollback":
                return LocalTransactionState.ROLLBACK_MESSAGE;
            default:
                return LocalTransactionState.UNKNOW;
        }
    }
}
