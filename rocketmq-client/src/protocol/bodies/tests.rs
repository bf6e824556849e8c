use super::*;
use crate::protocol::JsonBody;

#[test]
fn a_route_is_read_in_both_encodings() {
    let loose = br#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10912"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
    let route = TopicRouteData::from_body(loose).unwrap();
    assert_eq!(route.broker_datas[0].broker_addrs[&1], "127.0.0.1:10912");
    assert_eq!(route.queue_datas[0].write_queue_nums, 4);
    let strict = route.to_body().unwrap();
    assert!(
        std::str::from_utf8(&strict)
            .unwrap()
            .contains(r#""brokerAddrs":{"0":"127.0.0.1:10911","1""#)
    );
    assert_eq!(TopicRouteData::from_body(&strict).unwrap(), route);
    assert_eq!(
        loose::unquote_numbers(std::str::from_utf8(&strict).unwrap()).as_bytes(),
        loose
    );
}

#[test]
fn a_map_with_queue_keys_is_written_as_java_writes_it() {
    let json = r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicA"}:{"lastUpdateTimestamp":0,"maxOffset":3,"minOffset":0}},"topicPutTps":0.0}"#;
    let stats = TopicStatsTable::from_body(json.as_bytes()).unwrap();
    let queue = MessageQueue::new("TopicA", "broker-a", 0);
    assert_eq!(stats.offset_table.0[&queue].max_offset, 3);
    assert_eq!(stats.to_body().unwrap(), json);
}

#[test]
fn a_heartbeat_has_javas_names() {
    let json = r#"{"clientID":"1.1.1.1@1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"cg","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1,"tagsSet":["TagA","TagB"],"topic":"TopicA"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"pg"}],"withoutSub":false}"#;
    let heartbeat = HeartbeatData::from_body(json.as_bytes()).unwrap();
    assert_eq!(heartbeat.to_body().unwrap(), json);
    assert_eq!(
        heartbeat.consumer_data_set[0].subscription_data_set[0],
        SubscriptionData::by_tags("TopicA", "TagA || TagB", 1)
    );
}

#[test]
fn tags_are_told_apart_by_text_where_hashes_are_equal() {
    let subscription = SubscriptionData::by_tags("t", " Aa ||| || ", 0);
    assert!(subscription.matches_code(i64::from(crate::protocol::java_hash("BB"))));
    assert!(!subscription.matches_tag(Some("BB")));
    assert!(!subscription.matches_tag(None));
    assert!(SubscriptionData::by_tags("t", "*", 0).matches_tag(None));
}

#[test]
fn members_that_are_missing_have_defaults_and_nonsense_is_named() {
    let group = SubscriptionGroupConfig::from_body(br#"{"groupName":"g","later":1}"#).unwrap();
    assert_eq!((group.retry_max_times, group.consume_enable), (16, true));
    let error = ConsumerList::from_body(b"[1]").unwrap_err().to_string();
    assert!(error.starts_with("body ConsumerList: invalid type"), "{error}");
}
