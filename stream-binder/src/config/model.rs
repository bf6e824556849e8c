//! Spring Cloud Stream's own properties, merged and typed.

use std::time::Duration;

/// Everything that `spring.cloud.stream.bindings.<name>` says, merged with `spring.cloud.stream.default`
/// and the built-in defaults.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BindingProperties {
    /// Name of the binding, as first written: `orders-in-0`.
    pub name: String,
    /// The topic; the name of the binding where `destination` is not set.
    pub destination: String,
    /// Consumer group of an input binding. `group: anonymous` gives a group that no other process shares.
    pub group: Option<String>,
    /// Content type of messages that carry none; `application/json` by default.
    pub content_type: String,
    /// Name of the binder, where it is not the default one.
    pub binder: Option<String>,
    /// What concerns an input binding.
    pub consumer: ConsumerProperties,
    /// What concerns an output binding.
    pub producer: ProducerProperties,
}

/// `consumer.*` of a binding.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConsumerProperties {
    /// Messages handled at the same time; 20 by default.
    pub concurrency: usize,
    /// Attempts inside this process, the first one included; 1, the default, leaves retry to the broker.
    pub max_attempts: u32,
    /// Pauses between attempts inside this process.
    pub back_off: BackOffProperties,
    /// Whether the binding starts with the application; `true` by default.
    pub auto_startup: bool,
}

/// `consumer.back-off-*`: the pause doubles, or as the multiplier says, up to a maximum.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BackOffProperties {
    /// First pause; 1 s by default.
    pub initial_interval: Duration,
    /// Longest pause; 10 s by default.
    pub max_interval: Duration,
    /// Factor from one pause to the next; 2 by default, at least 1.
    pub multiplier: f64,
}

impl BackOffProperties {
    /// The pause after `attempt` attempts have failed, counted from 1.
    #[must_use]
    pub fn delay(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial_interval.as_secs_f64() * self.multiplier.powi(exponent);
        Duration::try_from_secs_f64(seconds).map_or(self.max_interval, |delay| delay.min(self.max_interval))
    }
}

/// `producer.*` of a binding.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProducerProperties {
    /// How a supplier bound to this output is polled.
    pub poller: PollerProperties,
    /// Whether the binding starts with the application; `true` by default.
    pub auto_startup: bool,
}

/// `producer.poller.*`, merged with `spring.integration.poller.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PollerProperties {
    /// From the end of one poll to the start of the next; 1 s by default.
    pub fixed_delay: Duration,
    /// Before the first poll; 0 by default.
    pub initial_delay: Duration,
    /// Calls of the supplier in one poll; 1 by default.
    pub max_messages_per_poll: u32,
    /// Whether any key set `fixed-delay`, so that it goes before an interval written in the program.
    pub fixed_delay_is_set: bool,
}
