//! The key that a message is ordered by.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::error;

use crate::message::MessageView;
use crate::protocol::property;
use crate::tasks::panic_text;

/// The lane of messages whose key could not be told: one after the other is what certainly breaks no order.
const UNKNOWN: u64 = 0;

type Hashed = dyn Fn(&MessageView) -> Option<u64> + Send + Sync;

/// Finds the key of a message. Two keys with the same hash share a lane, which costs parallelism and no order.
#[derive(Clone)]
pub(in crate::consumer) struct KeyOf(Arc<Hashed>);

impl KeyOf {
    pub(super) fn new<K: Hash>(key: impl Fn(&MessageView) -> Option<K> + Send + Sync + 'static) -> Self {
        let hasher = RandomState::new();
        Self(Arc::new(move |message| {
            key(message).map(|key| hasher.hash_one(key))
        }))
    }

    /// The sharding key, else the keys.
    pub(super) fn sharding_key() -> Self {
        let hasher = RandomState::new();
        Self(Arc::new(move |message| {
            let key = message.sharding_key();
            let key = key.or_else(|| message.property(property::KEYS));
            key.filter(|key| !key.is_empty()).map(|key| hasher.hash_one(key))
        }))
    }

    /// The lane of a message: that of its key, else one of its own.
    pub(super) fn lane_of(&self, message: &MessageView, number: u64) -> u64 {
        match catch_unwind(AssertUnwindSafe(|| (self.0)(message))) {
            Ok(Some(hash)) => hash,
            // Numbers count up, so messages without a key do not meet.
            Ok(None) => !number,
            Err(panic) => {
                let panic = panic_text(&*panic);
                error!(
                    ?message,
                    panic, "the function that tells keys panicked, the message goes with all of these"
                );
                UNKNOWN
            }
        }
    }
}

impl fmt::Debug for KeyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyOf(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::orderly::tests::record;
    use crate::protocol::bodies::MessageQueue;

    fn message(properties: &str) -> MessageView {
        MessageView::new(record(0, properties), MessageQueue::new("orders", "broker-a", 0))
    }

    #[test]
    fn the_sharding_key_comes_before_the_keys() {
        let keys = KeyOf::sharding_key();
        let both = message("__SHARDINGKEY\u{1}a\u{2}KEYS\u{1}b\u{2}");
        let sharding = message("__SHARDINGKEY\u{1}a\u{2}");
        let plain = message("KEYS\u{1}a\u{2}");
        assert_eq!(keys.lane_of(&both, 1), keys.lane_of(&sharding, 2));
        assert_eq!(keys.lane_of(&both, 1), keys.lane_of(&plain, 3));
        assert_ne!(
            keys.lane_of(&both, 1),
            keys.lane_of(&message("KEYS\u{1}b\u{2}"), 4)
        );
    }

    #[test]
    fn messages_without_a_key_keep_no_order() {
        let keys = KeyOf::sharding_key();
        assert_ne!(keys.lane_of(&message(""), 1), keys.lane_of(&message(""), 2));
    }

    #[test]
    fn a_function_that_panics_orders_all_it_panicked_for() {
        let keys = KeyOf::new(|message: &MessageView| -> Option<i64> {
            assert!(message.tag().is_some(), "no tag");
            None
        });
        assert_eq!(keys.lane_of(&message(""), 1), keys.lane_of(&message(""), 2));
        assert_ne!(
            keys.lane_of(&message("TAGS\u{1}x\u{2}"), 3),
            keys.lane_of(&message(""), 4)
        );
    }
}
