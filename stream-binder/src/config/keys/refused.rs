//! Keys that Spring Cloud Stream or Spring Cloud Alibaba know and this version does not implement.

use super::Scope;

/// One such key, and what to do about it.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) scope: Scope,
    /// Name below the scope in kebab case; what stands below it is refused too.
    pub(crate) name: &'static str,
    /// Completes "known to Spring.., not supported by this version: ".
    pub(crate) remedy: &'static str,
}

const fn refused(scope: Scope, name: &'static str, remedy: &'static str) -> Refused {
    Refused { scope, name, remedy }
}

const REMOVE: &str = "remove it";
const ONE_IDENTITY: &str = "remove it; every binding shares the one connection to the cluster";
const NO_AUTHENTICATION: &str = "remove it, and use a name server and brokers without access control";

use Scope::{
    Binding, Consumer, Function, Poller, Producer, RocketMqBinder, RocketMqConsumer, RocketMqProducer, Stream,
};

/// Every such key.
pub(crate) const REFUSED: &[Refused] = &[
    refused(
        Function,
        "routing-expression",
        "remove it and bind a function to each topic",
    ),
    refused(
        Function,
        "configuration",
        "remove it; only the headers a function returns are sent",
    ),
    refused(
        Function,
        "autodetect",
        "remove it and name the functions in spring.cloud.function.definition",
    ),
    refused(
        Stream,
        "function.autodetect",
        "remove it and name the functions in spring.cloud.function.definition",
    ),
    refused(
        Stream,
        "function.routing",
        "remove it and bind a function to each topic",
    ),
    refused(
        Stream,
        "function.batch-mode",
        "remove it; a function receives one message at a time",
    ),
    refused(
        Stream,
        "source",
        "remove it; StreamBridge sends to any configured output",
    ),
    refused(
        Stream,
        "input-bindings",
        "remove it; inputs come from the functions",
    ),
    refused(
        Stream,
        "output-bindings",
        "remove it; every output under bindings can be sent to",
    ),
    refused(Stream, "pollable-source", "write a #[consumer] function instead"),
    refused(
        Stream,
        "binders",
        "remove it; one cluster, at rocketmq.binder.name-server, serves every binding",
    ),
    refused(
        Stream,
        "instance-count",
        "remove it; RocketMQ spreads the queues over the members of a group by itself",
    ),
    refused(
        Stream,
        "instance-index",
        "remove it; RocketMQ spreads the queues over the members of a group by itself",
    ),
    refused(
        Stream,
        "instance-index-list",
        "remove it; RocketMQ spreads the queues over the members of a group",
    ),
    refused(
        Stream,
        "dynamic-destination-cache-size",
        "remove it; sending to a topic needs no cached binding",
    ),
    refused(Stream, "dynamic-destinations", REMOVE),
    refused(
        Stream,
        "binding-retry-interval",
        "remove it; a binding that cannot start fails the start",
    ),
    refused(Stream, "override-cloud-connectors", REMOVE),
    refused(Stream, "integration", REMOVE),
    refused(Stream, "sendto", "send with StreamBridge instead"),
    refused(Stream, "metrics", REMOVE),
    refused(Stream, "kafka", "this binder speaks RocketMQ; remove it"),
    refused(Stream, "rabbit", "this binder speaks RocketMQ; remove it"),
    refused(Stream, "rocketmq.streams", REMOVE),
    refused(Poller, "cron", "use fixed-delay"),
    refused(Poller, "fixed-rate", "use fixed-delay"),
    refused(Poller, "receive-timeout", REMOVE),
    refused(
        Binding,
        "error-handler-definition",
        "return a Failure from the function instead",
    ),
    refused(
        Consumer,
        "partitioned",
        "remove it; RocketMQ spreads the queues over the members of a group by itself",
    ),
    refused(
        Consumer,
        "instance-count",
        "remove it; RocketMQ spreads the queues over the members of a group",
    ),
    refused(
        Consumer,
        "instance-index",
        "remove it; RocketMQ spreads the queues over the members of a group",
    ),
    refused(
        Consumer,
        "instance-index-list",
        "remove it; RocketMQ spreads the queues over the members of a group",
    ),
    refused(
        Consumer,
        "default-retryable",
        "return Failure::reject for errors that must not be retried",
    ),
    refused(
        Consumer,
        "retryable-exceptions",
        "return Failure::reject for errors that must not be retried",
    ),
    refused(Consumer, "retry-template-name", "use max-attempts and back-off-*"),
    refused(
        Consumer,
        "header-mode",
        "remove it; RocketMQ has message properties of its own",
    ),
    refused(
        Consumer,
        "use-native-decoding",
        "take Bytes as the argument of the function",
    ),
    refused(
        Consumer,
        "multiplex",
        "give each topic its own function and binding",
    ),
    refused(
        Consumer,
        "batch-mode",
        "remove it; a function receives one message at a time",
    ),
    refused(Producer, "poller.cron", "use poller.fixed-delay"),
    refused(Producer, "partition-key-expression", REMOVE),
    refused(Producer, "partition-key-extractor-name", REMOVE),
    refused(Producer, "partition-selector-expression", REMOVE),
    refused(Producer, "partition-selector-name", REMOVE),
    refused(
        Producer,
        "partition-count",
        "remove it; the topic's queues on the broker decide",
    ),
    refused(
        Producer,
        "required-groups",
        "remove it; RocketMQ keeps messages whether or not a group exists yet",
    ),
    refused(
        Producer,
        "header-mode",
        "remove it; RocketMQ has message properties of its own",
    ),
    refused(Producer, "use-native-encoding", "send Bytes or Text"),
    refused(
        Producer,
        "error-channel-enabled",
        "handle the error that the send returns",
    ),
    refused(
        Producer,
        "dynamic-partition-updates-enabled",
        "remove it; new queues are used as they appear",
    ),
    refused(RocketMqBinder, "access-key", NO_AUTHENTICATION),
    refused(RocketMqBinder, "secret-key", NO_AUTHENTICATION),
    refused(
        RocketMqBinder,
        "namespace",
        "put the namespace into topic and group names (`namespace%topic`)",
    ),
    refused(RocketMqBinder, "namespace-v2", REMOVE),
    refused(RocketMqBinder, "unit-name", REMOVE),
    refused(RocketMqBinder, "access-channel", REMOVE),
    refused(RocketMqBinder, "enabled", "remove it"),
    refused(RocketMqBinder, "enable", "remove it"),
    refused(
        RocketMqBinder,
        "vip-channel-enabled",
        "remove it; the normal port of the broker is used",
    ),
    refused(
        RocketMqBinder,
        "use-tls",
        "remove it, and use a listener without TLS",
    ),
    refused(
        RocketMqBinder,
        "enable-msg-trace",
        "remove it; no message trace is sent",
    ),
    refused(
        RocketMqBinder,
        "customized-trace-topic",
        "remove it; no message trace is sent",
    ),
    refused(RocketMqBinder, "namesrv-addr", "use name-server"),
    refused(
        RocketMqConsumer,
        "enabled",
        "use auto-startup at spring.cloud.stream.bindings.<name>.consumer",
    ),
    refused(
        RocketMqConsumer,
        "enable",
        "use auto-startup at spring.cloud.stream.bindings.<name>.consumer",
    ),
    refused(
        RocketMqConsumer,
        "name-server",
        "set it once, at rocketmq.binder.name-server",
    ),
    refused(
        RocketMqConsumer,
        "group",
        "use group at spring.cloud.stream.bindings.<name>",
    ),
    refused(RocketMqConsumer, "access-key", NO_AUTHENTICATION),
    refused(RocketMqConsumer, "secret-key", NO_AUTHENTICATION),
    refused(
        RocketMqConsumer,
        "namespace",
        "put the namespace into topic and group names (`namespace%topic`)",
    ),
    refused(RocketMqConsumer, "namespace-v2", REMOVE),
    refused(RocketMqConsumer, "unit-name", ONE_IDENTITY),
    refused(RocketMqConsumer, "access-channel", ONE_IDENTITY),
    refused(
        RocketMqConsumer,
        "poll-name-server-interval",
        "set it once, at rocketmq.binder",
    ),
    refused(
        RocketMqConsumer,
        "heartbeat-broker-interval",
        "set it once, at rocketmq.binder",
    ),
    refused(
        RocketMqConsumer,
        "vip-channel-enabled",
        "remove it; the normal port of the broker is used",
    ),
    refused(
        RocketMqConsumer,
        "use-tls",
        "remove it, and use a listener without TLS",
    ),
    refused(
        RocketMqConsumer,
        "enable-msg-trace",
        "remove it; no message trace is sent",
    ),
    refused(
        RocketMqConsumer,
        "customized-trace-topic",
        "remove it; no message trace is sent",
    ),
    refused(
        RocketMqConsumer,
        "pull-time-delay-mills-when-exception",
        "remove it; the pause grows with each failure",
    ),
    refused(
        RocketMqConsumer,
        "allocate-message-queue-strategy",
        "remove it; queues are allocated evenly",
    ),
    refused(
        RocketMqConsumer,
        "consume-timestamp",
        "remove it; CONSUME_FROM_TIMESTAMP means 30 minutes ago",
    ),
    refused(
        RocketMqConsumer,
        "push.orderly",
        "remove it; messages are handled concurrently",
    ),
    refused(
        RocketMqConsumer,
        "push.suspend-current-queue-time-millis",
        "remove it; it concerns orderly consumers only",
    ),
    refused(
        RocketMqConsumer,
        "push.pull-threshold-for-topic",
        "use pull-threshold-for-queue",
    ),
    refused(
        RocketMqConsumer,
        "push.pull-threshold-size-for-topic",
        "use pull-threshold-size-for-queue",
    ),
    refused(
        RocketMqConsumer,
        "push.pull-interval",
        "remove it; a full cache already pauses pulling",
    ),
    refused(
        RocketMqConsumer,
        "push.consume-message-batch-max-size",
        "remove it; a function receives one message",
    ),
    refused(
        RocketMqConsumer,
        "pull",
        "write a #[consumer] function instead of polling",
    ),
    refused(RocketMqConsumer, "tags", "use subscription"),
    refused(
        RocketMqConsumer,
        "sql",
        "use subscription with tags, or filter in the function",
    ),
    refused(
        RocketMqConsumer,
        "orderly",
        "remove it; messages are handled concurrently",
    ),
    refused(
        RocketMqConsumer,
        "broadcasting",
        "remove it; the members of a group share the messages",
    ),
    refused(
        RocketMqConsumer,
        "delay-level-when-next-consume",
        "use push.delay-level-when-next-consume",
    ),
    refused(
        RocketMqConsumer,
        "suspend-current-queue-time-millis",
        "remove it; it concerns orderly consumers only",
    ),
    refused(
        RocketMqProducer,
        "enabled",
        "use auto-startup at spring.cloud.stream.bindings.<name>.producer",
    ),
    refused(
        RocketMqProducer,
        "enable",
        "use auto-startup at spring.cloud.stream.bindings.<name>.producer",
    ),
    refused(
        RocketMqProducer,
        "name-server",
        "set it once, at rocketmq.binder.name-server",
    ),
    refused(RocketMqProducer, "access-key", NO_AUTHENTICATION),
    refused(RocketMqProducer, "secret-key", NO_AUTHENTICATION),
    refused(
        RocketMqProducer,
        "namespace",
        "put the namespace into topic and group names (`namespace%topic`)",
    ),
    refused(RocketMqProducer, "namespace-v2", REMOVE),
    refused(RocketMqProducer, "unit-name", ONE_IDENTITY),
    refused(RocketMqProducer, "access-channel", ONE_IDENTITY),
    refused(
        RocketMqProducer,
        "poll-name-server-interval",
        "set it once, at rocketmq.binder",
    ),
    refused(
        RocketMqProducer,
        "heartbeat-broker-interval",
        "set it once, at rocketmq.binder",
    ),
    refused(
        RocketMqProducer,
        "persist-consumer-offset-interval",
        "remove it; it concerns consumers",
    ),
    refused(
        RocketMqProducer,
        "vip-channel-enabled",
        "remove it; the normal port of the broker is used",
    ),
    refused(
        RocketMqProducer,
        "use-tls",
        "remove it, and use a listener without TLS",
    ),
    refused(
        RocketMqProducer,
        "enable-msg-trace",
        "remove it; no message trace is sent",
    ),
    refused(
        RocketMqProducer,
        "customized-trace-topic",
        "remove it; no message trace is sent",
    ),
    refused(
        RocketMqProducer,
        "producer-type",
        "remove it; sends are not transactional",
    ),
    refused(
        RocketMqProducer,
        "send-call-back",
        "remove it; a failed asynchronous send is logged",
    ),
    refused(
        RocketMqProducer,
        "transaction-listener",
        "remove it; sends are not transactional",
    ),
    refused(
        RocketMqProducer,
        "message-queue-selector",
        "remove it; queues are used in turn",
    ),
    refused(RocketMqProducer, "check-forbidden-hook", REMOVE),
    refused(RocketMqProducer, "send-message-hook", REMOVE),
    refused(
        RocketMqProducer,
        "error-message-strategy",
        "handle the error that the send returns",
    ),
    refused(
        RocketMqProducer,
        "send-failure-channel",
        "handle the error that the send returns",
    ),
    refused(RocketMqProducer, "sync", "use send-type: Sync"),
    refused(
        RocketMqProducer,
        "transactional",
        "remove it; sends are not transactional",
    ),
    refused(
        RocketMqProducer,
        "executer",
        "remove it; sends are not transactional",
    ),
    refused(
        RocketMqProducer,
        "transaction-check-listener",
        "remove it; sends are not transactional",
    ),
];
