//! Single messages, by key and by position.
//!
//! Protocol source: `QueryMessageProcessor`, `IndexService`.

use rocketmq_client::protocol::requests::{
    QueryMessage, QueryResult, QueryResultHeader, StoredMessages, ViewMessage,
};
use rocketmq_client::protocol::{Record, ResponseCode, property};

use crate::server::{Context, Refusal};
use crate::store::Stored;

/// The most messages of one answer. Java: `defaultQueryMaxNum` for unique keys, 64 for others.
const MAX_UNIQUE: usize = 32;
const MAX_BY_KEY: usize = 64;
/// The most bytes of one answer: it has to fit into a frame.
const MAX_BYTES: usize = 15 * 1024 * 1024;

pub(super) fn by_key(context: Context<'_>, request: QueryMessage) -> Result<QueryResult, Refusal> {
    let QueryMessage {
        topic,
        key,
        max_num,
        begin_timestamp,
        end_timestamp,
        unique_key_query,
    } = request;
    let max = match unique_key_query {
        Some(true) => MAX_UNIQUE,
        _ => usize::try_from(max_num).unwrap_or(0).min(MAX_BY_KEY),
    };
    let store = &context.broker.store;
    let messages = if max == 0 {
        Vec::new()
    } else {
        store.query(
            &topic,
            begin_timestamp..=end_timestamp,
            max,
            MAX_BYTES,
            |stored| has_key(stored, &key),
        )
    };
    if messages.is_empty() {
        let remark = "can not find message, maybe time range not correct";
        let fields = [
            ("indexLastUpdateTimestamp", "0"),
            ("indexLastUpdatePhyoffset", "0"),
        ];
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark).with(fields));
    }
    Ok(QueryResult {
        header: QueryResultHeader {
            index_last_update_timestamp: context.broker.clock.now(),
            index_last_update_phyoffset: store.stats().max_physical,
        },
        messages: messages.concat().into(),
    })
}

/// A real broker's index has both kinds of keys in one table.
fn has_key(stored: &Stored, key: &str) -> bool {
    let Ok(record) = Record::decode(stored.record.clone()) else {
        return false;
    };
    let keys = record.properties.get(property::KEYS).unwrap_or_default();
    record.properties.get(property::UNIQUE_KEY) == Some(key) || keys.split(' ').any(|one| one == key)
}

pub(super) fn by_offset(context: Context<'_>, request: ViewMessage) -> Result<StoredMessages, Refusal> {
    match context.broker.store.at_physical(request.offset) {
        Some(message) => Ok(StoredMessages(message)),
        None => {
            let remark = format!("can not find message by the offset, {}", request.offset);
            Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
        }
    }
}
