//! Shares against those of Java's classes, and what holds for every strategy.

use serde::Deserialize;

use super::*;

/// What `peers.Allocate` printed, one case a line: see `integration-tests/peers/java`.
const JAVA: &str = include_str!("java.jsonl");

#[derive(Debug, Deserialize)]
struct Case {
    strategy: String,
    members: Vec<String>,
    /// `topic/broker/number`
    queues: Vec<String>,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    virtual_nodes: u32,
    /// For each member, the places of its queues in the list.
    shares: Vec<Vec<usize>>,
}

impl Case {
    fn queues(&self) -> Vec<MessageQueue> {
        let read = |text: &String| {
            let mut parts = text.split('/');
            let mut part = || parts.next().unwrap().to_owned();
            MessageQueue::new(part(), part(), part().parse().unwrap())
        };
        self.queues.iter().map(read).collect()
    }

    fn strategy(&self) -> Box<dyn AllocateStrategy> {
        match self.strategy.as_str() {
            "AVG" => Box::new(AllocateAveragely),
            "AVG_BY_CIRCLE" => Box::new(AllocateByCircle),
            "CONSISTENT_HASH" => Box::new(AllocateConsistentHash::virtual_nodes(self.virtual_nodes)),
            "CONFIG" => Box::new(AllocateByConfig::new(self.queues().into_iter().take(2))),
            "MACHINE_ROOM" => Box::new(AllocateByMachineRoom::new(self.rooms.clone())),
            "MACHINE_ROOM_NEARBY-AVG" => Box::new(nearby(AllocateAveragely)),
            "MACHINE_ROOM_NEARBY-AVG_BY_CIRCLE" => Box::new(nearby(AllocateByCircle)),
            "MACHINE_ROOM_NEARBY-CONSISTENT_HASH" => Box::new(nearby(AllocateConsistentHash::default())),
            other => panic!("{other}"),
        }
    }
}

/// The room is what stands before the first `-`.
fn nearby(inner: impl AllocateStrategy) -> AllocateMachineRoomNearby {
    let room = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    AllocateMachineRoomNearby::new(inner, move |queue| room(&queue.broker_name), room)
}

#[test]
fn every_strategy_gives_the_shares_that_java_gives() {
    let mut names = std::collections::BTreeSet::new();
    for line in JAVA.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let (strategy, queues) = (case.strategy(), case.queues());
        assert_eq!(strategy.name(), case.strategy);
        for (member, expected) in case.members.iter().zip(&case.shares) {
            let share = strategy.allocate(member, &case.members, &queues);
            let places: Vec<usize> = share
                .iter()
                .map(|queue| queues.iter().position(|other| other == queue).unwrap())
                .collect();
            assert_eq!(places, *expected, "{member} of {line}");
        }
        names.insert(case.strategy);
    }
    assert_eq!(names.len(), 8, "{names:?}");
}

fn members(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("room{}-10.0.0.{n}@1", n % 3)).collect()
}

fn queues(n: i32) -> Vec<MessageQueue> {
    let broker = |n: i32| format!("room{}-broker", n % 4);
    let queue = |n| MessageQueue::new("orders", broker(n), n);
    let mut queues: Vec<MessageQueue> = (0..n).map(queue).collect();
    queues.sort();
    queues
}

#[test]
fn every_queue_has_exactly_one_owner() {
    let strategies: [&dyn AllocateStrategy; 6] = [
        &AllocateAveragely,
        &AllocateByCircle,
        &AllocateConsistentHash::default(),
        &nearby(AllocateAveragely),
        &nearby(AllocateByCircle),
        &nearby(AllocateConsistentHash::virtual_nodes(3)),
    ];
    for strategy in strategies {
        for (queue_count, member_count) in [(0, 1), (1, 3), (7, 2), (16, 5), (3, 3), (40, 9)] {
            let (members, queues) = (members(member_count), queues(queue_count));
            let mut all: Vec<MessageQueue> = members
                .iter()
                .flat_map(|member| strategy.allocate(member, &members, &queues))
                .collect();
            all.sort();
            assert_eq!(all, queues, "{}", strategy.name());
        }
    }
}

#[test]
fn who_is_not_in_the_list_gets_nothing() {
    let (members, queues) = (members(2), queues(4));
    let strategies: [&dyn AllocateStrategy; 5] = [
        &AllocateAveragely,
        &AllocateByCircle,
        &AllocateConsistentHash::default(),
        &AllocateByMachineRoom::new(["room1"]),
        &nearby(AllocateByCircle),
    ];
    for strategy in strategies {
        let share = strategy.allocate("stranger", &members, &queues);
        assert!(share.is_empty(), "{}", strategy.name());
    }
}

#[test]
fn a_room_is_what_stands_before_the_only_at_sign_of_a_brokers_name() {
    let strategy = AllocateByMachineRoom::new(["a"]);
    for (broker, wanted) in [
        ("a@b", true),
        ("a@b@@", true),
        ("a@", false),
        ("a", false),
        ("a@b@c", false),
        ("b@a", false),
        ("@a", false),
        ("", false),
    ] {
        assert_eq!(strategy.is_wanted(broker), wanted, "{broker}");
    }
}

#[test]
fn few_queues_change_hands_on_the_ring_when_a_member_comes() {
    let queues = queues(64);
    let strategy = AllocateConsistentHash::default();
    let (four, five) = (members(4), members(5));
    for member in &four {
        let before = strategy.allocate(member, &four, &queues);
        let after = strategy.allocate(member, &five, &queues);
        assert!(
            after.iter().all(|queue| before.contains(queue)),
            "a member only gives to the new one"
        );
    }
}
