//! Looking at what could be popped without taking it.
//!
//! Protocol source: `NotificationProcessor`, `PeekMessageProcessor`, `PollingInfoProcessor`.

use std::sync::Arc;

use bytes::Bytes;
use rocketmq_client::protocol::requests::{
    Notification, Notified, PeekMessage, PollingInfo, PollingNumber, PopResultHeader,
};
use rocketmq_client::protocol::{Frame, PopTopic, Request, ResponseCode};
use tokio::time::Instant;

use super::{NOTHING_POPPED, answer_by, check_place, time_left};
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::state::{Place, Topic};
use crate::store::{BatchStatus, TagFilter};
use crate::wait::Polls;
use crate::wait::pop::{Asked, NotHeld, retry_version};

/// The answer of a real broker shows that its writer forgot the remark; clients that log it should see the same.
const FORGOTTEN_REMARK: &str = "not set any response code";

/// What somebody would pop.
pub(super) struct Wanted<'a> {
    pub(super) group: &'a str,
    pub(super) topic: &'a Arc<Topic>,
    pub(super) queue_id: i32,
    pub(super) in_order: bool,
    pub(super) attempt_id: Option<&'a str>,
    pub(super) invisible: i64,
}

impl Wanted<'_> {
    /// Whether the topic itself has something.
    pub(super) fn is_there(&self, broker: &Broker) -> bool {
        match self.queue_id {
            ..0 => (0..self.topic.config.read_queue_nums)
                .any(|queue_id| self.is_in_queue(broker, self.topic, queue_id)),
            queue_id => self.is_in_queue(broker, self.topic, queue_id),
        }
    }

    /// Whether its retries have something.
    pub(super) fn is_in_retries(&self, broker: &Broker) -> bool {
        let topics = retry_topics(broker, &self.topic.name, self.group);
        topics.iter().any(|topic| {
            (0..topic.config.read_queue_nums).any(|queue_id| self.is_in_queue(broker, topic, queue_id))
        })
    }

    fn is_in_queue(&self, broker: &Broker, topic: &Topic, queue_id: i32) -> bool {
        let range = broker.store.range(&topic.name, queue_id);
        if range.max <= next_offset(broker, self.group, topic, queue_id) {
            return false;
        }
        // A real broker asks for the queue of this number of the topic itself, for its retries too.
        let place = Place {
            group: self.group.into(),
            topic: Arc::clone(&self.topic.name),
            queue_id,
        };
        let now = broker.clock.now();
        !(self.in_order
            && broker
                .orders
                .is_blocked(&place, self.attempt_id, self.invisible, now))
    }
}

fn retry_topics(broker: &Broker, topic: &str, group: &str) -> Vec<Arc<Topic>> {
    let first = retry_version(broker);
    let with_v1 = first == PopTopic::RetryV2 && broker.settings.is_on("retrieveMessageFromPopRetryTopicV1");
    let second = with_v1.then_some(PopTopic::RetryV1);
    let names = std::iter::once(first)
        .chain(second)
        .map(|version| version.name(topic, group));
    names.filter_map(|name| broker.topics.get(&name)).collect()
}

fn next_offset(broker: &Broker, group: &str, topic: &Topic, queue_id: i32) -> i64 {
    let committed = broker.offsets.committed(group, &topic.name, queue_id);
    committed
        .filter(|offset| *offset >= 0)
        .unwrap_or_else(|| broker.store.range(&topic.name, queue_id).min)
}

/// The answers that a real broker sends with a refusal too.
const NOTHING_NOTICED: [(&str, &str); 2] = [("hasMsg", "false"), ("pollingFull", "false")];

pub(in crate::families) fn notification(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let request = match Notification::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let left = time_left(context.broker, request.born_time, request.poll_time);
    notify(context, request, answer_by(left), reply);
}

/// Answers if there is something, waits if not.
pub(super) fn notify(context: Context<'_>, request: Notification, by: Instant, reply: Reply<'_>) {
    let broker = context.broker;
    let checked = check_place(context, &request.topic, &request.consumer_group, request.queue_id);
    let topic = match checked {
        Ok((topic, _)) => topic,
        Err(refusal) => return reply.refuse(&refusal.with(NOTHING_NOTICED)),
    };
    let is_there = || {
        let wanted = Wanted {
            group: &request.consumer_group,
            topic: &topic,
            queue_id: request.queue_id,
            in_order: request.order.unwrap_or(false),
            attempt_id: request.attempt_id.as_deref(),
            invisible: 0,
        };
        wanted.is_there(broker) || wanted.is_in_retries(broker)
    };
    let mut notified = Notified {
        has_msg: is_there(),
        polling_full: Some(false),
    };
    if !notified.has_msg {
        let asked = Asked::Notification(Box::new(request.clone()));
        match Polls::hold(broker, context.session, context.head, asked, &TagFilter::All, by) {
            // A message that came in between has woken nobody.
            Ok(ticket) => match is_there() && Polls::take_back(broker, &ticket) {
                true => notified.has_msg = true,
                false => return,
            },
            Err(NotHeld::Full) => notified.polling_full = Some(true),
            Err(NotHeld::Over) => {}
        }
    }
    reply.typed(ResponseCode::SUCCESS, Some(FORGOTTEN_REMARK), &notified, &[]);
}

pub(in crate::families) fn peek(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let request = match PeekMessage::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let checked = check_place(context, &request.topic, &request.consumer_group, request.queue_id);
    let topic = match checked {
        Ok((topic, _)) => topic,
        Err(refusal) => return reply.refuse(&refusal.with(NOTHING_POPPED)),
    };
    let broker = context.broker;
    let random = broker.random(100);
    let mut peeked = Peeked::default();
    let retries = || {
        broker
            .topics
            .get(&retry_version(broker).name(&topic.name, &request.consumer_group))
    };
    let retries_first = random.is_multiple_of(5);
    if retries_first && let Some(retries) = retries() {
        peeked.look_at_all(broker, &request, &retries, random);
    }
    match request.queue_id {
        ..0 => peeked.look_at_all(broker, &request, &topic, random),
        queue_id => peeked.look_at(broker, &request, &topic, queue_id),
    }
    if !retries_first
        && peeked.wanted(&request) > 0
        && let Some(retries) = retries()
    {
        peeked.look_at_all(broker, &request, &retries, random);
    }
    let header = PopResultHeader {
        rest_num: peeked.rest,
        ..PopResultHeader::default()
    };
    match peeked.messages.is_empty() {
        true => reply.typed(
            ResponseCode::PULL_NOT_FOUND,
            Some("NO_MESSAGE_IN_QUEUE"),
            &header,
            &[],
        ),
        false => reply.typed(ResponseCode::SUCCESS, Some("FOUND"), &header, &peeked.messages),
    }
}

#[derive(Default)]
struct Peeked {
    messages: Vec<Bytes>,
    rest: i64,
}

impl Peeked {
    fn wanted(&self, request: &PeekMessage) -> i32 {
        let taken = i32::try_from(self.messages.len()).unwrap_or(i32::MAX);
        request.max_msg_nums.saturating_sub(taken)
    }

    fn look_at_all(&mut self, broker: &Broker, request: &PeekMessage, topic: &Topic, first_queue: u32) {
        let queues = i64::from(topic.config.read_queue_nums);
        for step in 0..queues {
            let queue_id = (i64::from(first_queue) + step) % queues;
            self.look_at(broker, request, topic, i32::try_from(queue_id).unwrap_or(0));
        }
    }

    fn look_at(&mut self, broker: &Broker, request: &PeekMessage, topic: &Topic, queue_id: i32) {
        let offset = next_offset(broker, &request.consumer_group, topic, queue_id);
        self.rest += broker.store.range(&topic.name, queue_id).max - offset;
        let wanted = self.wanted(request);
        if wanted <= 0 {
            return;
        }
        let read = |offset| {
            broker
                .store
                .read(&topic.name, queue_id, offset, wanted, &TagFilter::All, || None)
        };
        let mut batch = read(offset);
        if matches!(
            batch.status,
            BatchStatus::OffsetTooSmall | BatchStatus::OffsetOverflowBadly
        ) {
            batch = read(batch.next);
        }
        self.messages.extend(batch.messages);
    }
}

pub(in crate::families) fn polling_info(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let request = match PollingInfo::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let PollingInfo {
        consumer_group,
        topic,
        queue_id,
    } = request;
    match check_place(context, &topic, &consumer_group, queue_id) {
        Ok(_) => {
            let held = context.broker.polls.count(&topic, &consumer_group, queue_id);
            let number = PollingNumber {
                polling_num: i32::try_from(held).unwrap_or(i32::MAX),
            };
            reply.typed(ResponseCode::SUCCESS, Some(FORGOTTEN_REMARK), &number, &[]);
        }
        Err(refusal) => reply.refuse(&Refusal::with(refusal, [("pollingNum", "0")])),
    }
}
