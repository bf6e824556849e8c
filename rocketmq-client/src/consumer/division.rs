//! What every member of a group needs to divide queues: its share of a topic, and the time of the next division.
//!
//! Protocol source: `RebalanceService`, `RebalanceImpl`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::allocate::AllocateStrategy;
use super::recover::tell_again;
use super::remote::Remote;
use crate::protocol::bodies::MessageQueue;
use crate::tasks::panic_text;

/// The shortest time between two rebalances: a group that comes and goes must not keep everybody busy.
const PAUSE: Duration = Duration::from_millis(200);

/// The first wait when something was not settled, and the longest: it doubles in between.
const UNSETTLED: Duration = Duration::from_millis(500);
const UNSETTLED_AT_MOST: Duration = Duration::from_secs(4);

/// What became of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// Its queues are divided.
    Settled,
    /// Something was not known; it stays as it was.
    Unsettled,
}

impl Division {
    /// Of two topics together.
    pub(super) fn and(self, other: Self) -> Self {
        if other == Self::Unsettled { other } else { self }
    }
}

/// When the next division is due.
#[derive(Debug)]
pub(super) struct Pace {
    regular: Duration,
    unsettled: Duration,
}

impl Pace {
    /// `regular` is the time between two divisions that nothing asks for.
    pub(super) fn new(regular: Duration) -> Self {
        Self {
            regular,
            unsettled: UNSETTLED,
        }
    }

    /// Waits until the next division is due after this one. Whether somebody asked for it.
    ///
    /// # Cancellation
    /// Safe; a request that has been seen is lost.
    pub(super) async fn next(&mut self, division: Division, asked: &Notify) -> bool {
        let wait = match division {
            Division::Settled => {
                self.unsettled = UNSETTLED;
                self.regular
            }
            Division::Unsettled => {
                let wait = self.unsettled.min(self.regular);
                self.unsettled = self.unsettled.saturating_mul(2).min(UNSETTLED_AT_MOST);
                wait
            }
        };
        sleep(PAUSE.min(wait)).await;
        let was_asked = tokio::select! {
            () = sleep(wait.saturating_sub(PAUSE)) => false,
            () = asked.notified() => true,
        };
        if was_asked {
            // Something has changed: what is not there yet may be there soon.
            self.unsettled = UNSETTLED;
        }
        was_asked
    }
}

/// A member's share of a topic.
#[derive(Debug)]
pub(super) struct Share {
    /// How many members there are.
    pub(super) members: usize,
    pub(super) queues: Vec<MessageQueue>,
}

/// This member's share of the queues of a topic, of which there has to be one; they are sorted on the way. `None` if it
/// cannot be known now.
pub(super) async fn share_of(
    remote: &Remote,
    strategy: &dyn AllocateStrategy,
    topic: &str,
    queues: &mut [MessageQueue],
) -> Option<Share> {
    let group = remote.group();
    let mut members = match remote.members(queues).await {
        Ok(members) => members,
        Err(error) => {
            warn!(%group, %topic, %error, "the members of the group are not known, queues stay as they are");
            tell_again(remote).await;
            return None;
        }
    };
    let client_id = remote.client_id();
    if !members.iter().any(|member| member == client_id) {
        info!(%group, %topic, "the broker does not list this member yet, queues stay as they are");
        tell_again(remote).await;
        return None;
    }
    queues.sort();
    // A member that reconnects is listed twice for a moment.
    members.sort();
    members.dedup();
    // It may be the user's, and a panic here would end all rebalancing.
    let share = catch_unwind(AssertUnwindSafe(|| {
        strategy.allocate(client_id, &members, queues)
    }));
    let mut share = match share {
        Ok(share) => share,
        Err(panic) => {
            let panic = panic_text(&*panic);
            error!(%group, strategy = strategy.name(), panic, "the strategy of allocation panicked, queues stay as they are");
            return None;
        }
    };
    // It may return anything.
    share.retain(|queue| queues.binary_search(queue).is_ok());
    Some(Share {
        members: members.len(),
        queues: share,
    })
}

/// A member that shares topics with others.
pub(super) trait Divides: Send + Sync + 'static {
    fn remote(&self) -> &Remote;

    fn strategy(&self) -> &dyn AllocateStrategy;

    /// Whether every member has every queue.
    fn is_broadcasting(&self) -> bool;

    /// The topics that are subscribed to.
    fn topics(&self) -> Vec<Arc<str>>;

    /// A topic has these queues; none if it does not exist.
    fn see(&self, topic: &Arc<str>, all: &[MessageQueue]);

    /// Of all queues of a topic, this share is the member's now.
    fn take_share(self: &Arc<Self>, topic: &Arc<str>, all: &[MessageQueue], share: Share);
}

/// Divides on request and regularly. There is one such task for each member, so no two divisions run at a time.
pub(super) async fn divide_regularly<M: Divides>(
    member: Arc<M>,
    interval: Duration,
    asked: &Notify,
    stop: &CancellationToken,
) {
    let mut pace = Pace::new(interval);
    let divide = async {
        loop {
            let mut division = Division::Settled;
            for topic in member.topics() {
                division = division.and(divide_topic(&member, &topic).await);
            }
            pace.next(division, asked).await;
        }
    };
    stop.run_until_cancelled(divide).await;
}

async fn divide_topic<M: Divides>(member: &Arc<M>, topic: &Arc<str>) -> Division {
    let remote = member.remote();
    let group = remote.group();
    let mut queues = match remote.queues(topic).await {
        Ok(queues) => queues,
        Err(error) => {
            debug!(%group, %topic, %error, "no route, queues stay as they are");
            return Division::Unsettled;
        }
    };
    member.see(topic, &queues);
    if queues.is_empty() {
        // The topic does not exist yet, or a name server has lost it for a moment.
        debug!(%group, %topic, "the topic has no queues, assigned ones stay");
        return Division::Unsettled;
    }
    let share = if member.is_broadcasting() {
        queues.sort();
        Some(Share {
            members: 1,
            queues: queues.clone(),
        })
    } else {
        share_of(remote, member.strategy(), topic, &mut queues).await
    };
    match share {
        Some(share) => {
            member.take_share(topic, &queues, share);
            Division::Settled
        }
        None => Division::Unsettled,
    }
}
