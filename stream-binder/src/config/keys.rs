//! The one table of configuration keys: name, type, default and documentation.
//!
//! What [`KEYS`] does not hold is refused. [`refused`] holds the keys that Spring Cloud Stream and Spring Cloud
//! Alibaba know and this version does not implement, so that the refusal can say what to do instead.

pub(crate) mod refused;

use super::value::Kind;

/// A place in the tree that several keys share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `spring.cloud.function`.
    Function,
    /// `spring.cloud.stream`.
    Stream,
    /// `spring.integration.poller`, and its older spelling `spring.cloud.stream.poller`.
    Poller,
    /// `bindings.<name>`, and `default` for all of them.
    Binding,
    /// `bindings.<name>` alone.
    OneBinding,
    /// `consumer` of a binding.
    Consumer,
    /// `producer` of a binding.
    Producer,
    /// `rocketmq.binder`.
    RocketMqBinder,
    /// `consumer` of a RocketMQ binding.
    RocketMqConsumer,
    /// `producer` of a RocketMQ binding.
    RocketMqProducer,
    /// As `RocketMqConsumer`, and also at `rocketmq.binder`.
    RocketMqBinderOrConsumer,
    /// As `RocketMqProducer`, and also at `rocketmq.binder`.
    RocketMqBinderOrProducer,
}

impl Scope {
    /// Where keys of this scope may stand, the most general place first; `*` stands for a binding name.
    pub(crate) fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Function => &["spring.cloud.function"],
            Self::Stream => &["spring.cloud.stream"],
            Self::Poller => &["spring.cloud.stream.poller", "spring.integration.poller"],
            Self::Binding => &["spring.cloud.stream.default", "spring.cloud.stream.bindings.*"],
            Self::OneBinding => &["spring.cloud.stream.bindings.*"],
            Self::Consumer => &[
                "spring.cloud.stream.default.consumer",
                "spring.cloud.stream.bindings.*.consumer",
            ],
            Self::Producer => &[
                "spring.cloud.stream.default.producer",
                "spring.cloud.stream.bindings.*.producer",
            ],
            Self::RocketMqBinder => &["spring.cloud.stream.rocketmq.binder"],
            Self::RocketMqConsumer => &[
                "spring.cloud.stream.rocketmq.default.consumer",
                "spring.cloud.stream.rocketmq.bindings.*.consumer",
            ],
            Self::RocketMqProducer => &[
                "spring.cloud.stream.rocketmq.default.producer",
                "spring.cloud.stream.rocketmq.bindings.*.producer",
            ],
            Self::RocketMqBinderOrConsumer => &[
                "spring.cloud.stream.rocketmq.binder",
                "spring.cloud.stream.rocketmq.default.consumer",
                "spring.cloud.stream.rocketmq.bindings.*.consumer",
            ],
            Self::RocketMqBinderOrProducer => &[
                "spring.cloud.stream.rocketmq.binder",
                "spring.cloud.stream.rocketmq.default.producer",
                "spring.cloud.stream.rocketmq.bindings.*.producer",
            ],
        }
    }
}

/// What [`Config::known_keys`](super::Config::known_keys) tells of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownKey {
    /// Where it may stand, the most specific place last; `*` is the name of a binding.
    pub paths: Vec<String>,
    /// What a value looks like.
    pub expected: String,
    /// The built-in default, if there is one.
    pub default: Option<&'static str>,
    /// What it is for.
    pub doc: &'static str,
}

/// One accepted key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) scope: Scope,
    /// Name below the scope, in kebab case.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Text of the built-in default, in the key's own type.
    pub(crate) default: Option<&'static str>,
    pub(crate) doc: &'static str,
}

impl Key {
    pub(crate) fn known(&self) -> KnownKey {
        KnownKey {
            paths: self.patterns().collect(),
            expected: self.kind.expected(),
            default: self.default,
            doc: self.doc,
        }
    }

    /// Every path at which the key may stand, the most general first.
    pub(crate) fn patterns(&self) -> impl DoubleEndedIterator<Item = String> {
        self.scope
            .prefixes()
            .iter()
            .map(|prefix| format!("{prefix}.{}", self.name))
    }
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $id:ident = $scope:ident, $name:literal, $kind:expr, $default:expr;)+) => {
        $($(#[doc = $doc])+ pub(crate) const $id: Key = Key {
            scope: Scope::$scope,
            name: $name,
            kind: $kind,
            default: $default,
            doc: concat!($($doc),+).trim_ascii(),
        };)+
        /// Every accepted key.
        pub(crate) const KEYS: &[&Key] = &[$(&$id),+];
    };
}

const MILLISECOND: Kind = Kind::Duration {
    min_millis: 1,
    unit: "ms",
};
const ANY_DURATION: Kind = Kind::Duration {
    min_millis: 0,
    unit: "ms",
};

/// One of `words` and nothing else.
const fn one_of(words: &'static [&'static str]) -> Kind {
    Kind::Choice { words, refused: &[] }
}

keys! {
    /// Functions to bind, separated by `;`; may be left out where there is one function only.
    FUNCTION_DEFINITION = Function, "definition", Kind::Functions, None;
    /// Name of the binding that stands for the implicit name `<function>-in-0` or `<function>-out-0`.
    FUNCTION_BINDINGS = Stream, "function.bindings.*", Kind::BindingName, None;
    /// The binder of bindings that name none.
    DEFAULT_BINDER = Stream, "default-binder", one_of(&["rocketmq"]), Some("rocketmq");
    /// How long a graceful stop may take before what is left is abandoned.
    SHUTDOWN_TIMEOUT = Stream, "shutdown-timeout", MILLISECOND, Some("30s");

    /// From the end of one poll of a supplier to the start of the next.
    POLLER_FIXED_DELAY = Poller, "fixed-delay", MILLISECOND, Some("1s");
    /// Before the first poll of a supplier.
    POLLER_INITIAL_DELAY = Poller, "initial-delay", ANY_DURATION, Some("0");
    /// Calls of the supplier in one poll.
    POLLER_MAX_MESSAGES = Poller, "max-messages-per-poll", Kind::Integer { min: 1, max: 1_000_000 }, Some("1");

    /// The topic; the name of the binding when not set.
    DESTINATION = OneBinding, "destination", Kind::Topic, None;
    /// The consumer group; `anonymous` gives a group that no other process shares.
    GROUP = Binding, "group", Kind::Group, None;
    /// Content type of messages that carry none.
    CONTENT_TYPE = Binding, "content-type", Kind::ContentType, Some("application/json");
    /// The binder of this binding.
    BINDER = Binding, "binder", one_of(&["rocketmq"]), None;

    /// Messages handled at the same time.
    CONCURRENCY = Consumer, "concurrency", Kind::Integer { min: 1, max: 10_000 }, Some("20");
    /// Attempts inside this process, the first included; 1 leaves retry to the broker.
    MAX_ATTEMPTS = Consumer, "max-attempts", Kind::Integer { min: 1, max: 1_000 }, Some("1");
    /// First pause between attempts inside this process.
    BACK_OFF_INITIAL = Consumer, "back-off-initial-interval", MILLISECOND, Some("1s");
    /// Longest pause between attempts inside this process.
    BACK_OFF_MAX = Consumer, "back-off-max-interval", MILLISECOND, Some("10s");
    /// Factor from one pause to the next.
    BACK_OFF_MULTIPLIER = Consumer, "back-off-multiplier", Kind::Float { min: 1.0, max: 1_000.0 }, Some("2.0");
    /// Whether the input starts with the application.
    CONSUMER_AUTO_STARTUP = Consumer, "auto-startup", Kind::Bool, Some("true");

    /// Whether the output starts with the application.
    PRODUCER_AUTO_STARTUP = Producer, "auto-startup", Kind::Bool, Some("true");
    /// As `spring.integration.poller.fixed-delay`, for the supplier of this output.
    PRODUCER_FIXED_DELAY = Producer, "poller.fixed-delay", MILLISECOND, None;
    /// As `spring.integration.poller.initial-delay`, for the supplier of this output.
    PRODUCER_INITIAL_DELAY = Producer, "poller.initial-delay", ANY_DURATION, None;
    /// As `spring.integration.poller.max-messages-per-poll`, for the supplier of this output.
    PRODUCER_MAX_MESSAGES = Producer, "poller.max-messages-per-poll", Kind::Integer { min: 1, max: 1_000_000 }, None;

    /// Name servers of the cluster, `host:port`, separated by `;` or `,`.
    NAME_SERVER = RocketMqBinder, "name-server", Kind::NameServers, None;

    /// Between two heartbeats to the brokers, which forget a silent client after 120 s.
    HEARTBEAT_INTERVAL = RocketMqBinder, "heartbeat-broker-interval", MILLISECOND, Some("30s");
    /// Between two looks at the name server for changed routes.
    POLL_NAME_SERVER_INTERVAL = RocketMqBinder, "poll-name-server-interval", MILLISECOND, Some("30s");

    /// Tags to receive: `*`, or `tagA || tagB`.
    SUBSCRIPTION = RocketMqConsumer, "subscription", Kind::Subscription, Some("*");
    /// `CLUSTERING`: the members of a group share the messages.
    MESSAGE_MODEL = RocketMqConsumer, "message-model",
        Kind::Choice {
            words: &["CLUSTERING"],
            refused: &[("BROADCASTING", "give each process its own group (`group: anonymous`) to see every message")],
        },
        Some("CLUSTERING");
    /// Where a group without stored offset starts.
    CONSUME_FROM_WHERE = RocketMqConsumer, "consume-from-where",
        one_of(&["CONSUME_FROM_LAST_OFFSET", "CONSUME_FROM_FIRST_OFFSET", "CONSUME_FROM_TIMESTAMP"]),
        Some("CONSUME_FROM_LAST_OFFSET");
    /// Messages asked for by one pull.
    PULL_BATCH_SIZE = RocketMqConsumer, "pull-batch-size", Kind::Integer { min: 1, max: 1024 }, Some("32");
    /// Messages held per queue before pulling pauses.
    PULL_THRESHOLD_FOR_QUEUE = RocketMqConsumer, "pull-threshold-for-queue",
        Kind::Integer { min: 1, max: 65_535 }, Some("1000");
    /// MiB of bodies held per queue before pulling pauses.
    PULL_THRESHOLD_SIZE_FOR_QUEUE = RocketMqConsumer, "pull-threshold-size-for-queue",
        Kind::Integer { min: 1, max: 1024 }, Some("100");
    /// Distance between the first and the last offset held per queue before pulling pauses.
    CONSUME_MAX_SPAN = RocketMqConsumer, "consume-max-span", Kind::Integer { min: 1, max: 65_535 }, Some("2000");
    /// How long a function may take for one message before it is cut off and the delivery counts as failed; a number
    /// without unit is minutes, as in Java.
    CONSUME_TIMEOUT = RocketMqConsumer, "push.consume-timeout",
        Kind::Duration { min_millis: 10, unit: "m" }, Some("15m");
    /// Between two commits of offsets to the broker.
    PERSIST_OFFSET_INTERVAL = RocketMqBinderOrConsumer, "persist-consumer-offset-interval",
        Kind::Duration { min_millis: 10, unit: "ms" }, Some("5s");
    /// Deliveries after the first before a message is dead-lettered; -1 for 16.
    MAX_RECONSUME_TIMES = RocketMqConsumer, "push.max-reconsume-times",
        Kind::Integer { min: -1, max: 10_000 }, Some("-1");
    /// Delay level of the next delivery: -1 dead letter at once, 0 the broker's choice, 1 to 18 fixed.
    DELAY_LEVEL_WHEN_NEXT_CONSUME = RocketMqConsumer, "push.delay-level-when-next-consume",
        Kind::Integer { min: -1, max: 18 }, Some("0");

    /// Producer group.
    PRODUCER_GROUP = RocketMqBinderOrProducer, "group", Kind::Group, Some("stream-binder");
    /// Bound of one send, retries included.
    SEND_MSG_TIMEOUT = RocketMqProducer, "send-msg-timeout", MILLISECOND, Some("3s");
    /// Further attempts of an awaited send.
    RETRY_TIMES_SYNC = RocketMqProducer, "retry-times-when-send-failed", Kind::Integer { min: 0, max: 100 }, Some("2");
    /// Further attempts of an asynchronous send.
    RETRY_TIMES_ASYNC = RocketMqProducer, "retry-times-when-send-async-failed",
        Kind::Integer { min: 0, max: 100 }, Some("2");
    /// Whether a stored but not yet safe message is sent to another broker.
    RETRY_ANOTHER_BROKER = RocketMqProducer, "retry-another-broker", Kind::Bool, Some("false");
    /// Bodies of at least this many bytes are compressed.
    COMPRESS_THRESHOLD = RocketMqProducer, "compress-msg-body-threshold",
        Kind::Integer { min: 1, max: 16_777_216 }, Some("4096");
    /// Largest body in bytes.
    MAX_MESSAGE_SIZE = RocketMqProducer, "max-message-size", Kind::Integer { min: 1, max: 16_777_216 }, Some("4194304");
    /// How a send is done: `Sync`, `Async` or `OneWay`.
    SEND_TYPE = RocketMqProducer, "send-type", one_of(&["Sync", "Async", "OneWay"]), Some("Sync");
}
