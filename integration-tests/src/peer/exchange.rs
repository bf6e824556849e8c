//! Transactions and requests of other languages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Conversation, LIMIT, Language, Order};
use crate::{Failure, base64};

/// How a local part ends, and what a check is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The message becomes visible.
    Commit,
    /// It is dropped.
    Rollback,
    /// The broker asks.
    Unknown,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Unknown => "unknown",
        }
    }
}

/// A check that a peer's listener was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Check {
    /// The unique id of the message.
    #[serde(rename = "checked")]
    pub msg_id: String,
    /// The real topic.
    pub topic: String,
    /// The real queue.
    pub queue_id: i32,
}

/// What a peer's client says of a half message that it sent; the Java one leaves out where it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HalfReceipt {
    /// The unique id, made by the client.
    pub msg_id: String,
    /// `SEND_OK` or one of the three statuses that are successes of a kind.
    pub status: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Check(Check),
    Error { error: String },
    Receipt(HalfReceipt),
}

/// A producer of transactions of another language.
#[derive(Debug)]
pub struct PeerTransactor {
    conversation: Conversation,
    checks: Vec<Check>,
}

impl PeerTransactor {
    /// Starts the program and waits until its client runs. Its listener answers every check so.
    ///
    /// # Errors
    /// A [`skip`](crate::scenario::skip) when the peer is not installed; a failure when it does not start.
    pub async fn start(
        language: Language,
        name_server: &str,
        group: &str,
        check: Outcome,
    ) -> Result<Self, Failure> {
        let options = [
            "--name-server",
            name_server,
            "--group",
            group,
            "--check",
            check.name(),
        ];
        Ok(Self {
            conversation: Conversation::start(language, "transact", &options).await?,
            checks: Vec::new(),
        })
    }

    /// Sends one message in a transaction whose local part ends so, and waits for the receipt.
    ///
    /// # Errors
    /// With the client's own words when it fails to send.
    pub async fn send(&mut self, order: &Order, local: Outcome) -> Result<HalfReceipt, Failure> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            order: &'a Order,
            local: Outcome,
        }
        self.conversation.say(&Line { order, local }).await?;
        loop {
            match self.conversation.hear(LIMIT).await? {
                Said::Check(check) => self.checks.push(check),
                Said::Receipt(receipt) => return Ok(receipt),
                Said::Error { error } => return Err(format!("{}: {error}", self.conversation.name).into()),
            }
        }
    }

    /// The next check.
    ///
    /// # Errors
    /// When none comes within a minute.
    pub async fn check(&mut self) -> Result<Check, Failure> {
        if !self.checks.is_empty() {
            return Ok(self.checks.remove(0));
        }
        self.conversation.hear(LIMIT).await
    }

    /// Shuts the client down and waits for the end of the program.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.conversation.end().await
    }
}

/// What a peer's request was answered with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PeerReply {
    /// The payload, decompressed.
    #[serde(rename = "body_base64", with = "base64")]
    pub body: Vec<u8>,
    /// All properties.
    pub properties: BTreeMap<String, String>,
}

/// A producer of another language that makes requests.
#[derive(Debug)]
pub struct PeerRequester(Conversation);

impl PeerRequester {
    /// Starts the program and waits until its client runs.
    ///
    /// # Errors
    /// A [`skip`](crate::scenario::skip) when the peer is not installed; a failure when it does not start.
    pub async fn start(language: Language, name_server: &str, group: &str) -> Result<Self, Failure> {
        let options = ["--name-server", name_server, "--group", group];
        Ok(Self(Conversation::start(language, "request", &options).await?))
    }

    /// Makes one request and waits for the reply.
    ///
    /// # Errors
    /// With the client's own words when there is none.
    pub async fn request(&mut self, order: &Order) -> Result<PeerReply, Failure> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            Error { error: String },
            Reply(PeerReply),
        }
        self.0.say(order).await?;
        match self.0.hear(LIMIT).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Error { error } => Err(format!("{}: {error}", self.0.name).into()),
        }
    }

    /// Shuts the client down and waits for the end of the program.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.0.end().await
    }
}

/// A consumer of another language that answers each message with its body behind `re: `.
#[derive(Debug)]
pub struct PeerReplier(Conversation);

impl PeerReplier {
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
        Ok(Self(Conversation::start(language, "reply", &options).await?))
    }

    /// Waits until it has replied once more.
    ///
    /// # Errors
    /// With the client's own words when it failed to.
    pub async fn replied(&mut self) -> Result<String, Failure> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            Error { error: String },
            Replied { replied: String },
        }
        match self.0.hear(LIMIT).await? {
            Answer::Replied { replied } => Ok(replied),
            Answer::Error { error } => Err(format!("{}: {error}", self.0.name).into()),
        }
    }

    /// Shuts the client down and waits for the end of the program.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.0.end().await
    }
}
