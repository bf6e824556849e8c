//! Topics of this broker, and the rules by which a send creates one.
//!
//! Protocol source: `TopicConfigManager`, `TopicValidator`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rocketmq_client::protocol::Text;
use rocketmq_client::protocol::bodies::{DataVersion, TopicConfig, permission};
use rocketmq_client::protocol::names::{
    AUTO_CREATE_TOPIC, DELAY_LEVEL_SECONDS, HALF_OP_TOPIC, HALF_TOPIC, SCHEDULE_TOPIC, TIMER_TOPIC,
    reply_topic,
};
use rocketmq_client::protocol::trace::TRACE_TOPIC;

use crate::options::Options;

const READ_WRITE: i32 = permission::READ | permission::WRITE;

/// How many topics there may be; a client that makes up names must not fill the memory.
const MAX_TOPICS: usize = 64 * 1024;
/// How many queues a topic may have.
pub(crate) const MAX_QUEUES: i32 = 4096;

/// One topic. A change of its configuration makes a new one.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    /// The name again, in the form in which messages carry it.
    pub(crate) text: Text,
    pub(crate) config: TopicConfig,
}

impl Topic {
    fn new(config: TopicConfig) -> Self {
        Self {
            name: Arc::from(config.topic_name.as_str()),
            text: Text::from(config.topic_name.as_str()),
            config,
        }
    }
}

/// Why a topic was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreateTopicError {
    /// The template is missing or may not be inherited from.
    NoTemplate,
    /// There are [`MAX_TOPICS`] already.
    TooMany,
}

#[derive(Debug)]
pub(crate) struct Topics {
    table: RwLock<Table>,
    /// Whether the template of a send may be the general one.
    auto_create: AtomicBool,
}

#[derive(Debug)]
struct Table {
    topics: HashMap<Arc<str>, Arc<Topic>>,
    version: DataVersion,
}

impl Topics {
    /// The table of a new broker, with the topics that every broker has.
    pub(crate) fn new(options: &Options, now: i64) -> Self {
        let inherited = READ_WRITE | permission::INHERIT;
        let levels = i32::try_from(DELAY_LEVEL_SECONDS.len()).unwrap_or(18);
        let reply_topic = reply_topic(&options.cluster_name);
        let system = [
            ("SELF_TEST_TOPIC", 1, READ_WRITE),
            ("BenchmarkTest", 1024, READ_WRITE),
            (&options.cluster_name, 16, inherited),
            (&options.broker_name, 1, inherited),
            ("OFFSET_MOVED_EVENT", 1, READ_WRITE),
            (SCHEDULE_TOPIC, levels, READ_WRITE),
            (TIMER_TOPIC, 1, READ_WRITE),
            (&reply_topic, 1, READ_WRITE),
            (HALF_TOPIC, 1, READ_WRITE),
            (HALF_OP_TOPIC, 1, READ_WRITE),
        ];
        let template =
            options
                .auto_create_topics
                .then_some((AUTO_CREATE_TOPIC, options.default_queues, inherited));
        let trace = options.trace_topic.then_some((TRACE_TOPIC, 1, READ_WRITE));
        let topics = system
            .into_iter()
            .chain(template)
            .chain(trace)
            .map(|(name, queues, perm)| {
                let topic = Arc::new(Topic::new(topic_config(name, queues, perm)));
                (Arc::clone(&topic.name), topic)
            });
        let version = DataVersion {
            timestamp: now,
            ..DataVersion::default()
        };
        Self {
            table: RwLock::new(Table {
                topics: topics.collect(),
                version,
            }),
            auto_create: AtomicBool::new(true),
        }
    }

    /// Whether sends to unknown topics create them from now on. A broker that was started without that has no template
    /// to create them from.
    pub(crate) fn set_auto_create(&self, on: bool) {
        self.auto_create.store(on, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.read().topics.get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.read().topics.values().cloned().collect()
    }

    /// Changes with each change of a topic.
    pub(crate) fn version(&self) -> DataVersion {
        self.read().version
    }

    /// The topic, made after its template if it is new.
    pub(crate) fn find_or_inherit(
        &self,
        name: &str,
        template: &str,
        wanted_queues: i32,
        now: i64,
    ) -> Result<Arc<Topic>, CreateTopicError> {
        let mut table = self.write();
        if let Some(topic) = table.topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let template = table
            .topics
            .get(template)
            .filter(|topic| topic.config.perm & permission::INHERIT != 0)
            .filter(|topic| *topic.name != *AUTO_CREATE_TOPIC || self.auto_create.load(Ordering::Relaxed));
        let template = template.ok_or(CreateTopicError::NoTemplate)?;
        let queues = wanted_queues.min(template.config.write_queue_nums).max(0);
        let config = TopicConfig {
            topic_filter_type: template.config.topic_filter_type,
            ..topic_config(name, queues, template.config.perm & !permission::INHERIT)
        };
        table.insert(config, now)
    }

    /// The topic, made with these queues if it is new: retry and dead-letter topics.
    pub(crate) fn find_or_create(
        &self,
        name: &str,
        queues: i32,
        now: i64,
    ) -> Result<Arc<Topic>, CreateTopicError> {
        if let Some(topic) = self.get(name) {
            return Ok(topic);
        }
        let mut table = self.write();
        if let Some(topic) = table.topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        table.insert(topic_config(name, queues, READ_WRITE), now)
    }

    /// Creates or changes a topic.
    pub(crate) fn put(&self, config: TopicConfig, now: i64) -> Result<Arc<Topic>, CreateTopicError> {
        self.write().insert(config, now)
    }

    pub(crate) fn remove(&self, name: &str, now: i64) {
        let mut table = self.write();
        if table.topics.remove(name).is_some() {
            table.changed(now);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn insert(&mut self, config: TopicConfig, now: i64) -> Result<Arc<Topic>, CreateTopicError> {
        if self.topics.len() >= MAX_TOPICS && !self.topics.contains_key(config.topic_name.as_str()) {
            return Err(CreateTopicError::TooMany);
        }
        let topic = Arc::new(Topic::new(config));
        tracing::info!(
            topic = &*topic.name,
            queues = topic.config.write_queue_nums,
            perm = topic.config.perm,
            "topic created or changed"
        );
        self.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        self.changed(now);
        Ok(topic)
    }

    fn changed(&mut self, now: i64) {
        self.version.counter += 1;
        self.version.timestamp = now;
    }
}

fn topic_config(name: &str, queues: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    }
}
