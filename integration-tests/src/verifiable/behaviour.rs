//! How a handler behaves.

use std::{collections::HashSet, future::pending, panic, thread, time::Duration};

use tokio::time::sleep;

use super::arguments::{Arguments, Flag};
use crate::{Failure, history::Id};

/// The options of a handler.
pub(super) const FLAGS: [Flag; 12] = [
    Flag::new("--delay-ms", "0", "how long a handler takes"),
    Flag::new("--jitter-ms", "0", "up to so much more, by the message"),
    Flag::new("--block-ms", "0", "how long it blocks its thread before that"),
    Flag::new("--panic-percent", "0", "deliveries whose handler panics"),
    Flag::new("--hang-percent", "0", "deliveries whose handler never ends"),
    Flag::new("--fail-percent", "0", "deliveries that fail"),
    Flag::new(
        "--hit-attempts",
        "1",
        "how many attempts of a message the percentages are for; 0 for all",
    ),
    Flag::new("--fail-until", "1", "the first attempt that does not fail"),
    Flag::new("--poison", "", "ids of messages that always fail, as 0/7,0/9"),
    Flag::new(
        "--poison-every",
        "0",
        "every so many-th message of each sender always fails; 0 for none",
    ),
    Flag::new(
        "--reject-poison",
        "false",
        "whether poison is rejected at once instead",
    ),
    Flag::new("--seed", "1", "decides which deliveries are hit"),
];

/// What a handler does with a message.
#[derive(Debug)]
pub(super) struct Behaviour {
    delay: Duration,
    jitter: Duration,
    block: Duration,
    panic_percent: f64,
    hang_percent: f64,
    fail_percent: f64,
    hit_attempts: u32,
    fail_until: u32,
    poison: HashSet<Id>,
    poison_every: u32,
    reject_poison: bool,
    seed: u64,
}

/// How that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Failed,
    Rejected,
}

/// In the message of a panic that is meant.
const AS_TOLD: &str = "as it was told to";

/// Keeps panics that are meant out of the standard error, where they would look like faults of the program.
pub(super) fn be_quiet_about_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        let text = panicked.payload().downcast_ref::<String>();
        if !text.is_some_and(|text| text.ends_with(AS_TOLD)) {
            print(panicked);
        }
    }));
}

/// One of the things that a seed decides.
#[derive(Debug, Clone, Copy)]
enum Chance {
    Panic = 1,
    Hang,
    Fail,
    Jitter,
}

impl Behaviour {
    pub(super) fn read(arguments: &Arguments) -> Result<Self, Failure> {
        let poison: Result<HashSet<Id>, Failure> = arguments.list("--poison").map(str::parse).collect();
        Ok(Self {
            delay: arguments.millis("--delay-ms")?,
            jitter: arguments.millis("--jitter-ms")?,
            block: arguments.millis("--block-ms")?,
            panic_percent: arguments.parsed("--panic-percent")?,
            hang_percent: arguments.parsed("--hang-percent")?,
            fail_percent: arguments.parsed("--fail-percent")?,
            hit_attempts: arguments.parsed("--hit-attempts")?,
            fail_until: arguments.parsed("--fail-until")?,
            poison: poison?,
            poison_every: arguments.parsed("--poison-every")?,
            reject_poison: arguments.parsed("--reject-poison")?,
            seed: arguments.parsed("--seed")?,
        })
    }

    /// Works on a message.
    pub(super) async fn work(&self, id: Id, attempt: u32) -> End {
        if !self.block.is_zero() {
            thread::sleep(self.block);
        }
        let delay = self.delay + self.jitter.mul_f64(self.chance(id, attempt, Chance::Jitter));
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let is_hit = |chance, percent| {
            let may_be = self.hit_attempts == 0 || attempt <= self.hit_attempts;
            may_be && self.chance(id, attempt, chance) * 100.0 < percent
        };
        assert!(
            !is_hit(Chance::Panic, self.panic_percent),
            "the handler of {id} panics, {AS_TOLD}"
        );
        if is_hit(Chance::Hang, self.hang_percent) {
            pending::<()>().await;
        }
        match self.is_poison(id) {
            true if self.reject_poison => End::Rejected,
            true => End::Failed,
            false if attempt < self.fail_until => End::Failed,
            false if is_hit(Chance::Fail, self.fail_percent) => End::Failed,
            false => End::Done,
        }
    }

    fn is_poison(&self, id: Id) -> bool {
        let is_turn = id.sequence.checked_rem(self.poison_every) == Some(0);
        is_turn || self.poison.contains(&id)
    }

    /// From 0 to 1, the same for the same seed, message and attempt.
    fn chance(&self, id: Id, attempt: u32, of: Chance) -> f64 {
        let mut mixed = self.seed;
        for part in [id.producer, id.sequence, attempt, of as u32] {
            mixed = (mixed ^ u64::from(part)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^= mixed >> 32;
        }
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaviour(given: &[&str]) -> Behaviour {
        let arguments = Arguments::read(&FLAGS, given.iter().map(|&text| text.to_owned())).unwrap();
        Behaviour::read(&arguments).unwrap()
    }

    fn id(sequence: u32) -> Id {
        Id {
            producer: 3,
            sequence,
        }
    }

    #[tokio::test]
    async fn poison_fails_always_and_others_until_their_attempt() {
        let fails = behaviour(&["--poison", "3/7", "--poison-every", "10", "--fail-until", "3"]);
        for (sequence, attempt, end) in [
            (7, 9, End::Failed),
            (10, 9, End::Failed),
            (8, 2, End::Failed),
            (8, 3, End::Done),
        ] {
            assert_eq!(fails.work(id(sequence), attempt).await, end, "{sequence}");
        }
        let rejects = behaviour(&["--poison", "3/7", "--reject-poison", "true"]);
        assert_eq!(rejects.work(id(7), 1).await, End::Rejected);
        assert_eq!(rejects.work(id(8), 1).await, End::Done);
    }

    #[tokio::test]
    async fn a_percentage_of_deliveries_is_hit_and_always_the_same_ones() {
        let fails = behaviour(&["--fail-percent", "20"]);
        let mut hit = Vec::new();
        for sequence in 0..1000 {
            if fails.work(id(sequence), 1).await == End::Failed {
                hit.push(sequence);
                assert_eq!(fails.work(id(sequence), 1).await, End::Failed);
            }
        }
        assert!((150..250).contains(&hit.len()), "{}", hit.len());
        let panics = behaviour(&["--panic-percent", "20"]);
        let chances = (0..1000).map(|sequence| panics.chance(id(sequence), 1, Chance::Panic));
        let hit = chances.filter(|chance| chance * 100.0 < 20.0).count();
        assert!((150..250).contains(&hit), "{hit}");
    }
}
