//! The name server: where topics are. It knows one broker, its own.
//!
//! Protocol source: `ClientRequestProcessor`, `DefaultRequestProcessor`, `RouteInfoManager`.

use std::collections::BTreeMap;

use bytes::Bytes;
use rocketmq_client::protocol::bodies::{
    BrokerData, ClusterInfo, KvTable, MASTER_ID, QueueData, TopicList, TopicRouteData, loose,
};
use rocketmq_client::protocol::requests::{
    AllTopics, DeleteKvConfig, DeleteTopicInNameServer, KvConfig, KvList, KvValue, PutKvConfig, RouteInfo,
    TopicsByCluster,
};
use rocketmq_client::protocol::{CodecError, Done, Frame, Json, JsonBody, Request, ResponseCode};

use crate::broker::Broker;
use crate::server::{Context, Refusal, Reply, unreadable};

/// From this version on (4.9.4) clients read standard JSON.
const STANDARD_JSON_VERSION: i32 = 401;

pub(super) fn topic_route(context: Context<'_>, frame: Frame, reply: Reply<'_>) {
    let request = match RouteInfo::from_frame(frame) {
        Ok(request) => request,
        Err(error) => return reply.refuse(&unreadable(error)),
    };
    let Some(topic) = context.broker.topics.get(&request.topic) else {
        let remark = format!(
            "No topic route info in name server for the topic: {}",
            request.topic
        );
        return reply.refuse(&Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    let broker = context.broker;
    let route = TopicRouteData {
        broker_datas: vec![broker_data(broker)],
        queue_datas: vec![QueueData {
            broker_name: broker.options.broker_name.clone(),
            perm: topic.config.perm,
            read_queue_nums: topic.config.read_queue_nums,
            topic_sys_flag: topic.config.topic_sys_flag,
            write_queue_nums: topic.config.write_queue_nums,
        }],
        ..TopicRouteData::default()
    };
    let standard =
        context.head.version >= STANDARD_JSON_VERSION || request.accept_standard_json_only == Some(true);
    answer_json(&route, standard, reply);
}

pub(super) fn cluster_info(context: Context<'_>, _: Frame, reply: Reply<'_>) {
    let options = &context.broker.options;
    let info = ClusterInfo {
        broker_addr_table: BTreeMap::from([(options.broker_name.clone(), broker_data(context.broker))]),
        cluster_addr_table: BTreeMap::from([(
            options.cluster_name.clone(),
            vec![options.broker_name.clone()],
        )]),
    };
    // Always without quotes, whatever the client's version.
    answer_json(&info, false, reply);
}

fn broker_data(broker: &Broker) -> BrokerData {
    BrokerData {
        broker_addrs: BTreeMap::from([(MASTER_ID, broker.address.to_string())]),
        broker_name: broker.options.broker_name.clone(),
        cluster: broker.options.cluster_name.clone(),
        enable_acting_master: false,
    }
}

fn answer_json<T: JsonBody>(value: &T, standard: bool, reply: Reply<'_>) {
    let body = value
        .to_body()
        .and_then(|body| if standard { Ok(body) } else { without_quotes(&body) });
    match body {
        Ok(body) => reply.typed(ResponseCode::SUCCESS, None, &NoHeader {}, &[body]),
        Err(error) => reply.refuse(&unreadable(error)),
    }
}

/// The header of an answer that is a body only.
#[derive(serde::Serialize)]
struct NoHeader {}

fn without_quotes(body: &[u8]) -> Result<Bytes, CodecError> {
    let json = std::str::from_utf8(body).map_err(|error| CodecError::Field(error.to_string()))?;
    Ok(Bytes::from(loose::unquote_numbers(json)))
}

pub(super) fn all_topics(context: Context<'_>, _: AllTopics) -> Result<Json<TopicList>, Refusal> {
    Ok(Json(topic_list(context.broker)))
}

pub(super) fn topics_by_cluster(
    context: Context<'_>,
    request: TopicsByCluster,
) -> Result<Json<TopicList>, Refusal> {
    if request.cluster == context.broker.options.cluster_name {
        Ok(Json(topic_list(context.broker)))
    } else {
        Ok(Json(TopicList::default()))
    }
}

fn topic_list(broker: &Broker) -> TopicList {
    let mut topic_list: Vec<_> = broker
        .topics
        .all()
        .iter()
        .map(|topic| topic.name.to_string())
        .collect();
    topic_list.sort();
    TopicList {
        topic_list,
        ..TopicList::default()
    }
}

/// Name server and broker have one table here, so a topic is gone with its deletion on the broker; one that is still
/// there would be registered again by the broker's next report anyway.
pub(super) fn delete_topic(_: Context<'_>, _: DeleteTopicInNameServer) -> Result<Done, Refusal> {
    Ok(Done)
}

pub(super) fn put_kv_config(context: Context<'_>, request: PutKvConfig) -> Result<Done, Refusal> {
    if context
        .broker
        .kv
        .put(request.namespace, request.key, request.value)
    {
        Ok(Done)
    } else {
        Err(Refusal::new(
            ResponseCode::SYSTEM_ERROR,
            "too many configuration values",
        ))
    }
}

pub(super) fn kv_config(context: Context<'_>, request: KvConfig) -> Result<KvValue, Refusal> {
    match context.broker.kv.get(&request.namespace, &request.key) {
        Some(value) => Ok(KvValue { value: Some(value) }),
        None => {
            let KvConfig { namespace, key } = request;
            let remark = format!("No config item, Namespace: {namespace} Key: {key}");
            Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark))
        }
    }
}

pub(super) fn delete_kv_config(context: Context<'_>, request: DeleteKvConfig) -> Result<Done, Refusal> {
    context.broker.kv.delete(&request.namespace, &request.key);
    Ok(Done)
}

pub(super) fn kv_list(context: Context<'_>, request: KvList) -> Result<Json<KvTable>, Refusal> {
    match context.broker.kv.list(&request.namespace) {
        Some(table) => Ok(Json(KvTable { table })),
        None => {
            let remark = format!("No config item, Namespace: {}", request.namespace);
            Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark))
        }
    }
}
