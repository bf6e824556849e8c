//! Brokers that register with the name server.
//!
//! Protocol source: `DefaultRequestProcessor`, `RegisterBrokerBody`.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use rocketmq_client::protocol::bodies::{TopicConfig, TopicConfigTable, TopicFilterType, loose};
use rocketmq_client::protocol::names::check_topic;
use rocketmq_client::protocol::record::body_crc;
use rocketmq_client::protocol::requests::{RegisterBroker, RegisterBrokerResult, UnregisterBroker};
use rocketmq_client::protocol::{CodecError, Compression, Done, ResponseCode, decompress};
use serde::Deserialize;

use crate::server::{Context, Refusal, unreadable};

/// How large a compressed registration may become.
const MAX_BODY: usize = 64 * 1024 * 1024;

pub(super) fn register(
    context: Context<'_>,
    request: RegisterBroker,
) -> Result<RegisterBrokerResult, Refusal> {
    let wrong = |remark: String| Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    let crc = request.body_crc32.unwrap_or(0);
    if crc != 0 && crc != body_crc(&request.body) {
        return wrong("crc32 not match".to_owned());
    }
    let broker = context.broker;
    if request.broker_name == broker.options.broker_name {
        return wrong(format!(
            "{} is the broker of this name server's own process",
            request.broker_name
        ));
    }
    let topics = if request.body.is_empty() {
        BTreeMap::new()
    } else if request.compressed == Some(true) {
        compressed_topics(&request.body).map_err(unreadable)?
    } else {
        topics(&request.body).map_err(unreadable)?
    };
    for name in [&request.broker_name, &request.cluster_name] {
        if let Err(error) = check_topic(name) {
            return wrong(format!(
                "the name of a broker or cluster becomes a topic, and {error}"
            ));
        }
    }
    // Routes say nothing of attributes, and a topic with an illegal name cannot be asked for.
    let topics = topics.into_iter().filter(|(name, _)| check_topic(name).is_ok());
    let topics = topics
        .map(|(name, config)| {
            (
                name,
                TopicConfig {
                    attributes: BTreeMap::new(),
                    ..config
                },
            )
        })
        .collect();
    let (name, id) = (request.broker_name.clone(), request.broker_id);
    let registered = broker.registry.register(request, topics, context.session.id());
    tracing::debug!(broker = name, id, "a broker has registered");
    registered.map_err(|_| Refusal::new(ResponseCode::SYSTEM_ERROR, "too many brokers"))
}

pub(super) fn unregister(context: Context<'_>, request: UnregisterBroker) -> Result<Done, Refusal> {
    context
        .broker
        .registry
        .unregister(&request.broker_name, request.broker_id);
    Ok(Done)
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Body {
    topic_config_serialize_wrapper: TopicConfigTable,
}

fn topics(body: &[u8]) -> Result<BTreeMap<String, TopicConfig>, CodecError> {
    let body: Body = serde_json::from_slice(&loose::tighten(body)).map_err(|error| CodecError::Json {
        what: "RegisterBrokerBody",
        message: error.to_string(),
    })?;
    Ok(body.topic_config_serialize_wrapper.topic_config_table)
}

/// One zlib stream of length-prefixed texts: the version, then after their count the topics; the rest is of no use
/// here.
fn compressed_topics(body: &[u8]) -> Result<BTreeMap<String, TopicConfig>, CodecError> {
    let mut plain = decompress(body, Compression::Zlib, MAX_BODY)?;
    let cut_short = || CodecError::Field("a compressed registration that ends too early".to_owned());
    let _version = prefixed(&mut plain).ok_or_else(cut_short)?;
    let count = plain.try_get_i32().map_err(|_| cut_short())?;
    let mut topics = BTreeMap::new();
    for _ in 0..count {
        let text = prefixed(&mut plain).ok_or_else(cut_short)?;
        let text = std::str::from_utf8(&text).map_err(|error| CodecError::Field(error.to_string()))?;
        let config = topic(text).ok_or_else(|| CodecError::Field(format!("{text:?} describes no topic")))?;
        topics.insert(config.topic_name.clone(), config);
    }
    Ok(topics)
}

fn prefixed(bytes: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

/// `name readQueues writeQueues perm filterType attributes`.
fn topic(text: &str) -> Option<TopicConfig> {
    let mut words = text.split(' ');
    Some(TopicConfig {
        topic_name: words.next()?.to_owned(),
        read_queue_nums: words.next()?.parse().ok()?,
        write_queue_nums: words.next()?.parse().ok()?,
        perm: words.next()?.parse().ok()?,
        topic_filter_type: match words.next()? {
            "MULTI_TAG" => TopicFilterType::MultiTag,
            _ => TopicFilterType::SingleTag,
        },
        ..TopicConfig::default()
    })
}
