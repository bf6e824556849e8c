//! Which member of a group consumes which queues.
//!
//! Every member computes the whole division on its own from the same two sorted lists, so all of them have to use the
//! same strategy. Protocol source: `AllocateMessageQueueAveragely`, `AllocateMessageQueueAveragelyByCircle`.

use crate::protocol::bodies::MessageQueue;

/// Divides the queues of a topic among the members of a group.
///
/// All members of a group have to use the same strategy: each computes its own share, and nobody compares them. A
/// queue that two members believe to be theirs is consumed twice; one that nobody believes to be theirs, not at all.
///
/// ```
/// use rocketmq_client::{AllocateStrategy, MessageQueue};
///
/// /// The first member takes everything, the others wait to replace it.
/// #[derive(Debug)]
/// struct HotStandby;
///
/// impl AllocateStrategy for HotStandby {
///     fn name(&self) -> &str {
///         "HOT_STANDBY"
///     }
///
///     fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
///         match members.first() {
///             Some(first) if first == client_id => queues.to_vec(),
///             _ => Vec::new(),
///         }
///     }
/// }
/// ```
pub trait AllocateStrategy: Send + Sync + std::fmt::Debug + 'static {
    /// The name, for logs and tools. Java's strategies are `AVG`, `AVG_BY_CIRCLE`, ..
    fn name(&self) -> &str;

    /// The share of the member `client_id`.
    ///
    /// Both lists are sorted and the member is in its list. What is returned has to be a part of `queues`; anything
    /// else is ignored.
    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue>;
}

/// Neighbouring queues to each member, the first ones get one more. Java's default, `AVG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocateAveragely;

impl AllocateStrategy for AllocateAveragely {
    fn name(&self) -> &str {
        "AVG"
    }

    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let Some(index) = members.iter().position(|member| member == client_id) else {
            return Vec::new();
        };
        let share = queues.len() / members.len();
        let extra = queues.len() % members.len();
        let start = index * share + index.min(extra);
        let len = share + usize::from(index < extra);
        queues.iter().skip(start).take(len).cloned().collect()
    }
}

/// Queues dealt out in turn, like cards. Java's `AVG_BY_CIRCLE`.
///
/// Spreads the queues of one broker over the members, where [`AllocateAveragely`] keeps them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocateByCircle;

impl AllocateStrategy for AllocateByCircle {
    fn name(&self) -> &str {
        "AVG_BY_CIRCLE"
    }

    fn allocate(&self, client_id: &str, members: &[String], queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let Some(index) = members.iter().position(|member| member == client_id) else {
            return Vec::new();
        };
        queues
            .iter()
            .skip(index)
            .step_by(members.len())
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(n: usize) -> Vec<String> {
        (0..n).map(|n| format!("10.0.0.{n}@1")).collect()
    }

    fn queues(n: i32) -> Vec<MessageQueue> {
        (0..n)
            .map(|n| MessageQueue::new("orders", "broker-a", n))
            .collect()
    }

    fn shares(strategy: &dyn AllocateStrategy, queue_count: i32, member_count: usize) -> Vec<Vec<i32>> {
        let (members, queues) = (members(member_count), queues(queue_count));
        let share = |member: &String| {
            strategy
                .allocate(member, &members, &queues)
                .iter()
                .map(|queue| queue.queue_id)
                .collect()
        };
        members.iter().map(share).collect()
    }

    /// The formulas of `AllocateMessageQueueAveragely`, written down apart from the code under test.
    fn java_averagely(queue_count: usize, member_count: usize, index: usize) -> Vec<i32> {
        let rest = queue_count % member_count;
        let size = if queue_count <= member_count {
            1
        } else {
            queue_count / member_count + usize::from(rest > 0 && index < rest)
        };
        let start = if rest > 0 && index < rest {
            index * size
        } else {
            index * size + rest
        };
        let len = size.min(queue_count.saturating_sub(start));
        (start..start + len)
            .map(|queue| i32::try_from(queue).unwrap())
            .collect()
    }

    #[test]
    fn averagely_gives_the_same_shares_as_java() {
        assert_eq!(
            shares(&AllocateAveragely, 8, 3),
            [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]
        );
        assert_eq!(
            shares(&AllocateAveragely, 2, 4),
            [vec![0], vec![1], vec![], vec![]]
        );
        for queue_count in 0..20 {
            for member_count in 1..9 {
                let expected: Vec<Vec<i32>> = (0..member_count)
                    .map(|index| java_averagely(queue_count, member_count, index))
                    .collect();
                let actual = shares(
                    &AllocateAveragely,
                    i32::try_from(queue_count).unwrap(),
                    member_count,
                );
                assert_eq!(actual, expected, "{queue_count} queues, {member_count} members");
            }
        }
    }

    #[test]
    fn by_circle_deals_queues_out_in_turn() {
        assert_eq!(
            shares(&AllocateByCircle, 8, 3),
            [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]
        );
    }

    #[test]
    fn every_queue_has_exactly_one_owner() {
        for strategy in [&AllocateAveragely as &dyn AllocateStrategy, &AllocateByCircle] {
            for (queue_count, member_count) in [(0, 1), (1, 3), (7, 2), (16, 5), (3, 3)] {
                let mut all: Vec<i32> = shares(strategy, queue_count, member_count).concat();
                all.sort_unstable();
                assert_eq!(all, (0..queue_count).collect::<Vec<_>>(), "{}", strategy.name());
            }
        }
    }

    #[test]
    fn who_is_not_in_the_list_gets_nothing() {
        let (members, queues) = (members(2), queues(4));
        assert!(
            AllocateAveragely
                .allocate("stranger", &members, &queues)
                .is_empty()
        );
        assert!(
            AllocateByCircle
                .allocate("stranger", &members, &queues)
                .is_empty()
        );
    }
}
