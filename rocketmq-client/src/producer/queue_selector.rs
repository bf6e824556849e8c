//! Functions for [`select_queue`](crate::SendBuilder::select_queue): the selectors that Java ships.
//!
//! ```
//! # use rocketmq_embedded_broker::EmbeddedBroker;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let broker = EmbeddedBroker::start().await?;
//! use rocketmq_client::{Client, Message, queue_selector};
//!
//! let client = Client::connect(broker.name_server()).await?;
//! let producer = client.producer("orders-svc").start().await?;
//! let order_id = 42_i64;
//! let paid = producer.send(Message::new("orders", "paid"));
//! let first = paid.select_queue(queue_selector::by_hash(&order_id)).await?;
//! let sent = producer.send(Message::new("orders", "sent"));
//! let second = sent.select_queue(queue_selector::by_hash(&order_id)).await?;
//! assert_eq!(first.queue, second.queue);
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```

use crate::protocol::bodies::MessageQueue;
use crate::protocol::java_hash;
use crate::transport::random;

/// What has a `hashCode` in Java: the argument of a selector there.
pub trait JavaHash {
    /// What Java's `hashCode` gives for the same value.
    fn java_hash(&self) -> i32;
}

impl JavaHash for str {
    fn java_hash(&self) -> i32 {
        java_hash(self)
    }
}

impl JavaHash for String {
    fn java_hash(&self) -> i32 {
        java_hash(self)
    }
}

/// Java: `Integer`.
impl JavaHash for i32 {
    fn java_hash(&self) -> i32 {
        *self
    }
}

/// Java: `Long`.
impl JavaHash for i64 {
    fn java_hash(&self) -> i32 {
        // Both halves, one over the other.
        (*self ^ (*self >> 32)) as i32
    }
}

/// The place of a hash among so many queues: `abs(hash % queues)`.
pub(super) fn place_of(hash: i32, queues: usize) -> usize {
    // The same as taking the absolute value last, also for the least number, whose absolute value is no i32.
    hash.unsigned_abs() as usize % queues.max(1)
}

/// The queue that the hash of the argument says. Java: `SelectMessageQueueByHash`.
///
/// For a string, [`SendBuilder::ordering_key`](crate::SendBuilder::ordering_key) chooses the same queue, and consumers
/// see the key.
pub fn by_hash<T: JavaHash + ?Sized>(argument: &T) -> impl FnOnce(&[MessageQueue]) -> usize + Send + use<T> {
    let hash = argument.java_hash();
    move |queues| place_of(hash, queues.len())
}

/// The queue that the official Go client's hash selector (`NewHashQueueSelector`) takes for a sharding key. Its hash is
/// not Java's: a topic that producers of several languages send to in order needs one of both for all of them.
pub fn by_go_hash(key: &str) -> impl FnOnce(&[MessageQueue]) -> usize + Send + use<> {
    // FNV-1a of 32 bits.
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    move |queues| hash as usize % queues.len().max(1)
}

/// Any queue. Java: `SelectMessageQueueByRandom`.
pub fn by_random() -> impl FnOnce(&[MessageQueue]) -> usize + Send {
    any
}

/// Any queue of the brokers in these machine rooms, whose names are `<room>@<broker>`; of all if there is none. Java:
/// `SelectMessageQueueByMachineRoom`, which Java never finished.
pub fn by_machine_room(rooms: &[&str]) -> impl FnOnce(&[MessageQueue]) -> usize + Send + use<> {
    let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
    move |queues| {
        let near = |queue: &MessageQueue| {
            let room = queue.broker_name.split_once('@').map(|(room, _)| room);
            room.is_some_and(|room| rooms.iter().any(|wanted| wanted == room))
        };
        let near: Vec<_> = (0..queues.len())
            .filter(|&place| queues.get(place).is_some_and(near))
            .collect();
        let place = random() as usize % near.len().max(1);
        near.get(place).copied().unwrap_or_else(|| any(queues))
    }
}

fn any(queues: &[MessageQueue]) -> usize {
    random() as usize % queues.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_places_are_those_of_java() {
        // What `hashCode()` and `Math.abs(hashCode % n)` give there.
        for (text, hash) in [
            ("", 0),
            ("user-1", -836_031_825),
            ("polygenelubricants", i32::MIN),
            ("ключ", 33_309_882),
            ("key-\u{1F600}", -1_132_951_663),
            ("\u{10400}\u{1F600}", 1_703_249_346),
        ] {
            assert_eq!(text.java_hash(), hash, "{text}");
            assert_eq!(text.to_owned().java_hash(), hash, "{text}");
        }
        assert_eq!(42_i32.java_hash(), 42);
        assert_eq!((1_i64 << 32).java_hash(), 1);
        assert_eq!((-1_i64).java_hash(), 0);
        assert_eq!(i64::MIN.java_hash(), i32::MIN);
        for (hash, queues, place) in [
            (7, 4, 3),
            (-7, 4, 3),
            (-8, 4, 0),
            (i32::MIN, 3, 2),
            (i32::MIN, 8, 0),
            (5, 0, 0),
        ] {
            assert_eq!(place_of(hash, queues), place, "{hash} of {queues}");
        }
    }

    #[test]
    fn the_hash_of_go_is_fnv() {
        let queues = vec![MessageQueue::new("t", "a", 0); 1 << 16];
        // FNV-1a of "" and of "foobar", as its authors publish them: 811c9dc5 and bf9cf968.
        assert_eq!(by_go_hash("")(&queues), 0x9dc5);
        assert_eq!(by_go_hash("foobar")(&queues), 0xf968);
        assert_eq!(by_go_hash("foobar")(&[]), 0);
    }

    #[test]
    fn a_machine_room_is_kept_to_if_it_has_a_queue() {
        let queues = [
            MessageQueue::new("t", "east@a", 0),
            MessageQueue::new("t", "west@b", 0),
            MessageQueue::new("t", "west", 0),
        ];
        for _ in 0..50 {
            assert_eq!(by_machine_room(&["west", "south"])(&queues), 1);
            assert!(by_machine_room(&["north"])(&queues) < 3);
            assert!(by_random()(&queues) < 3);
        }
    }
}
