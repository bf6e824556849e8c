//! The broker itself: its state and its configuration.
//!
//! Protocol source: `AdminBrokerProcessor#prepareRuntimeInfo`.

use std::collections::BTreeMap;

use bytes::Bytes;
use rocketmq_client::protocol::bodies::{DataVersion, KvTable};
use rocketmq_client::protocol::frame::VERSION;
use rocketmq_client::protocol::requests::{
    BrokerConfig, BrokerConfigHeader, BrokerConfigText, BrokerRuntimeInfo, UpdateBrokerConfig,
};
use rocketmq_client::protocol::{Done, Json, ResponseCode};

use crate::server::{Context, Refusal};

pub(super) fn runtime_info(context: Context<'_>, _: BrokerRuntimeInfo) -> Result<Json<KvTable>, Refusal> {
    let broker = context.broker;
    let stats = broker.store.stats();
    let now = broker.clock.now();
    let uptime = (now - broker.clock.started_at()).max(1);
    let per_second = |count: u64| format!("{:.2}", count as f64 * 1000.0 / uptime as f64);
    // `mqadmin` prints the first word of three rates: over ten seconds, a minute and ten minutes. Only the mean since
    // the start is kept here.
    let rates = |count: u64| vec![per_second(count); 3].join(" ");
    let put = stats.put.to_string();
    let got = stats.got.to_string();
    let pairs = [
        ("bootTimestamp", broker.clock.started_at().to_string()),
        ("brokerActive", "true".to_owned()),
        ("brokerVersion", VERSION.to_string()),
        ("brokerVersionDesc", "V5_3_0".to_owned()),
        ("clusterName", broker.options.cluster_name.clone()),
        ("commitLogDirCapacity", "Total : 0.0, Free : 0.0.".to_owned()),
        ("commitLogDiskRatio", "0.0".to_owned()),
        ("commitLogMaxOffset", stats.max_physical.to_string()),
        ("commitLogMinOffset", stats.min_physical.to_string()),
        ("consumeQueueDiskRatio", "0.0".to_owned()),
        ("dispatchBehindBytes", "0".to_owned()),
        ("dispatchMaxBuffer", "0".to_owned()),
        ("earliestMessageTimeStamp", stats.earliest_stored.to_string()),
        ("endTransactionQueueSize", "0".to_owned()),
        ("EndTransactionQueueSize", "0".to_owned()),
        ("endTransactionThreadPoolQueueCapacity", "0".to_owned()),
        ("EndTransactionThreadPoolQueueCapacity", "0".to_owned()),
        ("getFoundTps", rates(stats.got)),
        ("getMessageEntireTimeMax", "0".to_owned()),
        ("getMissTps", rates(0)),
        ("getTotalTps", rates(stats.got)),
        ("getTransferredTps", rates(stats.got)),
        ("getTransferedTps", rates(stats.got)),
        ("msgGetTotalTodayMorning", "0".to_owned()),
        ("msgGetTotalTodayNow", got),
        ("msgGetTotalYesterdayMorning", "0".to_owned()),
        ("msgPutTotalTodayMorning", "0".to_owned()),
        ("msgPutTotalTodayNow", put.clone()),
        ("msgPutTotalYesterdayMorning", "0".to_owned()),
        ("pageCacheLockTimeMills", "0".to_owned()),
        ("pullThreadPoolQueueCapacity", "100000".to_owned()),
        ("pullThreadPoolQueueHeadWaitTimeMills", "0".to_owned()),
        ("pullThreadPoolQueueSize", "0".to_owned()),
        (
            "putMessageAverageSize",
            (stats.bytes as f64 / stats.messages.max(1) as f64).to_string(),
        ),
        ("putMessageEntireTimeMax", "0".to_owned()),
        ("putMessageSizeTotal", stats.max_physical.to_string()),
        ("putMessageTimesTotal", put),
        ("putTps", rates(stats.put)),
        ("queryThreadPoolQueueCapacity", "20000".to_owned()),
        ("queryThreadPoolQueueHeadWaitTimeMills", "0".to_owned()),
        ("queryThreadPoolQueueSize", "0".to_owned()),
        ("remainHowManyDataToFlush", "0 B".to_owned()),
        ("remainTransientStoreBufferNumbs", "2147483647".to_owned()),
        ("runtime", runtime(uptime)),
        ("sendThreadPoolQueueCapacity", "10000".to_owned()),
        ("sendThreadPoolQueueHeadWaitTimeMills", "0".to_owned()),
        ("sendThreadPoolQueueSize", "0".to_owned()),
        ("startAcceptSendRequestTimeStamp", "0".to_owned()),
        // This broker's own figures.
        ("embeddedConnections", broker.sessions.len().to_string()),
        ("embeddedEvictedMessages", stats.evicted.to_string()),
        ("embeddedMemoryLimit", broker.options.memory_limit.to_string()),
        ("embeddedMemoryUsed", stats.bytes.to_string()),
        ("embeddedStoredMessages", stats.messages.to_string()),
    ];
    let table = pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    Ok(Json(KvTable { table }))
}

fn runtime(millis: i64) -> String {
    let seconds = millis / 1000;
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    format!(
        "[ {days} days, {hours} hours, {} minutes, {} seconds ]",
        seconds / 60 % 60,
        seconds % 60
    )
}

/// The settings that this broker has, under Java's names, and those that a real one has by default.
pub(super) fn broker_config(context: Context<'_>, _: BrokerConfig) -> Result<BrokerConfigText, Refusal> {
    let broker = context.broker;
    let options = &broker.options;
    let pairs = BTreeMap::from([
        (
            "autoCreateSubscriptionGroup",
            options.auto_create_groups.to_string(),
        ),
        ("autoCreateTopicEnable", options.auto_create_topics.to_string()),
        ("brokerClusterName", options.cluster_name.clone()),
        ("brokerIP1", broker.address.ip().to_string()),
        ("brokerId", "0".to_owned()),
        ("brokerName", options.broker_name.clone()),
        ("brokerPermission", "6".to_owned()),
        ("brokerRole", "ASYNC_MASTER".to_owned()),
        ("defaultTopicQueueNums", options.default_queues.to_string()),
        ("enablePropertyFilter", "false".to_owned()),
        ("listenPort", broker.address.port().to_string()),
        ("longPollingEnable", "true".to_owned()),
        ("maxMessageSize", options.max_message_bytes.to_string()),
        (
            "messageDelayLevel",
            "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".to_owned(),
        ),
        ("namesrvAddr", broker.name_server.to_string()),
        ("rejectTransactionMessage", "true".to_owned()),
        ("timerWheelEnable", "false".to_owned()),
        ("traceTopicEnable", options.trace_topic.to_string()),
    ]);
    let text: String = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect();
    let version = DataVersion::default();
    let version = serde_json::to_string(&version).unwrap_or_default();
    Ok(BrokerConfigText {
        header: BrokerConfigHeader { version },
        text: Bytes::from(text),
    })
}

/// Nothing of a running broker can be changed over the wire.
pub(super) fn update_broker_config(_: Context<'_>, _: UpdateBrokerConfig) -> Result<Done, Refusal> {
    let remark = "the configuration of an embedded broker cannot be changed; start it with other settings";
    Err(Refusal::new(ResponseCode::NO_PERMISSION, remark))
}
