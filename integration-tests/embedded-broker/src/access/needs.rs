//! What a request asks of whoever makes it.

use rocketmq_client::protocol::bodies::{HeartbeatData, LockBatch};
use rocketmq_client::protocol::names::RETRY_PREFIX;
use rocketmq_client::protocol::{CodecError, Frame, JsonBody, RequestCode};

use super::{AccessStyle, Action};

/// What only administrators may ask of a broker of 4.9.
pub(super) const ADMIN_CODES: [RequestCode; 5] = [
    RequestCode::UPDATE_AND_CREATE_TOPIC,
    RequestCode::UPDATE_BROKER_CONFIG,
    RequestCode::DELETE_TOPIC_IN_BROKER,
    RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
    RequestCode::DELETE_SUBSCRIPTIONGROUP,
];

const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

/// A right that a request needs: to do one of these with something.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) resource: Resource,
    pub(super) one_of: &'static [Action],
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Topic(String),
    Group(String),
    Cluster,
}

impl Need {
    pub(super) fn is_tracing(&self) -> bool {
        self.one_of == PUB && matches!(&self.resource, Resource::Topic(name) if name == TRACE_TOPIC)
    }
}

impl Resource {
    pub(super) fn describe(&self, cluster: &str) -> String {
        match self {
            Self::Topic(name) => format!("Topic:{name}"),
            Self::Group(name) => format!("Group:{name}"),
            Self::Cluster => format!("Cluster:{cluster}"),
        }
    }

    /// A topic, or the group whose retries it holds.
    fn topic(name: &str) -> Self {
        match name.strip_prefix(RETRY_PREFIX) {
            Some(group) => Self::Group(group.to_owned()),
            None => Self::Topic(name.to_owned()),
        }
    }
}

const PUB: &[Action] = &[Action::Pub];
const SUB: &[Action] = &[Action::Sub];
const SUB_OR_GET: &[Action] = &[Action::Sub, Action::Get];
const SUB_OR_UPDATE: &[Action] = &[Action::Sub, Action::Update];
const CREATE: &[Action] = &[Action::Create];
const UPDATE: &[Action] = &[Action::Update];
const DELETE: &[Action] = &[Action::Delete];
const GET: &[Action] = &[Action::Get];

/// All that a request needs.
///
/// # Errors
/// When what it is about cannot be read.
pub(super) fn of(frame: &Frame, style: AccessStyle) -> Result<Vec<Need>, CodecError> {
    let needs = Needs {
        frame,
        needs: Vec::new(),
    };
    match style {
        AccessStyle::PlainAcl => needs.in_4_9(),
        AccessStyle::Users => needs.in_5(),
    }
}

struct Needs<'a> {
    frame: &'a Frame,
    needs: Vec<Need>,
}

impl Needs<'_> {
    /// Java: `PlainAccessValidator#parse`. What is not mentioned needs no more than a good signature.
    fn in_4_9(mut self) -> Result<Vec<Need>, CodecError> {
        match RequestCode(self.frame.code) {
            RequestCode::SEND_MESSAGE => self.send("topic", "group"),
            RequestCode::SEND_MESSAGE_V2 => self.send("b", "a"),
            RequestCode::CONSUMER_SEND_MSG_BACK => self.group("group", SUB),
            RequestCode::PULL_MESSAGE => {
                self.topic("topic", SUB);
                self.group("consumerGroup", SUB);
            }
            RequestCode::QUERY_MESSAGE => self.topic("topic", SUB),
            RequestCode::HEART_BEAT => self.heartbeat()?,
            RequestCode::UNREGISTER_CLIENT | RequestCode::GET_CONSUMER_LIST_BY_GROUP => {
                self.group("consumerGroup", SUB);
            }
            RequestCode::UPDATE_CONSUMER_OFFSET => {
                self.group("consumerGroup", SUB);
                self.topic("topic", SUB);
            }
            _ => {}
        }
        Ok(self.needs)
    }

    /// Java: `DefaultAuthorizationContextBuilder#build`, and the annotations of the request headers.
    fn in_5(mut self) -> Result<Vec<Need>, CodecError> {
        match RequestCode(self.frame.code) {
            RequestCode::SEND_MESSAGE => self.send("topic", "group"),
            RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => self.send("b", "a"),
            RequestCode::RECALL_MESSAGE | RequestCode::END_TRANSACTION => self.topic("topic", PUB),
            RequestCode::CONSUMER_SEND_MSG_BACK => self.group("group", SUB),
            RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => {
                self.topic_unless_retry("topic", SUB);
                self.group("consumerGroup", SUB);
            }
            RequestCode::POP_MESSAGE
            | RequestCode::ACK_MESSAGE
            | RequestCode::CHANGE_MESSAGE_INVISIBLETIME
            | RequestCode::NOTIFICATION
            | RequestCode::PEEK_MESSAGE => {
                self.group("consumerGroup", SUB);
                self.topic("topic", SUB);
            }
            RequestCode::POLLING_INFO => {
                self.group("consumerGroup", GET);
                self.topic("topic", GET);
            }
            RequestCode::QUERY_MESSAGE => self.topic("topic", SUB_OR_GET),
            RequestCode::HEART_BEAT => self.heartbeat()?,
            RequestCode::UNREGISTER_CLIENT => self.group("consumerGroup", SUB),
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => self.group("consumerGroup", SUB_OR_GET),
            RequestCode::QUERY_CONSUMER_OFFSET => {
                self.topic_unless_retry("topic", SUB_OR_GET);
                self.group("consumerGroup", SUB_OR_GET);
            }
            RequestCode::UPDATE_CONSUMER_OFFSET => {
                self.topic_unless_retry("topic", SUB_OR_UPDATE);
                self.group("consumerGroup", SUB_OR_UPDATE);
            }
            RequestCode::LOCK_BATCH_MQ | RequestCode::UNLOCK_BATCH_MQ => self.queues()?,
            RequestCode::GET_MAX_OFFSET
            | RequestCode::GET_MIN_OFFSET
            | RequestCode::SEARCH_OFFSET_BY_TIMESTAMP
            | RequestCode::GET_EARLIEST_MSG_STORETIME
            | RequestCode::GET_TOPIC_STATS_INFO
            | RequestCode::GET_TOPIC_CONFIG
            | RequestCode::QUERY_TOPIC_CONSUME_BY_WHO
            | RequestCode::VIEW_MESSAGE_BY_ID => self.topic("topic", GET),
            RequestCode::UPDATE_AND_CREATE_TOPIC => self.topic("topic", CREATE),
            RequestCode::DELETE_TOPIC_IN_BROKER => self.topic("topic", DELETE),
            RequestCode::DELETE_SUBSCRIPTIONGROUP => self.group("groupName", DELETE),
            RequestCode::GET_CONSUMER_CONNECTION_LIST | RequestCode::GET_CONSUME_STATS => {
                self.group("consumerGroup", GET);
            }
            // These carry no header, or one without a mark of what they are about.
            RequestCode::CHECK_CLIENT_CONFIG
            | RequestCode::BATCH_ACK_MESSAGE
            | RequestCode::QUERY_ASSIGNMENT
            | RequestCode::SET_MESSAGE_REQUEST_MODE
            | RequestCode::GET_ALL_MESSAGE_REQUEST_MODE
            | RequestCode::POP_ROLLBACK
            | RequestCode::SEND_REPLY_MESSAGE
            | RequestCode::SEND_REPLY_MESSAGE_V2
            | RequestCode::GET_BROKER_RUNTIME_INFO
            | RequestCode::GET_BROKER_CONFIG
            | RequestCode::GET_ALL_TOPIC_CONFIG
            | RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => {}
            _ => self.need(Resource::Cluster, UPDATE),
        }
        Ok(self.needs)
    }

    fn need(&mut self, resource: Resource, one_of: &'static [Action]) {
        let need = Need { resource, one_of };
        if !self.needs.contains(&need) {
            self.needs.push(need);
        }
    }

    fn topic(&mut self, field: &str, one_of: &'static [Action]) {
        if let Some(name) = self.frame.fields.get(field).filter(|name| !name.is_empty()) {
            self.need(Resource::topic(name), one_of);
        }
    }

    fn topic_unless_retry(&mut self, field: &str, one_of: &'static [Action]) {
        let name = self.frame.fields.get(field).unwrap_or_default();
        if !name.starts_with(RETRY_PREFIX) {
            self.topic(field, one_of);
        }
    }

    fn group(&mut self, field: &str, one_of: &'static [Action]) {
        if let Some(name) = self.frame.fields.get(field).filter(|name| !name.is_empty()) {
            self.need(Resource::Group(name.to_owned()), one_of);
        }
    }

    /// Sends to a topic of retries are given back by a consumer of the group.
    fn send(&mut self, topic: &str, group: &str) {
        let name = self.frame.fields.get(topic).unwrap_or_default();
        if !name.starts_with(RETRY_PREFIX) {
            self.topic(topic, PUB);
        } else if self.frame.fields.get(group).is_some_and(|name| !name.is_empty()) {
            self.group(group, SUB);
        } else {
            self.topic(topic, SUB);
        }
    }

    fn heartbeat(&mut self) -> Result<(), CodecError> {
        let heartbeat = HeartbeatData::from_body(&self.frame.body)?;
        for consumer in &heartbeat.consumer_data_set {
            self.need(Resource::Group(consumer.group_name.clone()), SUB);
            for subscription in &consumer.subscription_data_set {
                self.need(Resource::topic(&subscription.topic), SUB);
            }
        }
        Ok(())
    }

    fn queues(&mut self) -> Result<(), CodecError> {
        let lock = LockBatch::from_body(&self.frame.body)?;
        self.need(Resource::Group(lock.consumer_group), SUB);
        for queue in lock.mq_set {
            if !queue.topic.starts_with(RETRY_PREFIX) {
                self.need(Resource::Topic(queue.topic.to_string()), SUB);
            }
        }
        Ok(())
    }
}
