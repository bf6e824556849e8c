//! Every member gets every message, and keeps its own offsets in a file that outlives it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    peer::{Language, PeerConsumer, Subscription},
    scenario::{TestResult, eventually, report_figure},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Broadcasting, Client, ConsumeFrom, ErrorKind, MessageQueue, MessageView, PushConsumer,
    protocol::{JsonBody, bodies::OffsetTable, names::retry_topic},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::mpsc::{Receiver, channel},
    time::timeout,
};

use crate::{
    inbox::{LIMIT, expect},
    raw::send,
};

scenarios![
    every_member_gets_everything_and_goes_on_where_it_stopped,
    two_members_of_one_identity_do_not_run_at_a_time,
    a_message_that_keeps_failing_is_tried_again_here_and_then_dropped,
    java_and_rust_go_on_from_each_others_files,
    a_member_that_is_killed_many_times_skips_nothing_and_leaves_no_broken_file,
    offsets_are_written_as_soon_as_the_file_can_be,
    a_queue_that_appears_while_a_member_is_away_is_read_from_its_start,
];

/// A directory that goes with the scenario.
struct Directory(PathBuf);

impl Directory {
    fn new(target: &Target) -> Self {
        Self(env::temp_dir().join(target.group("offsets")))
    }

    fn file(&self, identity: &str, group: &str) -> PathBuf {
        self.0.join(identity).join(group).join("offsets.json")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Member {
    client: Client,
    consumer: PushConsumer,
    messages: Receiver<MessageView>,
}

impl Member {
    async fn start(
        target: &Target,
        topic: &str,
        group: &str,
        from: ConsumeFrom,
        broadcasting: Broadcasting,
    ) -> Result<Self, Failure> {
        let client = Client::connect(target.name_server()).await?;
        let (sender, messages) = channel(100_000);
        let consumer = client
            .push_consumer(group)
            .subscribe(topic, "*")
            .consume_from(from)
            .broadcasting_with(broadcasting)
            .start(move |message: MessageView| {
                let sender = sender.clone();
                async move { sender.send(message).await.map_err(|_| "the scenario has ended") }
            })
            .await?;
        Ok(Self {
            client,
            consumer,
            messages,
        })
    }

    async fn bodies(&mut self, count: usize) -> Result<Vec<String>, Failure> {
        let mut bodies = Vec::new();
        while bodies.len() < count {
            match timeout(LIMIT, self.messages.recv()).await {
                Ok(Some(message)) => bodies.push(String::from_utf8_lossy(message.body()).into_owned()),
                Ok(None) => return Err("the consumer is gone".into()),
                Err(_) => return Err(format!("{} of {count} messages in {LIMIT:?}", bodies.len()).into()),
            }
        }
        bodies.sort_unstable();
        Ok(bodies)
    }

    /// Shuts down; gives what it had received and nobody looked at.
    async fn end(mut self) -> usize {
        self.consumer.shutdown().await;
        self.client.shutdown().await;
        std::iter::from_fn(|| self.messages.try_recv().ok()).count()
    }
}

async fn send_range(target: &Target, topic: &str, queues: i32, range: std::ops::Range<i32>) -> TestResult {
    let broker = target.first_broker().await?;
    for index in range {
        send(
            broker,
            topic,
            index % queues,
            format!("{index:04}").as_bytes(),
            &[],
        )
        .await?;
    }
    Ok(())
}

fn bodies(range: std::ops::Range<i32>) -> Vec<String> {
    range.map(|index| format!("{index:04}")).collect()
}

/// What a file says, by queue number.
fn offsets_in(path: &Path) -> Result<BTreeMap<i32, i64>, Failure> {
    let table = OffsetTable::from_body(&fs::read(path)?)?;
    let offsets = table.offset_table.0.into_iter();
    Ok(offsets
        .map(|(queue, offset): (MessageQueue, i64)| (queue.queue_id, offset))
        .collect())
}

async fn every_member_gets_everything_and_goes_on_where_it_stopped(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("all"), target.group("all"));
    target.create_topic(&topic, 4).await?;
    let directory = Directory::new(target);
    let settings = |identity: &str| Broadcasting::new().directory(&directory.0).identity(identity);
    send_range(target, &topic, 4, 0..40).await?;
    for range in [0..40, 40..80] {
        let mut one = Member::start(target, &topic, &group, ConsumeFrom::First, settings("one")).await?;
        let mut two = Member::start(target, &topic, &group, ConsumeFrom::First, settings("two")).await?;
        for member in [&mut one, &mut two] {
            expect("messages", member.bodies(40).await?, bodies(range.clone()))?;
            let queues = member.consumer.stats().queues.into_iter();
            expect(
                "queues",
                queues.map(|queue| queue.queue_id).collect::<Vec<_>>(),
                [0, 1, 2, 3],
            )?;
        }
        expect("repeated", (one.end().await, two.end().await), (0, 0))?;
        let expected: BTreeMap<i32, i64> = (0..4).map(|queue| (queue, i64::from(range.end) / 4)).collect();
        for identity in ["one", "two"] {
            expect(
                "offsets",
                &offsets_in(&directory.file(identity, &group))?,
                &expected,
            )?;
        }
        if range.end == 40 {
            send_range(target, &topic, 4, 40..80).await?;
        }
    }
    Ok(())
}

async fn two_members_of_one_identity_do_not_run_at_a_time(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("twice"), target.group("twice"));
    target.create_topic(&topic, 1).await?;
    let directory = Directory::new(target);
    let settings = || Broadcasting::new().directory(&directory.0).identity("one");
    let first = Member::start(target, &topic, &group, ConsumeFrom::First, settings()).await?;
    let client = Client::connect(target.name_server()).await?;
    let second = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .broadcasting_with(settings())
        .start(|_: MessageView| async {})
        .await;
    let error = second.err().ok_or("the second one started")?;
    expect("kind", error.kind(), ErrorKind::Config)?;
    let text = error.to_string();
    if !text.contains("offsets.json") || !text.contains("identity") {
        return Err(format!("the error does not say what is wrong: {text}").into());
    }
    first.end().await;
    // Its place is free again.
    let third = Member::start(target, &topic, &group, ConsumeFrom::First, settings()).await?;
    third.end().await;
    client.shutdown().await;
    Ok(())
}

async fn a_message_that_keeps_failing_is_tried_again_here_and_then_dropped(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("failing"), target.group("failing"));
    target.create_topic(&topic, 1).await?;
    let directory = Directory::new(target);
    let client = Client::connect(target.name_server()).await?;
    let attempts = Arc::new(AtomicU32::new(0));
    let (sender, mut fine) = channel(10);
    let counted = Arc::clone(&attempts);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .broadcasting_with(
            Broadcasting::new()
                .directory(&directory.0)
                .identity("one")
                .retries(2)
                .retry_delay(Duration::from_millis(10)),
        )
        .start(move |message: MessageView| {
            let (counted, sender) = (Arc::clone(&counted), sender.clone());
            async move {
                if message.body() == "bad" {
                    counted.fetch_add(1, Ordering::Relaxed);
                    return Err("no");
                }
                sender.send(()).await.map_err(|_| "the scenario has ended")
            }
        })
        .await?;
    let broker = target.first_broker().await?;
    for body in ["bad", "good"] {
        send(broker, &topic, 0, body.as_bytes(), &[]).await?;
    }
    fine.recv().await.ok_or("the consumer is gone")?;
    eventually("the message to be dropped", async || {
        Ok(consumer.stats().dropped == 1)
    })
    .await?;
    expect("attempts", attempts.load(Ordering::Relaxed), 3)?;
    consumer.shutdown().await;
    let offsets = offsets_in(&directory.file("one", &group))?;
    expect("both are done with", offsets, BTreeMap::from([(0, 2)]))?;
    // A real broker makes the topic for every group, so what counts is that nothing is in it.
    let kept = crate::raw::pull(broker, &group, &retry_topic(&group), 0, 0, "*").await;
    if kept.is_ok_and(|pulled| pulled.header.max_offset > 0) {
        return Err("a broker took the message back".into());
    }
    client.shutdown().await;
    Ok(())
}

async fn java_and_rust_go_on_from_each_others_files(target: &Target) -> TestResult {
    for language in [Language::Java5, Language::Java4] {
        language.installed()?;
    }
    for language in [Language::Java5, Language::Java4] {
        let (topic, group) = (
            target.topic(&format!("file-{language:?}")),
            target.group(&format!("file-{language:?}")),
        );
        target.create_topic(&topic, 2).await?;
        let directory = Directory::new(target);
        let place = directory.0.display().to_string();
        let options = [
            "--message-model",
            "BROADCASTING",
            "--offset-directory",
            &place,
            "--instance-name",
            "till-7",
        ];
        let subscription = Subscription::all(&group, &topic);
        let mut sent = 0;
        let by_java = async |range: std::ops::Range<i32>| -> TestResult {
            let mut java =
                PeerConsumer::start_with(language, target.name_server(), &subscription, &options).await?;
            let mut received = BTreeSet::new();
            for _ in range.clone() {
                received.insert(String::from_utf8(java.next().await?.body)?);
            }
            // Java stores every five seconds what is done with, and at its end what it has heard of by then.
            let each = i64::from(range.end) / 2;
            eventually("the offsets in Java's file", async || {
                let Some(Ok(entry)) = fs::read_dir(&directory.0).into_iter().flatten().next() else {
                    return Ok(false);
                };
                let file = directory.file(&entry.file_name().to_string_lossy(), &group);
                // It is not replaced as a whole.
                Ok(offsets_in(&file).unwrap_or_default() == BTreeMap::from([(0, each), (1, each)]))
            })
            .await?;
            java.shutdown().await?;
            expect(
                &format!("by {language}"),
                received,
                BTreeSet::from_iter(bodies(range)),
            )
        };
        let mut send_ten = async || -> Result<std::ops::Range<i32>, Failure> {
            let range = sent..sent + 10;
            sent += 10;
            send_range(target, &topic, 2, range.clone()).await?;
            Ok(range)
        };
        by_java(send_ten().await?).await?;

        // `<ip>@till-7`, with the address that Java chose.
        let entry = fs::read_dir(&directory.0)?.next().ok_or("Java wrote no file")??;
        let identity = entry.file_name().to_string_lossy().into_owned();
        let file = directory.file(&identity, &group);
        expect(
            "Java's file",
            offsets_in(&file)?,
            BTreeMap::from([(0, 5), (1, 5)]),
        )?;
        let range = send_ten().await?;
        let settings = Broadcasting::new().directory(&directory.0).identity(&identity);
        let mut member = Member::start(target, &topic, &group, ConsumeFrom::First, settings).await?;
        expect("by Rust", member.bodies(10).await?, bodies(range))?;
        expect("repeated", member.end().await, 0)?;
        expect("our file", offsets_in(&file)?, BTreeMap::from([(0, 10), (1, 10)]))?;

        by_java(send_ten().await?).await?;
        expect(
            "Java's again",
            offsets_in(&file)?,
            BTreeMap::from([(0, 15), (1, 15)]),
        )?;
    }
    Ok(())
}

/// One life of the program: it is killed after so many messages. Gives what it had done with.
async fn live(arguments: &[&str], messages: usize) -> Result<Vec<(i32, i64, String)>, Failure> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_broadcast-reader"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let mut done = Vec::new();
    let mut killed = false;
    // All that it wrote before it died is still in the pipe.
    while let Some(line) = timeout(LIMIT, lines.next_line()).await?? {
        if line != "ready" {
            let mut parts = line.splitn(3, ' ');
            let mut part = || parts.next().ok_or_else(|| format!("{line:?} is cut off"));
            done.push((part()?.parse()?, part()?.parse()?, part()?.to_owned()));
        }
        if !killed && done.len() >= messages {
            child.start_kill()?;
            killed = true;
        }
    }
    child.wait().await?;
    if killed {
        Ok(done)
    } else {
        Err("the program ended by itself".into())
    }
}

/// `BROADCAST_KILLS` says how many times; the default keeps the scenario short.
async fn a_member_that_is_killed_many_times_skips_nothing_and_leaves_no_broken_file(
    target: &Target,
) -> TestResult {
    const QUEUES: i32 = 4;
    let kills: i32 = match env::var("BROADCAST_KILLS") {
        Ok(text) => text.parse()?,
        Err(_) => 25,
    };
    let (topic, group) = (target.topic("killed"), target.group("killed"));
    target.create_topic(&topic, QUEUES).await?;
    let directory = Directory::new(target);
    let place = directory.0.display().to_string();
    let arguments = [target.name_server(), &topic, &group, &place, "one"];
    let file = directory.file("one", &group);
    let backup = file.with_extension("json.bak");

    let mut done: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    let mut received = BTreeSet::new();
    let (mut deliveries, mut files) = (0, 0);
    for round in 0..kills {
        send_range(target, &topic, QUEUES, round * 40..round * 40 + 40).await?;
        // Somewhere among what is new; at times before anything is committed.
        let lines = live(&arguments, usize::try_from(round * 7 % 37)?).await?;
        deliveries += lines.len();
        for (queue, offset, body) in lines {
            done.entry(queue).or_default().insert(offset);
            received.insert(body);
        }
        // The first life may have been too short to write.
        if !file.exists() && !backup.exists() {
            continue;
        }
        files += 1;
        // Between two renames there is only the backup. Whatever is there can be read.
        let existing = if file.exists() { &file } else { &backup };
        for (queue, offset) in offsets_in(existing)? {
            let skipped =
                (0..offset).find(|offset| !done.get(&queue).is_some_and(|done| done.contains(offset)));
            if let Some(skipped) = skipped {
                return Err(format!(
                    "round {round}: the file says {offset} for queue {queue}, but message {skipped} was not done with"
                )
                .into());
            }
        }
    }
    let settings = Broadcasting::new().directory(&directory.0).identity("one");
    let mut last = Member::start(target, &topic, &group, ConsumeFrom::First, settings).await?;
    let all: BTreeSet<String> = bodies(0..kills * 40).into_iter().collect();
    while received.len() < all.len() {
        received.extend(last.bodies(1).await?);
        deliveries += 1;
    }
    expect("received", &received, &all)?;
    last.end().await;
    report_figure(
        target,
        &format!(
            "{kills} kills, {files} files read, lost 0, {} of {} messages repeated",
            deliveries - all.len(),
            all.len()
        ),
    );
    if files == 0 {
        return Err("no life was long enough to write a file".into());
    }
    Ok(())
}

async fn offsets_are_written_as_soon_as_the_file_can_be(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("full"), target.group("full"));
    target.create_topic(&topic, 1).await?;
    let directory = Directory::new(target);
    let client = Client::connect(target.name_server()).await?;
    let (sender, mut messages) = channel(100);
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .commit_interval(Duration::from_millis(10))
        .broadcasting_with(Broadcasting::new().directory(&directory.0).identity("one"))
        .start(move |_: MessageView| {
            let sender = sender.clone();
            async move { sender.send(()).await.map_err(|_| "the scenario has ended") }
        })
        .await?;
    let file = directory.file("one", &group);
    send_range(target, &topic, 1, 0..1).await?;
    messages.recv().await.ok_or("the consumer is gone")?;
    eventually("the first offset", async || {
        Ok(offsets_in(&file).unwrap_or_default() == BTreeMap::from([(0, 1)]))
    })
    .await?;
    // A name that cannot be written to, for whatever user: as a full disk, it fails every write.
    let obstacle = file.with_extension("json.tmp");
    fs::create_dir_all(obstacle.join("full"))?;
    send_range(target, &topic, 1, 1..2).await?;
    messages.recv().await.ok_or("the consumer is gone")?;
    eventually("some failures", async || {
        Ok(consumer.stats().offset_writes_failed > 2)
    })
    .await?;
    expect("the old file", offsets_in(&file)?, BTreeMap::from([(0, 1)]))?;
    fs::remove_dir_all(&obstacle)?;
    eventually("the second offset", async || {
        Ok(offsets_in(&file)? == BTreeMap::from([(0, 2)]))
    })
    .await?;
    consumer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn a_queue_that_appears_while_a_member_is_away_is_read_from_its_start(target: &Target) -> TestResult {
    let (topic, group) = (target.topic("grown"), target.group("grown"));
    target.create_topic(&topic, 2).await?;
    let directory = Directory::new(target);
    let settings = || Broadcasting::new().directory(&directory.0).identity("one");
    let mut member = Member::start(target, &topic, &group, ConsumeFrom::First, settings()).await?;
    send_range(target, &topic, 2, 0..4).await?;
    expect("before", member.bodies(4).await?, bodies(0..4))?;
    member.end().await;

    target.create_topic(&topic, 4).await?;
    send_range(target, &topic, 4, 4..24).await?;
    let mut member = Member::start(target, &topic, &group, ConsumeFrom::Last, settings()).await?;
    expect("after", member.bodies(20).await?, bodies(4..24))?;
    expect("repeated", member.end().await, 0)?;
    Ok(())
}
