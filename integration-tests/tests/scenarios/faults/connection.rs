//! What a network does to a connection: cuts at every byte, slices, flips, lies about lengths, narrow lines.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use integration_tests::{
    Failure,
    fault_proxy::{Cut, Direction, Fault, FaultPath},
    history::{History, Id},
    scenario::{TestResult, eventually, long, report_figure},
    scenarios,
    target::Target,
};
use rocketmq_client::{
    Client, ConsumeFrom, ErrorKind, Message, MessageView, Persisted, Producer, protocol::RequestCode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::load::{record, send_noted};
use crate::inbox::{Inbox, expect};

scenarios![
    a_connection_cut_at_any_byte_of_an_exchange_loses_nothing_and_mixes_nothing_up,
    connections_that_the_server_closes_when_idle_cost_no_send,
    bits_that_turn_over_never_alter_a_message,
    a_flipped_or_false_answer_is_never_taken_for_a_receipt,
    slow_and_sliced_connections_change_nothing,
    a_narrow_line_makes_senders_wait_and_fails_none,
    a_server_that_speaks_nonsense_is_an_error_and_no_more,
];

const SEND: i32 = RequestCode::SEND_MESSAGE_V2.0;

/// The target's first broker and its name server, behind proxies.
pub(super) async fn path_to(target: &Target) -> Result<FaultPath, Failure> {
    FaultPath::start(
        target.name_server_address().await?,
        &[target.first_broker().await?],
    )
    .await
}

async fn a_connection_cut_at_any_byte_of_an_exchange_loses_nothing_and_mixes_nothing_up(
    target: &Target,
) -> TestResult {
    let topic = target.topic("cut");
    target.create_topic(&topic, 1).await?;
    let history = Arc::new(History::new());
    let reader = Client::connect(target.name_server()).await?;
    let consumer = record(&reader, &target.group("cut"), &topic, &history).await?;
    // Each direction and way has a line of its own, so that their waits overlap.
    let mut lines = Vec::new();
    for (number, (direction, how)) in (0..).zip([
        (Direction::ToServer, Cut::Reset),
        (Direction::ToServer, Cut::Finish),
        (Direction::ToClient, Cut::Reset),
        (Direction::ToClient, Cut::Finish),
    ]) {
        let line = CutLine::open(target, number, direction, how).await?;
        lines.push(line.cut_everywhere(&topic, &history));
    }
    let [up_reset, up_finish, down_reset, down_finish] =
        <[_; 4]>::try_from(lines).map_err(|_| "four lines")?;
    let cuts = tokio::try_join!(up_reset, up_finish, down_reset, down_finish)?;
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await?;
    let (unknown, not_stored) = history.unacknowledged();
    report_figure(
        target,
        &format!(
            "{cuts:?} cuts, {} acknowledged, {unknown} unknown, {not_stored} not stored",
            history.acknowledged()
        ),
    );
    consumer.shutdown().await;
    reader.shutdown().await;
    history.check().complete()
}

/// A client behind proxies, of which one direction is to be cut in one way.
struct CutLine {
    number: u32,
    direction: Direction,
    how: Cut,
    path: FaultPath,
    client: Client,
    /// Tries once, so that its errors tell what became of the one request.
    single: Producer,
    producer: Producer,
}

impl CutLine {
    async fn open(target: &Target, number: u32, direction: Direction, how: Cut) -> Result<Self, Failure> {
        let path = path_to(target).await?;
        let client = Client::builder(path.name_server.address().to_string())
            .instance_name(format!("cut-{number}"))
            .connect()
            .await?;
        let single = client
            .producer(target.group("single"))
            .max_attempts(1)
            .start()
            .await?;
        let producer = client.producer(target.group("again")).start().await?;
        Ok(Self {
            number,
            direction,
            how,
            path,
            client,
            single,
            producer,
        })
    }

    /// Cuts one exchange after no byte, the next one after one byte, and so on to the last byte of the frame. Gives the
    /// number of cuts.
    async fn cut_everywhere(self, topic: &str, history: &History) -> Result<usize, Failure> {
        /// In flight together when the connection breaks.
        const TOGETHER: u32 = 3;
        let mut sequence = 0;
        let mut id = || {
            sequence += 1;
            Id {
                producer: self.number,
                sequence,
            }
        };
        send_noted(&self.producer, topic, id(), history).await?;
        for after in 0.. {
            let fault = Fault::CutIn {
                code: SEND,
                after,
                how: self.how,
            };
            let cut = self.path.broker.inject_times(self.direction, fault, 1);
            let [a, b, c] = [id(), id(), id()].map(|id| send_noted(&self.single, topic, id, history));
            let (a, b, c) = tokio::join!(a, b, c);
            self.path.broker.heal();
            if cut.hits() == 0 {
                // The frame is shorter than this.
                self.client.shutdown().await;
                return Ok(after);
            }
            let mut failures = 0;
            for error in [a, b, c].into_iter().filter_map(Result::err) {
                failures += 1;
                expect("kind", error.kind(), ErrorKind::Connect)?;
                // What was not even written is known not to be stored, all else is not known.
                if error.persisted() == Persisted::Yes {
                    return Err(format!("{error} says that the message is stored").into());
                }
            }
            expect("a send failed", (1..=TOGETHER).contains(&failures), true)?;
            // The next connection is clean.
            send_noted(&self.producer, topic, id(), history).await?;
        }
        Err("frames end".into())
    }
}

async fn connections_that_the_server_closes_when_idle_cost_no_send(target: &Target) -> TestResult {
    const ROUNDS: u32 = 20;
    let topic = target.topic("idle");
    target.create_topic(&topic, 2).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    let history = Arc::new(History::new());
    let reader = Client::connect(target.name_server()).await?;
    let consumer = record(&reader, &target.group("idle"), &topic, &history).await?;
    for round in 0..ROUNDS {
        let how = if round % 2 == 0 { Cut::Finish } else { Cut::Reset };
        for sequence in [2 * round, 2 * round + 1] {
            let id = Id {
                producer: 0,
                sequence,
            };
            send_noted(&producer, &topic, id, &history).await?;
        }
        path.broker.hang_up(how);
        path.name_server.hang_up(how);
    }
    eventually("every acknowledged message", async || {
        Ok(history.outstanding() == 0)
    })
    .await?;
    expect(
        "connections",
        path.broker.connections() >= u64::from(ROUNDS),
        true,
    )?;
    client.shutdown().await;
    consumer.shutdown().await;
    reader.shutdown().await;
    history.check().complete()
}

/// A body of which a changed byte would be noticed.
fn body(number: u32) -> String {
    format!("{number}:").repeat(40)
}

async fn bits_that_turn_over_never_alter_a_message(target: &Target) -> TestResult {
    // Each turns over one bit of one frame.
    let seeds = 300 * long();
    let (topic, group) = (target.topic("bits"), target.group("bits"));
    target.create_topic(&topic, 1).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_millis(500))
        .start()
        .await?;
    let newest = Arc::new(AtomicU32::new(0));
    let altered = Arc::new(Mutex::new(Vec::new()));
    let (reached, seen) = (Arc::clone(&newest), Arc::clone(&altered));
    let consumer = client
        .push_consumer(&group)
        .subscribe(&topic, "*")
        .consume_from(ConsumeFrom::First)
        .start(move |message: MessageView| {
            let text = String::from_utf8_lossy(message.body()).into_owned();
            let number: Option<u32> = text.split(':').next().and_then(|number| number.parse().ok());
            if number.is_none_or(|number| body(number) != text) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
            reached.fetch_max(number.unwrap_or_default(), Ordering::SeqCst);
            async { Ok::<_, Failure>(()) }
        })
        .await?;
    let mut acknowledged = 0;
    let mut struck = 0;
    for seed in 0..seeds {
        // Any function of the seed that visits places and bits evenly.
        let mixed = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (place, bit) = (mixed >> 32, (mixed >> 8) % 8);
        let (code, length) = match seed % 2 {
            0 => (SEND, 150),
            _ => (RequestCode::PULL_MESSAGE.0, 450),
        };
        let fault = Fault::FlipIn {
            code,
            at: usize::try_from(place % length)?,
            mask: 1 << bit,
        };
        let flip = path.broker.inject_times(Direction::ToClient, fault, 1);
        // However it ends: it ends, and the next one is not harmed.
        if producer.send(Message::new(&topic, body(seed))).await.is_ok() {
            acknowledged += 1;
        }
        path.broker.heal();
        struck += flip.hits();
    }
    // Nothing guards the header of an answer: an offset with another digit may make the consumer pass messages over. It
    // goes on all the same, and what it gets is what was sent.
    eventually("a message that was sent after the last flip", async || {
        let _ = producer.send(Message::new(&topic, body(seeds))).await;
        Ok(newest.load(Ordering::SeqCst) == seeds)
    })
    .await?;
    report_figure(
        target,
        &format!("{struck} bits turned over, {acknowledged} of {seeds} sends acknowledged"),
    );
    consumer.shutdown().await;
    client.shutdown().await;
    let altered = altered.lock().unwrap_or_else(PoisonError::into_inner);
    expect("altered messages", altered.clone(), Vec::<String>::new())
}

async fn a_flipped_or_false_answer_is_never_taken_for_a_receipt(target: &Target) -> TestResult {
    let topic = target.topic("flipped");
    target.create_topic(&topic, 1).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(2))
        .start()
        .await?;
    producer.send(Message::new(&topic, "before")).await?;
    // The first byte of a length, the mark of the header's form, the header's length, and lengths that cannot be.
    let faults = [
        Fault::Flip { at: 0, mask: 0x7f },
        Fault::Flip { at: 4, mask: 0x08 },
        Fault::Flip { at: 5, mask: 0xff },
        Fault::LieAboutLength { frame: 0, length: -1 },
        Fault::LieAboutLength { frame: 0, length: 3 },
        Fault::LieAboutLength {
            frame: 0,
            length: i32::MAX,
        },
    ];
    for fault in faults {
        // It strikes at the start of the connection that follows the cut.
        let rule = path.broker.inject_times(Direction::ToClient, fault.clone(), 1);
        path.broker.inject_times(
            Direction::ToServer,
            Fault::Cut {
                after: 0,
                how: Cut::Reset,
            },
            1,
        );
        // Whatever these sends say, they end in time, and the one after them works.
        eventually("the fault", async || {
            let _ = producer.send(Message::new(&topic, "flipped")).await;
            Ok(rule.hits() > 0)
        })
        .await
        .map_err(|failure| format!("{fault:?}: {failure}"))?;
        path.broker.heal();
        eventually("a send after the fault", async || {
            Ok(producer.send(Message::new(&topic, "after")).await.is_ok())
        })
        .await
        .map_err(|failure| format!("{fault:?}: {failure}"))?;
    }
    client.shutdown().await;
    Ok(())
}

async fn slow_and_sliced_connections_change_nothing(target: &Target) -> TestResult {
    let topic = target.topic("sliced");
    target.create_topic(&topic, 2).await?;
    let path = path_to(target).await?;
    for proxy in [&path.name_server, &path.broker] {
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.inject(direction, Fault::Slice);
            proxy.inject(direction, Fault::Delay(Duration::from_millis(2)));
        }
    }
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(10))
        .start()
        .await?;
    let mut inbox = Inbox::open(&client, &target.group("sliced"), &topic, "*").await?;
    let mut wanted: Vec<String> = (0..20)
        .map(|index| format!("{index}: {}", "größe 🚀 ".repeat(100)))
        .collect();
    for body in &wanted {
        producer.send(Message::new(&topic, body.clone())).await?;
    }
    wanted.sort_unstable();
    expect("bodies", inbox.bodies(20).await?, wanted)?;
    client.shutdown().await;
    Ok(())
}

/// What this process holds in memory, with all that runs beside the scenario.
fn resident_kib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or("no VmRSS")?;
    Ok(number.parse()?)
}

async fn a_narrow_line_makes_senders_wait_and_fails_none(target: &Target) -> TestResult {
    const MESSAGES: usize = 4_000;
    const BODY: usize = 1024;
    /// Of bodies in flight: what may pile up before the line.
    const ROOM: u32 = 256 * 1024;
    let topic = target.topic("narrow");
    target.create_topic(&topic, 4).await?;
    let path = path_to(target).await?;
    let client = Client::connect(path.name_server.address().to_string()).await?;
    let producer = client
        .producer(target.group("producer"))
        .send_timeout(Duration::from_secs(60))
        .max_in_flight_bytes(ROOM)
        .start()
        .await?;
    producer.send(Message::new(&topic, "before")).await?;
    path.broker.inject(
        Direction::ToServer,
        Fault::Throttle {
            bytes_per_second: 1 << 20,
        },
    );
    let before = resident_kib()?;
    let open = Arc::new(AtomicUsize::new(0));
    let mut most_open = 0;
    let mut handles = JoinSet::new();
    for _ in 0..MESSAGES {
        // Without this the detached sends that find no room would fail.
        producer.ready().await?;
        let handle = producer.send(Message::new(&topic, vec![b'x'; BODY])).detach();
        most_open = most_open.max(open.fetch_add(1, Ordering::SeqCst) + 1);
        let open = Arc::clone(&open);
        handles.spawn(async move {
            let ended = handle.await;
            open.fetch_sub(1, Ordering::SeqCst);
            ended
        });
        while let Some(ended) = handles.try_join_next() {
            ended??;
        }
    }
    let after = resident_kib()?;
    while let Some(ended) = handles.join_next().await {
        ended??;
    }
    report_figure(
        target,
        &format!(
            "{most_open} sends open at most; memory of this process {} KiB before, {} KiB at the end of {} KiB",
            before,
            after,
            (MESSAGES * BODY) >> 10,
        ),
    );
    client.shutdown().await;
    Ok(())
}

async fn a_server_that_speaks_nonsense_is_an_error_and_no_more(target: &Target) -> TestResult {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let nonsense = listener.local_addr()?;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let answers: [&'static [u8]; 5] = [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            &[0xff; 64],
            &[0; 64],
            &[
                0, 0, 0, 12, 0, 0, 0, 8, b'{', b'}', b']', b'[', b'{', b'}', b']', b'[',
            ],
            b"",
        ];
        let mut connections = JoinSet::new();
        for answer in answers.into_iter().cycle() {
            let Ok((mut socket, _)) = listener.accept().await else {
                return;
            };
            connections.spawn(async move {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer).await;
            });
        }
    });
    // Alone it is an error, each time; beside a good one it is passed over.
    for _ in 0..5 {
        match Client::connect(nonsense.to_string()).await {
            Err(error) => expect("kind", error.kind(), ErrorKind::NameServer)?,
            Ok(client) => {
                let producer = client.producer("producer").start().await?;
                match producer.send(Message::new("topic", "x")).await {
                    Err(error) => expect("kind", error.kind(), ErrorKind::NameServer)?,
                    Ok(receipt) => return Err(format!("nonsense was a receipt: {receipt:?}").into()),
                }
                client.shutdown().await;
            }
        }
    }
    let client = Client::connect(format!("{nonsense};{}", target.name_server())).await?;
    let producer = client.producer(target.group("producer")).start().await?;
    producer.send(Message::new(target.topic("nonsense"), "x")).await?;
    client.shutdown().await;
    Ok(())
}
