//! POP: the broker hands messages out to whoever asks, hides them for a time, and brings back those that nobody has
//! acknowledged.
//!
//! As on a real broker the group's offset moves when messages are handed out, not when they are acknowledged; in order
//! it is the other way round.
//! Protocol source: `PopMessageProcessor`.

mod acknowledge;
mod assign;
mod look;
mod take;

use std::sync::Arc;
use std::time::Duration;

use rocketmq_client::protocol::bodies::{SubscriptionData, SubscriptionGroupConfig, permission};
use rocketmq_client::protocol::requests::PopMessage;
use rocketmq_client::protocol::{Frame, Request, ResponseCode};
use tokio::time::Instant;

pub(super) use self::acknowledge::{acknowledge, acknowledge_batch, change_invisible_time};
pub(super) use self::assign::{assignment, request_modes, roll_back, set_request_mode};
pub(super) use self::look::{notification, peek, polling_info};
use self::take::Popped;
use super::pull::check_expression_type;
use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};
use crate::state::Topic;
use crate::store::TagFilter;
use crate::wait::pop::{Asked, NotHeld, wake_one};
use crate::wait::{HeldPop, Polls};

/// How many messages a pop may ask for.
const MAX_MESSAGES: i32 = 32;
/// How late a pop may be, in milliseconds: it is worth nothing to a client that has given up.
const MAX_LATE: i64 = 500;
/// How long before its time is over a held request is answered.
const ANSWER_EARLY: Duration = Duration::from_millis(50);
/// The longest time that a request is held, whatever the client asks for.
const MAX_HOLD: Duration = Duration::from_secs(300);

/// A pop that has passed the checks.
struct Allowed {
    topic: Arc<Topic>,
    group: Arc<SubscriptionGroupConfig>,
    filter: TagFilter,
}

/// The numbers that a real broker sends with a refusal too.
const NOTHING_POPPED: [(&str, &str); 4] = [
    ("popTime", "0"),
    ("invisibleTime", "0"),
    ("reviveQid", "0"),
    ("restNum", "0"),
];

pub(super) fn pop(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let request = match PopMessage::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    match time_left(context.broker, request.born_time, request.poll_time) {
        left if left < -MAX_LATE => {
            let ip = context.broker.address.ip();
            let remark = format!("the broker[{ip}] pop message is timeout too much");
            let refusal = Refusal::new(ResponseCode::POLLING_TIMEOUT, remark);
            reply.refuse(&refusal.with(NOTHING_POPPED));
        }
        left => serve(context, request, answer_by(left), reply),
    }
}

/// For how many milliseconds a request may wait; the client has let some of them pass already.
fn time_left(broker: &Broker, born_time: i64, poll_time: i64) -> i64 {
    match born_time {
        0 => poll_time,
        born_time => poll_time.saturating_sub(broker.clock.age(born_time)),
    }
}

fn answer_by(left: i64) -> Instant {
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    Instant::now() + left.min(MAX_HOLD).saturating_sub(ANSWER_EARLY)
}

/// Runs a request that was held once more; it waits on if there is still nothing and its time is not over.
pub(crate) fn resume(context: Context<'_>, held: HeldPop, reply: Reply<'_>) {
    match held.asked {
        Asked::Pop(request) => serve(context, *request, held.answer_by, reply),
        Asked::Notification(request) => look::notify(context, *request, held.answer_by, reply),
    }
}

fn serve(context: Context<'_>, request: PopMessage, answer_by: Instant, reply: Reply<'_>) {
    let broker = context.broker;
    let allowed = match check(context, &request) {
        Ok(allowed) => allowed,
        Err(refusal) => return reply.refuse(&refusal.with(NOTHING_POPPED)),
    };
    let mut is_stuck = false;
    let (code, popped) = loop {
        let popped = take::take(broker, &request, &allowed);
        if !popped.messages.is_empty() {
            break (ResponseCode::SUCCESS, popped);
        }
        let asked = Asked::Pop(Box::new(request.clone()));
        let filter = &allowed.filter;
        let ticket = match Polls::hold(broker, context.session, context.head, asked, filter, answer_by) {
            Ok(ticket) => ticket,
            Err(NotHeld::Full) => break (ResponseCode::POLLING_FULL, popped),
            Err(NotHeld::Over) => break (ResponseCode::POLLING_TIMEOUT, popped),
        };
        // A message that came in between has woken nobody. Where one is there that cannot be handed out, it waits.
        if is_stuck || !has_more(broker, &request, &allowed) || !Polls::take_back(broker, &ticket) {
            return;
        }
        is_stuck = !popped.moved;
    };
    if code == ResponseCode::SUCCESS && popped.rest > 0 {
        // What is left is for the next one who waits for the same.
        wake_one(broker, &request.consumer_group, &request.topic, request.queue_id);
    }
    answer(code, &request, popped, reply);
}

fn has_more(broker: &Broker, request: &PopMessage, allowed: &Allowed) -> bool {
    let wanted = look::Wanted {
        group: &request.consumer_group,
        topic: &allowed.topic,
        queue_id: request.queue_id,
        in_order: request.order.unwrap_or(false),
        attempt_id: request.attempt_id.as_deref(),
        invisible: request.invisible_time,
    };
    wanted.is_there(broker) || (!wanted.in_order && wanted.is_in_retries(broker))
}

fn answer(code: ResponseCode, request: &PopMessage, popped: Popped, reply: Reply<'_>) {
    let remark = match code {
        ResponseCode::SUCCESS => "FOUND",
        _ => "NO_MESSAGE_IN_QUEUE",
    };
    let header = popped.header(request);
    reply.typed(code, Some(remark), &header, &popped.messages);
}

fn check(context: Context<'_>, request: &PopMessage) -> Result<Allowed, Refusal> {
    if request.max_msg_nums > MAX_MESSAGES {
        let ip = context.broker.address.ip();
        let remark = format!("the broker[{ip}] pop message's num is greater than 32");
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    let (topic, group) = check_place(context, &request.topic, &request.consumer_group, request.queue_id)?;
    let filter = match request.exp.as_deref().filter(|expression| !expression.is_empty()) {
        None => TagFilter::All,
        Some(expression) => {
            check_expression_type(request.exp_type.as_deref().unwrap_or_default())?;
            // Separators and nothing between them; Java's `split` leaves nothing of that.
            if expression.split("||").all(str::is_empty) {
                let remark = "parse the consumer's subscription failed";
                return Err(Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, remark));
            }
            TagFilter::from(&SubscriptionData::by_tags(&request.topic, expression, 0))
        }
    };
    Ok(Allowed { topic, group, filter })
}

/// What all requests about popping are checked for.
fn check_place(
    context: Context<'_>,
    topic: &str,
    group: &str,
    queue_id: i32,
) -> Result<(Arc<Topic>, Arc<SubscriptionGroupConfig>), Refusal> {
    let broker = context.broker;
    let topic = find_topic(broker, topic)?;
    if topic.config.perm & permission::READ == 0 {
        let remark = format!("the topic[{}] peeking message is forbidden", topic.name);
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    if queue_id >= topic.config.read_queue_nums {
        return Err(no_queue(
            context,
            &topic,
            queue_id,
            ResponseCode::INVALID_PARAMETER,
        ));
    }
    let Some(config) = broker.groups.find_or_create(group, broker.clock.now()) else {
        let remark = format!("subscription group [{group}] does not exist");
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    };
    if !config.consume_enable {
        let remark = format!("subscription group no permission, {group}");
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
    }
    Ok((topic, config))
}

fn find_topic(broker: &Broker, topic: &str) -> Result<Arc<Topic>, Refusal> {
    broker.topics.get(topic).ok_or_else(|| {
        let remark = format!("topic[{topic}] not exist, apply first please!");
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })
}

fn no_queue(context: Context<'_>, topic: &Topic, queue_id: i32, code: ResponseCode) -> Refusal {
    let remark = format!(
        "queueId[{queue_id}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}] consumer:[/{}]",
        topic.name,
        topic.config.read_queue_nums,
        context.session.peer()
    );
    Refusal::new(code, remark)
}
