//! The broker itself: its state and its configuration.
//!
//! Protocol source: `AdminBrokerProcessor#prepareRuntimeInfo`.

use rocketmq_client::protocol::bodies::KvTable;
use rocketmq_client::protocol::frame::VERSION;
use rocketmq_client::protocol::requests::{
    BrokerConfig, BrokerConfigHeader, BrokerConfigText, BrokerRuntimeInfo, UpdateBrokerConfig,
};
use rocketmq_client::protocol::{Done, Json, ResponseCode};

use crate::server::{Context, Refusal};
use crate::state::{Settings, SettingsError};

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

pub(super) fn broker_config(context: Context<'_>, _: BrokerConfig) -> Result<BrokerConfigText, Refusal> {
    let (text, version) = context.broker.settings.text();
    let version = serde_json::to_string(&version).unwrap_or_default();
    Ok(BrokerConfigText {
        header: BrokerConfigHeader { version },
        text,
    })
}

/// As on a real broker most settings are read again only, because they count at the start; whether topics and groups
/// are created by themselves counts at once.
pub(super) fn update_broker_config(
    context: Context<'_>,
    request: UpdateBrokerConfig,
) -> Result<Done, Refusal> {
    let broker = context.broker;
    update(&broker.settings, &request.body, broker.clock.now())?;
    broker
        .topics
        .set_auto_create(broker.settings.is_on("autoCreateTopicEnable"));
    broker
        .groups
        .set_auto_create(broker.settings.is_on("autoCreateSubscriptionGroup"));
    Ok(Done)
}

pub(super) fn update(settings: &Settings, body: &[u8], now: i64) -> Result<(), Refusal> {
    settings.update(body, now).map_err(|error| match error {
        SettingsError::Fixed => Refusal::new(
            ResponseCode::NO_PERMISSION,
            "Can not update config in black list.",
        ),
        SettingsError::Unusable => Refusal::new(ResponseCode::SYSTEM_ERROR, "string2Properties error"),
    })
}
