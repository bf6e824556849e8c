//! The lite-pull consumer of Java.

use serde::{Deserialize, Serialize};

use super::{Conversation, LIMIT, Language};
use crate::Failure;

/// A message that a peer polled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Polled {
    /// Queue it came from.
    pub queue_id: i32,
    /// Its place there.
    pub queue_offset: i64,
    /// The payload.
    pub body: String,
}

#[derive(Serialize)]
struct Order {
    #[serde(rename = "do")]
    what: &'static str,
    timeout_ms: u64,
}

/// A lite-pull consumer of Java that subscribes and commits when it is told to.
#[derive(Debug)]
pub struct PeerLitePull(Conversation);

impl PeerLitePull {
    /// Starts the program and waits until its client runs; its first rebalance may still be ahead.
    ///
    /// # Errors
    /// A [`skip`](crate::scenario::skip) when the peer is not installed; a failure when it does not start.
    pub async fn start(
        language: Language,
        name_server: &str,
        group: &str,
        topic: &str,
    ) -> Result<Self, Failure> {
        let options = ["--name-server", name_server, "--group", group, "--topic", topic];
        Ok(Self(Conversation::start(language, "lite-pull", &options).await?))
    }

    /// What is there, or comes within half a second.
    ///
    /// # Errors
    /// When the program ends.
    pub async fn poll(&mut self) -> Result<Vec<Polled>, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            messages: Vec<Polled>,
        }
        let answer: Answer = self.order("poll").await?;
        Ok(answer.messages)
    }

    /// Commits everything that was polled; Java does not wait for the broker.
    ///
    /// # Errors
    /// When the program ends.
    pub async fn commit(&mut self) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "committed")]
            _committed: usize,
        }
        let Answer { .. } = self.order("commit").await?;
        Ok(())
    }

    /// The numbers of the assigned queues.
    ///
    /// # Errors
    /// When the program ends.
    pub async fn assignment(&mut self) -> Result<Vec<i32>, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            queues: Vec<i32>,
        }
        let answer: Answer = self.order("assignment").await?;
        Ok(answer.queues)
    }

    async fn order<T: serde::de::DeserializeOwned>(&mut self, what: &'static str) -> Result<T, Failure> {
        let order = Order {
            what,
            timeout_ms: 500,
        };
        self.0.say(&order).await?;
        self.0.hear(LIMIT).await
    }

    /// Shuts the client down and waits for the end of the program.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.0.end().await
    }
}
