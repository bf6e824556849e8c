use std::fs;

use super::keys::refused::REFUSED;
use super::keys::{KEYS, Key};
use super::value::Kind;
use super::*;

/// The keys of Spring Cloud Alibaba's comprehensive example.
const COMPREHENSIVE: &str = "\
server:
  port: 28082
spring:
  application:
    name: rocketmq-comprehensive-example
  cloud:
    function:
      definition: producer;consumer;processor
    stream:
      rocketmq:
        binder:
          name-server: ${NAMESRV:localhost:9876}
        bindings:
          producer-out-0:
            producer:
              group: output_1
          processor-out-0:
            producer:
              group: output_2
          consumer-in-0:
            consumer:
              messageModel: CLUSTERING
      bindings:
        producer-out-0:
          destination: num
        processor-out-0:
          destination: square
        processor-in-0:
          destination: num
          group: processor_group
        consumer-in-0:
          destination: square
          group: consumer_group
logging:
  level:
    org.springframework.context.support: debug
";

fn errors(yaml: &str) -> ConfigErrors {
    Config::from_yaml(yaml).expect_err(yaml)
}

fn only(yaml: &str) -> ConfigError {
    let errors = errors(yaml);
    assert_eq!(errors.len(), 1, "{errors}");
    errors.into_iter().next().expect("one error")
}

#[test]
fn the_comprehensive_example_is_read_as_it_is() {
    let config = Config::from_yaml(COMPREHENSIVE).expect("valid");
    assert_eq!(config.application_name(), Some("rocketmq-comprehensive-example"));
    assert_eq!(
        config.function_definition().expect("set"),
        ["producer", "consumer", "processor"]
    );
    assert_eq!(config.rocketmq().binder().name_servers, ["localhost:9876"]);
    assert_eq!(config.binding("processor-in-0").destination, "num");
    assert_eq!(
        config.binding("processor-in-0").group.as_deref(),
        Some("processor_group")
    );
    assert_eq!(config.binding("producer-out-0").group, None);
    assert_eq!(config.rocketmq().producer("processor-out-0").group, "output_2");
    assert_eq!(config.binding_names().count(), 4);
    assert!(config.warnings().is_empty());
    let inputs = ["processor-in-0", "consumer-in-0"];
    config
        .check(&inputs, &["producer-out-0", "processor-out-0"])
        .expect("consistent");
}

#[test]
fn what_nothing_sets_has_the_documented_default() {
    let config = Config::from_yaml("").expect("empty");
    let binding = config.binding("orders-in-0");
    assert_eq!(binding.destination, "orders-in-0");
    assert_eq!(binding.content_type, "application/json");
    assert_eq!(binding.consumer.concurrency, 20);
    assert_eq!(binding.consumer.max_attempts, 1);
    assert_eq!(binding.producer.poller.fixed_delay, Duration::from_secs(1));
    assert!(!binding.producer.poller.fixed_delay_is_set);
    let consumer = config.rocketmq().consumer("orders-in-0");
    assert_eq!((consumer.max_reconsume_times, consumer.pull_batch_size), (16, 32));
    assert_eq!(
        consumer.delay_level_when_next_consume,
        DelayLevelWhenNextConsume::Broker
    );
    assert_eq!(config.rocketmq().producer("x").max_message_size, 4 * 1024 * 1024);
    assert_eq!(config.shutdown_timeout(), Duration::from_secs(30));
    assert!(config.rocketmq().binder().name_servers.is_empty());
}

/// A value of the key's type that is not its default, where there is one.
fn sample(key: &Key) -> String {
    match key.kind {
        Kind::Functions => "f;g".to_owned(),
        Kind::BindingName => "renamed".to_owned(),
        Kind::Topic | Kind::Group => "sample".to_owned(),
        Kind::ContentType => "text/plain".to_owned(),
        Kind::NameServers => "somewhere:9876".to_owned(),
        Kind::Subscription => "tagX||tagY".to_owned(),
        // Within what the keys have to fulfil together.
        Kind::Integer { max, .. } => max.min(999).to_string(),
        Kind::Float { max, .. } => max.to_string(),
        Kind::Bool => (key.default != Some("true")).to_string(),
        Kind::Duration { .. } => "1234".to_owned(),
        Kind::Choice { words, .. } => (*words.last().expect("a word")).to_owned(),
    }
}

/// Everything that the rest of the crate can see.
fn visible(config: &Config) -> String {
    const BINDING: &str = "b-in-0";
    let rocketmq = config.rocketmq();
    format!(
        "{:#?} {:#?} {:#?} {:#?} {:#?} {:#?} {:#?}",
        config.binding(BINDING),
        rocketmq.binder(),
        rocketmq.consumer(BINDING),
        rocketmq.producer(BINDING),
        config.shutdown_timeout(),
        config.function_definition(),
        config.binding_name(BINDING),
    )
}

#[test]
fn every_accepted_key_lands_in_the_model_wherever_it_may_stand() {
    const BASE: &str = "spring.cloud.stream.bindings.b-in-0.group: base";
    let before = visible(&Config::from_yaml(BASE).expect("base"));
    for key in KEYS {
        for pattern in key.patterns() {
            let path = pattern.replace('*', "b-in-0");
            let value = sample(key);
            let config = if path.ends_with(".group") {
                Config::from_yaml(&format!(
                    "spring.cloud.stream.default.group: base\n---\n{path}: {value}"
                ))
            } else {
                Config::from_yaml(&format!("{BASE}\n---\n{path}: {value}"))
            };
            let config = config.unwrap_or_else(|errors| panic!("{path}: {errors}"));
            assert!(matches!(config.origin(&path), Origin::File { .. }), "{path}");
            let only_one_word = matches!(key.kind, Kind::Choice { words: [_], .. });
            if !only_one_word {
                assert_ne!(before, visible(&config), "{path} = {value} changes nothing");
            }
        }
    }
}

#[test]
fn every_accepted_key_has_a_default_of_its_own_type_or_none() {
    for key in KEYS {
        if let Some(default) = key.default {
            assert!(key.kind.read(default).is_ok(), "{} = {default}", key.name);
        }
    }
    for known in Config::known_keys() {
        assert!(
            !known.doc.is_empty() && !known.expected.is_empty(),
            "{:?}",
            known.paths
        );
    }
}

#[test]
fn every_refused_key_says_what_to_do_instead() {
    for refused in REFUSED {
        for prefix in refused.scope.prefixes() {
            let path = format!("{prefix}.{}", refused.name).replace('*', "b-out-0");
            let error = only(&format!("{path}: 1"));
            assert_eq!(error.kind(), ConfigErrorKind::NotSupported, "{error}");
            assert_eq!(error.path(), path);
            assert!(
                error.message().contains("not supported by this version: "),
                "{error}"
            );
            assert!(error.message().ends_with(refused.remedy), "{error}");
        }
    }
}

#[test]
fn an_unknown_key_is_named_with_its_path_its_line_and_the_closest_key() {
    let error = only(
        "spring:\n  cloud:\n    stream:\n      bindings:\n        a-in-0:\n          group: g\n          consumer:\n            \
         concurency: 3\n",
    );
    assert_eq!(
        error.to_string(),
        "<yaml>:8: spring.cloud.stream.bindings.a-in-0.consumer.concurency: unknown key; did you mean `concurrency`?"
    );
    assert_eq!(error.kind(), ConfigErrorKind::UnknownKey);
}

#[test]
fn unknown_keys_get_the_best_hint_there_is() {
    for (yaml, path, hint) in [
        (
            "stream.rocketmq.binder.name-srv: a:1",
            "stream.rocketmq.binder.name-srv",
            "did you mean `name-server`?",
        ),
        (
            "stream.rocketmq.bindings.b.consumer.push.ordrely: true",
            "stream.rocketmq.bindings.b.consumer.push.ordrely",
            "known here: consume-timeout, delay-level-when-next-consume, max-reconsume-times",
        ),
        (
            "stream.bindigs: { a-in-0: { group: g, destination: d } }",
            "stream.bindigs",
            "did you mean `bindings`?",
        ),
        (
            "stream.bindings.b.concurrency: 4",
            "stream.bindings.b.concurrency",
            "did you mean `consumer.concurrency`?",
        ),
        (
            "stream.bindings.b.consumer.subscription: x",
            "stream.bindings.b.consumer.subscription",
            "did you mean `spring.cloud.stream.rocketmq.bindings.<name>.consumer.subscription`?",
        ),
        (
            "stream.bindings.b.group.name: x",
            "stream.bindings.b.group.name",
            "it has no keys below it",
        ),
        (
            "spring.cloud.function.definitoin: x",
            "spring.cloud.function.definitoin",
            "did you mean `definition`?",
        ),
    ] {
        let error = only(yaml);
        assert_eq!(error.path(), path, "{error}");
        assert_eq!(error.message(), format!("unknown key; {hint}"));
    }
}

#[test]
fn every_mistake_of_a_file_is_reported_at_once_in_the_order_of_its_lines() {
    let errors = errors(
        "stream:\n  bindings:\n    a-in-0:\n      destination: bad topic!\n      consumer: { concurrency: many }\n      \
         gruop: g\n    b-in-0:\n      destination: b\n  shutdown-timeout: soon\n",
    );
    let kinds: Vec<_> = errors.iter().map(ConfigError::kind).collect();
    assert_eq!(
        kinds,
        [
            ConfigErrorKind::IllegalName,
            ConfigErrorKind::InvalidValue,
            ConfigErrorKind::UnknownKey,
            ConfigErrorKind::MissingGroup,
            ConfigErrorKind::InvalidValue,
        ],
        "{errors}"
    );
    assert_eq!(errors.to_string().lines().count(), 5);
}

#[test]
fn a_text_of_nothing_but_mistakes_is_not_read_to_its_end() {
    let yaml: String = (0..1_000)
        .map(|index| format!("stream.wrong{index}: 1\n"))
        .collect();
    let errors = errors(&yaml);
    assert_eq!(errors.len(), 101, "{errors}");
    assert!(
        errors
            .to_string()
            .ends_with("<yaml>:101: 100 mistakes so far; the rest of the text was not read")
    );
}

#[test]
fn wrong_values_say_what_was_expected() {
    for (yaml, kind, message) in [
        (
            "stream.rocketmq.default.consumer.pull-batch-size: abc",
            ConfigErrorKind::InvalidValue,
            "`abc` is not a whole number from 1 to 1024",
        ),
        (
            "stream.rocketmq.default.consumer.consume-from-where: YESTERDAY",
            ConfigErrorKind::InvalidValue,
            "`YESTERDAY` is not one of CONSUME_FROM_LAST_OFFSET, CONSUME_FROM_FIRST_OFFSET, CONSUME_FROM_TIMESTAMP",
        ),
        (
            "stream.default.consumer.auto-startup: 7",
            ConfigErrorKind::InvalidValue,
            "`7` is not true or false",
        ),
        (
            "stream.default.consumer: 7",
            ConfigErrorKind::InvalidValue,
            "a value where a mapping of keys is expected",
        ),
        (
            "stream.default.consumer.concurrency: [1]",
            ConfigErrorKind::InvalidValue,
            "a list is not a whole number from 1 to 10000",
        ),
        (
            "stream.default.consumer.concurrency: {}",
            ConfigErrorKind::InvalidValue,
            "a mapping is not a whole number from 1 to 10000",
        ),
        (
            "stream.bindings.a.destination: 'bad topic'",
            ConfigErrorKind::IllegalName,
            "topic \"bad topic\" is not legal: ' ' is not allowed, only letters, digits, '%', '|', '_' and '-' are",
        ),
        (
            "stream.rocketmq.binder.name-server: localhost",
            ConfigErrorKind::InvalidValue,
            "`localhost` is not a name server address; expected host:port, for example 127.0.0.1:9876",
        ),
        (
            "stream.rocketmq.default.consumer.message-model: broadcasting",
            ConfigErrorKind::NotSupported,
            "BROADCASTING is known to Spring Cloud Alibaba, not supported by this version: give each process its own \
             group (`group: anonymous`) to see every message",
        ),
        (
            "stream.rocketmq.default.consumer.subscription: 'sql:a > 1'",
            ConfigErrorKind::NotSupported,
            "the SQL filter `a > 1` is known to Spring Cloud Alibaba, not supported by this version: filter by tags \
             (`tagA || tagB`), or in the function",
        ),
    ] {
        let error = only(yaml);
        assert_eq!((error.kind(), error.message()), (kind, message), "{yaml}");
    }
}

#[test]
fn names_at_the_limit_pass_and_one_character_more_does_not() {
    for (key, limit) in [("destination", 127), ("group", 120)] {
        let yaml = |length: usize| format!("stream.bindings.a.{key}: {}", "x".repeat(length));
        assert!(Config::from_yaml(&yaml(limit)).is_ok());
        assert_eq!(only(&yaml(limit + 1)).kind(), ConfigErrorKind::IllegalName);
    }
}

#[test]
fn keys_compare_relaxed_and_binding_names_keep_their_spelling() {
    let config = Config::from_yaml(
        "Stream:\n  bindings:\n    orderEvents-in-0:\n      GROUP: g\n      contentType: text/plain\n      consumer:\n        \
         max_attempts: 3\n        BACK_OFF_INITIAL_INTERVAL: 5\n",
    )
    .expect("valid");
    assert_eq!(config.binding_names().collect::<Vec<_>>(), ["orderEvents-in-0"]);
    let binding = config.binding("orderevents-IN-0");
    assert_eq!(binding.name, "orderEvents-in-0");
    assert_eq!(binding.content_type, "text/plain");
    assert_eq!(binding.consumer.max_attempts, 3);
    assert_eq!(
        binding.consumer.back_off.initial_interval,
        Duration::from_millis(5)
    );
}

#[test]
fn later_layers_win_value_by_value() {
    let config = Config::builder()
        .yaml(
            "spring.cloud.stream:\n  rocketmq.binder.name-server: yaml:1\n  bindings.a-in-0: { group: yaml, destination: yaml }\n\
             ---\nspring.cloud.stream.bindings.a-in-0.destination: second\n",
        )
        .environment([
            ("SPRING_CLOUD_STREAM_BINDINGS_AIN0_GROUP", "env"),
            ("SPRING_CLOUD_STREAM_BINDINGS_AIN0_CONTENTTYPE", "text/plain"),
            ("SPRING_APPLICATION_NAME", "shop"),
        ])
        .set("stream.bindings.A-IN-0.content-type", "text/html")
        .load()
        .expect("valid");
    assert_eq!(config.application_name(), Some("shop"));
    let binding = config.binding("a-in-0");
    assert_eq!(binding.destination, "second");
    assert_eq!(binding.group.as_deref(), Some("env"));
    assert_eq!(binding.content_type, "text/html");
    assert_eq!(
        config.origin("stream.bindings.a-in-0.content-type"),
        Origin::Override
    );
    assert_eq!(
        config
            .origin("spring.cloud.stream.bindings.a-in-0.group")
            .to_string(),
        "environment variable SPRING_CLOUD_STREAM_BINDINGS_AIN0_GROUP"
    );
    assert_eq!(
        config
            .origin("spring.cloud.stream.bindings.a-in-0.destination")
            .to_string(),
        "<yaml>:5"
    );
}

#[test]
fn the_name_server_comes_from_the_highest_layer_that_has_one() {
    let yaml = "stream.rocketmq.binder.name-server: yaml:1";
    let spring = ("SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAMESERVER", "spring:1");
    let namesrv = ("NAMESRV_ADDR", "a:1;b:2");
    let servers = |builder: ConfigBuilder| builder.load().expect("valid").rocketmq().binder().name_servers;
    let base = || Config::builder().yaml(yaml);
    assert_eq!(servers(base()), ["yaml:1"]);
    assert_eq!(servers(base().environment([namesrv])), ["a:1", "b:2"]);
    assert_eq!(servers(base().environment([namesrv, spring])), ["spring:1"]);
    assert_eq!(
        servers(
            base()
                .environment([namesrv, spring])
                .set("stream.rocketmq.binder.nameServer", "set:1")
        ),
        ["set:1"]
    );
    assert_eq!(
        servers(Config::builder().yaml("stream.rocketmq.binder.name-server: [x:1, 'y:2']")),
        ["x:1", "y:2"]
    );
}

#[test]
fn a_slip_in_a_variable_or_an_override_is_an_error_too() {
    let errors = Config::builder()
        .environment([
            ("SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAMESRVER", "a:1"),
            ("HOME", "/"),
            ("STREAM_X", "1"),
        ])
        .set("spring.cloud.stream.bindings.x.consumer.concurency", "1")
        .load()
        .expect_err("two slips");
    assert_eq!(
        errors.to_string(),
        "environment variable SPRING_CLOUD_STREAM_ROCKETMQ_BINDER_NAMESRVER: unknown key; did you mean `name-server`?\n\
         set by the program: spring.cloud.stream.bindings.x.consumer.concurency: unknown key; did you mean `concurrency`?"
    );
}

#[test]
fn placeholders_take_overrides_then_the_environment_then_keys_then_the_default() {
    let config = Config::builder()
        .yaml(
            "my.topic: from-key\nspring.application.name: shop\nstream.bindings:\n  a: { destination: '${my.topic}' }\n  \
             b: { destination: '${TOPIC:x}-${spring.application.name}' }\n  c: { destination: '${NO:${NEITHER:deep}}' }\n  \
             d: { destination: '${my.other}' }\n  e: { destination: '${my.given}' }\n",
        )
        .environment([("TOPIC", "from-env"), ("MY_OTHER", "relaxed"), ("MY_GIVEN", "env")])
        .set("my.given", "set")
        .load()
        .expect("valid");
    let topic = |name: &str| config.binding(name).destination;
    assert_eq!(
        ["a", "b", "c", "d", "e"].map(topic),
        ["from-key", "from-env-shop", "deep", "relaxed", "set"].map(str::to_owned)
    );
}

#[test]
fn an_unresolved_placeholder_is_an_error_with_its_path_and_line() {
    let error = only("stream:\n  bindings:\n    a:\n      destination: ${NOWHERE}\n");
    assert_eq!(error.kind(), ConfigErrorKind::Placeholder);
    assert_eq!(
        error.to_string(),
        "<yaml>:4: stream.bindings.a.destination: placeholder ${NOWHERE} has no value: set the environment variable or \
         the key, or give a default as in ${NOWHERE:value}"
    );
}

#[test]
fn an_empty_value_counts_as_not_set() {
    let config = Config::builder()
        .yaml("stream.bindings.a: { group: below, destination: }")
        .set("stream.bindings.a.group", "${GROUP:}")
        .load()
        .expect("valid");
    assert_eq!(config.binding("a").group.as_deref(), Some("below"));
    assert_eq!(config.binding("a").destination, "a");
}

#[test]
fn the_old_name_of_the_function_definition_is_taken_with_a_warning() {
    let config = Config::from_yaml("spring.cloud.stream.function.definition: a;b").expect("valid");
    assert_eq!(config.function_definition().expect("set"), ["a", "b"]);
    assert_eq!(config.warnings().len(), 1);
    assert!(
        config.warnings()[0].contains("spring.cloud.function.definition"),
        "{:?}",
        config.warnings()
    );

    let both = "spring.cloud.stream.function.definition: old\nspring.cloud.function.definition: new";
    let config = Config::from_yaml(both).expect("valid");
    assert_eq!(config.function_definition().expect("set"), ["new"]);
}

#[test]
fn a_key_given_twice_in_two_spellings_is_an_error() {
    let error = only(
        "stream.bindings.a.content-type: text/plain\nspring:\n  cloud.stream.bindings.A.contentType: text/html\n",
    );
    assert_eq!(error.kind(), ConfigErrorKind::DuplicateKey);
    assert!(error.to_string().starts_with("<yaml>:3: "), "{error}");
}

#[test]
fn keys_of_the_application_are_left_alone() {
    let yaml = "spring:\n  cloud.gateway.routes: [{ id: x }]\n  datasource: { url: 'jdbc:${X}' }\nstreams: 1\nmy: [1, [2]]\n";
    assert!(Config::from_yaml(yaml).is_ok());
}

#[test]
fn a_document_for_a_profile_is_refused() {
    let error = only("a: 1\n---\nspring.config.activate.on-profile: dev\nstream.bindings.a.group: g\n");
    assert_eq!(error.kind(), ConfigErrorKind::NotSupported);
    assert!(
        error.to_string().contains("spring.config.activate.on-profile"),
        "{error}"
    );
}

#[test]
fn an_input_without_group_is_an_error_with_the_remedy() {
    let error = only("stream.bindings.orders-in-0.destination: orders");
    assert_eq!(error.kind(), ConfigErrorKind::MissingGroup);
    assert_eq!(error.path(), "spring.cloud.stream.bindings.orders-in-0.group");
    assert!(error.message().contains("group: anonymous"), "{error}");

    let renamed = "stream: { function.bindings.f-in-0: orders, bindings.orders.destination: orders }";
    assert_eq!(only(renamed).path(), "spring.cloud.stream.bindings.orders.group");

    let config = Config::from_yaml("").expect("valid");
    let errors = config.check(&["f-in-0"], &[]).expect_err("no group");
    assert_eq!(
        errors.iter().next().expect("one").kind(),
        ConfigErrorKind::MissingGroup
    );
}

#[test]
fn an_anonymous_group_is_legal_and_belongs_to_one_binding_of_one_configuration() {
    let load = || Config::from_yaml("stream.default.group: anonymous").expect("valid");
    let config = load();
    let group = |config: &Config, name: &str| config.binding(name).group.expect("a group");
    assert_eq!(group(&config, "a-in-0"), group(&config, "a-in-0"));
    assert_ne!(group(&config, "a-in-0"), group(&config, "b-in-0"));
    assert_ne!(group(&config, "a-in-0"), group(&load(), "a-in-0"));
    assert!(Kind::Group.read(&group(&config, "großer name!-in-0")).is_ok());
}

#[test]
fn two_inputs_of_one_group_are_an_error_that_names_both() {
    let error = only(
        "stream:\n  bindings:\n    a-in-0: { group: g, destination: t }\n    b-in-0: { group: g, destination: t }\n  \
         rocketmq.bindings.b-in-0.consumer.subscription: x\n",
    );
    assert_eq!(error.kind(), ConfigErrorKind::InconsistentSubscription);
    assert_eq!(
        error.to_string(),
        "<yaml>:4: spring.cloud.stream.bindings.b-in-0.group: group `g` is already used by \
         spring.cloud.stream.bindings.a-in-0.group (<yaml>:3); it consumes topic `t` with `x`, and `a-in-0` consumes topic `t` with \
         `*`: RocketMQ keeps one subscription per group. Give each binding a group of its own"
    );
    let same = only(
        "stream.bindings: { a-in-0: { group: g, destination: t }, b-in-0: { group: g, destination: t } }",
    );
    assert!(same.message().contains("only one of the two functions"), "{same}");
    assert!(Config::from_yaml("stream.bindings: { a-in-0.group: g, b-out-0: { group: g } }").is_ok());
}

#[test]
fn bindings_that_no_function_has_are_errors_unless_they_are_outputs() {
    let config = Config::from_yaml(
        "stream:\n  bindings:\n    ordesr-in-0: { group: g }\n    bridge-out-0: { destination: x }\n    plain: { destination: y }\n  \
         function.bindings.nope-in-0: z\n",
    )
    .expect("valid by itself");
    let errors = config.check(&["orders-in-0"], &[]).expect_err("three mistakes");
    let text = errors.to_string();
    assert!(
        text.contains("no bound function has the binding `ordesr-in-0`; did you mean `orders-in-0`?"),
        "{text}"
    );
    assert!(
        text.contains("<yaml>:6: stream.function.bindings.nope-in-0"),
        "{text}"
    );
    assert_eq!(
        errors
            .iter()
            .filter(|error| error.kind() == ConfigErrorKind::UnknownBinding)
            .count(),
        2,
        "{text}"
    );
}

#[test]
fn a_renamed_binding_is_found_by_its_implicit_name() {
    let config =
        Config::from_yaml("stream: { function.bindings.f-in-0: Orders, bindings.orders: { group: g } }")
            .expect("valid");
    assert_eq!(config.binding_name("f-in-0"), "orders");
    assert_eq!(config.binding_name("g-in-0"), "g-in-0");
    config.check(&["f-in-0"], &[]).expect("consistent");
}

#[test]
fn rocketmq_values_come_from_the_binding_then_the_default_then_the_binder() {
    let yaml = |layers: usize| {
        let places = ["binder", "default.consumer", "bindings.a-in-0.consumer"];
        let keys: Vec<String> = places
            .iter()
            .take(layers)
            .zip(1..)
            .map(|(place, seconds)| {
                format!("stream.rocketmq.{place}.persist-consumer-offset-interval: {seconds}s")
            })
            .collect();
        Config::from_yaml(&format!("stream.default.group: g\n{}", keys.join("\n"))).expect("valid")
    };
    for layers in 1..=3 {
        let consumer = yaml(layers).rocketmq().consumer("a-in-0");
        assert_eq!(
            consumer.persist_consumer_offset_interval,
            Duration::from_secs(layers as u64)
        );
    }
}

#[test]
fn a_cache_smaller_than_one_pull_is_an_error() {
    let error = only("stream.rocketmq.bindings.a.consumer.pull-threshold-for-queue: 10");
    assert_eq!(error.kind(), ConfigErrorKind::InvalidValue);
    assert!(
        error
            .message()
            .contains("pull-threshold-for-queue 10 and pull-batch-size 32"),
        "{error}"
    );
}

#[test]
fn a_number_without_unit_has_the_unit_of_its_key() {
    let consumer = |value: &str| {
        let yaml = format!("stream.rocketmq.default.consumer.push.consume-timeout: {value}");
        Config::from_yaml(&yaml)
            .expect("valid")
            .rocketmq()
            .consumer("x")
            .consume_timeout
    };
    assert_eq!(consumer("2"), Duration::from_secs(120));
    assert_eq!(consumer("2 s"), Duration::from_secs(2));
    let yaml = "stream.rocketmq.default.producer.send-msg-timeout: 1500";
    let producer = Config::from_yaml(yaml).expect("valid").rocketmq().producer("x");
    assert_eq!(producer.send_msg_timeout, Duration::from_millis(1500));
}

#[test]
fn retry_keys_keep_their_special_numbers() {
    let consumer = |key: &str, value: i64| {
        let yaml = format!("stream.rocketmq.default.consumer.push.{key}: {value}");
        Config::from_yaml(&yaml).expect("valid").rocketmq().consumer("x")
    };
    assert_eq!(consumer("max-reconsume-times", -1).max_reconsume_times, 16);
    assert_eq!(consumer("max-reconsume-times", 0).max_reconsume_times, 0);
    let level = |value| consumer("delayLevelWhenNextConsume", value).delay_level_when_next_consume;
    assert_eq!(level(-1), DelayLevelWhenNextConsume::DeadLetter);
    assert_eq!(level(0), DelayLevelWhenNextConsume::Broker);
    assert_eq!(level(4), DelayLevelWhenNextConsume::Level(4));
}

#[test]
fn pauses_grow_by_the_multiplier_up_to_the_maximum() {
    let config = Config::from_yaml("stream.default.consumer: { back-off-multiplier: 3 }").expect("valid");
    let back_off = config.binding("x").consumer.back_off;
    let seconds = [1, 2, 3, 4, u32::MAX].map(|attempt| back_off.delay(attempt).as_secs());
    assert_eq!(seconds, [1, 3, 9, 10, 10]);
}

#[test]
fn files_are_read_by_name_and_a_missing_or_huge_one_is_an_error() {
    let directory = std::env::temp_dir().join(format!("stream-binder-config-{}", uuid::Uuid::new_v4()));
    fs::create_dir(&directory).expect("a directory");
    let path = directory.join("application.yml");
    fs::write(&path, "stream.bindings.a.group: g\nstream.bindings.a.gruop: g\n").expect("written");
    let error = Config::builder().file(&path).load().expect_err("a slip");
    assert!(
        error
            .to_string()
            .starts_with(&format!("{}:2: stream.bindings.a.gruop: ", path.display())),
        "{error}"
    );

    fs::write(&path, "#".repeat(yaml::MAX_BYTES + 1)).expect("written");
    let error = Config::builder().file(&path).load().expect_err("huge");
    assert!(error.to_string().contains("larger than 1048576 bytes"), "{error}");

    fs::write(&path, [0xff, 0xfe, 0x80]).expect("written");
    let error = Config::builder().file(&path).load().expect_err("not UTF-8");
    assert!(error.to_string().contains("not UTF-8"), "{error}");

    fs::remove_dir_all(&directory).expect("removed");
    let error = Config::builder().file(&path).load().expect_err("missing");
    assert_eq!(
        error.iter().next().expect("one").kind(),
        ConfigErrorKind::Unreadable
    );
}

#[test]
fn debug_shows_no_value_of_the_environment() {
    let builder = Config::builder()
        .environment([("PASSWORD", "sentinel")])
        .yaml("a: sentinel");
    assert!(!format!("{builder:?}").contains("sentinel"));
    assert!(!format!("{:?}", builder.load().expect("valid")).contains("sentinel"));
}

#[test]
fn the_documented_table_of_keys_is_the_one_that_is_read() {
    let mut table = String::from("| Key | Value | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for known in Config::known_keys() {
        let paths: Vec<String> = known
            .paths
            .iter()
            .map(|path| format!("`{}`", path.strip_prefix("spring.cloud.stream.").unwrap_or(path)))
            .collect();
        let default = known
            .default
            .map_or_else(String::new, |default| format!("`{default}`"));
        let cells = [paths.join("<br>"), known.expected, default, known.doc.to_owned()]
            .map(|cell| cell.replace('|', "\\|"));
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    let documented = include_str!("keys.md");
    let start = documented.find("| Key |").expect("a table");
    assert_eq!(
        documented.get(start..),
        Some(table.as_str()),
        "put this into keys.md:\n{table}"
    );
}
