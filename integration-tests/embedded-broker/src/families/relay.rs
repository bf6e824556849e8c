//! Questions of tools that only members can answer.
//!
//! Protocol source: `AdminBrokerProcessor`, `Broker2Client`.

use std::sync::Arc;

use bytes::Bytes;
use rocketmq_client::protocol::requests::{
    ConsumeMessageDirectly, ConsumerStatusFromClient, ConsumerStatusOfGroup, GetConsumerRunningInfo,
};
use rocketmq_client::protocol::{Fields, Frame, OffsetMessageId, Request, RequestCode, ResponseCode};

use crate::server::{Context, Refusal, Reply, unreadable};
use crate::wait::{self, Asker};

/// Runs a function that answers later, if it does not refuse.
fn later(context: Context<'_>, reply: Reply<'_>, serve: impl FnOnce(Asker) -> Result<(), Refusal>) {
    let asker = Asker {
        session: Arc::clone(context.session),
        head: context.head,
    };
    if let Err(refusal) = serve(asker) {
        reply.refuse(&refusal);
    }
}

pub(super) fn running_info(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    later(context, reply, |asker| {
        let fields = frame.fields.clone();
        let request = GetConsumerRunningInfo::from_frame(frame).map_err(unreadable)?;
        let (group, client) = (request.consumer_group, request.client_id);
        call_consumer(
            context,
            asker,
            GetConsumerRunningInfo::CODE,
            (&group, &client),
            fields,
            Bytes::new(),
        )
    });
}

pub(super) fn consume_directly(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    later(context, reply, |asker| {
        let mut fields = frame.fields.clone();
        let request = ConsumeMessageDirectly::from_frame(frame).map_err(unreadable)?;
        let broker = context.broker;
        fields.push("brokerName", &broker.options.broker_name);
        if let Some(topic) = request
            .topic
            .as_deref()
            .and_then(|topic| broker.topics.get(topic))
        {
            fields.push("topicSysFlag", &topic.config.topic_sys_flag.to_string());
        }
        if let Some(group) = broker.groups.get(&request.consumer_group) {
            fields.push("groupSysFlag", &group.group_sys_flag.to_string());
        }
        let id = request.msg_id.unwrap_or_default();
        let place: OffsetMessageId = id.parse().map_err(unreadable)?;
        let Some(message) = broker.store.at_physical(place.physical_offset) else {
            let remark = format!("can not find message by the offset, {}", place.physical_offset);
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        let client = request.client_id.unwrap_or_default();
        let whom = (request.consumer_group.as_str(), client.as_str());
        call_consumer(
            context,
            asker,
            ConsumeMessageDirectly::CODE,
            whom,
            fields,
            message,
        )
    });
}

fn call_consumer(
    context: Context<'_>,
    asker: Asker,
    code: RequestCode,
    (group, client): (&str, &str),
    fields: Fields,
    body: Bytes,
) -> Result<(), Refusal> {
    let Some(member) = context.broker.members.consumer_of(group, client) else {
        let remark = format!("The Consumer <{group}> <{client}> not online");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    let frame = wait::question(code, fields, body);
    wait::relay(
        context.broker,
        asker,
        &member,
        frame,
        format!("<{group}> <{client}>"),
    );
    Ok(())
}

pub(super) fn status(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    later(context, reply, |asker| {
        let request = ConsumerStatusOfGroup::from_frame(frame).map_err(unreadable)?;
        let ConsumerStatusOfGroup {
            topic,
            group,
            client_addr,
        } = request;
        let Some(mut members) = context.broker.members.consumers_of(&group) else {
            let remark = format!("No Any Consumer online in the consumer group: [{group}]");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        if let Some(wanted) = client_addr.filter(|client| !client.trim().is_empty()) {
            members.retain(|(client, _)| *client == wanted);
        }
        let question = ConsumerStatusFromClient {
            topic,
            group,
            client_addr: None,
        };
        let fields = Fields::from_header(&question).map_err(unreadable)?;
        let frame = wait::question(ConsumerStatusFromClient::CODE, fields, Bytes::new());
        wait::gather(context.broker, asker, members, &frame);
        Ok(())
    });
}
