//! Configuration is data: read from layers, merged, checked and frozen before anything starts.
//!
//! # Layers
//! A later layer wins, value by value:
//! 1. the defaults of this crate;
//! 2. YAML, document by document (`application.yml`);
//! 3. `NAMESRV_ADDR`, RocketMQ's own variable, for the name servers;
//! 4. environment variables in Spring's spelling, in which dots become `_` and dashes vanish:
//!    `SPRING_CLOUD_STREAM_BINDINGS_ORDERSIN0_GROUP` for `spring.cloud.stream.bindings.orders-in-0.group`;
//! 5. [`ConfigBuilder::set`].
//!
//! An empty value counts as not set, so that `${GROUP:}` may stand for "whatever the layers below say".
//!
//! # Keys
//! The keys are those of Spring Cloud Stream below `spring.cloud.stream`, and `spring.cloud.function.definition`;
//! `stream` is a short spelling of the former and `stream.function.definition` of the latter. Keys compare
//! relaxed (`maxAttempts` is `max-attempts`), and so do names of bindings, whose spelling is kept. Everything
//! outside these roots is the application's own and is left alone, but can be referred to by `${..}`.
//!
//! An unknown key is an error that names its path and the closest known key, and so is a key that Spring knows
//! and this version does not implement: no accepted key is without effect.
//!
//! In the table `*` is the name of a binding, and where a key may stand at several places the last one goes first. The
//! units of a time are `us`, `ms`, `s`, `m`, `h` and `d`.
//!
#![doc = include_str!("config/keys.md")]

mod check;
mod environment;
mod error;
mod keys;
mod loader;
mod model;
mod placeholder;
mod rocketmq;
mod schema;
mod settings;
mod value;
mod yaml;

pub use error::{ConfigError, ConfigErrorKind, ConfigErrors, Origin};
pub use keys::KnownKey;
pub use loader::ConfigBuilder;
pub use model::{
    BackOffProperties, BindingProperties, ConsumerProperties, PollerProperties, ProducerProperties,
};
pub use rocketmq::{
    ConsumeFromWhere, DelayLevelWhenNextConsume, MessageModel, RocketMqBinderProperties,
    RocketMqConsumerProperties, RocketMqProducerProperties, SendType,
};

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schema::Meaning;
use settings::Settings;
use value::{Value, relaxed};

/// A checked, frozen configuration.
#[derive(Clone)]
pub struct Config {
    settings: Settings,
    application_name: Option<String>,
    warnings: Vec<String>,
    /// Makes the groups of `group: anonymous` unlike those of any other process.
    nonce: String,
}

impl Default for Config {
    /// What holds when nothing is configured.
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            application_name: None,
            warnings: Vec::new(),
            nonce: uuid::Uuid::new_v4().simple().to_string(),
        }
    }
}

impl Config {
    /// Starts with the built-in defaults alone.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// Every accepted key with its type, default and meaning.
    pub fn known_keys() -> impl Iterator<Item = KnownKey> {
        keys::KEYS.iter().map(|key| key.known())
    }

    /// Reads one YAML text and nothing else.
    ///
    /// # Errors
    /// As [`ConfigBuilder::load`].
    pub fn from_yaml(text: &str) -> Result<Self, ConfigErrors> {
        Self::builder().yaml(text).load()
    }

    /// Reads `application.yml` or `application.yaml` of the working directory, if there is one, and the
    /// environment of the process. `SPRING_CONFIG_LOCATION` names another file, which then must exist.
    ///
    /// # Errors
    /// As [`ConfigBuilder::load`].
    pub fn from_env() -> Result<Self, ConfigErrors> {
        let builder = Self::builder().environment(std::env::vars_os());
        match std::env::var_os("SPRING_CONFIG_LOCATION").filter(|location| !location.is_empty()) {
            Some(location) => builder.file(file_location(location)).load(),
            None => builder.working_directory().load(),
        }
    }

    /// Checks the configuration against the functions that exist. `inputs` and `outputs` are the implicit names
    /// `<function>-in-0` and `<function>-out-0` of every bound function.
    ///
    /// # Errors
    /// An input without group, a configured input that no function has, a renamed binding that does not exist, and
    /// inputs of one group with different subscriptions.
    pub fn check(&self, inputs: &[&str], outputs: &[&str]) -> Result<(), ConfigErrors> {
        ConfigErrors::check(check::with_functions(self, inputs, outputs))
    }

    /// The layer and line that gave the value at `path`, a key with dots in any spelling; [`Origin::BuiltIn`] where
    /// nothing set it at that very path.
    #[must_use]
    pub fn origin(&self, path: &str) -> Origin {
        let parts = yaml::split(path);
        let path: Vec<&str> = parts.iter().map(|part| &**part).collect();
        match schema::meaning(&path) {
            Meaning::Key(found) => self
                .settings
                .at(&found.canonical())
                .map(|setting| setting.origin.clone())
                .unwrap_or_default(),
            _ => Origin::BuiltIn,
        }
    }

    /// `spring.application.name`.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// The functions that `spring.cloud.function.definition` names, in its order; `None` where it is not set.
    #[must_use]
    pub fn function_definition(&self) -> Option<&[String]> {
        match &self.settings.set(&keys::FUNCTION_DEFINITION, "")?.value {
            Value::List(names) => Some(names),
            _ => None,
        }
    }

    /// The name of the binding with the implicit name `<function>-in-0` or `<function>-out-0`: what
    /// `spring.cloud.stream.function.bindings.<implicit>` says, else the spelling of the configured binding, else
    /// the implicit name itself.
    #[must_use]
    pub fn binding_name<'a>(&'a self, implicit: &'a str) -> &'a str {
        let renamed = match self
            .settings
            .set(&keys::FUNCTION_BINDINGS, implicit)
            .map(|setting| &setting.value)
        {
            Some(Value::Text(name)) => name,
            _ => implicit,
        };
        self.settings.written(renamed).unwrap_or(renamed)
    }

    /// Every binding that `spring.cloud.stream.bindings` or `spring.cloud.stream.rocketmq.bindings` names, as
    /// written.
    pub fn binding_names(&self) -> impl Iterator<Item = &str> {
        self.settings.names()
    }

    /// Every configured binding.
    pub fn bindings(&self) -> impl Iterator<Item = BindingProperties> {
        self.settings.names().map(|name| self.binding(name))
    }

    /// Whether any layer names the binding.
    #[must_use]
    pub fn has_binding(&self, name: &str) -> bool {
        self.settings.written(name).is_some()
    }

    /// The properties of a binding; those of an unconfigured one are all defaults.
    #[must_use]
    pub fn binding(&self, name: &str) -> BindingProperties {
        let settings = &self.settings;
        let written = settings.written(name).unwrap_or(name);
        BindingProperties {
            name: written.to_owned(),
            destination: settings
                .text(&keys::DESTINATION, name)
                .unwrap_or_else(|| written.to_owned()),
            group: settings
                .text(&keys::GROUP, name)
                .map(|group| self.group(group, written)),
            content_type: settings.text(&keys::CONTENT_TYPE, name).unwrap_or_default(),
            binder: settings
                .text(&keys::BINDER, name)
                .or_else(|| settings.text(&keys::DEFAULT_BINDER, name)),
            consumer: ConsumerProperties {
                concurrency: usize::try_from(settings.integer(&keys::CONCURRENCY, name)).unwrap_or(1),
                max_attempts: settings.count(&keys::MAX_ATTEMPTS, name),
                back_off: BackOffProperties {
                    initial_interval: settings.duration(&keys::BACK_OFF_INITIAL, name),
                    max_interval: settings.duration(&keys::BACK_OFF_MAX, name),
                    multiplier: settings.float(&keys::BACK_OFF_MULTIPLIER, name),
                },
                auto_startup: settings.flag(&keys::CONSUMER_AUTO_STARTUP, name),
            },
            producer: ProducerProperties {
                poller: self.poller(name),
                auto_startup: settings.flag(&keys::PRODUCER_AUTO_STARTUP, name),
            },
        }
    }

    /// Bound of a graceful stop, `spring.cloud.stream.shutdown-timeout`; 30 s by default.
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        self.settings.duration(&keys::SHUTDOWN_TIMEOUT, "")
    }

    /// The properties of the RocketMQ binder.
    #[must_use]
    pub fn rocketmq(&self) -> RocketMqProperties<'_> {
        RocketMqProperties {
            settings: &self.settings,
        }
    }

    /// What is accepted and should be changed, one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn poller(&self, binding: &str) -> PollerProperties {
        let settings = &self.settings;
        let choose = |own: &'static keys::Key, general: &'static keys::Key| {
            if settings.set(own, binding).is_some() {
                own
            } else {
                general
            }
        };
        let fixed_delay = choose(&keys::PRODUCER_FIXED_DELAY, &keys::POLLER_FIXED_DELAY);
        let initial_delay = choose(&keys::PRODUCER_INITIAL_DELAY, &keys::POLLER_INITIAL_DELAY);
        let max_messages = choose(&keys::PRODUCER_MAX_MESSAGES, &keys::POLLER_MAX_MESSAGES);
        PollerProperties {
            fixed_delay: settings.duration(fixed_delay, binding),
            initial_delay: settings.duration(initial_delay, binding),
            max_messages_per_poll: settings.count(max_messages, binding),
            fixed_delay_is_set: settings.set(fixed_delay, binding).is_some(),
        }
    }

    /// Replaces the literal `anonymous` by a group of this process and this binding alone.
    fn group(&self, group: String, binding: &str) -> String {
        if group != "anonymous" {
            return group;
        }
        let binding: String = relaxed(binding)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(64)
            .collect();
        format!("anonymous-{binding}-{}", self.nonce)
    }
}

/// Spring writes `file:/etc/app.yml`; a plain path is understood too.
fn file_location(location: OsString) -> PathBuf {
    match location.to_str().and_then(|text| text.strip_prefix("file:")) {
        Some(path) => path.into(),
        None => location.into(),
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("application_name", &self.application_name)
            .field("settings", &self.settings)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// The RocketMQ part of a [`Config`].
#[derive(Clone, Copy, Debug)]
pub struct RocketMqProperties<'a> {
    settings: &'a Settings,
}

impl RocketMqProperties<'_> {
    /// What concerns the cluster as a whole.
    #[must_use]
    pub fn binder(&self) -> RocketMqBinderProperties {
        let settings = self.settings;
        RocketMqBinderProperties {
            name_servers: settings.list(&keys::NAME_SERVER),
            heartbeat_broker_interval: settings.duration(&keys::HEARTBEAT_INTERVAL, ""),
            poll_name_server_interval: settings.duration(&keys::POLL_NAME_SERVER_INTERVAL, ""),
        }
    }

    /// The consumer properties of a binding.
    #[must_use]
    pub fn consumer(&self, binding: &str) -> RocketMqConsumerProperties {
        let settings = self.settings;
        RocketMqConsumerProperties {
            subscription: settings.text(&keys::SUBSCRIPTION, binding).unwrap_or_default(),
            message_model: MessageModel::Clustering,
            consume_from_where: match settings.text(&keys::CONSUME_FROM_WHERE, binding).as_deref() {
                Some("CONSUME_FROM_FIRST_OFFSET") => ConsumeFromWhere::FirstOffset,
                Some("CONSUME_FROM_TIMESTAMP") => ConsumeFromWhere::Timestamp,
                _ => ConsumeFromWhere::LastOffset,
            },
            pull_batch_size: settings.count(&keys::PULL_BATCH_SIZE, binding),
            pull_threshold_for_queue: settings.count(&keys::PULL_THRESHOLD_FOR_QUEUE, binding),
            pull_threshold_size_for_queue: settings.count(&keys::PULL_THRESHOLD_SIZE_FOR_QUEUE, binding),
            consume_max_span: settings.count(&keys::CONSUME_MAX_SPAN, binding),
            consume_timeout: settings.duration(&keys::CONSUME_TIMEOUT, binding),
            persist_consumer_offset_interval: settings.duration(&keys::PERSIST_OFFSET_INTERVAL, binding),
            max_reconsume_times: match settings.integer(&keys::MAX_RECONSUME_TIMES, binding) {
                times if times < 0 => 16,
                times => u32::try_from(times).unwrap_or(u32::MAX),
            },
            delay_level_when_next_consume: match settings
                .integer(&keys::DELAY_LEVEL_WHEN_NEXT_CONSUME, binding)
            {
                level if level < 0 => DelayLevelWhenNextConsume::DeadLetter,
                0 => DelayLevelWhenNextConsume::Broker,
                level => DelayLevelWhenNextConsume::Level(u8::try_from(level).unwrap_or(u8::MAX)),
            },
        }
    }

    /// The producer properties of a binding.
    #[must_use]
    pub fn producer(&self, binding: &str) -> RocketMqProducerProperties {
        let settings = self.settings;
        RocketMqProducerProperties {
            group: settings.text(&keys::PRODUCER_GROUP, binding).unwrap_or_default(),
            send_msg_timeout: settings.duration(&keys::SEND_MSG_TIMEOUT, binding),
            retry_times_when_send_failed: settings.count(&keys::RETRY_TIMES_SYNC, binding),
            retry_times_when_send_async_failed: settings.count(&keys::RETRY_TIMES_ASYNC, binding),
            retry_another_broker: settings.flag(&keys::RETRY_ANOTHER_BROKER, binding),
            compress_msg_body_threshold: settings.count(&keys::COMPRESS_THRESHOLD, binding),
            max_message_size: settings.count(&keys::MAX_MESSAGE_SIZE, binding),
            send_type: match settings.text(&keys::SEND_TYPE, binding).as_deref() {
                Some("Async") => SendType::Async,
                Some("OneWay") => SendType::OneWay,
                _ => SendType::Sync,
            },
        }
    }
}

#[cfg(test)]
mod tests;
