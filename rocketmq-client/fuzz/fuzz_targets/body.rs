//! Any text is one of the JSON bodies or an error, loose or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rocketmq_client::protocol::JsonBody;
use rocketmq_client::protocol::bodies::{
    ClusterInfo, ConsumeStats, ConsumerList, HeartbeatData, LockBatch, OffsetTable, SubscriptionGroupTable,
    TopicConfigTable, TopicRouteData, TopicStatsTable,
};

fn read<T: JsonBody>(data: &[u8]) {
    if let Ok(body) = T::from_body(data) {
        let text = body.to_body().expect("a body that was read can be written");
        T::from_body(&text).expect("and read again");
    }
}

fuzz_target!(|data: &[u8]| {
    read::<TopicRouteData>(data);
    read::<ClusterInfo>(data);
    read::<HeartbeatData>(data);
    read::<ConsumerList>(data);
    read::<LockBatch>(data);
    read::<OffsetTable>(data);
    read::<TopicStatsTable>(data);
    read::<ConsumeStats>(data);
    read::<TopicConfigTable>(data);
    read::<SubscriptionGroupTable>(data);
});
