//! The broker divides the queues of a topic among the members of a group, and says whether they are pulled or popped.
//!
//! As on a real broker the members do not hear of a change of the mode: they ask again by themselves.
//! Protocol source: `QueryAssignmentProcessor`, `MessageRequestModeManager`.

use std::collections::{BTreeMap, BTreeSet};

use rocketmq_client::protocol::bodies::{
    AssignmentQuery, Assignments, MessageModel, MessageQueue, MessageRequestMode, QueueAssignment,
    RequestMode,
};
use rocketmq_client::protocol::names::RETRY_PREFIX;
use rocketmq_client::protocol::requests::{QueryAssignment, SetMessageRequestMode};
use rocketmq_client::protocol::{Done, Frame, Json, JsonBody, ResponseCode};
use serde::Serialize;

use super::super::route::queues_to_read;
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};

pub(in crate::families) fn assignment(
    context: Context<'_>,
    request: QueryAssignment,
) -> Result<Json<Assignments>, Refusal> {
    let broker = context.broker;
    let query = AssignmentQuery::from_body(&request.body).map_err(unreadable)?;
    let (mode, share) = mode_of(broker, &query);
    let assigned = divide(broker, &query, mode, share);
    let with_mode = |message_queue| QueueAssignment { message_queue, mode };
    Ok(Json(Assignments {
        message_queue_assignments: assigned.map(|queues| queues.into_iter().map(with_mode).collect()),
    }))
}

fn mode_of(broker: &Broker, query: &AssignmentQuery) -> (RequestMode, i32) {
    if let Some(set) = broker.request_modes.of(&query.topic, &query.consumer_group) {
        return set;
    }
    if query.topic.starts_with(RETRY_PREFIX) || !broker.settings.is("defaultMessageRequestMode", "POP") {
        return (RequestMode::Pull, 0);
    }
    let share = broker.settings.number("defaultPopShareQueueNum");
    (RequestMode::Pop, i32::try_from(share).unwrap_or(-1))
}

/// The queues of one member; none if they cannot be told: an unknown topic, group or strategy.
fn divide(
    broker: &Broker,
    query: &AssignmentQuery,
    mode: RequestMode,
    share: i32,
) -> Option<BTreeSet<MessageQueue>> {
    let queues = queues_to_read(broker, &query.topic)?;
    if query.message_model == MessageModel::Broadcasting {
        return Some(queues);
    }
    let queues: Vec<MessageQueue> = queues.into_iter().collect();
    let mut members = broker.members.client_ids(&query.consumer_group);
    if members.is_empty() {
        return None;
    }
    members.sort_unstable();
    let strategy = Strategy::named(&query.strategy_name)?;
    let me = members.iter().position(|member| *member == query.client_id);
    let share = usize::try_from(share).unwrap_or(0);
    if mode == RequestMode::Pull {
        return me.map_or_else(
            || Some(BTreeSet::new()),
            |me| Some(strategy.allocate(&queues, members.len(), me).collect()),
        );
    }
    if share == 0 || share + 1 >= members.len() {
        // Everybody pops everything.
        let any = queues.iter().map(|queue| MessageQueue {
            queue_id: -1,
            ..queue.clone()
        });
        return Some(any.collect());
    }
    let Some(me) = me else {
        return Some(BTreeSet::new());
    };
    if members.len() > queues.len() {
        let queue = queues.get(me.checked_rem(queues.len())?)?;
        return Some(BTreeSet::from([queue.clone()]));
    }
    // Besides its own a member pops the queues of those behind it.
    let sharers = (me..=me + share).map(|member| member % members.len());
    Some(
        sharers
            .flat_map(|member| strategy.allocate(&queues, members.len(), member))
            .collect(),
    )
}

/// How queues are divided. A real broker has no others.
#[derive(Clone, Copy)]
enum Strategy {
    Averagely,
    ByCircle,
}

impl Strategy {
    fn named(name: &str) -> Option<Self> {
        match name {
            "AVG" => Some(Self::Averagely),
            "AVG_BY_CIRCLE" => Some(Self::ByCircle),
            _ => None,
        }
    }

    /// The queues of the member with this number. Java: `AllocateMessageQueueAveragely`,
    /// `AllocateMessageQueueAveragelyByCircle`.
    fn allocate(
        self,
        queues: &[MessageQueue],
        members: usize,
        member: usize,
    ) -> impl Iterator<Item = MessageQueue> {
        let (each, left) = (queues.len() / members.max(1), queues.len() % members.max(1));
        let (first, step, count) = match self {
            Self::Averagely => (
                member * each + member.min(left),
                1,
                each + usize::from(member < left),
            ),
            Self::ByCircle => (member, members.max(1), usize::MAX),
        };
        queues.iter().skip(first).step_by(step).take(count).cloned()
    }
}

pub(in crate::families) fn set_request_mode(
    context: Context<'_>,
    request: SetMessageRequestMode,
) -> Result<Done, Refusal> {
    let broker = context.broker;
    let MessageRequestMode {
        topic,
        consumer_group,
        mode,
        pop_share_queue_num,
    } = MessageRequestMode::from_body(&request.body).map_err(unreadable)?;
    let refused = |code, remark: String| Err(Refusal::new(code, remark));
    if topic.starts_with(RETRY_PREFIX) {
        let remark = "retry topic is not allowed to set mode";
        return refused(ResponseCode::NO_PERMISSION, remark.to_owned());
    }
    if broker.topics.get(&topic).is_none() {
        return refused(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist"));
    }
    if broker
        .groups
        .find_or_create(&consumer_group, broker.clock.now())
        .is_none()
    {
        let remark = "subscription group does not exist";
        return refused(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark.to_owned());
    }
    let mode = match mode.as_str() {
        "POP" => RequestMode::Pop,
        _ => RequestMode::Pull,
    };
    let is_set = broker
        .request_modes
        .set(&topic, &consumer_group, mode, pop_share_queue_num);
    match is_set {
        true => Ok(Done),
        false => refused(
            ResponseCode::SYSTEM_ERROR,
            "too many request modes on this broker".to_owned(),
        ),
    }
}

/// The body of the answer to a slave. Java: `MessageRequestModeManager#encode`.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct AllModes {
    message_request_mode_map: BTreeMap<String, BTreeMap<String, MessageRequestMode>>,
}

pub(in crate::families) fn request_modes(context: Context<'_>, _: Frame, reply: Reply<'_>) {
    let mut all = AllModes::default();
    for (topic, consumer_group, mode, pop_share_queue_num) in context.broker.request_modes.all() {
        let mode = match mode {
            RequestMode::Pop => "POP",
            RequestMode::Pull => "PULL",
        };
        let set = MessageRequestMode {
            topic: topic.clone(),
            consumer_group: consumer_group.clone(),
            mode: mode.to_owned(),
            pop_share_queue_num,
        };
        let groups = all.message_request_mode_map.entry(topic).or_default();
        groups.insert(consumer_group, set);
    }
    match serde_json::to_vec(&all) {
        Ok(body) => reply.typed(ResponseCode::SUCCESS, None, &NoHeader {}, &[body.into()]),
        Err(error) => reply.refuse(&Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())),
    }
}

/// The header of an answer that has none.
#[derive(Serialize)]
struct NoHeader {}

/// A tool wants what is on its way to be kept as before 5.4: it is kept in one way only.
pub(in crate::families) fn roll_back(_: Context<'_>, _: Frame, reply: Reply<'_>) {
    reply.typed(ResponseCode::SUCCESS, None, &NoHeader {}, &[]);
}
