package peers;

import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.apache.rocketmq.client.consumer.AllocateMessageQueueStrategy;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMachineRoomNearby;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragelyByCircle;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueByConfig;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueByMachineRoom;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueConsistentHash;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * What the client's strategies of allocation answer to random queues and members: one line per case, the strategies in
 * turn. `--seed N` makes the cases, `--count N` is how many.
 */
public final class Allocate {
    private Allocate() {
    }

    public static void main(String[] args) {
        Options options = new Options(args);
        Random random = new Random(options.number("--seed", 1));
        int count = options.number("--count", 100);
        for (int i = 0; i < count; i++) {
            Options.print(answer(i % 8, random));
        }
        System.exit(0);
    }

    private static Map<String, Object> answer(int which, Random random) {
        List<String> members = members(random);
        List<MessageQueue> queues = queues(which == 4, random);
        List<String> rooms = new ArrayList<>();
        int virtualNodes = random.nextInt(20);
        AllocateMessageQueueStrategy strategy;
        switch (which) {
            case 0:
                strategy = new AllocateMessageQueueAveragely();
                break;
            case 1:
                strategy = new AllocateMessageQueueAveragelyByCircle();
                break;
            case 2:
                strategy = new AllocateMessageQueueConsistentHash(virtualNodes);
                break;
            case 3:
                AllocateMessageQueueByConfig byConfig = new AllocateMessageQueueByConfig();
                byConfig.setMessageQueueList(queues.subList(0, Math.min(2, queues.size())));
                strategy = byConfig;
                break;
            case 4:
                AllocateMessageQueueByMachineRoom byRoom = new AllocateMessageQueueByMachineRoom();
                for (int room = 0; room < 3; room++) {
                    if (random.nextBoolean()) {
                        rooms.add("room" + room);
                    }
                }
                byRoom.setConsumeridcs(new HashSet<>(rooms));
                strategy = byRoom;
                break;
            case 5:
                strategy = nearby(new AllocateMessageQueueAveragely());
                break;
            case 6:
                strategy = nearby(new AllocateMessageQueueAveragelyByCircle());
                break;
            default:
                strategy = nearby(new AllocateMessageQueueConsistentHash());
                break;
        }
        List<List<Integer>> shares = new ArrayList<>();
        for (String member : members) {
            List<Integer> share = new ArrayList<>();
            for (MessageQueue queue : strategy.allocate("group", member, queues, members)) {
                share.add(queues.indexOf(queue));
            }
            shares.add(share);
        }
        List<String> names = new ArrayList<>();
        for (MessageQueue queue : queues) {
            names.add(queue.getTopic() + "/" + queue.getBrokerName() + "/" + queue.getQueueId());
        }
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("strategy", strategy.getName());
        line.put("members", members);
        line.put("queues", names);
        line.put("rooms", rooms);
        line.put("virtual_nodes", virtualNodes);
        line.put("shares", shares);
        return line;
    }

    private static List<String> members(Random random) {
        Set<String> members = new TreeSet<>();
        for (int count = 1 + random.nextInt(6); members.size() < count; ) {
            members.add("room" + random.nextInt(3) + "-10.0.0." + random.nextInt(256) + "@" + random.nextInt(70_000));
        }
        return new ArrayList<>(members);
    }

    private static List<MessageQueue> queues(boolean withAt, Random random) {
        String separator = withAt ? "@" : "-";
        List<MessageQueue> queues = new ArrayList<>();
        for (int broker = 1 + random.nextInt(3); broker > 0; broker--) {
            String name = "room" + random.nextInt(4) + separator + "broker" + broker + (random.nextInt(9) == 0 ? separator : "");
            for (int queue = random.nextInt(8); queue >= 0; queue--) {
                queues.add(new MessageQueue("orders", name, queue));
            }
        }
        Collections.sort(queues);
        return queues;
    }

    private static AllocateMessageQueueStrategy nearby(AllocateMessageQueueStrategy inner) {
        return new AllocateMachineRoomNearby(inner, new AllocateMachineRoomNearby.MachineRoomResolver() {
            @Override
            public String brokerDeployIn(MessageQueue queue) {
                return room(queue.getBrokerName());
            }

            @Override
            public String consumerDeployIn(String clientId) {
                return room(clientId);
            }
        });
    }

    private static String room(String name) {
        return name.substring(0, name.indexOf('-'));
    }
}
