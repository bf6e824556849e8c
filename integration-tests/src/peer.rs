//! The official clients of other languages as child processes that speak JSON lines.
//!
//! Their sources are in `integration-tests/peers`, built by `peers/install`. A peer ends when its standard input does,
//! so none outlives the test process.

mod exchange;
mod lite_pull;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

pub use exchange::{Check, HalfReceipt, Outcome, PeerReplier, PeerReply, PeerRequester, PeerTransactor};
pub use lite_pull::{PeerLitePull, Polled};

use crate::{Failure, base64, peers_directory, real::Scratch, scenario::skip};

/// A JVM on two busy cores needs a while to start, and a client's first look-ups too.
const LIMIT: Duration = Duration::from_secs(60);

/// A client that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Language {
    /// The Java client 5.5.0.
    Java5,
    /// The Java client 4.9.8.
    Java4,
    /// The Go client 2.1.2.
    Go,
}

impl Language {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Java5, Self::Java4, Self::Go];

    fn directory(self) -> PathBuf {
        peers_directory().join(match self {
            Self::Java5 => "java-5.5.0",
            Self::Java4 => "java-4.9.8",
            Self::Go => "go",
        })
    }

    /// Ready to run, or the skip that says what to install.
    ///
    /// # Errors
    /// A [`skip`] when the peer is not installed.
    pub fn installed(self) -> Result<(), Failure> {
        let directory = self.directory();
        if directory.join(".made").is_file() {
            Ok(())
        } else {
            Err(skip(format!(
                "no {self} peer in {}: run `bash integration-tests/peers/install`",
                directory.display()
            )))
        }
    }

    fn command(self, program: &str, home: &Path) -> Command {
        let directory = self.directory();
        let java_main = match program {
            "send" => "peers.Send",
            "transact" => "peers.Transact",
            "request" => "peers.Request",
            "reply" => "peers.Reply",
            "allocate" => "peers.Allocate",
            "lite-pull" => "peers.LitePull",
            _ => "peers.Receive",
        };
        if self == Self::Go {
            return Command::new(directory.join(program));
        }
        let mut command = Command::new("java");
        command
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            // Times without a zone are read in this one.
            .arg("-Duser.timezone=UTC")
            // The client writes its log below the user's home.
            .arg(format!("-Duser.home={}", home.display()))
            .args([
                "-cp",
                &format!("{0}/classes:{0}/lib/*", directory.display()),
                java_main,
            ]);
        command
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Java5 => "Java 5.5.0",
            Self::Java4 => "Java 4.9.8",
            Self::Go => "Go 2.1.2",
        })
    }
}

/// A message for a peer to send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Destination.
    pub topic: String,
    /// One tag or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Keys, joined by blanks as on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// User properties.
    pub properties: BTreeMap<String, String>,
    /// The payload.
    #[serde(rename = "body_base64", with = "base64")]
    pub body: Vec<u8>,
    /// 1 to 18, or none for at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_level: Option<u8>,
    /// Properties of the protocol's own: delivery times and priorities.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub protocol: BTreeMap<String, String>,
    /// Chooses the queue by this key, as the peer's own hash selector does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
}

/// What a peer's client says of a message that it sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    /// The unique id, made by the client; empty for a batch of the Go client, which gives its messages none.
    #[serde(default)]
    pub msg_id: String,
    /// The id made of the broker's address and the position in its log.
    pub offset_msg_id: String,
    /// `SEND_OK` or one of the three statuses that are successes of a kind.
    pub status: String,
    /// Queue that the message went to.
    pub queue_id: i32,
    /// Its place there.
    pub queue_offset: i64,
    /// Broker name.
    pub broker: String,
}

/// A client has no id made of address and position for a message that it took out of a batch stored as one record.
fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a peer's client handed to its listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Delivery {
    /// The topic that was subscribed to, also after a retry.
    pub topic: String,
    /// Tag, if any.
    pub tag: Option<String>,
    /// Keys as one string, if any.
    pub keys: Option<String>,
    /// All properties, system ones included.
    pub properties: BTreeMap<String, String>,
    /// The payload, decompressed.
    #[serde(rename = "body_base64", with = "base64")]
    pub body: Vec<u8>,
    /// The unique id.
    pub msg_id: String,
    /// The id made of the broker's address and the position in its log.
    #[serde(deserialize_with = "or_empty")]
    pub offset_msg_id: String,
    /// Queue it came from.
    pub queue_id: i32,
    /// Its place there.
    pub queue_offset: i64,
    /// How often it had been delivered before.
    pub reconsume_times: i32,
    /// Address of the sender as the broker saw it.
    pub born_host: String,
    /// Whether the listener asked for it to come again.
    pub failed: bool,
    /// When the listener of a consumer in order began with it, in milliseconds since 1970.
    #[serde(default)]
    pub begun_at: Option<u64>,
    /// When it ended.
    #[serde(default)]
    pub ended_at: Option<u64>,
}

/// What the Java client's strategies of allocation answer to random queues and members, one case a line.
///
/// # Errors
/// A [`skip`] when the peer is not installed; a failure when the program ends badly.
pub async fn allocations(language: Language, seed: u32, count: u32) -> Result<String, Failure> {
    language.installed()?;
    let home = Scratch::new("peer")?;
    let arguments = ["--seed", &seed.to_string(), "--count", &count.to_string()];
    let running = language
        .command("allocate", home.path())
        .args(arguments)
        .env_remove("JAVA_TOOL_OPTIONS")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(LIMIT, running).await??;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(format!("{language} allocate: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// A producer of another language.
#[derive(Debug)]
pub struct PeerProducer(Conversation);

impl PeerProducer {
    /// Starts the program and waits until its client runs.
    ///
    /// # Errors
    /// A [`skip`] when the peer is not installed; a failure when it does not start.
    pub async fn start(language: Language, name_server: &str, group: &str) -> Result<Self, Failure> {
        Self::start_with(language, name_server, group, &[]).await
    }

    /// The same with further options of the program, as name and value after name and value.
    ///
    /// # Errors
    /// A [`skip`] when the peer is not installed; a failure when it does not start.
    pub async fn start_with(
        language: Language,
        name_server: &str,
        group: &str,
        further: &[&str],
    ) -> Result<Self, Failure> {
        let mut options = vec!["--name-server", name_server, "--group", group];
        options.extend(further);
        Ok(Self(Conversation::start(language, "send", &options).await?))
    }

    /// The same for a producer that compresses large bodies in this way: `ZLIB`, `LZ4` or `ZSTD`. Java only.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_compressing(
        language: Language,
        name_server: &str,
        group: &str,
        compression: &str,
    ) -> Result<Self, Failure> {
        let options = [
            "--name-server",
            name_server,
            "--group",
            group,
            "--compress-type",
            compression,
        ];
        Ok(Self(Conversation::start(language, "send", &options).await?))
    }

    /// Sends one message and waits for the receipt.
    ///
    /// # Errors
    /// With the client's own words when it fails to send.
    pub async fn send(&mut self, order: &Order) -> Result<Receipt, Failure> {
        self.send_line(order).await
    }

    /// Sends messages together and waits for the receipt, whose ids are joined by commas.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_batch(&mut self, batch: &[Order]) -> Result<Receipt, Failure> {
        #[derive(Serialize)]
        struct Together<'a> {
            batch: &'a [Order],
        }
        self.send_line(&Together { batch }).await
    }

    async fn send_line(&mut self, order: &(impl Serialize + Sync)) -> Result<Receipt, Failure> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Answer {
            Error { error: String },
            Receipt(Receipt),
        }
        self.0.say(order).await?;
        match self.0.hear(LIMIT).await? {
            Answer::Receipt(receipt) => Ok(receipt),
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

/// A push consumer of another language: clustering, concurrent, from the first message on.
#[derive(Debug)]
pub struct PeerConsumer(Conversation);

/// Settings of a [`PeerConsumer`].
#[derive(Debug, Clone)]
pub struct Subscription<'a> {
    /// Consumer group.
    pub group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Tags joined by `||`, or `*`.
    pub expression: &'a str,
    /// How many deliveries of each message the listener refuses.
    pub fail: u32,
    /// Delay level of the next delivery of a refused message; 0 leaves it to the broker.
    pub delay_level: u8,
    /// Deliveries after the first before a message goes to the dead letter topic.
    pub max_reconsume_times: u32,
}

impl<'a> Subscription<'a> {
    /// Everything in a topic, accepted at once.
    #[must_use]
    pub fn all(group: &'a str, topic: &'a str) -> Self {
        Self {
            group,
            topic,
            expression: "*",
            fail: 0,
            delay_level: 0,
            max_reconsume_times: 16,
        }
    }
}

impl PeerConsumer {
    /// Starts the program and waits until its client runs; its first rebalance may still be ahead.
    ///
    /// # Errors
    /// A [`skip`] when the peer is not installed; a failure when it does not start.
    pub async fn start(
        language: Language,
        name_server: &str,
        subscription: &Subscription<'_>,
    ) -> Result<Self, Failure> {
        Self::start_with(language, name_server, subscription, &[]).await
    }

    /// The same with further options of the program, as name and value after name and value.
    ///
    /// # Errors
    /// A [`skip`] when the peer is not installed; a failure when it does not start.
    pub async fn start_with(
        language: Language,
        name_server: &str,
        subscription: &Subscription<'_>,
        further: &[&str],
    ) -> Result<Self, Failure> {
        let fail = subscription.fail.to_string();
        let delay_level = subscription.delay_level.to_string();
        let max_reconsume_times = subscription.max_reconsume_times.to_string();
        let mut options = vec![
            "--name-server",
            name_server,
            "--group",
            subscription.group,
            "--topic",
            subscription.topic,
            "--expression",
            subscription.expression,
            "--fail",
            &fail,
            "--delay-level",
            &delay_level,
            "--max-reconsume-times",
            &max_reconsume_times,
        ];
        options.extend(further);
        Ok(Self(Conversation::start(language, "receive", &options).await?))
    }

    /// The next delivery.
    ///
    /// # Errors
    /// When none comes within a minute.
    pub async fn next(&mut self) -> Result<Delivery, Failure> {
        self.0.hear(LIMIT).await
    }

    /// Shuts the client down and waits for the end of the program. Deliveries not yet read are lost to the test.
    ///
    /// # Errors
    /// When it does not end well.
    pub async fn shutdown(self) -> Result<(), Failure> {
        self.0.end().await
    }

    /// Shuts the client down, and reads what it still has to say until the end of the program.
    ///
    /// # Errors
    /// When a line is no delivery, or it does not end well.
    pub async fn drain(mut self) -> Result<Vec<Delivery>, Failure> {
        let conversation = &mut self.0;
        conversation.stdin.take();
        let mut rest = Vec::new();
        while let Ok(line) = timeout(LIMIT, conversation.lines.next_line()).await {
            match line? {
                Some(line) => rest.push(serde_json::from_str(&line)?),
                None => return self.0.end().await.map(|()| rest),
            }
        }
        Err(conversation.complaint("does not end"))
    }
}

/// One JSON object a line, both ways.
#[derive(Debug)]
struct Conversation {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    home: Scratch,
}

impl Conversation {
    async fn start(language: Language, program: &str, options: &[&str]) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Ready {
            ready: bool,
        }
        language.installed()?;
        let name = format!("{language} {program}");
        let home = Scratch::new("peer")?;
        let mut child = language
            .command(program, home.path())
            .args(options)
            .env_remove("NAMESRV_ADDR")
            .env_remove("JAVA_TOOL_OPTIONS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join("stderr"))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| format!("{name}: no standard output"))?;
        let mut conversation = Self {
            name,
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
            home,
        };
        if conversation.hear::<Ready>(LIMIT).await?.ready {
            Ok(conversation)
        } else {
            Err(format!("{} is not ready", conversation.name).into())
        }
    }

    async fn say(&mut self, line: &(impl Serialize + Sync)) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        let stdin = self.stdin.as_mut().ok_or("the conversation is over")?;
        stdin.write_all(&line).await?;
        Ok(stdin.flush().await?)
    }

    async fn hear<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, Failure> {
        let line = match timeout(limit, self.lines.next_line()).await {
            Ok(line) => line?,
            Err(_) => return Err(self.complaint(&format!("said nothing for {limit:?}"))),
        };
        let Some(line) = line else {
            return Err(self.complaint("ended"));
        };
        serde_json::from_str(&line).map_err(|error| self.complaint(&format!("said {line}: {error}")))
    }

    async fn end(mut self) -> Result<(), Failure> {
        self.stdin.take();
        // It may still have lines to write; a full pipe would keep it from ending.
        let drained = async {
            while self.lines.next_line().await?.is_some() {}
            self.child.wait().await
        };
        match timeout(LIMIT, drained).await {
            Ok(status) => self.judge(status?),
            Err(_) => Err(self.complaint("does not end")),
        }
    }

    fn judge(&self, status: ExitStatus) -> Result<(), Failure> {
        if status.success() {
            Ok(())
        } else {
            Err(self.complaint(&format!("ended with {status}")))
        }
    }

    fn complaint(&self, what: &str) -> Failure {
        let stderr = std::fs::read_to_string(self.home.path().join("stderr")).unwrap_or_default();
        let skip = stderr.lines().count().saturating_sub(15);
        let tail: Vec<&str> = stderr.lines().skip(skip).collect();
        format!(
            "{} {what}\n--- its standard error ---\n{}\n---",
            self.name,
            tail.join("\n")
        )
        .into()
    }
}
